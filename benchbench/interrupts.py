"""Signals that ask a process to stop: KeyboardInterrupt, and where that may wait for a step."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

GRACE = 5.0  # seconds in which a step may come to its end; engines give their workers as much
NAMES = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")  # the last two on a cluster
NUMBERS = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]


@contextmanager
def raised_by(number: int = signal.SIGTERM) -> Iterator[None]:
    """Within, the signal raises KeyboardInterrupt, so that claims are given back and workers stop.

    As all that is said of signals here, where this is the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(number, before)


@contextmanager
def held_back() -> Iterator[Callable[[], bool]]:
    """Within, a signal that would raise KeyboardInterrupt does so at the end.

    What is yielded tells whether there was one. A second one is raised at once, and so is the
    first when it is ``GRACE`` seconds old.
    """
    came: list[threading.Timer] = []

    def hold(number: int, frame: object) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(threading.Timer(GRACE, os.kill, (os.getpid(), number)))
        came[0].daemon = True
        came[0].start()

    mine: list[int] = []
    if threading.current_thread() is threading.main_thread():
        mine = [n for n in NUMBERS if signal.getsignal(n) is signal.default_int_handler]
    for number in mine:
        signal.signal(number, hold)
    try:
        yield lambda: bool(came)
    finally:
        for timer in came:
            timer.cancel()
        for number in mine:
            signal.signal(number, signal.default_int_handler)
        if came:
            raise KeyboardInterrupt
