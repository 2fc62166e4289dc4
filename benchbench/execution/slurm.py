"""On a Slurm cluster, through submitit: an array job for the tasks that are ready."""

import math
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, islice
from typing import Any, Self

from benchbench.execution.job import Ended, Job, Task, work
from benchbench.execution.requested_resources import Resources, Rules
from benchbench.extension.errors import BadInput
from benchbench.training.stop_signals import raised_by

LOCAL = "local"  # a partition of that name is this machine, by submitit's own executor
LOOK_EVERY = 1.0  # seconds
CORES = 8  # for each GPU, to decode images and fit readouts
ARRAY = 1000  # tasks of one array; Slurm's own bound is 1,001 by default


def batched(tasks: Iterable[Task], size: int) -> Iterator[list[Task]]:
    rest = iter(tasks)
    while batch := [*islice(rest, size)]:
        yield batch


class Work:
    """What a job of the array runs; preempted or out of time, it is put in the queue again."""

    def __call__(self, job: Job, task: Task) -> Ended:
        """Slurm's signal stops the work as Ctrl-C would; then submitit does what it does."""
        import submitit

        number = signal.Signals[f"SIG{submitit.JobEnvironment.USR_SIG}"]
        requeue = signal.getsignal(number)
        try:
            with raised_by(number) as asked:
                return work(job, task)
        except KeyboardInterrupt:
            if asked.came and callable(requeue):
                requeue(number, None)
            raise

    def checkpoint(self, job: Job, task: Task) -> Any:
        """Asked for by submitit. The stage goes on from the checkpoint that was left."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self, job, task)


class Slurm:
    """Tasks wait in Slurm's own queue until their resources are free.

    Logs are in the folder ``slurm`` of the store.
    """

    def __init__(
        self, job: Job, partition: str | None, said: Sequence[str], slots: int | None = None
    ) -> None:
        """BadInput if submitit is not installed, or there is no Slurm here.

        ``slots`` bounds how many tasks are in the queue.
        """
        try:
            import submitit
        except ImportError:
            raise BadInput(
                "--launch slurm needs the package submitit; pip install 'benchbench-shift[slurm]'"
            ) from None
        self.job, self.slots = job, slots
        gpus = job.ranks if job.device.startswith("cuda") else 0
        self.rules = Rules.read(said, Resources(gpus=gpus), CORES)
        self.rules.check_ranks(job.ranks)
        for name, value in (field for rule in self.rules.listed for field in rule.fields):
            if name == "gpus" and value != int(value):
                raise BadInput(f"--resources gpus={value}: Slurm gives whole GPUs")
        here = partition == LOCAL
        try:
            self.executor = submitit.AutoExecutor(
                job.store / "slurm", cluster="local" if here else "slurm"
            )
        except RuntimeError as error:
            raise BadInput(
                f"--launch slurm: {error}; slurm:{LOCAL} runs the jobs on this machine"
            ) from None
        self.named = {} if here or partition is None else {"slurm_partition": partition}
        self.uncompleted = submitit.core.utils.UncompletedJobError
        self.failed = submitit.core.utils.FailedJobError
        self.running: dict[str, tuple[Any, Task]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        for submitted, _ in self.running.values():
            submitted.cancel()

    @property
    def free(self) -> int:
        return (self.slots or 1_000_000) - len(self.running)

    def start(self, tasks: Sequence[Task]) -> None:
        """One array for all that get the same."""
        by_resources = sorted(tasks, key=lambda task: repr(self.rules.of(task)))
        for told, group in groupby(by_resources, self.rules.of):
            self._update(told)
            for members in batched(group, ARRAY):
                jobs = [told.job(self.job)] * len(members)
                array = self.executor.map_array(Work(), jobs, members)
                for submitted, task in zip(array, members, strict=True):
                    self.running[task.key] = submitted, task

    def _update(self, told: Resources) -> None:
        asked: dict[str, Any] = {
            "name": f"benchbench-{self.job.suite.name}",
            "cpus_per_task": told.cpus,
            "gpus_per_node": int(told.gpus),
            "timeout_min": math.ceil((told.time or 24 * 3600) / 60),
        }
        if told.memory:
            asked["mem_gb"] = told.memory / 1e9
        self.executor.update_parameters(**asked, **self.named)

    def ended(self) -> Iterator[Ended]:
        while not (done := [key for key, (job, _) in self.running.items() if job.done()]):
            time.sleep(LOOK_EVERY)
        for key in done:
            submitted, _ = self.running.pop(key)
            try:
                yield submitted.result()
            except (self.uncompleted, self.failed) as error:
                reason = " ".join(str(error).split())[:200]
                yield Ended(key, "lost", f"its job {submitted.job_id} ended: {reason}")
