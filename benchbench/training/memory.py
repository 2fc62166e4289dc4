"""The memory of a training step, told from two tiny batches: what cannot fit need not be tried."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from math import ceil
from operator import le
from typing import Any
from weakref import finalize

from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchbench.extension.constants import Optimizer, Precision
from benchbench.extension.contracts import Objective, Rows
from benchbench.training.budget import Budget
from benchbench.training.device import autocast
from benchbench.training.loop import Views, make_batch

SLOTS = {"adamw": 2, "sgd": 1, "lars": 1}  # what an optimizer keeps of each parameter


@dataclass(frozen=True)
class Growth:
    """Bytes of the tensors that are held for batches of two sizes, the second twice the first."""

    rows: int  # of the second
    small: Sequence[int]
    large: Sequence[int]

    def at(self, rows: int) -> int:
        """For a batch of so many rows, which is not tried."""
        small, large = self.small, self.large
        alike = len(small) == len(large) and all(map(le, small, large))
        if not alike:  # nothing says which tensor is which
            small, large = [sum(small)], [sum(large)]
        factor = rows / self.rows
        return max(0, ceil(sum(grown(*pair, factor) for pair in zip(small, large, strict=True))))


def grown(low: int, high: int, factor: float) -> float:
    """The size at ``factor`` times the rows for which it is ``high``; for half of them it is low.

    It grows linearly, or with the square, as the similarities of all pairs do.
    """
    if 3.5 * low < high < 4.5 * low:
        return high * factor**2
    return high + 2 * (factor - 1) * (high - low)


@dataclass(frozen=True)
class Footprint:
    """The memory of a stage's step, for any batch and any number of processes that share it."""

    state: int  # parameters, buffers, gradients, the optimizer's slots
    whole: Growth  # the batch, and what its backward pass needs
    outside: Growth  # the same but for what is inside the encoder: all rows of it, in each process,
    passes: Growth  # what is inside, of its share of the rows,
    inside: Growth  # of which this is the largest pass
    passing: Growth  # what the forward pass needs for a while

    def bytes(self, budget: Budget, ranks: int = 1) -> int:
        """In each of ``ranks`` processes."""
        part = ceil(budget.batch_size / ranks / budget.parts)
        if budget.parts == ranks == 1:
            held = self.whole.at(budget.batch_size)
        else:
            inside = self.passes if budget.parts == 1 else self.inside
            held = self.outside.at(budget.batch_size) + inside.at(part)
        return self.state + held + self.passing.at(part)

    def parts_that_fit(self, budget: Budget, free: int, ranks: int = 1) -> int | None:
        """The fewest, as a power of two."""
        least, end = budget.parts.bit_length(), budget.batch_size.bit_length() - 1
        counts = (2**n for n in range(least, end))
        fit = (n for n in counts if self.bytes(replace(budget, parts=n), ranks) <= free)
        return next(fit, None)

    def batch_that_fits(self, budget: Budget, free: int, least: int, ranks: int = 1) -> int | None:
        """The largest, halved some times, of at least so many rows."""
        sizes = (budget.batch_size >> n for n in range(1, budget.batch_size.bit_length()))
        fit = (n for n in sizes if self.bytes(replace(budget, batch_size=n), ranks) <= free)
        return next((n for n in fit if n >= least), None)

    def ranks_that_fit(self, budget: Budget, free: int, ranks: int, most: int) -> int | None:
        """The fewest, as a power of two above ``ranks``, and at most ``most``."""
        counts = (2**n for n in range(ranks.bit_length(), most.bit_length()))
        return next((n for n in counts if self.bytes(budget, n) <= free), None)


