"""Options that several commands share, and what is made of them."""

from __future__ import annotations

from os import fsdecode
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable


class Place(click.Path):
    """A path that this system can have: not empty, not too long, through no file and no loop."""

    def convert(
        self, value: Any, param: click.Parameter | None, context: click.Context | None
    ) -> Any:
        text = fsdecode(value)
        try:
            if not text:
                self.fail("'' names no file and no folder", param, context)
            Path(text).stat()
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:  # a ValueError of characters that no path has
            why = error.strerror if isinstance(error, OSError) else str(error)
            self.fail(f"{text!r} cannot be used: {why}", param, context)
        return super().convert(value, param, context)


store_option = click.option(
    "--store",
    type=Place(file_okay=False, path_type=Path),
    default=Path(".benchbench"),
    envvar="BENCHBENCH_STORE",
    show_default=True,
    help="Where encoders, features and records are kept.",
)
data_option = click.option(
    "--data",
    type=Place(file_okay=False, path_type=Path),
    default=Path("data"),
    envvar="BENCHBENCH_DATA",
    show_default=True,
    help="Where datasets that are files lie.",
)
device_option = click.option(
    "--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N."
)
compile_option = click.option(
    "--compile/--no-compile",
    "compiled",
    default=False,
    show_default=True,
    help="Encoders by torch.compile: up to a minute for each stage, then faster steps.",
)
only_option = click.option(
    "--only",
    metavar="EXPR",
    default="",
    help="Some cells: 'method=erm*,shift=scans > *,seed=0', or a part of their names; 'stale': "
    "those whose record is of other data, code or settings than today's.",
)


def seconds(context: click.Context, option: click.Parameter, value: str | None) -> float | None:
    """What ``45s``, ``90min``, ``1.5h`` or ``2d`` is."""
    if value is None:
        return None
    from benchbench.extension.grammar import seconds_of

    if (told := seconds_of(value)) is None:
        raise click.BadParameter(f"{value!r} is no time; write it like 45s, 90min, 1.5h or 2d")
    return told


budget_option = click.option(
    "--budget",
    callback=seconds,
    metavar="TIME",
    help="Run only what fits into this time (45s, 90min, 8h), the most informative first: all "
    "methods on one shift with one seed, then on the next, the cheapest shift first; what is left "
    "is filled with single cells, the baseline first.",
)


def launch_options(command: Callable[..., None]) -> Callable[..., None]:
    """Where cells run, and on what."""
    for option in (
        click.option(
            "--checkpoint-every",
            callback=seconds,
            metavar="TIME",
            default="60s",
            show_default=True,
            help="How often, at most, a stage leaves the state from which it goes on after a kill. "
            "The time between two states is at least 20 times what writing one takes.",
        ),
        click.option(
            "--ranks",
            type=click.IntRange(min=1),
            default=1,
            show_default=True,
            help="Processes that train each stage together, a GPU each: a batch is spread over "
            "them, and losses are those of one process with the whole batch.",
        ),
        click.option(
            "--resources",
            multiple=True,
            metavar="[OBJECTIVE:]cpus=4,gpus=1,memory=16GB,time=2h",
            help="What a task gets: all of it of slurm, no time of ray, time alone of local:N. "
            "With 'simclr*:' before it, tasks that train it; with 'readout:', those that train "
            "nothing. May be repeated.",
        ),
        click.option(
            "--launch",
            metavar="WHERE",
            default="local",
            show_default=True,
            help="local: one cell after the other; local:N: N processes on this machine; "
            "ray[:ADDRESS]; slurm[:PARTITION], slurm:local to try it without Slurm. All need to "
            "see the store and the data in the same place.",
        ),
    ):
        command = option(command)
    return command


def plugin_options(command: Callable[..., None]) -> Callable[..., None]:
    """Options that say which plugins are loaded; `catalog` reads them from the context."""

    def kept(context: click.Context, option: click.Parameter, value: object) -> None:
        context.meta[f"benchbench.{option.name}"] = value

    for option in (
        click.option(
            "--strict-plugins",
            is_flag=True,
            expose_value=False,
            callback=kept,
            help="Stop, with its traceback, at a plugin that does not load.",
        ),
        click.option(
            "--no-plugin",
            multiple=True,
            metavar="NAME",
            expose_value=False,
            callback=kept,
            help="Leave an installed plugin out. May be repeated.",
        ),
        click.option(
            "--plugin",
            multiple=True,
            metavar="FILE.py",
            type=Place(),
            expose_value=False,
            callback=kept,
            help="Load a plugin from a file, too. May be repeated.",
        ),
    ):
        command = option(command)
    return command


def chosen_plugins() -> dict[str, Any]:
    """What the command line says of plugins, as functions of `benchbench.api` take it."""
    said = click.get_current_context().meta
    return {
        "plugins": said["benchbench.plugin"],
        "without_plugins": said["benchbench.no_plugin"],
        "strict_plugins": said["benchbench.strict_plugins"],
    }
