"""A long training run: whether it comes to need more memory, or more time for a step."""

import re
import time
from array import array
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median

import torch
from torch import Tensor

from benchbench.benchmarks.training_step import now, simclr, train_on
from benchbench.extension.catalog import Catalog
from benchbench.extension.errors import BadInput
from benchbench.training.budget import Budget
from benchbench.training.device import Machine, keep_freed_memory

STATUS = Path("/proc/self/status")
SETTLED = 20  # memory is first read after one in so many steps
SLOW = 3  # times the median


class Diary:
    """Told of every step, it notes when that was, and the memory in use soon and at the end."""

    def __init__(
        self,
        steps: int,
        memory: Callable[[], float],
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.ticks = array("d", bytes(8 * steps))  # all of it now: nothing here grows
        self.memory, self.clock = memory, clock
        self.soon = self.late = 0.0

    def __call__(self, done: int, loss: Tensor) -> None:
        self.ticks[done - 1] = self.clock()
        if done == max(1, len(self.ticks) // SETTLED):
            self.soon = self.memory()
        if done == len(self.ticks):
            self.late = self.memory()

    def told(self) -> dict[str, float]:
        spans = [1e3 * (later - before) for before, later in pairwise(self.ticks)]
        tenth = max(1, len(spans) // 10)
        first, usual, last = median(spans[:tenth]), median(spans), median(spans[-tenth:])
        return {
            "steps": len(self.ticks),
            "memory_after_5_percent_mb": self.soon,
            "memory_at_the_end_mb": self.late,
            "growth_mb": self.late - self.soon,
            "step_ms": usual,
            "first_tenth_ms": first,
            "last_tenth_ms": last,
            "last_to_first": last / first,
            "slow_steps": sum(span > SLOW * usual for span in spans),
            "slowest_ms": max(spans),
            "slowest_to_median": max(spans) / usual,
        }


def run_steadily(
    catalog: Catalog, machine: Machine, shape: str, batch_size: int, steps: int
) -> dict[str, float]:
    """SimCLR on random images, in one stage of so many steps."""
    keep_freed_memory()
    budget = Budget(steps, batch_size, lr=1e-4, weight_decay=1e-4, warmup=0.1)
    diary = Diary(steps, lambda: memory_mb(machine), lambda: now(machine))
    train_on(machine, *simclr(catalog, machine, shape, batch_size), budget, diary)
    return diary.told()


def memory_mb(machine: Machine) -> float:
    """Of the process what is resident, or on a GPU what tensors hold."""
    if machine.device.type == "cuda":
        return torch.cuda.memory_allocated(machine.device) / 1e6
    if not STATUS.exists():
        raise BadInput(f"resident memory is read from {STATUS}, which is not here; try a GPU")
    resident = re.search(r"VmRSS:\s+(\d+) kB", STATUS.read_text())
    assert resident
    return int(resident[1]) * 1024 / 1e6
