"""Published boards that come with the package, by name."""

from pathlib import Path

from benchbench.extension.errors import BadInput
from benchbench.extension.grammar import instead

PACKAGE = Path(__file__).parents[1]
CHECKOUT = PACKAGE.parent / "leaderboards"  # all of them, where the package is a checkout
INSTALLED = PACKAGE / "leaderboard" / "boards"  # those that the wheel holds


def folder_of(board: str | Path) -> Path:
    """The folder of a board, itself or of one that is shipped; BadInput says which there are."""
    folder = Path(board)
    if (folder / "suite.toml").is_file():
        return folder
    home = CHECKOUT if CHECKOUT.is_dir() else INSTALLED
    known = {
        path.parent.relative_to(home).as_posix(): path.parent
        for path in sorted(home.rglob("suite.toml"))
    }
    if str(board) in known:
        return known[str(board)]
    elsewhere = "" if home == CHECKOUT else "; other boards are in the repository's leaderboards/"
    raise BadInput(f"no board or folder of one is {str(board)!r}; {instead(str(board), known)}"
                   f"{elsewhere}")  # fmt: skip
