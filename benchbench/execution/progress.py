"""What a person sees while a suite runs: bars on a terminal, a line per cell elsewhere."""

import sys
import time
from functools import cached_property
from typing import NoReturn

from torch import Tensor
from tqdm import tqdm

from benchbench.execution.cell import Watcher, silent
from benchbench.store.records import Record
from benchbench.suites.suite import Cell, Stage
from benchbench.training.loop import Watch

LOOK_EVERY = 0.5  # seconds between two looks at the loss, each of which waits for the device


class Progress:
    """An audience for `run_cells`. Everything goes to standard error."""

    def __init__(self, cells: int) -> None:
        self.count, self.ended = cells, 0
        self.started: dict[str, float] = {}
        self.terminal = sys.stderr.isatty()
        self.suite = tqdm(total=cells, unit="cell", disable=not self.terminal, dynamic_ncols=True)

    def cell_starts(self, cell: Cell) -> Watcher:
        self.suite.set_description(f"{cell}")
        self.started[str(cell)] = time.monotonic()
        return self._stage_starts

    def _stage_starts(self, stage: Stage) -> Watch:
        bar = tqdm(
            total=stage.budget.steps,
            desc=f"  {stage.objective}",
            unit="step",
            leave=False,
            disable=not self.terminal,
            dynamic_ncols=True,
        )
        looked = time.monotonic()

        def watch(done: int, loss: Tensor) -> None:
            nonlocal looked
            finished = done == stage.budget.steps
            if self.terminal and (finished or time.monotonic() - looked > LOOK_EVERY):
                bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
                bar.update(done - bar.n)
                looked = time.monotonic()
            if finished:
                bar.close()

        return watch

    def cell_fails(self, trace: str) -> None:
        tqdm.write(trace, file=sys.stderr, end="")

    def cell_ends(self, record: Record) -> None:
        if record.status == "scored":
            values = {role: record.value(role) for role in ("target", "source")}
            told = [f"{role} {100 * v:.1f}" for role, v in values.items() if v is not None]
            outcome = ", ".join(told)
        else:
            outcome = f"{record.status}: {record.reason}"
        name = record.cell
        self.ended += 1
        now = time.monotonic()
        seconds = now - self.started.get(name, now)  # it may have ended before it could start
        tqdm.write(
            f"{self.ended}/{self.count} {name}: {outcome} ({seconds:.1f} s)", file=sys.stderr
        )
        self.suite.update()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        self.suite.close()


class Silence:
    """An audience that says nothing."""

    def cell_starts(self, cell: Cell) -> Watcher:
        return silent

    def cell_fails(self, trace: str) -> None:
        pass

    def cell_ends(self, record: Record) -> None:
        pass

    def __enter__(self) -> "Silence":
        return self

    def __exit__(self, *error: object) -> None:
        pass


class Counting:
    """A bar for images that are decoded, or bytes that are fetched."""

    def __init__(self, what: str, unit: str) -> None:
        self.what, self.unit = what, unit

    @cached_property
    def bar(self) -> "tqdm[NoReturn]":
        hidden = not sys.stderr.isatty()
        scaled = self.unit == "B"
        return tqdm(
            desc=self.what, unit=self.unit, unit_scale=scaled, file=sys.stderr, disable=hidden
        )

    def __call__(self, done: int, total: int) -> None:
        self.bar.total = total
        self.bar.update(done - self.bar.n)
        if done == total:
            self.bar.close()
