"""The commands of `benchbench store`: what it holds, and whether it is needed and intact."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchbench.cli.options import (
    Place,
    chosen_cells,
    data_option,
    device_option,
    make_plan,
    only_option,
    plugin_options,
    seconds,
    store_option,
)
from benchbench.extension.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchbench.execution.store_cleanup import Piece


@click.group()
def store() -> None:
    """The store: what it holds, and how it gets smaller, is checked, or moves."""


@store.command("list")
@store_option
def list_(store: Path) -> None:
    """Say how many files and bytes the store has of every kind."""
    from tabulate import tabulate

    from benchbench.execution.store_cleanup import KINDS, existing, sizes
    from benchbench.suites.cost import sized

    words = {**KINDS, "records": "scores, with predictions", "claims": "who works on what"}
    found = sorted(sizes(existing(store)).items(), key=lambda pair: -pair[1][1])
    rows = [[kind, n, sized(size), words.get(kind, "")] for kind, (n, size) in found]
    whole = [sum(told[part] for _, told in found) for part in (0, 1)]
    rows.append(["all", whole[0], sized(whole[1]), ""])
    form = ("left", "right", "right", "left")
    click.echo(tabulate(rows, ["kind", "files", "size", ""], "github", intfmt=",", colalign=form))


@store.command()
@store_option
@click.option(
    "--set-aside",
    is_flag=True,
    help="Move damaged artifacts aside, as whoever reads them would: they are made anew when they "
    "are needed. Records and predictions stay as they are.",
)
def verify(store: Path, set_aside: bool) -> None:
    """Read all that the store holds, and name what is not as it was written; 1 if anything is not.

    Artifacts and predictions are compared with their sha256. The pixels of datasets are checked by
    `benchbench data verify`.
    """
    from benchbench.execution.progress import Counting
    from benchbench.execution.store_cleanup import existing, faults

    count = 0
    for fault in faults(existing(store), Counting("reading", "B"), set_aside=set_aside):
        click.echo(fault)
        count += 1
    if count:
        sys.exit(1)
    click.echo(f"store {store} is as it was written")


@store.command()
@store_option
@click.option("--dry-run", is_flag=True, help="Say what would go; remove nothing.")
@click.option(
    "--older-than",
    callback=seconds,
    metavar="TIME",
    default="7d",
    show_default=True,
    help="Leave what was written since: a suite that was stopped may be about to need it.",
)
def gc(store: Path, dry_run: bool, older_than: float) -> None:
    """Remove what no record needs. Stop it at any time: no harm is done.

    Records and predictions stay. A record with scores needs the stages and snapshots of its chain,
    the features of these and of the encoder before them on its domains, and its diagnostics. What
    is left of stages, snapshots, features, diagnostics and unfinished stages goes, and so do
    damaged files that were set aside.

    Packs, connectivity and pseudo-labels, which no record names, and words on what diverged stay,
    always: they are dear to make again, or tiny; `benchbench data doctor` names pixels that
    belong to nothing.

    What a living process works on stays, and while there is one, so do all stages and snapshots.
    """
    from benchbench.execution.store_cleanup import clean, existing, sorted_out

    place = existing(store)
    if dry_run:
        living = {key for key, sign in place.claims.signs().items() if not sign.lost}
        found = sorted_out(place, older_than, living)
    else:
        found = clean(place, older_than)
    for kind in dict.fromkeys(piece.kind for piece in found.waste):
        click.echo(f"{kind}: {told([p for p in found.waste if p.kind == kind])}")
    verb = "would go" if dry_run else "removed"
    click.echo(f"{verb}: {told(found.waste)}, of store {store}")
    if found.young:
        click.echo(f"left, as younger than --older-than: {told(found.young)}")
    if found.busy:
        click.echo(f"left, as a process is at work: {told(found.busy)}")


def told(pieces: Sequence[Piece]) -> str:
    from benchbench.suites.cost import sized

    return f"{len(pieces):,} files, {sized(sum(piece.size for piece in pieces))}"


@store.command("export")
@plugin_options
@click.argument("archive", metavar="FILE.tar", type=Place(dir_okay=False, path_type=Path))
@store_option
@click.option("--records-only", is_flag=True, help="Leave out the trained stages.")
@click.option("--suite", metavar="SUITE", help="Only what cells of this suite have; see --only.")
@only_option
@data_option
@device_option
def export_(
    archive: Path,
    store: Path,
    records_only: bool,
    suite: str | None,
    only: str,
    data: Path,
    device: str,
) -> None:
    """Put what the store has finished into FILE.tar, for a store on another machine.

    `--suite SUITE --only "method=simclr,seed=0"` takes a pre-training along, and what was scored
    with it, and nothing else.
    """
    from benchbench.execution.store_cleanup import existing, files_of
    from benchbench.store.merge import everything, export_files
    from benchbench.suites.cost import sized

    if only and suite is None:
        raise BadInput("--only chooses among the cells of a suite; say --suite SUITE, too")
    place = existing(store.absolute())
    if suite is None:
        files = everything(place, records_only=records_only)
    else:
        plan = make_plan(suite, store, data, device)
        files = files_of(plan, chosen_cells(plan, only), records_only=records_only)
    export_files(place, archive, files)
    click.echo(f"{archive}: {len(files):,} files, {sized(archive.stat().st_size)}")


@store.command("import")
@click.argument(
    "archive", metavar="FILE.tar", type=Place(exists=True, dir_okay=False, path_type=Path)
)
@store_option
def import_(archive: Path, store: Path) -> None:
    """Take in what another store exported: nothing that is here is replaced or done again.

    What is damaged is left out, and named; 1 if anything is.
    """
    from benchbench.store.artifacts import Store
    from benchbench.store.merge import import_store

    taken = import_store(Store(store), archive)
    click.echo(
        f"{archive}: {taken.records} records and {taken.stages} stages are new, {taken.known} were "
        "here"
    )
    for reason in taken.refused:
        click.echo(f"  left out: {reason}", err=True)
    if taken.refused:
        sys.exit(1)
