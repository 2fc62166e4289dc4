"""Train in two processes that talk through gloo, and compare with one."""

import json
import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchbench.extension.conformance.fixtures import Broken, Skip, Subject, jittered, short_run
from benchbench.extension.conformance.side_effects import unguarded
from benchbench.extension.contracts import Objective
from benchbench.training.loop import Augment

STEPS, ROWS, LR = 20, 13, 2e-4  # rows that two processes cannot share equally
TOLERANCE = 1e-5  # of a loss; or ten times what rounding makes of it in one process
PATIENCE = 60  # seconds until two processes count as hung

Factory = Callable[..., Objective]


def two_processes_as_one(subject: Subject) -> None:
    """Broken if two processes that share every batch have other losses than one process has."""
    if not torch.distributed.is_available() or sys.platform == "win32":
        raise Skip("torch.distributed is not available here")
    factory, options, probe = subject.entry.factory, subject.entry.options, subject.probe
    alone = losses(factory, options, probe)
    rounding = furthest(alone, losses(factory, options, probe, nudged))
    allowed = max(TOLERANCE, 10 * rounding)
    for rank, together in enumerate(in_two(factory, options, probe)):
        for step, (one, both) in enumerate(zip(alone, together, strict=True), 1):
            if not furthest([one], [both]) <= allowed:
                raise Broken(
                    f"of two processes that share the batches, number {rank} has loss {both:.6g} "
                    f"at step {step} where one process has {one:.6g}; draw nothing from the rank, "
                    "the clock or a process's own state, and call the encoder itself"
                )


def furthest(some: list[float], others: list[float]) -> float:
    """The largest difference of two losses, relative where they are above 1."""
    return max(abs(a - b) / max(1.0, abs(a)) for a, b in zip(some, others, strict=True))


def nudged(images: Tensor) -> Tensor:
    """Views that differ from the usual ones by rounding, which some objectives amplify."""
    views = jittered(images)
    return views + torch.finfo(torch.float32).eps * (1e4 * views).sin()


def in_two(factory: Factory, options: Any, probe: Any) -> list[list[float]]:
    """The losses that each of two processes sees."""
    with unguarded(), tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["benchbench.extension.conformance.fixtures"])
        module = sys.modules.get(getattr(factory, "__module__", ""))
        file = getattr(module, "__file__", None) or ""
        place = (file, module.__name__ if module else "", getattr(factory, "__qualname__", ""))
        ranks = [
            context.Process(
                target=one_rank, args=(rank, Path(folder), place, options, probe), daemon=True
            )
            for rank in range(2)
        ]
        for process in ranks:
            process.start()
        for process in ranks:
            process.join(PATIENCE)
        hung = [process for process in ranks if process.is_alive()]
        for process in hung:
            process.kill()
            process.join()
        words = [path.read_text() for path in sorted(Path(folder).glob("error-*"))]
        if words:
            raise Broken(f"in one of two processes {words[0]}")
        if hung:
            raise Broken(
                f"two processes hang for {PATIENCE} s; every rank must take part in every "
                "collective call"
            )
        return [json.loads((Path(folder) / f"losses-{rank}").read_text()) for rank in range(2)]


def one_rank(
    rank: int, folder: Path, place: tuple[str, str, str], options: Any, probe: Any
) -> None:
    """One of the two. What goes wrong is left as a file."""
    torch.set_num_threads(1)
    try:
        torch.distributed.init_process_group(
            "gloo",
            init_method=f"file://{folder / 'meeting'}",
            rank=rank,
            world_size=2,
            timeout=timedelta(seconds=PATIENCE // 2),
        )
        told = losses(factory_at(*place), options, probe)
        (folder / f"losses-{rank}").write_text(json.dumps(told))
        torch.distributed.destroy_process_group()
    except BaseException as error:
        (folder / f"error-{rank}").write_text(f"{type(error).__name__}: {error}")
        os._exit(1)  # without waiting for the other rank


def factory_at(file: str, module: str, name: str) -> Factory:
    """Found again in another process, also where it is from a file and not from a package."""
    from importlib import import_module

    from benchbench.extension.catalog import FILE_MODULE, module_of

    found: Any = module_of(Path(file)) if module.startswith(FILE_MODULE) else import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


def losses(
    factory: Factory, options: Any, probe: Any, augment: Augment | None = None
) -> list[float]:
    """Of some steps of the real loop."""
    run = short_run(
        probe,
        lambda encoder, task: factory(encoder, task, **options),
        steps=STEPS,
        batch=ROWS,
        lr=LR,
        augment=augment,
    )
    return run.losses
