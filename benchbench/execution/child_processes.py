"""What processes need that work for another one."""

import os
import signal
import threading
import time
from collections.abc import Sequence
from multiprocessing import connection, forkserver, parent_process
from multiprocessing.process import BaseProcess


def end_with_parent() -> None:
    """This process ends when the one that started it is gone, however that went."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def ended_within(seconds: float, processes: Sequence[BaseProcess]) -> None:
    """Wait for processes that were asked to end; those that have not by then are killed."""
    deadline = time.monotonic() + seconds
    try:
        for process in processes:
            process.join(max(0.0, deadline - time.monotonic()))
    finally:  # also where a second interrupt ends the wait
        for process in processes:
            process.kill()
            process.join()


def start_server() -> None:
    """That of which processes are forked, deaf to a terminal's Ctrl-C: who started them ends them.

    It would print a traceback while it imports.
    """
    if threading.current_thread() is not threading.main_thread():
        forkserver.ensure_running()
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        forkserver.ensure_running()
    finally:
        signal.signal(signal.SIGINT, before)
