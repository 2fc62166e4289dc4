"""What a task may take of a cluster."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from math import ceil
from typing import Any

from benchbench.execution.job import Job, Task
from benchbench.extension.errors import BadInput
from benchbench.extension.grammar import instead, seconds_of

UNITS = {"MB": 10**6, "GB": 10**9, "TB": 10**12}
READOUT = "readout"  # stands for the objectives of a task that trains none


@dataclass(frozen=True)
class Resources:
    """``None`` is what the cluster gives by itself."""

    cpus: int = 1
    gpus: float = 0
    memory: int | None = None  # bytes
    time: float | None = None  # seconds

    def job(self, job: Job) -> Job:
        """The job of a task that gets these."""
        return replace(job, threads=self.cpus, device=job.device if self.gpus else "cpu")


@dataclass(frozen=True)
class Rule:
    """Resources of the tasks that train an objective."""

    pattern: str
    fields: tuple[tuple[str, Any], ...]

    def holds(self, task: Task) -> bool:
        return any(fnmatchcase(name, self.pattern) for name in task.trains or (READOUT,))


@dataclass(frozen=True)
class Rules:
    """What is said of all tasks, and after it of some; what is said last holds."""

    listed: tuple[Rule, ...] = ()
    default: Resources = Resources()
    cores: int = 0  # for each GPU, where nothing is said of cpus

    @classmethod
    def read(
        cls, texts: Sequence[str], default: Resources = Resources(), cores: int = 0
    ) -> "Rules":
        """From ``cpus=4,gpus=1,memory=16GB,time=2h``, or ``simclr*: gpus=0.5``."""
        return cls(tuple(map(_rule, texts)), default, cores)

    def check_ranks(self, ranks: int) -> None:
        """BadInput if a task that trains gets GPUs, but fewer than processes train it together."""
        for rule in self.listed:
            gpus = dict(rule.fields).get("gpus", 0)
            if ranks > 1 and rule.pattern != READOUT and 0 < gpus < ranks:
                raise BadInput(
                    f"--resources gpus={gpus:g}: --ranks {ranks} needs a GPU for each of its "
                    f"{ranks} processes; say gpus={ranks}"
                )

    def check(self, engine: str, gives: Sequence[str]) -> None:
        """BadInput if something is said that the engine cannot give."""
        for name in (name for rule in self.listed for name, _ in rule.fields):
            if name not in gives:
                known = " and ".join(gives)
                raise BadInput(f"--resources {name}=: --launch {engine} has {known} alone")

    def of(self, task: Task) -> Resources:
        said = dict(field for rule in self.listed if rule.holds(task) for field in rule.fields)
        held = replace(self.default, **said)
        cpus = said.get("cpus", max(held.cpus, ceil(self.cores * held.gpus)))
        return replace(held, cpus=cpus)


def _rule(text: str) -> Rule:
    pattern, _, listed = text.rpartition(":")
    fields = []
    for part in listed.split(","):
        name, _, value = (word.strip() for word in part.partition("="))
        if name not in READERS:
            raise BadInput(f"--resources {text!r}: {name!r} is not known; {instead(name, READERS)}")
        read = READERS[name](value)
        if read is None:
            raise BadInput(
                f"--resources {text!r}: {name} = {value!r} is no amount; write it like "
                "cpus=4,gpus=0.5,memory=16GB,time=2h"
            )
        fields.append((name, read))
    return Rule(pattern.strip() or "*", tuple(fields))


def _whole(text: str) -> int | None:
    return int(text) if text.isdecimal() and int(text) else None


def _share(text: str) -> float | None:
    """A part of a GPU, or some whole ones."""
    number = float(text) if re.fullmatch(r"\d+(\.\d+)?", text) else -1.0
    return number if 0 <= number < 1 or (number.is_integer() and number >= 0) else None


def _size(text: str) -> int | None:
    told = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(MB|GB|TB)", text)
    return int(float(told[1]) * UNITS[told[2]]) or None if told else None


READERS = {"cpus": _whole, "gpus": _share, "memory": _size, "time": seconds_of}
