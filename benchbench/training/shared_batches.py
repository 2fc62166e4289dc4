"""The batches of a stage in one of several processes, which makes views of its own rows alone."""

from collections.abc import Callable
from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor

from benchbench.extension.contracts import Rows, as_read
from benchbench.training.distributed import share, world
from benchbench.training.row_draws import DrawsOfAll
from benchbench.training.shares import View

Augment = Callable[[Tensor], Tensor]

TRIED = 2  # steps in which own rows are compared with the same rows of the whole batch
NEAR = 1e-4  # of values in [0, 1]: products of fewer rows may be rounded otherwise


class SharedBatches:
    """What feeds the loop, and augments what it feeds.

    An objective that reads a view itself, and does not only hand it to encoders, makes every
    process make all of it: at once if it says that it looks inside, else from the next step on.
    """

    def __init__(self, feed: Callable[..., Rows], *, whole: bool) -> None:
        """``feed`` gives the inputs of some rows of a step, and labels and domains of all."""
        self.feed, self.whole = feed, whole
        self.augments: list[SharedAugment] = []
        self.step, self.total = 0, 0
        self.all_inputs: Tensor | None = None  # of this step, where they are here

    def rows(self, step: int) -> Rows:
        """This step's rows, the inputs those of this process."""
        self.step, self.all_inputs = step, None
        if self.whole:
            return self.feed(step)
        if any(augment.needs_all for augment in self.augments):
            rows = self.feed(step)
            self.all_inputs = as_read(rows.inputs)
            rows = Rows(self.all_inputs[share()], rows.labels, rows.domains)
        else:
            rows = self.feed(step, share())
        self.total = len(rows.labels)
        return rows

    def augment(self, augment: Augment, times: int) -> Augment:
        """The same in this process, ``times`` a step. It is called with what `rows` gave."""
        if not times:
            return augment
        self.augments.append(SharedAugment(augment, self))
        return self.augments[-1]

    def everything(self, step: int) -> Tensor:
        """The inputs of all rows of a step, as an encoder reads them."""
        if step != self.step or self.all_inputs is None:
            return as_read(self.feed(step).inputs)
        return self.all_inputs


class SharedAugment:
    """An augmentation of a process's own rows.

    Whether it can do with them is tried in the first steps in which it is used; where it cannot,
    as it deals the rows out among operations, all rows are augmented here.
    """

    def __init__(self, augment: Augment, batches: SharedBatches) -> None:
        self._augment, self.batches = augment, batches
        self.by_row, self.tried, self.last = True, 0, -1

    @property
    def needs_all(self) -> bool:
        """Whether it will ask for all rows, or cannot say so yet."""
        return not self.by_row or self.tried < TRIED

    def __call__(self, inputs: Tensor) -> Tensor:
        batches, step = self.batches, self.batches.step
        if batches.whole:
            return self._augment(inputs)
        before = generators(inputs.device)
        remake = partial(self._all_rows, step, before)
        if not self.by_row:
            whole = self._augment(batches.everything(step))
            return self._view(whole[share()], remake)
        if self.tried < TRIED:
            whole = self._augment(batches.everything(step))
            after = generators(inputs.device)
            restore(before, inputs.device)
            self.by_row = self._matches(inputs, whole[share()], after)
            if step != self.last:
                self.tried, self.last = self.tried + 1, step
            restore(after, inputs.device)
            return self._view(whole[share()], remake)
        return self._view(self._own(inputs), remake)

    def _own(self, inputs: Tensor) -> Tensor:
        with DrawsOfAll(self.batches.total, share()):
            return self._augment(inputs)

    def _matches(self, inputs: Tensor, wanted: Tensor, after: list[Tensor]) -> bool:
        """Whether own rows become what they become among all, and as much is drawn."""
        try:
            found = self._own(inputs)
        except Exception:  # of all rows it did not fail
            return False
        drawn = all(map(torch.equal, generators(inputs.device), after))
        return drawn and found.shape == wanted.shape and torch.allclose(found, wanted, atol=NEAR)

    def _view(self, own: Tensor, remake: Callable[[], Tensor]) -> View:
        return View(own, ((0, self.batches.total),), dist.get_rank(), world(), remake)

    def _all_rows(self, step: int, before: list[Tensor]) -> Tensor:
        """The view of all rows, as one process has it. From the next step on it is made at once."""
        self.batches.whole = True
        inputs = self.batches.everything(step)
        now = generators(inputs.device)
        restore(before, inputs.device)
        try:
            return self._augment(inputs)
        finally:
            restore(now, inputs.device)


def generators(device: torch.device) -> list[Tensor]:
    """The states of torch's generators of the CPU and the device."""
    there = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
    return [torch.get_rng_state(), *there]


def restore(states: list[Tensor], device: torch.device) -> None:
    torch.set_rng_state(states[0])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[1], device)
