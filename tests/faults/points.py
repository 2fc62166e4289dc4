"""Every call that changes a file, as a place where a process can end or a disk be full.

As a program: a line of standard input is a case, a folder, and where the fault is; in a fork of
this process, in which everything is imported, the case runs there; how that went is answered.
"""

import builtins
import errno
import io
import json
import os
import resource
import signal
import sys
import tarfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

CALLS = ("mkdir", "rmdir", "replace", "rename", "unlink", "remove", "link", "fsync", "truncate")
REMOVES = ("rmdir", "unlink", "remove")  # a full disk does not mind these
DONE, REFUSED, BROKEN = 0, 2, 3


class Points:
    """Counts the calls; at one of them the process is killed, or from it on the disk is full."""

    def __init__(self, at: int, fault: str) -> None:
        self.left, self.fault = at, fault

    def __call__(self, *, removes: bool = False) -> None:
        self.left -= 1
        if self.fault == "SIGKILL" and self.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.fault != "SIGKILL" and self.left <= 0 and not removes:
            number = getattr(errno, self.fault)
            raise OSError(number, os.strerror(number))

    def watch(self) -> None:
        """From now on, for the rest of this process."""
        for name in CALLS:
            setattr(os, name, self.counted(getattr(os, name), removes=name in REMOVES))
        os.open = self.opened(os.open)
        io.open = builtins.open = tarfile.bltn_open = self.made(io.open)

    def counted(self, call: Callable[..., Any], *, removes: bool) -> Callable[..., Any]:
        def counting(*words: Any, **named: Any) -> Any:
            self(removes=removes)
            return call(*words, **named)

        return counting

    def opened(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def opening(path: Any, flags: int, *rest: Any, **named: Any) -> Any:
            if flags & os.O_CREAT:
                self()
            return call(path, flags, *rest, **named)

        return opening

    def made(self, call: Callable[..., Any]) -> Callable[..., Any]:
        point = self

        class Torn(io.FileIO):
            """Half of what is written arrives before the next call."""

            def write(self, content: Any) -> int:
                view = memoryview(content).cast("B")
                point()
                done = super().write(view[: len(view) // 2])
                point()
                return done + super().write(view[done:])

        def opening(
            path: Any, mode: str = "r", buffering: int = -1, encoding: str | None = None,
            errors: str | None = None, newline: str | None = None, **rest: Any
        ) -> Any:  # fmt: skip
            if isinstance(path, int) or not set(mode) & set("wax+"):
                return call(path, mode, buffering, encoding, errors, newline, **rest)
            point()
            raw = Torn(path, mode.replace("b", "").replace("t", ""))
            file = (io.BufferedRandom if "+" in mode else io.BufferedWriter)(raw)
            return file if "b" in mode else io.TextIOWrapper(file, encoding, errors, newline)

        return opening


def nobody(user: int) -> None:
    """Lose the right to write what is root's; as another user there is nothing to lose."""
    if os.geteuid() == 0:
        os.setuid(user)


LIMITS: dict[str, Callable[[int], None]] = {
    "FSIZE": lambda most: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)),
    "AS": lambda most: resource.setrlimit(resource.RLIMIT_AS, (most, most)),
    "NOBODY": nobody,
}


def attempted(case: Callable[[Path], object], folder: Path, at: int, fault: str) -> int:
    """The status with which a process ends that runs a case with a fault."""
    from benchbench.extension.errors import BadInput

    points = Points(at, fault)
    if fault in LIMITS:
        LIMITS[fault](at)
    elif at:
        points.watch()
    try:
        case(folder)
        if at and fault == "SIGKILL":
            points()  # before every call and after the last is everywhere
    except BadInput as refusal:
        with suppress(OSError):  # the limit may be one of this, too
            sys.stderr.write(f"{refusal}\n")
        return REFUSED
    except BaseException:
        traceback.print_exc()
        return BROKEN
    return DONE


def answer(said: object) -> None:
    sys.stdout.write(f"{said}\n")
    sys.stdout.flush()


def main() -> None:
    from cases import CASES

    answer("ready")
    for line in sys.stdin:
        name, folder, at, fault, copies = json.loads(line)
        children = []
        for _ in range(copies):
            if (child := os.fork()) == 0:
                os._exit(attempted(CASES[name], Path(folder), at, fault))
            children.append(child)
        ended = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        answer(next((status for status in ended if status), 0))


if __name__ == "__main__":
    main()
