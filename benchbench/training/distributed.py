"""How a batch passes through an encoder: at once, in parts, or over several processes.

An objective knows nothing of it: it hands its encoder a whole batch and gets the features of the
whole batch, so that any loss over its rows is that of one process with all of them. What splits
rows undoes itself in the backward pass, and so does what joins them.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from benchbench.extension.contracts import Objective
from benchbench.training.batch_norm import BatchNormOverAll
from benchbench.training.shares import Segments, View, length, positions

Run = Callable[[Tensor], Tensor]  # rows to their features


def world() -> int:
    """How many processes train one stage together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


@contextmanager
def spread(
    encoder: nn.Module, objective: Objective, *, parts: int = 1, compiled: bool = False
) -> Iterator[None]:
    """Within, the encoder and the objective's copies of it read batches in ``parts``.

    Of each part only the features are kept; backward computes the rest again (Gao et al. 2021,
    arXiv:2101.06983). Batch norm sees a part, and counts it once. Where there are several
    processes, each reads its share of the rows of every part, with batch norm over those of all.
    """
    towers = [encoder, *(m for m in objective.modules() if alike(m, encoder))]
    if objective.looks_inside:
        towers = []
    for tower in towers:
        run: Run = tower.forward
        if compiled:
            run = torch.compile(run, dynamic=False)
        if world() > 1:
            run = over_processes(with_all_statistics(run))
        if parts > 1:
            run = in_parts(run, tower, parts)
        if run != tower.forward:
            tower.forward = run
    try:
        yield
    finally:
        for tower in towers:
            tower.__dict__.pop("forward", None)


def alike(module: nn.Module, encoder: nn.Module) -> bool:
    """Whether it is a copy of the encoder, such as a momentum encoder or a teacher."""
    if module is encoder or type(module) is not type(encoder):
        return False
    shapes = [
        [(name, value.shape) for name, value in each.state_dict().items()]
        for each in (module, encoder)
    ]
    return shapes[0] == shapes[1]


def in_parts(run: Run, tower: nn.Module, parts: int) -> Run:
    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), untracked(tower)

    def one(rows: Tensor) -> Any:
        if not torch.is_grad_enabled():
            return run(rows)
        return checkpoint(run, rows, use_reentrant=False, context_fn=contexts)

    def each(inputs: Tensor) -> Tensor:
        size = -(-len(inputs) // parts)
        starts = range(0, len(inputs), size)
        return torch.cat([one(inputs[start : start + size]) for start in starts])

    return each


@contextmanager
def untracked(encoder: nn.Module) -> Iterator[None]:
    """Batch norm uses the batch's statistics and leaves the running ones alone."""
    norms = [module for module in encoder.modules() if isinstance(module, _BatchNorm)]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


def over_processes(run: Run) -> Run:
    """Each process encodes its rows: those that it has of a view, or its share of a tensor."""

    def both(inputs: Tensor) -> Any:
        if isinstance(inputs, View) and inputs.made is None:
            return Join.apply(run(inputs.own), inputs.segments)
        rows = inputs.whole() if isinstance(inputs, View) else inputs
        return Join.apply(run(Split.apply(rows)), ((0, len(rows)),))

    return both


def with_all_statistics(run: Run) -> Run:
    """Batch norm over the rows of all processes; what is random differs between them."""

    def both(rows: Tensor) -> Tensor:
        devices = [rows.device] if rows.device.type == "cuda" else []
        there = hashlib.sha256(torch.get_rng_state().numpy().data)  # where all processes are
        there.update(bytes([dist.get_rank()]))
        with torch.random.fork_rng(devices), BatchNormOverAll():
            torch.manual_seed(int.from_bytes(there.digest()[:8]) >> 1)
            return run(rows)

    return both


class Split(torch.autograd.Function):
    """This process's share of the rows. Gradients of all shares are put together."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.segments = ((0, len(rows)),)
        return rows[share()].contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return together(gradient, ctx.segments) / world()


class Join(torch.autograd.Function):
    """The rows of all processes. Each gets the gradient of its own, times their number.

    Parameters' gradients are averaged over processes, which makes a sum of what is so multiplied,
    and leaves what every process computes alike, such as a projector's, as it is.
    """

    @staticmethod
    def forward(ctx: Any, mine: Tensor, segments: Segments) -> Tensor:
        ctx.segments = segments
        return together(mine, segments)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        mine = positions(ctx.segments, world(), gradient.device)[dist.get_rank()]
        return gradient[mine] * world(), None


def share() -> slice:
    """This process's rows of a batch, as `positions` deals them out."""
    return slice(dist.get_rank(), None, world())


def together(mine: Tensor, segments: Segments) -> Tensor:
    """The shares of all processes, in the order of the rows in the stretches: [rows, …]."""
    theirs = positions(segments, world(), mine.device)
    padded = mine.new_zeros(max(map(len, theirs)), *mine.shape[1:])
    padded[: len(mine)] = mine.detach()
    everyone = [torch.empty_like(padded) for _ in theirs]
    dist.all_gather(everyone, padded)
    whole = mine.new_empty(length(segments), *mine.shape[1:])
    for places, rows in zip(theirs, everyone, strict=True):
        whole[places] = rows[: len(places)]
    return whole


def average_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Over all processes, in one message."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if world() == 1 or not gradients:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= world()
    sizes = [gradient.numel() for gradient in gradients]
    for gradient, part in zip(gradients, flat.split(sizes), strict=True):
        gradient.copy_(part.view_as(gradient))


def as_the_first_says(value: bool) -> bool:
    """What the first of all processes says, in each of them."""
    if world() == 1:
        return value
    said = [value]
    dist.broadcast_object_list(said)
    return said[0]


def same_everywhere(value: int) -> bool:
    """Whether every process has the same number."""
    if world() == 1:
        return True
    numbers = [0] * world()
    dist.all_gather_object(numbers, value)
    return len(set(numbers)) == 1
