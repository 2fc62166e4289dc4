"""The commands of `benchbench diagnose`: why something carries over, or does not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchbench.cli.connectivity import connectivity
from benchbench.cli.options import (
    Place,
    chosen_cells,
    data_option,
    device_option,
    make_plan,
    only_option,
    plugin_options,
    published,
    store_option,
    written,
)
from benchbench.cli.prediction import prediction
from benchbench.extension.errors import BadInput

if TYPE_CHECKING:
    from benchbench.store.records import Diagnostics, Record
    from benchbench.suites.plan import Plan
    from benchbench.suites.suite import Cell


@click.group()
def diagnose() -> None:
    """Look for what makes a method carry over to the target, or keeps it from doing so."""


diagnose.add_command(connectivity)
diagnose.add_command(prediction)


@diagnose.command()
@plugin_options
@click.argument("suite", metavar="SUITE|DIR")
@click.option(
    "--format",
    "form",
    type=click.Choice(["markdown", "csv", "json"]),
    default="markdown",
    show_default=True,
)
@store_option
@data_option
@device_option
@only_option
@click.option(
    "--out",
    metavar="FILE.svg",
    type=Place(dir_okay=False, path_type=Path),
    help="Draw how far features tell the domains apart beside target accuracy.",
)
def features(
    suite: str, form: str, store: Path, data: Path, device: str, only: str, out: Path | None
) -> None:
    """Say how far features of SUITE's cells hold class and domain apart, and are healthy.

    Nothing is trained. Of a folder with suite.toml and records/, what the records say.
    """
    from benchbench.leaderboard.diagnostics_table import features_table

    if published(suite, "records"):
        records = published_records(Path(suite), only)
    else:
        plan = make_plan(suite, store, data, device)
        records = diagnosed_records(plan, chosen_cells(plan, only))
    if not records:
        raise BadInput(f"none of these cells of {suite} is scored yet; run them first")
    if out is not None:
        from benchbench.diagnostics.plots import separation

        written(out, separation(records))
    click.echo(features_table(records, form), nl=False)


def published_records(folder: Path, only: str) -> list[Record]:
    """The scored ones, in the order of the suite's cells."""
    from benchbench.leaderboard.board_folder import read_folder
    from benchbench.suites.suite import chosen

    _, records, cells = read_folder(folder)
    known = {(r.method, r.shift, r.seeds.train): r for r in records if r.status == "scored"}
    places = [(cell.method.name, str(cell.shift), cell.seed) for cell in chosen(cells, only)]
    found = [known[place] for place in places if place in known]
    if bare := sum(record.diagnostics is None for record in found):
        click.echo(f"{bare} of {len(found)} records have no diagnostics", err=True)
    return found


def diagnosed_records(plan: Plan, cells: list[Cell]) -> list[Record]:
    """The scored ones; those that are older than diagnostics with what their features tell now."""
    records, filled = [], 0
    for cell in cells:
        record = plan.record(cell)
        if record is None or record.status != "scored":
            continue
        if record.diagnostics is None and (told := from_store(cell, plan)):
            record, filled = record.model_copy(update={"diagnostics": told}), filled + 1
        if record.diagnostics is None:
            click.echo(f"{cell}: neither diagnostics nor features are in the store", err=True)
        records.append(record)
    if filled:
        click.echo(
            f"{filled} of {len(records)} records have no diagnostics; they were computed from "
            "stored features, and the records stay as they are",
            err=True,
        )
    return records


def from_store(cell: Cell, plan: Plan) -> Diagnostics | None:
    """What the cell's features tell; None if the store has them no longer."""
    from benchbench.execution.cell import diagnosed, stored_features

    key = plan.encoder_key(cell)
    domains = (*cell.shift.sources, *cell.shift.targets)
    z = {domain: stored_features(key, domain, plan) for domain in domains}
    there = {domain: rows for domain, rows in z.items() if rows is not None}
    return diagnosed(cell, there, plan) if len(there) == len(z) else None