def footprint_of(
    encoder: nn.Module,
    objective: Objective,
    views: Views,
    batches: tuple[Rows, Rows],
    precision: Precision,
    optimizer: Optimizer,
) -> Footprint:
    """From the forward passes of two batches, the second with twice the rows of the first.

    Where one fails, as it may of so few rows, only the state is known.
    """
    try:
        tried = [held_by(encoder, objective, views, rows, precision) for rows in batches]
    except Exception:  # if it fails of more rows, too, the cell itself says what is wrong
        tried = [Held(), Held()]

    def growth(part: Callable[[Held], list[int]]) -> Growth:
        small, large = map(part, tried)
        return Growth(len(batches[1].inputs), small, large)

    return Footprint(
        state_bytes(encoder, objective, optimizer),
        whole=growth(Held.whole),
        outside=growth(lambda held: held.outside),
        passes=growth(lambda held: [*chain(*held.passes)]),
        inside=growth(lambda held: max(held.passes, key=sum, default=[])),
        passing=growth(lambda held: [max(0, held.peak - sum(held.whole()))]),
    )


@dataclass
class Held:
    """Bytes of the tensors that a forward pass leaves, but for parameters and buffers."""

    outside: list[int] = field(default_factory=list)  # the batch, and what the objective saves
    passes: list[list[int]] = field(default_factory=list)  # what each pass of the encoder saves
    peak: int = 0  # of what is there at one time

    def whole(self) -> list[int]:
        return [*self.outside, *chain(*self.passes)]


def held_by(
    encoder: nn.Module, objective: Objective, views: Views, rows: Rows, precision: Precision
) -> Held:
    """What is saved for backward is what torch hands to hooks; a storage counts once."""
    encoder.train(objective.encoder_lr > 0)
    objective.train()
    held, seen = Held(), {place(tensor) for tensor in members(encoder, objective)}
    forward = encoder.forward

    def note(tensor: Tensor, sizes: list[int]) -> None:
        if place(tensor) not in seen:
            seen.add(place(tensor))
            sizes.append(tensor.untyped_storage().nbytes())

    def noting(sizes: list[int]) -> saved_tensors_hooks:
        def pack(tensor: Tensor) -> Tensor:
            note(tensor, sizes)
            return tensor.detach()  # the tensor itself would hold the graph that holds it

        return saved_tensors_hooks(pack, lambda tensor: tensor)

    def one_pass(inputs: Tensor) -> Tensor:
        held.passes.append([])
        with noting(held.passes[-1]):
            z: Tensor = forward(inputs)
        note(z, held.outside)
        return z

    encoder.forward = one_pass
    try:
        with Live(members(encoder, objective)) as live:
            live.note(rows.inputs)
            batch = make_batch(rows, views, objective, seed=0, step=0, progress=0.0)
            for tensor in (rows.inputs, *batch.views, *batch.weak, *batch.small):
                note(tensor, held.outside)
            with noting(held.outside), autocast(rows.inputs.device, precision):
                loss = objective(encoder, batch)
    finally:
        del encoder.forward
    del loss  # until here all that it needs was there, each at a place of its own
    held.peak = live.peak
    return held


class Live(TorchDispatchMode):
    """Within, counts the bytes of the tensors that operations make, until they are freed."""

    def __init__(self, known: Iterable[Tensor]) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.there = {place(tensor) for tensor in known}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for made in tree_leaves(result):
            if isinstance(made, Tensor):
                self.note(made)
        return result

    def note(self, tensor: Tensor) -> None:
        storage, where = tensor.untyped_storage(), place(tensor)
        if where not in self.there:
            self.there.add(where)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            finalize(storage, self._freed, where, storage.nbytes())

    def _freed(self, where: int, size: int) -> None:
        self.there.discard(where)
        self.now -= size


def members(*modules: nn.Module) -> list[Tensor]:
    """Parameters and buffers; what modules share is there once."""
    every = [t for module in modules for t in (*module.parameters(), *module.buffers())]
    return list({place(tensor): tensor for tensor in every}.values())


def place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def state_bytes(encoder: nn.Module, objective: Objective, optimizer: Optimizer) -> int:
    """What is there at the end of a backward pass, whatever the batch."""
    tensors = members(encoder, objective)
    trained = sum(tensor.nbytes for tensor in tensors if tensor.requires_grad)
    return sum(tensor.nbytes for tensor in tensors) + (1 + SLOTS[optimizer]) * trained
