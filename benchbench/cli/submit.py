"""The commands `benchbench submit` and `benchbench verify`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from benchbench.cli.options import (
    Place,
    catalog,
    data_option,
    device_option,
    make_plan,
    plugin_options,
    store_option,
)
from benchbench.extension.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchbench.leaderboard.board_folder import Checked
    from benchbench.leaderboard.bundle import Submission
    from benchbench.leaderboard.consistency import Finding
    from benchbench.leaderboard.verification import Check
    from benchbench.store.records import Record
    from benchbench.suites.plan import Plan

LEVELS = ("claimed", "consistent", "re-probed", "reproduced")


@click.command()
@plugin_options
@click.argument("suite")
@click.option(
    "--out", required=True, metavar="FILE.tar", type=Place(dir_okay=False, path_type=Path)
)
@click.option(
    "--method",
    "methods",
    multiple=True,
    metavar="NAME",
    help="A method to submit. May be repeated. Default: all that train something.",
)
@click.option("--submitter", help="Who submits, as the board shows it.")
@click.option("--paper", metavar="URL")
@click.option("--code", metavar="URL")
@click.option("--no-encoders", is_flag=True, help="Smaller, but then nobody can re-probe it.")
@click.option(
    "--sign",
    "key",
    metavar="KEY",
    type=Place(exists=True, dir_okay=False, path_type=Path),
    help="An SSH key, which signs the manifest by ssh-keygen.",
)
@store_option
@data_option
@device_option
def submit(
    suite: str,
    out: Path,
    methods: tuple[str, ...],
    submitter: str | None,
    paper: str | None,
    code: str | None,
    no_encoders: bool,
    key: Path | None,
    store: Path,
    data: Path,
    device: str,
) -> None:
    """Pack methods of SUITE for a board: records, predictions and encoders, in one file.

    Every cell of theirs needs a record, of every seed; one that failed is told as it is. The file
    holds no host, no user and no path.
    """
    from benchbench.leaderboard.bundle import credited, narrowed, write_bundle

    credits = credited(submitter, paper, code)
    plan = make_plan(suite, store, data, device)
    names = methods or tuple(m.name for m in plan.suite.methods() if m.chain)
    chosen = narrowed(plan.suite, names)
    records = recorded(plan, names)
    manifest = write_bundle(
        out, chosen, records, plan.store, credits, encoders=not no_encoders, key=key
    )
    click.echo(
        f"{out}: {', '.join(manifest.methods)}; {len(records)} records, "
        f"{out.stat().st_size / 1e6:.1f} MB{', signed' if key else ''}"
    )


def recorded(plan: Plan, methods: Sequence[str]) -> list[Record]:
    """The records of some methods. BadInput if one is missing, of whatever seed or shift."""
    cells = [cell for cell in plan.cells if cell.method.name in methods]
    found = [(cell, plan.record(cell)) for cell in cells]
    if missing := [cell for cell, record in found if record is None]:
        raise BadInput(
            f"{len(missing)} of {len(cells)} cells have no record, such as {missing[0]}; run the "
            "suite first, or choose others with --method"
        )
    return [record for _, record in found if record is not None]


@click.command()
@plugin_options
@click.argument("bundle", type=Place(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--board",
    metavar="DIR",
    type=Place(exists=True, file_okay=False, path_type=Path),
    help="The board's folder, with suite.toml and truth.safetensors.",
)
@click.option("--level", type=click.Choice(LEVELS), default="consistent", show_default=True)
@click.option(
    "--allowed-signers",
    "signers",
    metavar="FILE",
    type=Place(exists=True, dir_okay=False, path_type=Path),
    help="Whose signatures count, as in ssh-keygen(1); a bundle without one is refused.",
)
@click.option("--seed", type=int, help="To reproduce with. Default: the one after those submitted.")
@click.option(
    "--into",
    metavar="DIR",
    type=Place(file_okay=False, path_type=Path),
    help="Add what is accepted to this board.",
)
@click.option("--json", "as_json", is_flag=True)
@store_option
@data_option
@device_option
def verify(
    bundle: Path,
    board: Path | None,
    level: str,
    signers: Path | None,
    seed: int | None,
    into: Path | None,
    as_json: bool,
    store: Path,
    data: Path,
    device: str,
) -> None:
    """Find out how far the claims of BUNDLE hold. Exits with 1 if refused, with 2 if malformed.

    \b
    claimed     the file is safe, and says what a bundle says
    consistent  hashes, suite, seeds; scores computed again from the predictions
    re-probed   read off again from the submitted encoders
    reproduced  trained again, with another seed

    The first two load no plugin and run nothing of the bundle's. Whoever makes predictions up is
    found out only by the last two, which run what the bundle names: look at it first.
    """
    from benchbench.leaderboard.bundle import Malformed, opened, submission_of
    from benchbench.leaderboard.consistency import Board
    from benchbench.leaderboard.verification import Verdict, take_in, verdict_on

    asked, taken = cast("Checked", level), 0
    known = Board.read(board) if board else None
    further = checks_with_plugins(seed, store, data, device)
    try:
        with opened(bundle) as archive:
            submission = submission_of(archive)
            verdict = verdict_on(submission, known, asked, signers=signers, further=further)
            if into and not verdict.status:
                taken = take_in(submission, verdict, into)
    except Malformed as error:
        verdict = Verdict(asked, None, problems=(str(error),))
    click.echo(verdict.json() if as_json else verdict.text(), nl=False)
    if into and not verdict.status:
        click.echo(f"{into}: {taken} records are new", err=True)
    sys.exit(verdict.status)


def checks_with_plugins(
    seed: int | None, store: Path, data: Path, device: str
) -> dict[Checked, Check]:
    """What the upper levels do; plugins are loaded when one of them is asked for."""

    def plan_of(submission: Submission) -> Plan:
        from benchbench.execution.progress import Counting
        from benchbench.leaderboard.reproduction import plan_for
        from benchbench.store.artifacts import Store

        report = Counting("decoding", "image")
        return plan_for(submission, catalog(), data, Store(store.absolute()), device, report)

    def probe(submission: Submission) -> Iterator[Finding]:
        from benchbench.leaderboard.reproduction import reprobed

        return reprobed(submission, plan_of(submission))

    def train(submission: Submission) -> Iterator[Finding]:
        from benchbench.execution.progress import Progress
        from benchbench.leaderboard.reproduction import reproduced

        return reproduced(submission, plan_of(submission), seed, Progress)

    return {"re-probed": probe, "reproduced": train}
