"""The commands of `benchbench diagnose`: why something carries over, or does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from benchbench import api
from benchbench.cli.connectivity import connectivity
from benchbench.cli.options import (
    Place,
    chosen_plugins,
    data_option,
    device_option,
    only_option,
    plugin_options,
    store_option,
)
from benchbench.cli.prediction import prediction


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
def features(suite: str, form: str, **options: Any) -> None:
    """Say how far features of SUITE's cells hold class and domain apart, and are healthy.

    Nothing is trained. Of a folder with suite.toml and records/, what the records say.
    """
    report = api.diagnose_features(suite, **options, **chosen_plugins())
    forms = {"markdown": report.__str__, "csv": report.to_csv, "json": report.to_json}
    click.echo(forms[form](), nl=False)
