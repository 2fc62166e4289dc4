"""The command `benchbench diagnose connectivity`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from benchbench.cli.connectivity_options import Measuring, meter_options
from benchbench.cli.options import plugin_options

if TYPE_CHECKING:
    from benchbench.data.pack import Pack
    from benchbench.diagnostics.connectivity_measurement import Estimator
    from benchbench.suites.suite import Shift


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
def connectivity(
    dataset: str,
    shifts: tuple[str, ...],
    augmentations: tuple[str, ...],
    estimator: Estimator,
    form: str,
    measuring: Measuring,
) -> None:
    """Measure how an augmentation connects the classes and domains of DATASET.

    DATASET is spelled as in a suite. Nothing is measured twice: run it again after an interruption.
    """
    from benchbench.diagnostics.connectivity_report import rendered, told

    text, meter = measuring.meter(dataset, estimator)
    wanted = shifts_of(shifts, meter.pack)
    found = []
    for augmentation in augmentations:
        for shift in wanted:
            found.append(told(text, meter, shift, meter.of(augmentation, shift), "given"))
            click.echo(f"{shift}, {found[-1].augmentation}: {found[-1].seconds:.0f} s", err=True)
    click.echo(rendered(found, form), nl=False)


def shifts_of(texts: tuple[str, ...], pack: Pack) -> list[Shift]:
    """Those that are named, or one for every two domains: connectivity has no direction."""
    from itertools import combinations

    from benchbench.suites.suite import Shift

    named = texts or [f"{a} > {b}" for a, b in combinations(pack.domain_names, 2)]
    return [Shift.parse(text, pack.domain_names) for text in named]
