"""The command `benchbench diagnose connectivity`."""

from __future__ import annotations

from typing import Any

import click

from benchbench import api
from benchbench.cli.connectivity_options import meter_options
from benchbench.cli.options import chosen_plugins, plugin_options


@click.command()
@plugin_options
@click.argument("dataset")
@click.option(
    "--shift",
    "shifts",
    multiple=True,
    metavar="'A > B'",
    help="May be repeated; every two domains if it is not said.",
)
@click.option(
    "--augmentation",
    "augmentations",
    multiple=True,
    default=["simclr_views"],
    show_default=True,
    metavar="'A | B(key=value)'",
    help="May be repeated, to compare.",
)
@click.option(
    "--estimator",
    type=click.Choice(["fast", "faithful"]),
    default="fast",
    show_default=True,
    help="One network for all groups, or, as Shen et al. 2022, one for every pair, from scratch.",
)
@click.option("--format", "form", type=click.Choice(["markdown", "json"]), default="markdown")
@meter_options
def connectivity(dataset: str, form: str, **options: Any) -> None:
    """Measure how an augmentation connects the classes and domains of DATASET.

    DATASET is spelled as in a suite. Nothing is measured twice: run it again after an interruption.
    """
    report = api.connectivity(dataset, **options, **chosen_plugins())
    click.echo(report.to_json() if form == "json" else report, nl=False)
