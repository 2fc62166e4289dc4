"""Standard output and standard error, where they are full, closed, or of few characters."""

from __future__ import annotations

import codecs
import errno
import io
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator

UNWRITTEN = 74  # EX_IOERR of sysexits.h: neither "something failed" (1) nor "bad input" (2)
NO_READER = 128 + 13  # what a shell says of a program that SIGPIPE has ended, as it ends Unix tools


class Unwritten(Exception):
    """Standard output cannot be written. No OSError, which may be of any file."""

    def __init__(self, error: OSError) -> None:
        super().__init__(error.strerror or str(error))
        self.status = NO_READER if error.errno == errno.EPIPE else UNWRITTEN


class Results(io.TextIOWrapper):
    """Standard output: what cannot be written ends the command."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            raise Unwritten(error) from None

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            raise Unwritten(error) from None


class Words(io.TextIOWrapper):
    """Standard error: what nobody can read any more is no reason to stop the work."""

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError:
            drop(2)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            drop(2)


@contextmanager
def guarded() -> Iterator[None]:
    """Within, and until the process ends, the two streams are as above.

    A full device ends the command with a sentence and status 74. A pipe that nobody reads any more
    ends it without a word and with status 141. Who starts it without the one or the other wants
    none: it is as if it went to /dev/null. Characters that the stream's encoding has not become
    escapes such as ``\\u2013``; ASCII is taken for UTF-8. Streams that somebody has put in place
    of the process's own, as tests do, stay as they are.
    """
    if sys.stdout is not sys.__stdout__ or sys.stderr is not sys.__stderr__:
        yield
        return
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass  # in place of a closed one, whose number the next file would get, and what C prints
    os.close(number)
    sys.stdout = sys.__stdout__ = over(sys.stdout, 1, Results)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = over(sys.stderr, 2, Words)  # type: ignore[misc]
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except Unwritten as error:
        drop(1)
        if error.status != NO_READER:
            sys.stderr.write(f"benchbench: standard output cannot be written: {error}\n")
        sys.exit(error.status)


def over(stream: TextIO | None, number: int, kind: type[io.TextIOWrapper]) -> io.TextIOWrapper:
    """The stream as another kind; of none, that of the file descriptor."""
    told = stream if isinstance(stream, io.TextIOWrapper) else os.fdopen(number, "w", closefd=False)
    encoding, by_line, at_once = told.encoding, told.line_buffering, told.write_through
    if codecs.lookup(encoding).name == "ascii":  # click would write past this stream, in UTF-8, too
        encoding = "utf-8"
    return kind(
        told.detach(),
        encoding=encoding,
        errors="backslashreplace",
        line_buffering=by_line,
        write_through=at_once,
    )


def drop(number: int) -> None:
    """Whatever the file descriptor still gets, also as the interpreter ends, goes nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, number)
    os.close(nowhere)
