"""On this machine: cells one after the other in this process, or tasks in several processes."""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import inf, isfinite
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Protocol, Self

import torch

from benchbench.execution.cell import Watcher
from benchbench.execution.child_processes import end_with_parent, ended_within, start_server
from benchbench.execution.job import (
    Ended,
    Job,
    Task,
    attempt,
    check_ranks,
    gpus_for,
    train_together_for,
    work_with,
)
from benchbench.execution.process_ranks import Together, alone
from benchbench.execution.requested_resources import Rules
from benchbench.extension.process_isolation import how_it_died
from benchbench.store.records import Record
from benchbench.suites.plan import Plan
from benchbench.suites.suite import Cell
from benchbench.training.device import keep_freed_memory
from benchbench.training.stop_signals import raised_by

GRACE = 10.0  # seconds in which a worker that is asked to stop may do so


class Audience(Protocol):
    """Who is told how a suite goes on."""

    def cell_starts(self, cell: Cell) -> Watcher: ...

    def cell_fails(self, trace: str) -> None: ...

    def cell_ends(self, record: Record) -> None: ...


def run_cells(
    plan: Plan,
    cells: Sequence[Cell],
    audience: Audience,
    together: Together = alone,
    *,
    debug: bool = False,
) -> list[Record]:
    """Run every cell here; one that fails is recorded as such and does not stop the others.

    With ``debug`` it does: what it raises is raised.

    BadInput, which a later cell would meet too (no space left), and KeyboardInterrupt do. Cells
    that another process is at come last.
    """
    keep_freed_memory()
    records: dict[Cell, Record] = {}
    for cell in sorted(cells, key=lambda cell: plan.store.claims.living(plan.cell_id(cell))):
        watcher = audience.cell_starts(cell)
        records[cell], trace = attempt(cell, plan, watcher, together, debug=debug)
        if trace:
            audience.cell_fails(trace)
        audience.cell_ends(records[cell])
    return [records[cell] for cell in cells]


class Processes:
    """Tasks in ``count`` processes, which share the cores and GPUs of this machine.

    A task that takes longer than it may is ended.
    """

    def __init__(self, job: Job, count: int, said: Sequence[str] = ()) -> None:
        self.count, self.rules = count, Rules.read(said)
        self.rules.check("local:N", ("time",))
        check_ranks(job)
        spread = job.device in ("auto", "cuda") and gpus_for(job)
        self.per_device = -(-count * job.ranks // spread) if spread else count
        self.jobs = [self._job(job, number, spread or 0) for number in range(count)]
        self.workers: list[Worker] = []

    def _job(self, job: Job, number: int, gpus: int) -> Job:
        """What one of the processes is told: its share of the cores, and its GPUs, of which it has
        one for each process that trains stages with it."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        threads = min(torch.get_num_threads(), max(1, (cores or 1) // self.count))
        device = f"cuda:{number * job.ranks % gpus}" if gpus else job.device
        return replace(job, threads=threads, device=device, memory_share=1 / self.per_device)

    def __enter__(self) -> Self:
        self.workers = [Worker.hired(job) for job in self.jobs]
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self.workers:
            worker.process.terminate()
        ended_within(GRACE, [worker.process for worker in self.workers])

    @property
    def free(self) -> int:
        return sum(worker.task is None for worker in self.workers)

    def start(self, tasks: Sequence[Task]) -> None:
        idle = (worker for worker in self.workers if worker.task is None)
        for task, worker in zip(tasks, idle, strict=False):
            worker.task, worker.time = task, self.rules.of(task).time
            worker.started = time.monotonic()
            with suppress(OSError):  # it died while it was idle, which `ended` will find
                worker.line.send(task)

    def ended(self) -> Iterator[Ended]:
        busy = [worker for worker in self.workers if worker.task]
        soonest = min(worker.left() for worker in busy)
        ready = wait([worker.line for worker in busy], soonest if isfinite(soonest) else None)
        for number, worker in enumerate(self.workers):
            late = worker.left() < 0
            if worker.task is None or not (late or worker.line in ready):
                continue
            task, worker.task = worker.task, None
            try:
                if worker.line not in ready:
                    worker.process.kill()
                yield worker.line.recv()
            except (EOFError, OSError):
                worker.process.join()
                self.workers[number] = Worker.hired(worker.job)
                if late:
                    yield Ended(task.key, "failed", f"it took more than {worker.time:g} s")
                    continue
                how = how_it_died(worker.process.exitcode or 0)
                yield Ended(task.key, "lost", f"its process {how}")


@dataclass
class Worker:
    job: Job
    process: BaseProcess
    line: Connection
    task: Task | None = None
    time: float | None = None  # seconds that the task may take
    started: float = 0.0

    def left(self) -> float:
        """Seconds that a task still may take."""
        if self.task is None or self.time is None:
            return inf
        return self.started + self.time - time.monotonic()

    @classmethod
    def hired(cls, job: Job) -> "Worker":
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        start_server()
        mine, its = context.Pipe()
        process = context.Process(target=serve, args=(its, job))
        process.start()
        its.close()  # so that its end, when it dies, is the end of the line
        return cls(job, process, mine)


def serve(line: Connection, job: Job) -> None:
    """Work until told to stop, or until whoever tells is gone."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # from a terminal; the head stops its workers
    with suppress(KeyboardInterrupt), raised_by(), train_together_for(job) as together:
        while True:
            line.send(work_with(together, job, line.recv()))
