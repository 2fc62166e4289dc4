"""Copying rows of a pack's inputs from where they lie to the device that trains on them."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from benchbench.data.encoded_images import Encoded
from benchbench.training.device import Machine

READERS = 8  # threads that copy rows from memory-mapped files, and mostly wait for the disk
READ_AT_ONCE = 1 << 20  # bytes for which another thread is worth it
WIDTHS = ((8, torch.int64), (4, torch.int32), (2, torch.int16), (1, torch.uint8))


def words(rows: Tensor) -> Tensor:
    """The same memory as integers [N, W], as wide as the bytes of a row and their place allow.

    ``rows`` [N, …] are contiguous, and N is not 0.
    """
    flat = rows.view(len(rows), -1)
    size, start = flat.shape[1] * flat.element_size(), flat.data_ptr()
    offset = flat.storage_offset() * flat.element_size()
    dtype = next(d for width, d in WIDTHS if not (size % width or start % width or offset % width))
    return flat.view(dtype)


def take(rows: Tensor, index: Tensor) -> Tensor:
    """``rows[index]``, on the device of both, faster: index int64 [B], from 0 on."""
    if not rows.is_contiguous() or not rows.numel():
        return rows[index]
    taken = words(rows).index_select(0, index)
    return taken.view(rows.dtype).view(len(index), *rows.shape[1:])


@dataclass(frozen=True)
class Sent:
    """A batch of which the rows from the host are on their way to the device."""

    index: Tensor  # int64 [B] on the CPU: all of the batch
    rows: Tensor  # those that come from the host, on the device
    copied: torch.cuda.Event | None = None  # when they have arrived; None on the CPU


class Streamed:
    """Inputs in the host's memory or in files, of which the first ``near`` lie on the device.

    It is indexed as a tensor is, by int64 [B] on the CPU, and returns rows on the device. Whoever
    works ahead calls ``read`` in another thread, and everything else in the one that trains.
    """

    device = torch.device("cpu")  # where an index is wanted

    def __init__(self, inputs: Tensor | Encoded, device: torch.device, near: int = 0) -> None:
        self.inputs, self.target = inputs, device
        self.near = inputs[:near].to(device) if near else None

    @property
    def shape(self) -> torch.Size:
        return self.inputs.shape

    @property
    def dtype(self) -> torch.dtype:
        return self.inputs.dtype

    @property
    def ndim(self) -> int:
        return self.inputs.ndim

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: Tensor) -> Tensor:
        buffer = self.buffer(index)
        self.read(index, buffer)
        return self.arrived(self.sent(index, buffer))

    def buffer(self, index: Tensor) -> Tensor:
        """Memory for those of some rows that come from the host.

        On CUDA it is pinned. It is a new tensor for every batch, but mostly not new memory: the
        allocators of torch and glibc give it out again once nobody holds it and it is copied.
        """
        rows = int(self._far(index).sum())
        shape, pinned = (rows, *self.inputs.shape[1:]), self.target.type == "cuda"
        return torch.empty(shape, dtype=self.inputs.dtype, pin_memory=pinned)

    def read(self, index: Tensor, buffer: Tensor) -> None:
        """Fill the buffer, by several threads."""
        rows = index[self._far(index)]
        if isinstance(self.inputs, Encoded):
            self.inputs.read(rows, buffer)
        elif not self.inputs.is_contiguous() or not buffer.numel():
            buffer.copy_(self.inputs[rows])
        else:
            self._copy(rows, words(self.inputs), words(buffer))

    def sent(self, index: Tensor, buffer: Tensor) -> Sent:
        """Begin to copy a filled buffer, beside what the device computes."""
        if self.target.type != "cuda":
            return Sent(index, buffer.to(self.target))
        with torch.cuda.stream(self._stream):
            rows = buffer.to(self.target, non_blocking=True)
            return Sent(index, rows, self._stream.record_event())

    def arrived(self, sent: Sent) -> Tensor:
        """The whole batch. What is then computed of it waits for the copy; the host does not."""
        if sent.copied is not None:
            now = torch.cuda.current_stream(self.target)
            now.wait_event(sent.copied)
            sent.rows.record_stream(now)
        if self.near is None:
            return sent.rows
        far = self._far(sent.index)
        near = take(self.near, sent.index[~far].to(self.target, non_blocking=True))
        # Each row's place in what is then together: those that were on the device, and the others.
        place = torch.where(far, far.cumsum(0) + (~far).sum(), (~far).cumsum(0)) - 1
        return take(torch.cat([near, sent.rows]), place.to(self.target, non_blocking=True))

    def _far(self, index: Tensor) -> Tensor:
        """bool [B]: which rows come from the host."""
        if self.near is None:
            return torch.ones_like(index, dtype=torch.bool)
        return index >= len(self.near)

    def _copy(self, rows: Tensor, source: Tensor, target: Tensor) -> None:
        """``target[:] = source[rows]``; np.take copies whole rows, and other threads can run."""
        if not 0 <= int(rows.min()) <= int(rows.max()) < len(source):
            raise IndexError(f"some of the rows that are asked for are not among {len(source)}")
        index, here, there = rows.numpy(), source.numpy(), target.numpy()
        readers = min(READERS, max(1, target.nbytes // READ_AT_ONCE))
        share = -(-len(rows) // readers)

        def copy(start: int) -> None:
            part = slice(start, start + share)
            np.take(here, index[part], axis=0, out=there[part], mode="clip")

        if readers == 1:
            copy(0)
        else:
            list(self._readers.map(copy, range(0, len(rows), share)))

    @cached_property
    def _readers(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(READERS, "reader")

    @cached_property
    def _stream(self) -> torch.cuda.Stream:
        return torch.cuda.Stream(self.target)


def nearby(inputs: Tensor | Streamed, device: torch.device) -> Tensor | None:
    """What of the inputs lies on the device, beyond the host's memory."""
    if isinstance(inputs, Streamed):
        return inputs.near
    return inputs if device.type != "cpu" and inputs.device.type == device.type else None


def resident(
    inputs: Tensor | Encoded, machine: Machine, room: int | None = None
) -> Tensor | Streamed:
    """The inputs as batches are best taken from them.

    They lie on the device where they take at most ``room`` bytes, by default half of its free
    memory; else as many of their first rows as that is. On the CPU memory-mapped inputs stay as
    they are, and threads read ahead where they are larger.
    """
    if isinstance(inputs, Encoded):
        return Streamed(inputs, machine.device)
    room = machine.free_memory() // 2 if room is None else room
    if inputs.nbytes <= room:
        return inputs.to(machine.device)
    near = 0 if machine.device.type == "cpu" else room // (inputs.nbytes // len(inputs))
    return Streamed(inputs, machine.device, near)
