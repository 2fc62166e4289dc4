"""Files that are there complete or not at all."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO
from uuid import uuid4

from benchbench.extension.errors import BadInput

NOTHING = "nothing was written"


def place(path: Path, content: bytes) -> None:
    """Write beside, flush to disk, rename: no reader ever meets half a file."""
    with placing(path) as file:
        file.write(content)


def place_new(path: Path, content: bytes) -> None:
    """The same, never in place of another file, which is a FileExistsError."""
    with beside(path) as (partial, file):
        file.write(content)
        settled(file)
        path.hardlink_to(partial)


def place_text(path: Path, text: str) -> None:
    """The same of a text, in a folder that is there. BadInput if it cannot be written."""
    with writing(str(path)), beside(path) as (partial, file):
        file.write(text.encode())
        settled(file)
        partial.replace(path)


@contextmanager
def placing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write to, which takes its place at the end, complete, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with beside(path) as (partial, file):
        yield file
        settled(file)
        partial.replace(path)


def make_writable(folder: Path, what: str) -> None:
    """Make a folder for what is to be written. BadInput if nothing can be written there."""
    with writing(what):
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass


@contextmanager
def beside(path: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """A file beside, open for writing, that is gone again."""
    partial = path.with_name(f"{path.name}.{uuid4().hex}.part")  # machines may share a folder
    try:
        with partial.open("wb") as file:
            yield partial, file
    finally:
        partial.unlink(missing_ok=True)


def settled(file: IO[bytes]) -> None:
    """Close the file once all of it is on the disk."""
    file.flush()
    os.fsync(file.fileno())
    file.close()


@contextmanager
def writing(what: str) -> Iterator[None]:
    """What the system says of a full or read-only disk, as BadInput."""
    try:
        yield
    except OSError as error:
        raise BadInput(f"{what} cannot be written: {error.strerror or error}") from error


@contextmanager
def drafted(folder: Path, parts: tuple[str, ...], what: str) -> Iterator[Path]:
    """A copy of a folder's own files, and of these of its folders, whose files take their places.

    That they do at the end, when all of them are on disk and each was found to have a place. Until
    then nothing in the folder changes. What was removed from the copy then is removed there, too.
    BadInput if the folder cannot be written.
    """
    with writing(what):
        fresh = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        draft = _new_draft(folder)
    try:
        with writing(what):
            for path in _own(folder, parts):
                _same(path, draft / path.relative_to(folder))
        yield draft
        with writing(what):
            _settle(draft, folder, parts)
    except BadInput as error:  # what is said of the copy is said of the folder
        raise BadInput(str(error).replace(str(draft), str(folder))) from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        if fresh:
            with suppress(OSError):  # it is not empty: all went well
                folder.rmdir()


def _new_draft(folder: Path) -> Path:
    """Beside the folder, so that a path from it means the same; in it, if that is another disk."""
    within = folder.resolve()
    beside = within.parent
    if os.access(beside, os.W_OK) and beside.stat().st_dev == within.stat().st_dev:
        within = beside
    for left in within.glob(".*.draft.part"):  # by a process that was killed
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > 3600:
                shutil.rmtree(left, ignore_errors=True)
    draft = within / f".{uuid4().hex}.draft.part"
    draft.mkdir()
    return draft


def _own(folder: Path, parts: tuple[str, ...]) -> list[Path]:
    """The files of a folder and of some of its folders."""
    within = [folder, *(folder / part for part in parts if (folder / part).is_dir())]
    return [path for place in within for path in sorted(place.iterdir()) if path.is_file()]


def _same(path: Path, copy: Path) -> None:
    """A second name of a file, or its copy where the disk gives none."""
    copy.parent.mkdir(exist_ok=True)
    try:
        copy.hardlink_to(path)
    except OSError:
        shutil.copy2(path, copy)


def _settle(draft: Path, folder: Path, parts: tuple[str, ...]) -> None:
    new = {path: folder / path.relative_to(draft) for path in sorted(draft.rglob("*"))}
    new = {path: place for path, place in new.items() if path.is_file()}
    moved = {path: place for path, place in new.items() if not _is_same(path, place)}
    gone = [path for path in _own(folder, parts) if path not in new.values()]
    for place in (*moved.values(), *gone):
        home = next(above for above in place.parents if above.exists())
        if place.is_dir() or not home.is_dir():
            where = place if place.is_dir() else home
            kinds = ("folder", "file") if place.is_dir() else ("file", "folder")
            raise BadInput(f"{where} is a {kinds[0]}, where a {kinds[1]} belongs; {NOTHING}")
        if not os.access(home, os.W_OK | os.X_OK):
            raise BadInput(f"{home} cannot be written: Permission denied; {NOTHING}")
    for path, place in moved.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        path.replace(place)
    for path in gone:
        path.unlink(missing_ok=True)


def _is_same(one: Path, other: Path) -> bool:
    there = other.is_file()
    return there and (one.samefile(other) or one.read_bytes() == other.read_bytes())
