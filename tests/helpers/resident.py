"""How much memory a piece of work takes of its own, as Linux says it."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

Made = TypeVar("Made")
STATUS = Path("/proc/self/status")


def resident() -> int:
    """Bytes of this process that lie in memory and in no file."""
    return 1024 * int(STATUS.read_text().partition("RssAnon:")[2].split()[0])


def peak_of(work: Callable[[], Made]) -> tuple[int, Made]:
    """The most bytes that were added while it was done, looked at every millisecond; its result."""
    before = most = resident()
    over = threading.Event()

    def look() -> None:
        nonlocal most
        while not over.wait(0.001):
            most = max(most, resident())

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        made = work()
    finally:
        over.set()
        watcher.join()
    return max(most, resident()) - before, made
