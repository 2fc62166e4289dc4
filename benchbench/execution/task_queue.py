"""A suite as tasks for several workers: what goes first, and what is done when one dies."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, Self, cast

from benchbench.execution.cell import describe
from benchbench.execution.job import Ended, Task
from benchbench.execution.local import Audience
from benchbench.extension.errors import BadInput
from benchbench.store.records import Record, Status
from benchbench.suites.plan import Plan
from benchbench.suites.suite import Cell

TRIES = 3  # of a task whose process dies


class Engine(AbstractContextManager["Engine"], Protocol):
    """Workers somewhere. Left, it stops what still runs."""

    @property
    def free(self) -> int:
        """How many tasks could be started now."""

    def start(self, tasks: Sequence[Task]) -> None: ...

    def ended(self) -> Iterable[Ended]:
        """Waits until at least one is."""

    def __enter__(self) -> Self: ...


def tasks_of(plan: Plan, cells: Sequence[Cell]) -> list[Task]:
    """The cells, and before them the stages that several of them lack, the most wanted first.

    What is shared is trained by one task, for which the others wait; what a cell alone needs is
    part of its own.
    """
    wanted: dict[str, int] = {}
    missing = {cell: plan.missing(cell) for cell in cells}
    for links in missing.values():
        for link in links:
            wanted[link.key] = wanted.get(link.key, 0) + 1

    stages: dict[str, Task] = {}
    whole: list[Task] = []
    for cell, links in missing.items():
        needs: str | None = None
        mine = []
        for link in links:
            if wanted[link.key] == 1:
                mine.append(link.stage.objective)
                continue
            if link.key not in stages:
                trains = (link.stage.objective,)
                stages[link.key] = Task(cell, link.depth, link.key, needs, trains)
            needs = link.key
        whole.append(Task(cell, None, plan.cell_id(cell), needs, tuple(mine)))
    return [*sorted(stages.values(), key=lambda task: -wanted[task.key]), *whole]


def run_tasks(
    plan: Plan, cells: Sequence[Cell], engine: Engine, audience: Audience
) -> list[Record]:
    """Run every cell on the engine's workers; like `run_cells`, whatever becomes of a cell.

    A task whose process dies is tried three times. A cell for whose stage there is no hope is
    recorded as its stage ended.
    """
    waiting = {task.key: task for task in tasks_of(plan, cells)}
    running: dict[str, Task] = {}
    tried: dict[str, int] = {}
    over: dict[str, Ended] = {}
    records: dict[Cell, Record] = {}

    def conclude(task: Task, end: Ended, *, recorded: bool) -> None:
        over[task.key] = end
        if end.trace:
            audience.cell_fails(end.trace)
        if task.depth is None:
            record = (kept_record if recorded else new_record)(task, end, plan)
            records[task.cell] = record
            audience.cell_ends(record)

    with engine:
        while waiting or running:
            for key, task in [*waiting.items()]:
                before = over.get(task.needs) if task.needs else None
                if before and before.status != "scored":
                    del waiting[key]
                    conclude(task, Ended(key, before.status, before.reason), recorded=False)
            ready = [task for task in waiting.values() if task.needs is None or task.needs in over]
            starting = ready[: engine.free]
            for task in starting:
                running[task.key] = waiting.pop(task.key)
                if task.depth is None:
                    audience.cell_starts(task.cell)
            if starting:
                engine.start(starting)
            if not running:
                continue
            for end in engine.ended():
                task = running.pop(end.key)
                if end.status == "stop":
                    raise BadInput(end.reason)
                tried[task.key] = tried.get(task.key, 0) + 1
                if end.status == "lost" and tried[task.key] < TRIES:
                    waiting[task.key] = task
                    continue
                lost = end.status == "lost"
                if lost:
                    end = Ended(task.key, "failed", f"{end.reason}, {TRIES} times")
                conclude(task, end, recorded=not lost)
    return [records[cell] for cell in cells]


def kept_record(task: Task, end: Ended, plan: Plan) -> Record:
    """What the worker has recorded."""
    known = plan.record(task.cell)
    if known is None and end.status != "scored":
        return new_record(task, end, plan)
    if known is None:
        raise BadInput(
            f"{task}: a worker says that it is {end.status}, and store {plan.store.root} has no "
            "record of it; put the store where all workers see it, or gather theirs by `store "
            "export` and `store import`"
        )
    return known


def new_record(task: Task, end: Ended, plan: Plan) -> Record:
    """Of a cell that no worker could record."""
    record = describe(task.cell, plan, cast(Status, end.status), end.reason)
    plan.store.write_record(record)
    return record
