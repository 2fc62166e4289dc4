"""Stages trained in several processes of this machine, each of which reads its share of a batch."""

import gc
import multiprocessing
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import torch
import torch.distributed as dist

from benchbench.execution.cell import silent, trained
from benchbench.execution.child_processes import end_with_parent, ended_within, start_server
from benchbench.extension.errors import BadInput
from benchbench.extension.process_isolation import how_it_died
from benchbench.suites.plan import Link, Plan
from benchbench.suites.suite import Cell
from benchbench.training.loop import Diverged
from benchbench.training.stop_signals import raised_by

Together = Callable[[Cell, Sequence[Link], Plan], None]  # trains what is missing of the stages
PATIENCE = timedelta(minutes=30)  # for a process that does not answer; one that died is noticed
GRACE = 8.0  # seconds in which a process that is asked to stop may leave a checkpoint
AFTER = 0.2  # seconds in which the death shows of a process on whose account another one fails


def alone(cell: Cell, links: Sequence[Link], plan: Plan) -> None:
    """Nothing is trained by several processes."""


class RankDied(Exception):
    """One of the processes that train a stage together ended before its time."""


@dataclass
class Rank:
    process: BaseProcess
    line: Connection


class Ranks:
    """``count`` processes, started with the first stage, which live until this is left.

    ``make_plan`` makes the plan of a process from the job and its rank. Calling with a chain's
    stages trains those that are missing; they are in the store then. It raises BadInput and
    Diverged as they do, RankDied if one of them dies, and RuntimeError with what the first one said
    that failed. Then all of them end, and the next call starts new ones; the stage goes on from its
    last checkpoint when it is tried again.
    """

    def __init__(self, make_plan: Callable[[Any, int], Plan], job: object, count: int) -> None:
        self.make_plan, self.job, self.count = make_plan, job, count
        self.ranks: list[Rank] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for rank in self.ranks:
            with suppress(OSError):
                rank.line.send(None)
        self._gone()

    def __call__(self, cell: Cell, links: Sequence[Link], plan: Plan) -> None:
        if all(plan.trained(link) for link in links):
            return
        try:
            if not all(rank.process.is_alive() for rank in self.ranks):  # one died at rest
                self._stop()
            if not self.ranks:
                self._start()
            give_back_memory()
            for rank in self.ranks:
                with suppress(OSError):  # it died, which is found below
                    rank.line.send((cell, len(links)))
            self._wait_for(cell)
        except BaseException:
            self._stop()
            raise

    def _start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        start_server()
        self.folder = TemporaryDirectory()
        for number in range(self.count):
            mine, its = context.Pipe()
            process = context.Process(
                target=one_rank,
                args=(its, number, self.make_plan, self.job, self.count, Path(self.folder.name)),
                daemon=True,
            )
            process.start()
            its.close()  # so that its end, when it dies, is the end of the line
            self.ranks.append(Rank(process, mine))

    def _wait_for(self, cell: Cell) -> None:
        """Until all have done what they were sent. The first thing that went wrong is raised."""
        waiting = {rank.line: rank for rank in self.ranks}
        said: list[tuple[float, str, str]] = []
        while waiting and not said:
            said = [told for line in wait([*waiting]) if (told := self._told(waiting, line, cell))]
        if not said:
            return
        deadline = time.monotonic() + AFTER
        while waiting and (ready := wait([*waiting], deadline - time.monotonic())):
            said += [told for line in ready if (told := self._told(waiting, line, cell))]
        _, name, words = min(said)
        for kind in (BadInput, Diverged):
            if name == kind.__name__:
                raise kind(words)
        raise RuntimeError(f"{name}: {words}")

    def _told(
        self, waiting: dict[Any, Rank], line: Any, cell: Cell
    ) -> tuple[float, str, str] | None:
        """What a process says that went wrong, and when. RankDied if it says nothing more."""
        rank = waiting.pop(line)
        try:
            told: tuple[float, str, str] | None = line.recv()
        except (EOFError, OSError):
            rank.process.join()
            raise RankDied(
                f"process {self.ranks.index(rank) + 1} of the {self.count} that trained {cell} "
                f"{how_it_died(rank.process.exitcode or 0)}"
            ) from None
        return told

    def _stop(self) -> None:
        for rank in self.ranks:
            rank.process.terminate()
        self._gone()

    def _gone(self) -> None:
        """Once they are asked to end, they have GRACE for it."""
        try:
            ended_within(GRACE, [rank.process for rank in self.ranks])
        finally:
            for rank in self.ranks:
                rank.line.close()
            if self.ranks:
                self.folder.cleanup()
            self.ranks = []


def one_rank(
    line: Connection,
    rank: int,
    make_plan: Callable[[Any, int], Plan],
    job: object,
    count: int,
    folder: Path,
) -> None:
    """Train what is sent until nothing is, or something goes wrong, which is said."""
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started this process ends it
    with suppress(KeyboardInterrupt, EOFError), raised_by():
        try:
            dist.init_process_group(
                backend(),
                init_method=f"file://{folder / 'meeting'}",
                rank=rank,
                world_size=count,
                timeout=PATIENCE,
            )
            plan = make_plan(job, rank)
            while sent := line.recv():
                cell, depth = sent
                trained(cell, plan.links(cell)[:depth], plan, silent)
                give_back_memory()
                line.send(None)
            dist.destroy_process_group()
        except EOFError:
            raise
        except (Exception, SystemExit) as error:  # a plugin may exit, and means only itself
            line.send((time.monotonic(), type(error).__name__, str(error)))


def give_back_memory() -> None:
    """Of the GPU what is kept for later, since another process goes on there."""
    gc.collect()
    torch.cuda.empty_cache()


def backend() -> str:
    """By what processes talk."""
    return "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
