"""`benchbench export`: records, for programs that analyse or show them."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchbench.cli.options import (
    data_option,
    device_option,
    make_plan,
    plugin_options,
    published,
    store_option,
)
from benchbench.extension.errors import BadInput

if TYPE_CHECKING:
    from benchbench.leaderboard.experiment_trackers import Losses, Tracker
    from benchbench.store.records import Record

TRACKERS = ("tensorboard", "mlflow", "wandb")


@click.command()
@plugin_options
@click.argument("suite", metavar="SUITE|DIR")
@click.option(
    "--to",
    "target",
    required=True,
    metavar="WHERE",
    help="FILE.parquet, FILE.csv, FILE.jsonl, tensorboard:FOLDER, mlflow:URI (such as "
    "mlflow:sqlite:///mlflow.db) or wandb:PROJECT (offline, for `wandb sync`).",
)
@store_option
@data_option
@device_option
def export(suite: str, target: str, store: Path, data: Path, device: str) -> None:
    """Write the records of SUITE from the store, or of a folder with records/, for other programs.

    A table has a row for each domain of each state of a record: its end and its snapshots; what
    its columns mean, docs/export.md says. TensorBoard, MLflow and W&B get a run for each record:
    its settings, scores, validators and diagnostics, and from the store its losses. Nothing is
    there twice when it is exported again: files and TensorBoard's runs are replaced, those of
    MLflow and W&B that are complete are left.
    """
    from benchbench.store.atomic_files import place, writing

    kind, _, where = target.partition(":")
    check_target(target)
    records, losses = records_of(suite, store, data, device)
    if not records:
        raise BadInput(f"{suite} has no records yet")
    if kind in TRACKERS:
        from benchbench.leaderboard.experiment_trackers import track

        with writing(target):
            new, there = track(records, tracker_of(kind, where), losses)
        click.echo(f"{target}: {new:,} runs written, {there:,} were there")
        return
    from benchbench.leaderboard.export import TABLES, rows_of

    content = TABLES[Path(target).suffix](records)
    with writing(target):
        place(Path(target), content)
    click.echo(f"{target}: {len(records):,} records, {len(rows_of(records)):,} rows")


def check_target(target: str) -> None:
    """BadInput if it is none of what there is."""
    from benchbench.leaderboard.export import TABLES

    kind, colon, where = target.partition(":")
    if "\0" in target:
        raise BadInput(f"--to {target!r} is no place that a system has")
    if kind in TRACKERS and colon:
        if not where:
            raise BadInput(f"--to {target} says no place; write {kind}:PLACE")
    elif Path(target).suffix not in TABLES:
        files, runs = (f"FILE{end}" for end in TABLES), (f"{name}:PLACE" for name in TRACKERS)
        raise BadInput(f"--to {target!r} is not known; there is {', '.join([*files, *runs])}")


def records_of(suite: str, store: Path, data: Path, device: str) -> tuple[list[Record], Losses]:
    """Of a folder, or of what a store has of a suite; and what tells the losses of a stage."""
    from benchbench.store.records import read_records

    if published(suite, "records"):
        return read_records(Path(suite) / "records"), lambda key: ()
    plan = make_plan(suite, store, data, device)

    @cache
    def losses(key: str) -> tuple[float, ...]:
        kept = plan.store.read("stages", key)
        return tuple(kept.note["losses"]) if kept else ()

    return [record for cell in plan.cells if (record := plan.record(cell))], losses


def tracker_of(kind: str, where: str) -> Tracker:
    from benchbench.leaderboard.experiment_trackers import MLflow, TensorBoard, WandB

    if kind == "tensorboard":
        return TensorBoard(Path(where))
    return MLflow(where) if kind == "mlflow" else WandB(where, Path())
