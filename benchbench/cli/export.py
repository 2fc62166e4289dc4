"""`benchbench export`: records, for programs that analyse or show them."""

from __future__ import annotations

from pathlib import Path

import click

from benchbench import api
from benchbench.cli.options import (
    chosen_plugins,
    data_option,
    device_option,
    plugin_options,
    store_option,
)


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
    done = api.export_records(
        suite, target, store=store, data=data, device=device, **chosen_plugins()
    )
    click.echo(done)
