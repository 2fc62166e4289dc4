"""Options that several commands share."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchbench.catalog import Catalog

store_option = click.option(
    "--store",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(".benchbench"),
    envvar="BENCHBENCH_STORE",
    show_default=True,
    help="Where encoders, features and records are kept.",
)
data_option = click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
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
    help="Some cells: 'method=erm*,shift=scans > *,seed=0', or a part of their names.",
)


def seconds(context: click.Context, option: click.Parameter, value: str | None) -> float | None:
    """What ``45s``, ``90min``, ``1.5h`` or ``2d`` is."""
    if value is None:
        return None
    units = {"s": 1, "min": 60, "h": 3600, "d": 86400}
    told = re.fullmatch(r"(\d+(?:\.\d+)?)(s|min|h|d)", value)
    if not told or not float(told[1]):
        raise click.BadParameter(f"{value!r} is no time; write it like 45s, 90min, 1.5h or 2d")
    return float(told[1]) * units[told[2]]


budget_option = click.option(
    "--budget",
    callback=seconds,
    metavar="TIME",
    help="Run only what fits into this time (45s, 90min, 8h), the most informative first: all "
    "methods on one shift with one seed, then on the next, the cheapest shift first; what is left "
    "is filled with single cells, the baseline first.",
)


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
            expose_value=False,
            callback=kept,
            help="Load a plugin from a file, too. May be repeated.",
        ),
    ):
        command = option(command)
    return command


def catalog() -> Catalog:
    """What the plugins offer that the command line and the environment ask for."""
    from benchbench.catalog import Wanted, load

    said = click.get_current_context().meta
    files, without, strict = (
        said[f"benchbench.{name}"] for name in ("plugin", "no_plugin", "strict_plugins")
    )
    return load(Wanted.here(files, without, strict))
