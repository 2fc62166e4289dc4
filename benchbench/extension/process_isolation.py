"""Work that may end or hang its process is first tried in a copy of it, where that can be made."""

import os
import select
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress

PATIENCE = 120.0  # seconds, for each


def what_ends(
    works: Sequence[Callable[[], object]], beginning: Callable[[int], object]
) -> dict[int, str]:
    """How some works ended a process, by their number; those that returned or raised are left out.

    ``beginning`` is told whose turn it is. Nothing is found where processes cannot be forked
    safely, which is everywhere but on Linux.
    """
    found: dict[int, str] = {}
    first = 0
    while sys.platform == "linux" and first < len(works):
        reader, writer = os.pipe()
        with warnings.catch_warnings():  # of other threads, which the copy does not need
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            os.close(reader)
            _do(works[first:], writer)
        os.close(writer)
        number, gone = first, False
        try:
            while number < len(works):
                beginning(number)
                ready, _, _ = select.select([reader], [], [], PATIENCE)
                gone = bool(ready) and not os.read(reader, 1)
                if gone or not ready:
                    break
                number += 1
        finally:
            os.close(reader)
            if not gone:
                os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
        if number < len(works):
            died = how_it_died(os.waitstatus_to_exitcode(status))
            found[number] = died if gone else f"took more than {PATIENCE:.0f} s"
        first = number + 1
    return found


def how_it_died(status: int) -> str:
    """Of a process that ended by itself, from its exit status as multiprocessing has it."""
    if status >= 0:
        return f"ended with status {status}"
    return f"was killed by {signal.Signals(-status).name}"


def _do(works: Sequence[Callable[[], object]], writer: int) -> None:
    """In the copy: say after each that it is over, print nothing, never return."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)  # those of the original are not here
    for work in works:
        with suppress(BaseException):
            work()
        os.write(writer, b"+")
    os._exit(0)
