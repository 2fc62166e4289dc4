"""The command `advise`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from benchbench import api
from benchbench.cli.connectivity_options import meter_options
from benchbench.cli.options import Place, chosen_plugins, plugin_options


@click.command()
@plugin_options
@click.argument("dataset")
@click.option(
    "--source",
    "sources",
    multiple=True,
    required=True,
    metavar="DOMAIN",
    help="Where labels are. May be repeated.",
)
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="DOMAIN",
    help="Where they are not: every other domain if it is not said. May be repeated.",
)
@click.option(
    "--augmentation",
    "augmentations",
    multiple=True,
    metavar="'A | B(key=value)'",
    help="A candidate. May be repeated; the usual ones if it is not said.",
)
@click.option(
    "--goal",
    default=0.8,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="The accuracy on the new domain that would do.",
)
@click.option(
    "--labels",
    type=click.Choice(["source", "given"]),
    default="source",
    show_default=True,
    help="source: no target label is read; given: those that the data have make it exacter.",
)
@click.option(
    "--out",
    "-o",
    type=Place(dir_okay=False, path_type=Path),
    default=Path("advice.html"),
    show_default=True,
    help="The page.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the same as JSON.")
@meter_options
def advise(
    dataset: str, sources: tuple[str, ...], out: Path, as_json: bool, **options: Any
) -> None:
    """Will a classifier of the source work on a new domain, or must it be labelled?

    Measures which augmentation connects the domains of DATASET, such as "folder(path='mine')", and
    predicts the accuracy of contrastive pre-training with it, or says why it cannot tell. Writes a
    page that explains itself.
    """
    report = api.advise(dataset, sources, out=out, **options, **chosen_plugins())
    click.echo(report.to_json() if as_json else f"{report}\n", nl=False)
    click.echo(f"{out} explains it", err=True)
