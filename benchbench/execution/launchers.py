"""Where a suite runs, by the name that a user gives it."""

import os
import re
from collections.abc import Sequence

from benchbench.execution.job import Job, check_ranks, train_together_for
from benchbench.execution.local import Audience, Processes, run_cells
from benchbench.execution.task_queue import Engine, run_tasks
from benchbench.execution.torchrun import Head, Torchrun
from benchbench.extension.errors import BadInput
from benchbench.store.records import Record
from benchbench.suites.plan import Plan
from benchbench.suites.suite import Cell

NAMES = "local, local:N, ray, ray:ADDRESS, slurm, slurm:PARTITION and slurm:local"


def engine_of(text: str, resources: Sequence[str], job: Job) -> Engine | None:
    """None for ``local``: one cell after the other in this process. BadInput if there is none."""
    name, colon, place = text.partition(":")
    if text == "local":
        if resources:
            raise BadInput("--resources is for workers: --launch local:1 has one, which has a time")
        check_ranks(job)
        return None
    if name == "local" and re.fullmatch("[1-9][0-9]*", place):
        return Processes(job, int(place), resources)
    if name == "ray" and bool(place) == bool(colon):
        from benchbench.execution.ray import Ray

        return Ray(job, place or None, resources)
    if name == "slurm" and bool(place) == bool(colon):
        from benchbench.execution.slurm import LOCAL, Slurm

        return Slurm(job, place or None, resources, os.cpu_count() if place == LOCAL else None)
    raise BadInput(f"--launch {text!r} is not known; there is {NAMES}")


def run_on(
    engine: Engine | None,
    job: Job,
    plan: Plan,
    cells: Sequence[Cell],
    audience: Audience,
    torchrun: Torchrun | None = None,
) -> list[Record]:
    """Run every cell where the engine is; here, where there is none, with torchrun's processes."""
    if engine is None:
        with Head(torchrun) if torchrun else train_together_for(job) as together:
            return run_cells(plan, cells, audience, together)
    plan.release()  # each worker has inputs of its own
    return run_tasks(plan, cells, engine, audience)


def processes_here(engine: Engine | None) -> int | None:
    """How many share the memory of a device of this machine; None if cells run elsewhere."""
    if engine is None:
        return 1
    return engine.per_device if isinstance(engine, Processes) else None
