"""The command `benchbench search`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchbench.cli.connectivity import make_meter
from benchbench.cli.options import data_option, device_option, plugin_options, store_option

if TYPE_CHECKING:
    from benchbench.diagnose.search import Sampler, Trial


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
    "--encoder", help="What is trained: small_cnn(width=16), of texts transformer, if not said."
)
@click.option(
    "--steps", default=300, show_default=True, type=click.IntRange(min=1), help="Of each training."
)
@click.option("--seed", default=0, show_default=True, help="Of compositions and networks.")
@click.option("--format", "form", type=click.Choice(["markdown", "json"]), default="markdown")
@store_option
@data_option
@device_option
def search(
    dataset: str,
    shift: str,
    trials: int,
    sampler: Sampler,
    among: str | None,
    encoder: str | None,
    steps: int,
    seed: int,
    form: str,
    store: Path,
    data: Path,
    device: str,
) -> None:
    """Compose augmentations that connect the domains of DATASET, without target labels.

    DATASET is spelled as in a suite, and so is what is found. Nothing is measured twice: run it
    again after an interruption, or with more trials, and it goes on.
    """
    from benchbench.diagnose.search import rendered
    from benchbench.diagnose.search import search as searched
    from benchbench.diagnose.space import steps_for
    from benchbench.suite import Shift

    def watch(which: str, trial: Trial) -> None:
        click.echo(f"{which}: {trial.score:.2f}  {trial.augmentation}", err=True)

    text, meter = make_meter(dataset, store, data, device, encoder, steps, seed)
    wanted = Shift.parse(shift, meter.pack.domain_names)
    names = [name.strip() for name in among.split(",")] if among else ()
    space = steps_for(meter.catalog, meter.pack.task, names)
    result = searched(meter, wanted, space, trials, sampler, watch)
    click.echo(rendered(text, meter, result, form), nl=False)
