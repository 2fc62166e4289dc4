"""What a plugin does to the world while a check runs it: network, files, programs.

Python tells an audit hook before it does such a thing (PEP 578), and the hook can refuse. What is
done below Python, in a C library, is not seen.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from os import PathLike, fsdecode
from pathlib import Path
from typing import Any

NETWORK = {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"}
PROGRAMS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn"}
CHANGES = {"os.mkdir", "os.remove", "os.rmdir", "os.rename", "os.truncate", "os.link", "os.symlink"}
WRITING = ("w", "a", "x", "+")


class NotAllowed(RuntimeError):
    """No OSError, which libraries that download take for a passing fault and try again."""


@dataclass
class Watch:
    """What was tried and refused, as sentences."""

    folder: Path | None  # writing below it is allowed
    network: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)


_watches: list[Watch | None] = [None]  # the last is in force, in every thread


@contextmanager
def guarded(folder: Path | None) -> Iterator[Watch]:
    """Refuse the network, other programs, and writing anywhere but below ``folder``."""
    _install()
    watch = Watch(folder.resolve() if folder else None)
    _watches.append(watch)
    try:
        yield watch
    finally:
        _watches.pop()


@contextmanager
def unguarded() -> Iterator[None]:
    """For what a check itself does."""
    _watches.append(None)
    try:
        yield
    finally:
        _watches.pop()


@cache
def _install() -> None:
    """Once: an audit hook cannot be taken away."""
    sys.addaudithook(_audit)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in NETWORK | PROGRAMS | CHANGES | {"open"}:
        return
    watch = _watches[-1]
    if watch is None:
        return
    if event in NETWORK:
        address = arguments[1] if event in ("socket.connect", "socket.sendto") else arguments[0]
        if not isinstance(address, str | bytes) or event not in ("socket.connect", "socket.sendto"):
            _refuse(watch.network, f"it reaches for the network: {event} {address!r}")
    elif event in PROGRAMS:
        _refuse(watch.outside, f"it starts a program: {arguments[0]!r}")
    elif event != "open" or any(letter in str(arguments[1]) for letter in WRITING):
        path = arguments[1] if event == "os.rename" else arguments[0]
        if isinstance(path, str | bytes | PathLike) and not _allowed(fsdecode(path), watch.folder):
            _refuse(watch.outside, f"it writes to {fsdecode(path)}")


def _allowed(path: str, folder: Path | None) -> bool:
    """Below the folder; a device; or Python's own cache of compiled modules."""
    place = Path(path).absolute()
    if place.is_relative_to("/dev") or "__pycache__" in place.parts:
        return True
    return folder is not None and place.resolve().is_relative_to(folder)


def _refuse(seen: list[str], sentence: str) -> None:
    seen.append(sentence)
    raise NotAllowed(f"refused in a check: {sentence}")
