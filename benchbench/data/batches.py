"""Which rows a stage meets, and when: a function of (seed, step) alone."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property

import torch
from torch import Tensor

from benchbench.data.encoded_images import Encoded
from benchbench.data.pack import Pack
from benchbench.extension.constants import TRAIN
from benchbench.extension.contracts import Rows
from benchbench.extension.errors import BadInput
from benchbench.training.seeds import derive_seed

AHEAD = 2  # batches that are decoded or copied before they are asked for


class Feed:
    """Training rows of some domains, as many from each; of the ``labelled`` ones, rows with labels.

    Every domain's rows are walked through in a fresh random order per epoch. Calling with a step
    gives that step's rows on the device, whatever was asked before; with a slice of them, too, the
    inputs of these alone. ``inputs`` are those of the pack, there or already on the device; where
    they are not, a thread works ahead.
    """

    def __init__(
        self,
        pack: Pack,
        inputs: Tensor | Encoded,
        domains: Sequence[str],
        labelled: Sequence[str],
        batch_size: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self.inputs, self.domains, self.seed, self.device = inputs, tuple(domains), seed, device
        self.pools = [pool(pack, domain, domain in labelled) for domain in domains]
        self.shares = shares(pack, domains, labelled, batch_size)
        numbers = torch.tensor([pack.domain_names.index(name) for name in labelled])
        visible = torch.isin(pack.domains, numbers)
        self.labels = pack.labels.where(visible, pack.hidden).to(device)
        self.row_domains = pack.domains.to(device)
        self.orders: dict[tuple[int, int], Tensor] = {}  # of each domain, by epoch; the last two
        self.rows = slice(None)  # whose inputs were asked for at last
        self.coming: dict[int, Future[Tensor]] = {}

    def __call__(self, step: int, rows: slice = slice(None)) -> Rows:
        if rows != self.rows:
            self.rows, self.coming = rows, {}
        index = self._index(step)
        there = index.to(self.device, non_blocking=True)
        if isinstance(self.inputs, Tensor) and self.inputs.device.type == self.device.type:
            inputs = self.inputs[there[rows]]
        else:
            inputs = self._fetched(step).to(self.device, non_blocking=True)
        return Rows(inputs, self.labels[there], self.row_domains[there])

    def _index(self, step: int) -> Tensor:
        return torch.cat([self._walk(i, step) for i in range(len(self.domains))])

    def _fetched(self, step: int) -> Tensor:
        """This step's inputs where they are not on the device; a thread gets the next ones."""
        wanted = range(step, step + 1 + AHEAD)
        self.coming = {s: batch for s, batch in self.coming.items() if s in wanted}
        for s in wanted:
            if s not in self.coming:
                self.coming[s] = self.thread.submit(self._gathered, self._index(s)[self.rows])
        return self.coming.pop(step).result()

    def _gathered(self, index: Tensor) -> Tensor:
        inputs = self.inputs[index]
        return inputs.pin_memory() if self.device.type == "cuda" else inputs

    @cached_property
    def thread(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(1, "feed")

    def _walk(self, number: int, step: int) -> Tensor:
        """This step's rows of one domain: the next ``share`` of an endless shuffled walk."""
        size, share = len(self.pools[number]), self.shares[number]
        epoch, start = divmod(step * share, size)
        rows = self._order(number, epoch)[start : start + share]
        if len(rows) < share:
            rows = torch.cat([rows, self._order(number, epoch + 1)[: share - len(rows)]])
        return rows

    def _order(self, number: int, epoch: int) -> Tensor:
        if (number, epoch) not in self.orders:
            self.orders.pop((number, epoch - 2), None)
            seed = derive_seed(self.seed, "order", self.domains[number], epoch)
            pool, generator = self.pools[number], torch.Generator().manual_seed(seed)
            self.orders[number, epoch] = pool[torch.randperm(len(pool), generator=generator)]
        return self.orders[number, epoch]


def pool(pack: Pack, domain: str, labelled: bool) -> Tensor:
    """A domain's rows for training; where its labels are read, those that have one."""
    rows = pack.rows(domain, TRAIN)
    return pack.with_label(rows) if labelled else rows


def shares(
    pack: Pack, domains: Sequence[str], labelled: Sequence[str], batch_size: int
) -> list[int]:
    """How many rows of each domain a step takes; BadInput if a domain has not so many."""
    if batch_size < len(domains):
        raise BadInput(f"batch_size = {batch_size} is less than one row of {len(domains)} domains")
    extra = batch_size % len(domains)
    counts = [batch_size // len(domains) + (i < extra) for i in range(len(domains))]
    for domain, count in zip(domains, counts, strict=True):
        size = len(pool(pack, domain, domain in labelled))
        if count > size:
            raise BadInput(
                f"batch_size = {batch_size} takes {count} rows of domain {domain!r} per step, "
                f"but it has {size} training rows"
            )
    return counts


def resident(inputs: Tensor | Encoded, device: torch.device) -> Tensor | Encoded:
    """The inputs on the device, if they take at most half of its free memory; else as they are."""
    if isinstance(inputs, Encoded):
        return inputs
    if device.type == "cuda" and inputs.nbytes <= torch.cuda.mem_get_info(device)[0] // 2:
        return inputs.to(device)
    return inputs
