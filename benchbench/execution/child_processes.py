"""What processes need that work for another one."""

import os
import signal
import threading
from multiprocessing import connection, forkserver, parent_process


def end_with_parent() -> None:
    """This process ends when the one that started it is gone, however that went."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


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
