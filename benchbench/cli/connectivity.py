"""The command `benchbench diagnose connectivity`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchbench.cli.data import opened
from benchbench.cli.options import (
    catalog,
    data_option,
    device_option,
    plugin_options,
    store_option,
)

if TYPE_CHECKING:
    from benchbench.data.pack import Pack
    from benchbench.diagnose.measure import Estimator, Meter
    from benchbench.suite import Shift


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
@click.option(
    "--encoder", help="What is trained: small_cnn(width=16), of texts transformer, if not said."
)
@click.option("--steps", default=300, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=0, show_default=True)
@click.option("--format", "form", type=click.Choice(["markdown", "json"]), default="markdown")
@store_option
@data_option
@device_option
def connectivity(
    dataset: str,
    shifts: tuple[str, ...],
    augmentations: tuple[str, ...],
    estimator: Estimator,
    encoder: str | None,
    steps: int,
    seed: int,
    form: str,
    store: Path,
    data: Path,
    device: str,
) -> None:
    """Measure how an augmentation connects the classes and domains of DATASET.

    DATASET is spelled as in a suite. Nothing is measured twice: run it again after an interruption.
    """
    from benchbench.diagnose.report import rendered, told

    text, meter = make_meter(dataset, store, data, device, encoder, steps, seed, estimator)
    wanted = shifts_of(shifts, meter.pack)
    found = []
    for augmentation in augmentations:
        for shift in wanted:
            found.append(told(text, meter, shift, meter.of(augmentation, shift), "given"))
            click.echo(f"{shift}, {found[-1].augmentation}: {found[-1].seconds:.0f} s", err=True)
    click.echo(rendered(found, form), nl=False)


def make_meter(
    dataset: str,
    store: Path,
    data: Path,
    device: str,
    encoder: str | None,
    steps: int,
    seed: int,
    estimator: Estimator = "fast",
) -> tuple[str, Meter]:
    """The dataset's spelling with all defaults, and what measures it."""
    from benchbench.diagnose.measure import Meter
    from benchbench.diagnose.mistakes import Effort
    from benchbench.machine import Machine
    from benchbench.store import Store

    choice, pack = opened(dataset, store, data)
    machine, network = Machine.choose(device, "auto"), encoder or usual_encoder(pack)
    effort = Effort(steps=steps)
    return choice.text, Meter(
        catalog(), pack, Store(store), machine, network, estimator, effort, seed
    )


def shifts_of(texts: tuple[str, ...], pack: Pack) -> list[Shift]:
    """Those that are named, or one for every two domains: connectivity has no direction."""
    from itertools import combinations

    from benchbench.suite import Shift

    named = texts or [f"{a} > {b}" for a, b in combinations(pack.domain_names, 2)]
    return [Shift.parse(text, pack.domain_names) for text in named]


def usual_encoder(pack: Pack) -> str:
    return "transformer" if pack.vocabulary else "small_cnn(width=16)"
