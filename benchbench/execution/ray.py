"""On a Ray cluster, or on this machine as one: a process for every task."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Self

from benchbench.execution.job import Ended, Job, Task, work
from benchbench.execution.requested_resources import Resources, Rules
from benchbench.extension.errors import BadInput

GRACE = 5.0  # seconds in which a task that is asked to stop may do so


class Ray:
    """Tasks wait in Ray's own queue until their resources are free."""

    def __init__(self, job: Job, address: str | None, said: Sequence[str]) -> None:
        """BadInput if Ray is not installed, or nothing answers at the address."""
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it reports to its makers otherwise
        try:
            import ray
        except ImportError:
            raise BadInput(
                "--launch ray needs the package ray; pip install 'benchbench-shift[ray]'"
            ) from None
        self.ray: Any = ray
        self.job, self.address, self.rules = job, address, Rules.read(said)
        self.rules.check("ray", ("cpus", "gpus", "memory"))
        self.rules.check_ranks(job.ranks)
        self.running: dict[Any, Task] = {}

    def __enter__(self) -> Self:
        try:
            self.ray.init(
                address=self.address,
                include_dashboard=False if self.address is None else None,
                log_to_driver=False,
                logging_level="ERROR",
            )
        except (ConnectionError, ValueError, TimeoutError, RuntimeError) as error:
            reason = str(error).partition("\n")[0]
            raise BadInput(f"--launch ray:{self.address or ''}: {reason}") from None
        has_gpu = self.ray.cluster_resources().get("GPU", 0) and self.job.device != "cpu"
        self.rules = replace(self.rules, default=Resources(gpus=self.job.ranks if has_gpu else 0))
        self.remote = self.ray.remote(work)
        return self

    def __exit__(self, *error: object) -> None:
        refs = [*self.running]
        for force in (False, True):  # asked first, so that claims are given back
            for ref in refs:
                self.ray.cancel(ref, force=force)
            if refs:
                _, refs = self.ray.wait(refs, num_returns=len(refs), timeout=GRACE)
        self.ray.shutdown()

    @property
    def free(self) -> int:
        return 1_000_000

    def start(self, tasks: Sequence[Task]) -> None:
        for task in tasks:
            told = self.rules.of(task)
            if self.address is None:
                self._check(told)
            share = min(told.gpus, 1.0) or 1.0
            job = replace(told.job(self.job), memory_share=share)
            remote = self.remote.options(
                name=str(task),
                num_cpus=told.cpus,
                num_gpus=told.gpus,
                memory=told.memory,
                max_retries=0,  # who tries again is the head, for every engine alike
            )
            self.running[remote.remote(job, task)] = task

    def _check(self, told: Resources) -> None:
        """BadInput if this machine can never give as much; Ray would wait for ever."""
        there = self.ray.cluster_resources()
        wanted = {"cpus": "CPU", "gpus": "GPU", "memory": "memory"}
        for ours, its in wanted.items():
            asked, has = getattr(told, ours) or 0, there.get(its, 0)
            if asked > has:
                raise BadInput(f"--resources {ours}={asked}: Ray has {has:.0f} here")

    def ended(self) -> Iterator[Ended]:
        ready, _ = self.ray.wait([*self.running], num_returns=1)
        for ref in ready:
            task = self.running.pop(ref)
            try:
                yield self.ray.get(ref)
            except self.ray.exceptions.RayError as error:
                reason = " ".join(str(error).split())[:200]
                yield Ended(task.key, "lost", f"its process on Ray ended: {reason}")
