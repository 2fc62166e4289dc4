"""Files that are there complete or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from benchbench.terms import BadInput


def place(path: Path, content: bytes) -> None:
    """Write beside, flush to disk, rename: no reader ever meets half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with beside(path, content) as partial:
        partial.replace(path)


def place_new(path: Path, content: bytes) -> None:
    """The same, never in place of another file, which is a FileExistsError."""
    with beside(path, content) as partial:
        path.hardlink_to(partial)


@contextmanager
def beside(path: Path, content: bytes) -> Iterator[Path]:
    """A file of that content, on disk, that is gone again."""
    partial = path.with_name(f"{path.name}.{uuid4().hex}.part")  # machines may share a folder
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        yield partial
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def writing(what: str) -> Iterator[None]:
    """What the system says of a full or read-only disk, as BadInput."""
    try:
        yield
    except OSError as error:
        raise BadInput(f"{what} cannot be written: {error.strerror or error}") from error
