"""Boards are read, made and published."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchbench.extension.errors import BadInput

if TYPE_CHECKING:
    from benchbench.extension.constants import Rule
    from benchbench.leaderboard.results import Board

from benchbench.api.opening import Where, opened, wanted_of


def load_board(name: str | Path) -> Board:
    """A published board: a shipped one by its name, such as "digits", or the folder of one.

    It has records, predictions and loss curves, and no weights. BadInput says which boards there
    are.
    """
    from benchbench.leaderboard.board_folder import of_folder
    from benchbench.leaderboard.results import Board
    from benchbench.leaderboard.shipped_boards import folder_of

    return Board(of_folder(folder_of(name)))


def board(
    suite: Any,
    *,
    rule: Rule | None = None,
    columns: str | Sequence[str] = (),
    store: Where = None,
    data: Where = None,
    device: str = "auto",
    plugins: Sequence[str | Path] = (),
    without_plugins: Sequence[str] = (),
    strict_plugins: bool = False,
    progress: bool = True,
) -> Board:
    """The board of a suite, from the records in the store, or of a folder that was published.

    ``rule`` chooses among the draws and snapshots of a method; ``columns`` are names of
    diagnostics, or ``"diagnostics"`` for all. BadInput says what is unknown.
    """
    from benchbench.leaderboard.board_folder import of_folder
    from benchbench.leaderboard.results import Board
    from benchbench.leaderboard.table import diagnostics_named

    more = diagnostics_named(columns if isinstance(columns, str) else ",".join(columns))
    if is_board(suite):
        found = Board(of_folder(Path(suite)), more)
        return found.by_rule(rule) if rule else found
    wanted = wanted_of(plugins, without_plugins, strict_plugins)
    with opened(suite, store, data, device, wanted=wanted, progress=progress) as made:
        return made.results(made.plan.cells, [], columns=more, rule=rule)


def publish(
    suite: Any,
    folder: Where = None,
    *,
    store: Where = None,
    data: Where = None,
    device: str = "auto",
    plugins: Sequence[str | Path] = (),
    without_plugins: Sequence[str] = (),
    strict_plugins: bool = False,
    progress: bool = True,
) -> Board:
    """Write the board of a suite as a folder: records, predictions, tables and a page.

    ``folder`` is ``leaderboards/`` and the suite's name unless it is given. If ``suite`` is a
    folder that was published, its tables and its page are written again. BadInput says what cannot
    be published.
    """
    from benchbench.leaderboard.publishing import regenerate

    if is_board(suite):
        if folder is not None:
            raise BadInput(
                f"{suite} is a published board; and is written where it is: leave out the folder"
            )
        regenerate(Path(suite))
        return load_board(suite)
    made = board(
        suite,
        store=store,
        data=data,
        device=device,
        plugins=plugins,
        without_plugins=without_plugins,
        strict_plugins=strict_plugins,
        progress=progress,
    )
    return made.publish(folder or Path("leaderboards") / made.name)  # type: ignore[attr-defined]


def is_board(suite: Any, part: str = "") -> bool:
    """Whether it names the folder of a board, or one that has this part."""
    try:
        return bool(suite) and isinstance(suite, str | Path) and Path(suite, part).is_dir()
    except (OSError, ValueError):  # of a name that no folder can have
        return False
