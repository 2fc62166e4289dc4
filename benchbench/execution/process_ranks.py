"""One stage in several processes of this machine, each of which reads its share of every batch."""

import json
import signal
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import (
    ProcessExitedException,
    ProcessRaisedException,
    start_processes,
)

from benchbench.execution.cell import silent, trained
from benchbench.execution.child_processes import end_with_parent, start_server
from benchbench.extension.errors import BadInput
from benchbench.extension.process_isolation import how_it_died
from benchbench.suites.plan import Link, Plan
from benchbench.suites.suite import Cell
from benchbench.training.loop import Diverged
from benchbench.training.stop_signals import raised_by

Together = Callable[[Cell, list[Link], Plan], None]  # trains what is missing of a cell's stages
PATIENCE = timedelta(minutes=30)  # for a process that does not answer; one that died is noticed


def alone(cell: Cell, links: Sequence[Link], plan: Plan) -> None:
    """Nothing is trained by several processes."""


class RankDied(Exception):
    """One of the processes that train a stage together ended before its time."""


def train_together(
    make_plan: Callable[[Any, int], Plan],
    job: object,
    count: int,
    cell: Cell,
    links: Sequence[Link],
    plan: Plan,
) -> None:
    """Train the missing stages of a chain in ``count`` processes; they are in the store then.

    ``make_plan`` makes the plan of a process from the job and its rank. Raises BadInput and
    Diverged as they do, RankDied if one of them dies, and RuntimeError with what the first one said
    that failed; the stage goes on from its last checkpoint when it is tried again.
    """
    if all(plan.trained(link) for link in links):
        return
    start_server()
    with TemporaryDirectory() as folder:
        try:
            start_processes(
                one_rank,
                (make_plan, job, count, cell, len(links), Path(folder)),
                nprocs=count,
                daemon=True,
                start_method="forkserver",
            )
        except ProcessExitedException as error:
            raise RankDied(
                f"process {error.error_index + 1} of the {count} that trained {cell} "
                f"{how_it_died(error.exit_code)}"
            ) from None
        except ProcessRaisedException as error:
            name, words = json.loads((Path(folder) / f"error-{error.error_index}").read_text())
            for kind in (BadInput, Diverged):
                if name == kind.__name__:
                    raise kind(words) from None
            raise RuntimeError(f"{name}: {words}") from error


def one_rank(
    rank: int,
    make_plan: Callable[[Any, int], Plan],
    job: object,
    count: int,
    cell: Cell,
    depth: int,
    folder: Path,
) -> None:
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started this process ends it
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(
        backend,
        init_method=f"file://{folder / 'meeting'}",
        rank=rank,
        world_size=count,
        timeout=PATIENCE,
    )
    try:
        with raised_by():
            plan = make_plan(job, rank)
            trained(cell, plan.links(cell)[:depth], plan, silent)
    except Exception as error:
        said = [type(error).__name__, str(error)]
        (folder / f"error-{rank}").write_text(json.dumps(said))
        raise
    dist.destroy_process_group()
