"""The command `benchbench search`."""

from __future__ import annotations

from typing import Any

import click

from benchbench import api
from benchbench.cli.connectivity_options import meter_options
from benchbench.cli.options import chosen_plugins, plugin_options


@click.command()
@plugin_options
@click.argument("dataset")
@click.option("--shift", required=True, metavar="'A > B'")
@click.option("--trials", default=20, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--sampler",
    type=click.Choice(["optuna", "random"]),
    default="optuna",
    show_default=True,
    help="Optuna's TPE, or compositions at random.",
)
@click.option(
    "--among",
    metavar="NAME,NAME",
    help="Of these augmentations only; others than those with known ranges keep their defaults. "
    "Leave out what changes the class, such as horizontal_flip of digits.",
)
@click.option(
    "--finalists",
    default=3,
    show_default=True,
    type=click.IntRange(min=0),
    help="How many of the best are pre-trained with, beside the usual ones. 0: only connectivity.",
)
@click.option(
    "--pretrain-steps",
    default=400,
    show_default=True,
    type=click.IntRange(min=1),
    help="Of SimCLR, in the final.",
)
@click.option("--format", "form", type=click.Choice(["markdown", "json"]), default="markdown")
@meter_options
def search(dataset: str, shift: str, among: str | None, form: str, **options: Any) -> None:
    """Compose augmentations that connect the domains of DATASET, without target labels.

    The compositions that connect best, and the usual augmentations, then are pre-trained with, and
    the one is taken whose features read the source best. DATASET is spelled as in a suite, and so
    is what is found. Nothing is measured twice: run it again after an interruption, or with more
    trials, and it goes on.
    """
    report = api.search(dataset, shift, among=among or (), **options, **chosen_plugins())
    click.echo(report.to_json() if form == "json" else report, nl=False)
