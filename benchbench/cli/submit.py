"""The commands `benchbench submit` and `benchbench verify`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchbench import api
from benchbench.cli.options import (
    Place,
    chosen_plugins,
    data_option,
    device_option,
    plugin_options,
    store_option,
)

if TYPE_CHECKING:
    from benchbench.leaderboard.board_folder import Checked

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
    done = api.submit(
        suite,
        out,
        methods=methods,
        submitter=submitter,
        paper=paper,
        code=code,
        encoders=not no_encoders,
        key=key,
        store=store,
        data=data,
        device=device,
        **chosen_plugins(),
    )
    click.echo(done)


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
    level: Checked,
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
    found = api.verify(
        bundle,
        board=board,
        level=level,
        allowed_signers=signers,
        seed=seed,
        into=into,
        store=store,
        data=data,
        device=device,
        **chosen_plugins(),
    )
    click.echo(found.verdict.json() if as_json else found.verdict.text(), nl=False)
    if found.taken is not None:
        click.echo(f"{into}: {found.taken} records are new", err=True)
    sys.exit(found.verdict.status)
