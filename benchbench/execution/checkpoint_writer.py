"""Checkpoints of a stage, written by a thread while training goes on."""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import Tensor

SHARE = 20  # the least time between two checkpoints, as a multiple of what writing one takes

Write = Callable[[Mapping[str, Tensor]], object]


class CheckpointWriter:
    """Copies the state of a stage to the host, and has it written meanwhile.

    A state that comes too soon after the one before is passed over: before ``every`` seconds are
    over, or before `SHARE` times what writing took. Where ``stopping`` says that training stops,
    and where ``every`` is negative, which asks for every state, a state is written before the next
    step. What the writing of one raises is raised when the next one comes, or at the end.
    """

    def __init__(self, write: Write, every: float, stopping: Callable[[], bool]) -> None:
        self.write, self.every, self.stopping = write, every, stopping
        self._host: dict[str, Tensor] = {}  # copies, whose memory is used again
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._last: Future[float] | None = None
        self._began, self._took = time.monotonic(), 0.0

    def save(self, state: Mapping[str, Tensor]) -> None:
        """Keep the state of a step that was done, unless it comes too soon."""
        waits = self.stopping() or self.every < 0
        if not waits and not self._is_due():
            return
        self.wait()
        self._began = time.monotonic()
        ready = self._copied(state)
        self._last = self._thread.submit(self._written, ready)
        if waits:
            self.wait()

    def wait(self) -> None:
        """Until what is being written is there; raise what went wrong with it."""
        if self._last is not None:
            last, self._last = self._last, None
            self._took = last.result()

    def close(self) -> None:
        """Until nothing is being written."""
        self._thread.shutdown()

    def _is_due(self) -> bool:
        if self._last is not None and not self._last.done():
            return False
        took = self._last.result() if self._last else self._took
        return time.monotonic() - self._began >= max(self.every, SHARE * took)

    def _copied(self, state: Mapping[str, Tensor]) -> torch.cuda.Event | None:
        """Begin to copy the state to the host; of a GPU, the event that all of it is there."""
        self._host = {name: self._copy(name, value.detach()) for name, value in state.items()}
        device = next((value.device for value in state.values() if value.is_cuda), None)
        if device is None:
            return None
        there = torch.cuda.Event()
        there.record(torch.cuda.current_stream(device))
        return there

    def _copy(self, name: str, value: Tensor) -> Tensor:
        """In the memory that the copy before has, if it fits."""
        copy = self._host.get(name)
        if copy is None or (copy.shape, copy.dtype) != (value.shape, value.dtype):
            copy = torch.empty_like(value, device="cpu", pin_memory=value.is_cuda)
        return copy.copy_(value, non_blocking=True)

    def _written(self, ready: torch.cuda.Event | None) -> float:
        if ready is not None:
            ready.synchronize()
        self.write(self._host)
        return time.monotonic() - self._began


@contextmanager
def writing_checkpoints(
    write: Write, every: float, stopping: Callable[[], bool]
) -> Iterator[CheckpointWriter]:
    """Within, states are written; at the end none is being written, and none went wrong."""
    writer = CheckpointWriter(write, every, stopping)
    try:
        yield writer
        writer.wait()
    finally:
        writer.close()
