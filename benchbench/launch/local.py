"""Run cells one after the other in this process."""

import errno
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch

from benchbench.machine import keep_freed_memory
from benchbench.plan import Plan
from benchbench.record import Record, Status
from benchbench.run import Watcher, describe, execute
from benchbench.suite import Cell
from benchbench.terms import BadInput
from benchbench.train import Diverged


class Audience(Protocol):
    """Who is told how a suite goes on."""

    def cell_starts(self, number: int, cell: Cell) -> Watcher: ...

    def cell_fails(self, trace: str) -> None: ...

    def cell_ends(self, record: Record) -> None: ...


def run_cells(plan: Plan, cells: Sequence[Cell], audience: Audience) -> list[Record]:
    """Run every cell; one that fails is recorded as such and does not stop the others.

    BadInput, which a later cell would meet too (no space left), and KeyboardInterrupt do.
    """
    keep_freed_memory()
    records = []
    for number, cell in enumerate(cells):
        watcher = audience.cell_starts(number, cell)
        try:
            record = execute(cell, plan, watcher)
        except BadInput:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            reason = reason.replace(str(Path.home()), "~")  # a record names no user
            record = describe(cell, plan, failure(error), reason)
            plan.store.write_record(record)
            audience.cell_fails(traceback.format_exc())
        audience.cell_ends(record)
        records.append(record)
    return records


def failure(error: Exception) -> Status:
    """How a cell ended that has no score."""
    if isinstance(error, Diverged | FloatingPointError):
        return "diverged"
    words = str(error)  # on the CPU torch raises RuntimeError when memory runs out
    exhausted = isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, OSError) and error.errno == errno.ENOMEM
    )
    return "oom" if exhausted or "can't allocate memory" in words else "failed"
