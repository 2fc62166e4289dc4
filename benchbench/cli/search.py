"""The command `benchbench search`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from benchbench.cli.connectivity_options import Measuring, meter_options
from benchbench.cli.options import plugin_options

if TYPE_CHECKING:
    from benchbench.diagnostics.augmentation_search import Finalist, Sampler, Trial


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
def search(
    dataset: str,
    shift: str,
    trials: int,
    sampler: Sampler,
    among: str | None,
    finalists: int,
    pretrain_steps: int,
    form: str,
    measuring: Measuring,
) -> None:
    """Compose augmentations that connect the domains of DATASET, without target labels.

    The compositions that connect best, and the usual augmentations, then are pre-trained with, and
    the one is taken whose features read the source best. DATASET is spelled as in a suite, and so
    is what is found. Nothing is measured twice: run it again after an interruption, or with more
    trials, and it goes on.
    """
    from benchbench.diagnostics.augmentation_search import rendered
    from benchbench.diagnostics.augmentation_search import search as searched
    from benchbench.diagnostics.augmentation_search_space import steps_for
    from benchbench.execution.search_finalists import pretrained
    from benchbench.suites.suite import Shift
    from benchbench.training.stop_signals import raised_by

    def watch(which: str, trial: Trial) -> None:
        click.echo(f"{which}: {trial.score:.2f}  {trial.augmentation}", err=True)

    def watch_final(finalist: Finalist) -> None:
        told = finalist.reason if finalist.source is None else f"{100 * finalist.source:.1f}"
        click.echo(f"final: {told}  {finalist.augmentation}", err=True)

    text, meter = measuring.meter(dataset)
    wanted = Shift.parse(shift, meter.pack.domain_names)
    names = [name.strip() for name in among.split(",")] if among else ()
    space = steps_for(meter.catalog, meter.pack.task, names)
    with raised_by():
        result = searched(meter, wanted, space, trials, sampler, watch)
        if finalists:
            result = replace(
                result,
                finalists=pretrained(
                    meter,
                    meter.catalog.resolve("dataset", text),
                    wanted,
                    result.entrants(finalists),
                    pretrain_steps,
                    watch_final,
                ),
            )
    click.echo(rendered(text, meter, result, form), nl=False)
