"""Signals that ask a process to stop: KeyboardInterrupt, and where that may wait for a step."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

GRACE = 5.0  # seconds in which a step may come to its end; engines give their workers as much
NAMES = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")  # the last two on a cluster
NUMBERS = [getattr(signal, name) for name in NAMES if hasattr(signal, name)]


class Interrupt:
    """What raises KeyboardInterrupt as a signal comes, and knows that one came."""

    came = False

    def __call__(self, number: int, frame: object) -> None:
        self.came = True
        raise KeyboardInterrupt


@contextmanager
def raised_by(number: int = signal.SIGTERM) -> Iterator[Interrupt]:
    """Within, the signal raises KeyboardInterrupt, so that claims are given back and workers stop.

    As all that is said of signals here, where this is the main thread.
    """
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return
    before = signal.signal(number, interrupt)
    try:
        yield interrupt
    finally:
        signal.signal(number, before)


@contextmanager
def held_back() -> Iterator[Callable[[], bool]]:
    """Within, a signal that would raise KeyboardInterrupt does so at the end.

    What is yielded tells whether there was one. A second one is raised at once, and so is the
    first when it is ``GRACE`` seconds old.
    """
    came: list[int] = []
    timers: list[threading.Timer] = []
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in NUMBERS}
        before = {number: handler for number, handler in handlers.items() if interrupts(handler)}

    def hold(number: int, frame: object) -> None:
        came.append(number)
        if len(came) > 1:
            before[number](number, frame)
        timers.append(threading.Timer(GRACE, os.kill, (os.getpid(), number)))
        timers[0].daemon = True
        timers[0].start()

    for number in before:
        signal.signal(number, hold)
    try:
        yield lambda: bool(came)
    finally:
        for timer in timers:
            timer.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            before[came[0]](came[0], None)


def interrupts(handler: object) -> bool:
    return handler is signal.default_int_handler or isinstance(handler, Interrupt)
