"""What any process needs to do a part of a suite, and how it does it."""

import errno
import traceback
from bdb import BdbQuit
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import torch

from benchbench.data.preparation import Report
from benchbench.execution.cell import Watcher, describe, execute, silent, trained
from benchbench.execution.process_ranks import Ranks, Together, alone
from benchbench.extension.catalog import Catalog, Wanted, load
from benchbench.extension.errors import BadInput
from benchbench.store.artifacts import Store
from benchbench.store.records import Record, Status
from benchbench.suites.plan import Plan
from benchbench.suites.suite import Cell, Suite
from benchbench.training.device import keep_freed_memory
from benchbench.training.loop import Diverged


@dataclass(frozen=True)
class Job:
    """All that a plan is made of, to make the same plan in another process or on another machine.

    The folders are absolute: whoever works on the suite sees the same ones.
    """

    suite: Suite
    wanted: Wanted
    data: Path
    store: Path
    device: str
    compiled: bool = False
    checkpoint_every: float = 60.0  # seconds
    ranks: int = 1  # processes that train a stage together
    threads: int | None = None  # of torch, on the CPU; None: as many as it takes itself
    memory_share: float = 1.0  # of a GPU's memory

    def plan(self, report: Report) -> Plan:
        """BadInput if the data, the machine or what the suite names is not there."""
        return self.plan_with(load(self.wanted), Store(self.store), report)

    def plan_with(self, catalog: Catalog, store: Store, report: Report) -> Plan:
        """The same with a catalog, and a store, of this process."""
        made = Plan.make(
            self.suite, catalog, self.data, store, self.device, report, compiled=self.compiled
        )
        machine = replace(made.machine, memory_share=self.memory_share)
        return replace(made, checkpoint_every=self.checkpoint_every, machine=machine)


@dataclass(frozen=True)
class Task:
    """A cell, or the stages of one up to a depth, for which others wait."""

    cell: Cell
    depth: int | None  # of the last stage to train; None: the whole cell
    key: str  # of what it leaves
    needs: str | None = None  # the key of the stage that has to be there before
    trains: tuple[str, ...] = ()  # the objectives of the stages that are left to it

    def __str__(self) -> str:
        if self.depth is None:
            return str(self.cell)
        return f"{self.cell}: {self.cell.method.chain[self.depth].objective}"


@dataclass(frozen=True)
class Ended:
    """How a task ended: a status that a record may have, or one of the other two."""

    key: str
    status: Status | str  # "lost": its process died; "stop": nothing can go on
    reason: str | None = None
    trace: str | None = None


@cache
def plan_of(job: Job) -> Plan:
    """In a process that works for others: made once, and it has the process to itself."""
    keep_freed_memory()
    if job.threads:
        torch.set_num_threads(job.threads)
    plan = job.plan(lambda done, total: None)
    if plan.machine.device.type == "cuda" and job.memory_share < 1:
        torch.cuda.set_per_process_memory_fraction(job.memory_share, plan.machine.device)
    return plan


def work(job: Job, task: Task) -> Ended:
    """Do a task of another process's plan. What it leaves is in the store."""
    with train_together_for(job) as together:
        return work_with(together, job, task)


def work_with(together: Together, job: Job, task: Task) -> Ended:
    """The same with what trains stages in several processes, where it is there already."""
    try:
        plan = plan_of(job)
        check_same(plan, task)
        if task.depth is None:
            record, trace = attempt(task.cell, plan, silent, together)
            return Ended(task.key, record.status, record.reason, trace)
        links = plan.links(task.cell)[: task.depth + 1]
        together(task.cell, links, plan)
        trained(task.cell, links, plan, silent)
        return Ended(task.key, "scored")
    except BadInput as error:
        return Ended(task.key, "stop", str(error))
    except (Exception, SystemExit) as error:  # a plugin may exit, and means only itself
        return Ended(task.key, *ending(error), traceback.format_exc())


