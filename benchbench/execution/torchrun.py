"""Stages trained by processes that torchrun has started, on one machine or on several.

Each runs the same command. The first one is the head, which runs the cells; with the others it
trains stages. Between stages they wait for it, and do not talk otherwise: the group in which they
train is made for each stage.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Self

import torch
import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from benchbench.execution.cell import silent, trained
from benchbench.execution.process_ranks import PATIENCE, backend
from benchbench.extension.errors import BadInput
from benchbench.store.artifacts import Store
from benchbench.suites.plan import Link, Plan
from benchbench.suites.suite import Cell
from benchbench.training.stop_signals import raised_by

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # that torchrun sets
LOOK_EVERY = 0.1  # seconds
GRACE = 60.0  # seconds in which all leave a stage that fails for one of them
LAST = 5.0  # seconds in which all hear that there is no more to do
END = "end"  # what the head says when there is nothing more to train


@dataclass(frozen=True)
class Torchrun:
    """This process among those that torchrun has started."""

    rank: int
    count: int
    local: int  # its number among those of its machine

    @classmethod
    def found(cls, environment: Mapping[str, str] = os.environ) -> "Torchrun | None":
        """None where torchrun has started nothing, or one process alone. BadInput if it says
        nonsense."""
        told = {name: environment[name] for name in NAMES if name in environment}
        if len(told) < len(NAMES) or told["WORLD_SIZE"] == "1":
            return None
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT"):
            if not told[name].isdecimal():
                raise BadInput(f"{name} = {told[name]!r} in the environment should be a number")
        return cls(*(int(told[name]) for name in NAMES[:3]))

    @property
    def follows(self) -> bool:
        """Whether it is not the head."""
        return self.rank > 0

    def ranks(self, said: int, launch: str) -> int:
        """How many processes train a stage. BadInput if the command says something else."""
        if launch != "local":
            raise BadInput(
                f"torchrun has started {self.count} processes, which train stages together: leave "
                f"out --launch {launch}"
            )
        if said not in (1, self.count):
            raise BadInput(
                f"--ranks {said}: torchrun has started {self.count} processes; leave out --ranks"
            )
        return self.count

    def device(self, said: str) -> str:
        """Its own GPU, where there are GPUs and no other device is asked for. BadInput if there are
        fewer GPUs than processes on this machine."""
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if said not in ("auto", "cuda") or not count:
            return said
        if self.local >= count:
            raise BadInput(
                f"torchrun has started more than {count} processes on this machine, which has "
                f"{count} GPU{'s' if count > 1 else ''}; start one for each"
            )
        torch.cuda.set_device(self.local)
        return f"cuda:{self.local}"

    @cached_property
    def store(self) -> Any:
        """Where the processes leave word for each other: torch's, at the address of the first."""
        return next(rendezvous("env://", timeout=PATIENCE))[0]

    @contextmanager
    def group(self, number: int) -> Iterator[None]:
        """All processes, while they train a stage together."""
        dist.init_process_group(
            backend(),
            store=PrefixStore(f"stages-{number}", self.store),
            rank=self.rank,
            world_size=self.count,
            timeout=PATIENCE,
        )
        try:
            yield
        finally:
            dist.destroy_process_group()


class Head:
    """Trains missing stages with the others, and lets them go when it is left."""

    def __init__(self, torchrun: Torchrun) -> None:
        self.torchrun, self.number = torchrun, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        store = self.torchrun.store
        store.set(f"task-{self.number}", END)
        for rank in range(1, self.torchrun.count):  # the store may end with this process
            _seen(store, f"gone-{rank}", LAST)

    def __call__(self, cell: Cell, links: Sequence[Link], plan: Plan) -> None:
        """BadInput if another one does not come out of a stage that has failed here."""
        if all(plan.trained(link) for link in links):
            return
        torchrun, number = self.torchrun, self.number
        self.number += 1
        task = [plan.cells.index(cell), len(links), links[-1].key]
        torchrun.store.set(f"task-{number}", json.dumps(task))
        try:
            with torchrun.group(number):
                trained(cell, list(links), plan, silent)
        except Exception as error:
            torchrun.store.set(f"left-{number}-0", "")
            for rank in range(1, torchrun.count):
                if not _seen(torchrun.store, f"left-{number}-{rank}", GRACE):
                    raise BadInput(
                        f"process {rank + 1} of the {torchrun.count} that trained {cell} does not "
                        f"answer any more, and here {type(error).__name__}: {error}; start "
                        "torchrun again to go on"
                    ) from error
            raise


def follow(torchrun: Torchrun, plan: Plan) -> None:
    """Train with the head what it wants trained, until it is done.

    Where a stage fails for all, as one whose loss becomes NaN does, the next one is trained. Where
    it fails here alone, what it raises ends this process, and with it all that torchrun started.
    """
    plan = replace(plan, store=Store(plan.store.root, writes=False))
    number = 0
    with raised_by():
        while (told := _word(torchrun.store, f"task-{number}")) != END:
            place, depth, key = json.loads(told)
            cell = plan.cells[place]
            links = plan.links(cell)[:depth]
            if links[-1].key != key:
                raise BadInput(
                    f"{cell}: this process, on {plan.machine.name} in {plan.machine.precision}, "
                    "has another key for it than the first one; install the same packages and "
                    "plugins on all machines, and set precision in the suite"
                )
            try:
                with torchrun.group(number):
                    trained(cell, links, plan, silent)
            except Exception:
                torchrun.store.set(f"left-{number}-{torchrun.rank}", "")
                if not _seen(torchrun.store, f"left-{number}-0", GRACE):
                    raise
            number += 1
    torchrun.store.set(f"gone-{torchrun.rank}", "")


def _word(store: Any, name: str) -> str:
    """What is said under a name, as soon as it is."""
    _seen(store, name, float("inf"))
    said: bytes = store.get(name)
    return said.decode()


def _seen(store: Any, name: str, seconds: float) -> bool:
    """Whether something is said under a name within a time."""
    deadline = time.monotonic() + seconds
    while not store.check([name]):
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_EVERY)
    return True
