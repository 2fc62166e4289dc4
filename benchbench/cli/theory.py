"""The command `theory`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from benchbench import api
from benchbench.cli.options import Place


@click.command()
@click.option("--classes", default=5, show_default=True)
@click.option("--domains", default=2, show_default=True, help="The first is the source.")
@click.option("--rho", default=0.5, show_default=True, help="Same class, same domain.")
@click.option("--alpha", default=0.2, show_default=True, help="Same class, different domains.")
@click.option("--beta", default=0.2, show_default=True, help="Different classes, same domain.")
@click.option("--gamma", default=0.1, show_default=True, help="Different in both.")
@click.option("--inputs", default=80, show_default=True, help="Of each class in each domain.")
@click.option("--features", type=int, help="Default: classes + domains - 1.")
@click.option(
    "--seeds",
    default=5,
    show_default=True,
    type=click.IntRange(min=1),
    help="How many graphs are drawn for each setting: seeds 0, 1, …",
)
@click.option(
    "--out",
    type=Place(path_type=Path),
    help="A folder for pictures (SVG) and all figures (theory.json). Made if missing.",
)
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON, to keep.")
def theory(as_json: bool, **options: Any) -> None:
    """Will a head from one domain be right in others, by the theory of connectivity.

    Two inputs are connected with a probability that depends on whether they share class and
    domain. Prints what contrastive features of such a graph hold, and what a head trained on the
    first domain reads off them: of the population, and of graphs drawn at random.
    """
    report = api.theory(**options)
    click.echo(report.to_json() if as_json else report)