def attempt(
    cell: Cell, plan: Plan, watcher: Watcher, together: Together, *, debug: bool = False
) -> tuple[Record, str | None]:
    """The cell's record, also where it failed, and the traceback of that.

    Waits for another process that is at the same cell. BadInput, which a later cell would meet too
    (no space left), and KeyboardInterrupt are raised, and no record is kept; leaving a debugger is
    an interrupt. With ``debug`` everything is raised.
    """
    with plan.store.claims.held(plan.cell_id(cell), str(cell)):
        if plan.done(cell) and (known := plan.record(cell)):
            return known, None
        try:
            together(cell, plan.links(cell), plan)
            return execute(cell, plan, watcher), None
        except BadInput:
            raise
        except BdbQuit:
            raise KeyboardInterrupt("a debugger was left") from None
        except (Exception, SystemExit) as error:  # a plugin may exit, and means only itself
            if debug:
                raise
            record = describe(cell, plan, *ending(error))
            plan.store.write_record(record)
            return record, traceback.format_exc()


def train_together_for(job: Job) -> AbstractContextManager[Together]:
    """What trains missing stages in several processes, where the job asks for that."""
    return nullcontext(alone) if job.ranks == 1 else Ranks(rank_plan, job, job.ranks)


def rank_plan(job: Job, rank: int) -> Plan:
    """The plan in one of several processes that train a stage together: the first one writes."""
    device = device_of(job, rank)
    if device.startswith("cuda"):
        torch.cuda.set_device(device)
    threads = max(1, (job.threads or torch.get_num_threads()) // job.ranks)
    plan = plan_of(replace(job, device=device, threads=threads))
    return replace(plan, store=Store(job.store, writes=rank == 0))


def device_of(job: Job, rank: int) -> str:
    """Where a process works that trains stages with others: each on the GPU after the one before.

    The first has the job's own GPU, and after the machine's last one comes its first.
    """
    count = gpus_for(job)
    return f"cuda:{(first_gpu(job) + rank) % count}" if count else job.device


def check_ranks(job: Job) -> None:
    """BadInput if there are fewer GPUs than processes that train a stage together."""
    count, first = gpus_for(job), first_gpu(job)
    if count and job.ranks > 1 and first + job.ranks > count:
        there = f"{count} GPUs" if count > 1 else "1 GPU"
        onwards = f" from {job.device} on, which" if first else ", which"
        raise BadInput(
            f"--ranks {job.ranks} needs {job.ranks} GPUs{onwards} are not here: this machine has "
            f"{there}; choose fewer ranks"
        )


def gpus_for(job: Job) -> int:
    """How many GPUs this machine has; none if the job asks for the CPU."""
    return torch.cuda.device_count() if job.device != "cpu" and torch.cuda.is_available() else 0


def first_gpu(job: Job) -> int:
    """The number of the one that the job names."""
    number = job.device.removeprefix("cuda:")
    return int(number) if number.isdecimal() else 0


def check_same(plan: Plan, task: Task) -> None:
    """BadInput if this process would do something else than was meant."""
    cell, depth = task.cell, task.depth
    key = plan.cell_id(cell) if depth is None else plan.links(cell)[depth].key
    if key != task.key:
        raise BadInput(
            f"{task}: a worker, on {plan.machine.name} in {plan.machine.precision}, has another "
            "key for it; install the same packages and plugins there, and set precision in the "
            "suite"
        )


def ending(error: BaseException) -> tuple[Status, str]:
    """How a cell ended that has no score, and why in a line that names no user."""
    told = [f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())]
    reason = "; ".join(each.partition("\n")[0] for each in told)
    return failure(error), reason.replace(str(Path.home()), "~")


def failure(error: BaseException) -> Status:
    if isinstance(error, Diverged | FloatingPointError):
        return "diverged"
    words = str(error)  # on the CPU torch raises RuntimeError when memory runs out
    exhausted = isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        isinstance(error, OSError) and error.errno == errno.ENOMEM
    )
    said = ("can't allocate memory", "OutOfMemoryError")  # the second of one of several processes
    return "oom" if exhausted or any(word in words for word in said) else "failed"
