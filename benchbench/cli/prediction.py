"""The command `benchbench diagnose prediction`."""

from __future__ import annotations

from pathlib import Path

import click

from benchbench import api
from benchbench.cli.options import Place


@click.command()
@click.argument("folders", nargs=-1, metavar="[DIR]...", type=Place(path_type=Path))
@click.option(
    "--out",
    type=Place(path_type=Path),
    help="A folder for the picture (prediction.svg) and the points (fit.json). Made if missing.",
)
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON, to keep.")
def prediction(folders: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    """Say how well connectivity predicts target accuracy, and what else does.

    Each DIR is a dataset: a folder with suite.toml, records/ and connectivity.json, as `diagnose
    connectivity --format json` prints it. Without one, the points that come with benchbench, which
    `advise` predicts from.
    """
    report = api.judge_predictors(folders, out=out)
    click.echo(report.to_json() if as_json else report, nl=as_json)
