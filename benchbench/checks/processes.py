"""Train under two processes that talk through gloo, and compare with one."""

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchbench.checks import common
from benchbench.checks.guard import unguarded
from benchbench.checks.subject import TASK, Broken, Skip, Subject
from benchbench.contracts import Objective, begun

STEPS, PATIENCE = 3, 60  # steps; seconds until two processes count as hung

Factory = Callable[..., Objective]


def two_processes_as_one(subject: Subject) -> None:
    """Broken if two processes with the same rows end at weights that one would not reach."""
    if not torch.distributed.is_available() or sys.platform == "win32":
        raise Skip("torch.distributed is not available here")
    factory, options, probe = subject.entry.factory, subject.entry.options, subject.probe
    alone = trained(factory, options, probe, lambda encoder, objective: None)
    with unguarded(), tempfile.TemporaryDirectory() as folder:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["benchbench.checks.subject"])
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
        results = [
            torch.load(Path(folder) / f"weights-{rank}", weights_only=True) for rank in range(2)
        ]
    if not (torch.equal(*results) and torch.allclose(results[0], alone, rtol=1e-3, atol=1e-4)):
        raise Broken(
            "two processes with the same rows and seed do not end where one does; draw nothing "
            "from the rank, the clock or a process's own state"
        )


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

        def average(encoder: nn.Module, objective: nn.Module) -> None:
            for parameter in [*encoder.parameters(), *objective.parameters()]:
                if parameter.grad is not None:
                    torch.distributed.all_reduce(parameter.grad)
                    parameter.grad /= 2

        weights = trained(factory_at(*place), options, probe, average)
        torch.save(weights, folder / f"weights-{rank}")
        torch.distributed.destroy_process_group()
    except BaseException as error:
        (folder / f"error-{rank}").write_text(f"{type(error).__name__}: {error}")
        os._exit(1)  # without waiting for the other rank


def factory_at(file: str, module: str, name: str) -> Factory:
    """Found again in another process, also where it is from a file and not from a package."""
    from importlib import import_module

    from benchbench.catalog import FILE_MODULE, module_of

    found: Any = module_of(Path(file)) if module.startswith(FILE_MODULE) else import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


def trained(
    factory: Factory, options: Any, probe: Any, exchange: Callable[[nn.Module, nn.Module], None]
) -> Tensor:
    """The losses of some steps of plain gradient descent, and the encoder's weights after them."""
    torch.manual_seed(0)
    encoder = probe()
    objective = begun(factory(encoder, TASK, **options), encoder, TASK)
    members = [p for p in (*encoder.parameters(), *objective.parameters()) if p.requires_grad]
    optimizer = torch.optim.SGD(members, lr=0.01)
    losses = []
    for step in range(STEPS):
        torch.manual_seed(step)
        optimizer.zero_grad()
        loss = objective(encoder, common.batch_for(objective, seed=step))
        loss.backward()
        losses.append(loss.detach().float().view(1))
        exchange(encoder, objective)
        torch.nn.utils.clip_grad_norm_(members, 1.0)  # whatever the scale of the loss
        optimizer.step()
        objective.after_step(encoder)
    return torch.cat([*losses, *(p.detach().flatten() for p in encoder.parameters())])
