"""Commands that print, publish and compare what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchbench.cli.options import (
    Place,
    chosen_plugins,
    data_option,
    device_option,
    plugin_options,
    store_option,
)
from benchbench.extension.constants import HONEST, Rule

if TYPE_CHECKING:
    from collections.abc import Callable


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
    from benchbench import api

    where: dict[str, Any] = {"store": store, "data": data, "device": device, **chosen_plugins()}
    click.echo(api.board(suite, rule=rule, columns=columns, **where).render(form), nl=False)


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
    from benchbench import api

    where: dict[str, Any] = {"store": store, "data": data, "device": device, **chosen_plugins()}
    board = api.publish(suite, folder, **where)
    if api.is_board(suite) and folder is None:
        click.echo(f"{suite}: tables and page are written")
        return
    into = folder or Path("leaderboards") / board.name
    stale = f", {len(board.source.stale)} of them stale" if board.source.stale else ""
    click.echo(f"{into}: {len(board.records)} records{stale}; open {into / 'site/index.html'}")


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
    from benchbench import api

    where: dict[str, Any] = {"store": store, "data": data, "device": device, **chosen_plugins()}
    told = api.board(suite, rule=rule, **where).compare(one, other)
    click.echo(told.json() if as_json else told.text, nl=False)
