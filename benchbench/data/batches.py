"""Which rows a stage meets, and when: a function of (seed, step) alone."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import torch
from torch import Tensor

from benchbench.data.encoded_images import Encoded
from benchbench.data.gathering import Sent, Streamed, take
from benchbench.data.pack import Pack
from benchbench.extension.constants import TRAIN
from benchbench.extension.contracts import Rows
from benchbench.extension.errors import BadInput
from benchbench.training.seeds import derive_seed

AHEAD = 2  # batches that are read before they are asked for


class Feed:
    """Training rows of some domains, as many from each; of the ``labelled`` ones, rows with labels.

    Every domain's rows are walked through in a fresh random order per epoch. Calling with a step
    gives that step's rows on the device, whatever was asked before. ``inputs`` are those of the
    pack, there or already on the device; where they are not, a thread works ahead.
    """

    def __init__(
        self,
        pack: Pack,
        inputs: Tensor | Encoded | Streamed,
        domains: Sequence[str],
        labelled: Sequence[str],
        batch_size: int,
        seed: int,
        device: torch.device,
    ) -> None:
        if isinstance(inputs, Encoded) or (
            isinstance(inputs, Tensor) and inputs.device.type != device.type
        ):
            inputs = Streamed(inputs, device)
        self.inputs = inputs
        self.domains, self.seed, self.device = tuple(domains), seed, device
        self.pools = [pool(pack, domain, domain in labelled) for domain in domains]
        self.shares = shares(pack, domains, labelled, batch_size)
        numbers = torch.tensor([pack.domain_names.index(name) for name in labelled])
        visible = torch.isin(pack.domains, numbers)
        self.labels = pack.labels.where(visible, pack.hidden).to(device)
        self.row_domains = pack.domains.to(device)
        self.orders: dict[tuple[int, int], Tensor] = {}  # of each domain, by epoch; the last two
        self.coming: dict[int, Coming] = {}

    def __call__(self, step: int) -> Rows:
        index = self._index(step)
        there = index.to(self.device, non_blocking=True)
        if isinstance(self.inputs, Streamed):
            inputs = self._fetched(step, self.inputs)
        else:
            inputs = take(self.inputs, there)
        return Rows(inputs, self.labels[there], self.row_domains[there])

    def _index(self, step: int) -> Tensor:
        return torch.cat([self._walk(i, step) for i in range(len(self.domains))])

    def _fetched(self, step: int, inputs: Streamed) -> Tensor:
        """This step's inputs; the next ones are read, and those that are begin to be copied."""
        wanted = range(step, step + 1 + AHEAD)
        self.coming = {s: batch for s, batch in self.coming.items() if s in wanted}
        for s in wanted:
            if s not in self.coming:
                self.coming[s] = Coming(self._index(s), inputs, self.thread)
        batch = self.coming.pop(step).sent()
        for later in self.coming.values():
            if later.is_read:
                later.sent()
        return inputs.arrived(batch)

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


class Coming:
    """A batch that a thread reads into a buffer, to be sent to the device."""

    def __init__(self, index: Tensor, inputs: Streamed, thread: ThreadPoolExecutor) -> None:
        self.index, self.inputs, self.buffer = index, inputs, inputs.buffer(index)
        self.reading = thread.submit(inputs.read, index, self.buffer)
        self.way: Sent | None = None

    @property
    def is_read(self) -> bool:
        return self.reading.done() and self.reading.exception() is None

    def sent(self) -> Sent:
        """Waits until it is read, and raises what reading raised."""
        if self.way is None:
            self.reading.result()
            self.way = self.inputs.sent(self.index, self.buffer)
            del self.buffer  # torch keeps it while a GPU still copies it
        return self.way


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
