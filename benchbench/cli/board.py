"""Commands that print, publish and compare what was measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchbench.cli.options import (
    Place,
    data_option,
    device_option,
    make_plan,
    plugin_options,
    published,
    store_option,
)
from benchbench.extension.constants import HONEST, Rule
from benchbench.extension.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchbench.leaderboard.board_folder import Source


def board_options(command: Callable[..., None]) -> Callable[..., None]:
    """Where a board comes from: a store, or a folder that was published."""
    for option in (device_option, data_option, store_option):
        command = option(command)
    rule = click.option(
        "--rule",
        type=click.Choice(HONEST),
        help="The rule of selection that counts. Default: what the suite says, or source_val.",
    )
    return plugin_options(rule(command))


def source_of(suite: str, rule: Rule | None, store: Path, data: Path, device: str) -> Source:
    from benchbench.leaderboard.board_folder import of_folder, whole
    from benchbench.leaderboard.publishing import of_plan

    if published(suite):
        source = of_folder(Path(suite))
    else:
        source = of_plan(make_plan(suite, store, data, device))
    source = whole(source)
    return replace(source, expected=replace(source.expected, rule=rule)) if rule else source


@click.command()
@board_options
@click.argument("suite", metavar="SUITE|DIR")
@click.option(
    "--format",
    "form",
    type=click.Choice(["markdown", "csv", "latex", "json"]),
    default="markdown",
    show_default=True,
)
@click.option(
    "--columns",
    metavar="NAME,…",
    default="",
    help="More columns, of what `diagnose features` tells, such as domain_accuracy,effective_rank; "
    "diagnostics means a handful.",
)
def leaderboard(
    suite: str, form: str, columns: str, rule: Rule | None, store: Path, data: Path, device: str
) -> None:
    """Print the board of SUITE from the store, or of a folder with suite.toml and records/."""
    from benchbench.leaderboard.publishing import board_of_plan
    from benchbench.leaderboard.table import board, diagnostics_named
    from benchbench.leaderboard.table_formats import render

    more = diagnostics_named(columns)
    if published(suite):
        told = render(board(source_of(suite, rule, store, data, device), more), form)
    else:
        plan = make_plan(suite, store, data, device)
        told = board_of_plan(plan, plan.state(), form, more, rule)
    click.echo(told, nl=False)


@click.command()
@plugin_options
@click.argument("suite", metavar="SUITE|DIR")
@click.option(
    "--to",
    "folder",
    type=Place(file_okay=False, path_type=Path),
    help="The board's folder. Default: leaderboards/ and the suite's name.",
)
@store_option
@data_option
@device_option
def publish(suite: str, folder: Path | None, store: Path, data: Path, device: str) -> None:
    """Write the board of SUITE as a folder: records, predictions, tables and a page.

    The folder is all that a board is: its tables and its page, site/index.html, follow from the
    files beside them. Of a folder DIR that was published they are written again, as after
    `benchbench verify --into DIR`.
    """
    from benchbench.leaderboard.publishing import publish, regenerate
    from benchbench.suites.suite import text_of

    if published(suite):
        if folder is not None:
            raise BadInput(
                f"{suite} is a published board; it is written again where it is: leave out --to"
            )
        regenerate(Path(suite))
        click.echo(f"{suite}: tables and page are written")
        return
    plan = make_plan(suite, store, data, device)
    into = folder or Path("leaderboards") / plan.suite.name
    source = publish(plan, text_of(suite), into)
    stale = f", {len(source.stale)} of them stale" if source.stale else ""
    click.echo(f"{into}: {len(source.records)} records{stale}; open {into / 'site/index.html'}")


@click.command()
@board_options
@click.argument("suite", metavar="SUITE|DIR")
@click.argument("one")
@click.argument("other")
@click.option("--json", "as_json", is_flag=True)
def compare(
    suite: str,
    one: str,
    other: str,
    as_json: bool,
    rule: Rule | None,
    store: Path,
    data: Path,
    device: str,
) -> None:
    """Say whether method ONE is better than method OTHER, by a paired test.

    Shift by shift and over all: the difference, its 95 % interval and p, paired over training
    seeds and test rows.
    """
    from benchbench.leaderboard.comparison import compared

    click.echo(compared(source_of(suite, rule, store, data, device), one, other, as_json), nl=False)
