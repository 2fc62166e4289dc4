"""The command `benchbench search`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from benchbench.cli.meter import Measuring, meter_options
from benchbench.cli.options import plugin_options

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
@click.option("--format", "form", type=click.Choice(["markdown", "json"]), default="markdown")
@meter_options
def search(
    dataset: str,
    shift: str,
    trials: int,
    sampler: Sampler,
    among: str | None,
    form: str,
    measuring: Measuring,
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

    text, meter = measuring.meter(dataset)
    wanted = Shift.parse(shift, meter.pack.domain_names)
    names = [name.strip() for name in among.split(",")] if among else ()
    space = steps_for(meter.catalog, meter.pack.task, names)
    result = searched(meter, wanted, space, trials, sampler, watch)
    click.echo(rendered(text, meter, result, form), nl=False)
