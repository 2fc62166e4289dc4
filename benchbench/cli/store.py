"""The commands of `benchbench store`: what it holds, and whether it is needed and intact."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from benchbench import api
from benchbench.cli.options import (
    Place,
    chosen_plugins,
    data_option,
    device_option,
    only_option,
    plugin_options,
    seconds,
    store_option,
)


@click.group()
def store() -> None:
    """The store: what it holds, and how it gets smaller, is checked, or moves."""


@store.command("list")
@store_option
def list_(store: Path) -> None:
    """Say how many files and bytes the store has of every kind."""
    click.echo(api.store_list(store))


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
    found = api.store_verify(store, set_aside=set_aside, tell=click.echo)
    if found.faults:
        sys.exit(1)
    click.echo(found)


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
    click.echo(api.store_clean(store, older_than=older_than, dry_run=dry_run))


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
    done = api.store_export(
        archive,
        suite=suite,
        only=only,
        records_only=records_only,
        store=store,
        data=data,
        device=device,
        **chosen_plugins(),
    )
    click.echo(done)


@store.command("import")
@click.argument(
    "archive", metavar="FILE.tar", type=Place(exists=True, dir_okay=False, path_type=Path)
)
@store_option
def import_(archive: Path, store: Path) -> None:
    """Take in what another store exported: nothing that is here is replaced or done again.

    What is damaged is left out, and named; 1 if anything is.
    """
    taken = api.store_import(archive, store=store)
    click.echo(taken)
    for reason in taken.refused:
        click.echo(f"  left out: {reason}", err=True)
    if taken.refused:
        sys.exit(1)
