"""Frozen features: what an encoder makes of rows, unaugmented."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Protocol

import torch
from torch import Tensor, nn

from benchbench.extension.contracts import as_read

RESOLUTION = 1e-6  # of float32: features that vary less around their mean are constant
CHUNK = 512  # rows that are encoded at once
BLOCK = 8192  # rows that are in float64 at once while moments are summed


@dataclass(frozen=True)
class Features:
    """Features and labels of the same rows."""

    z: Tensor  # float32 [N, num_features]
    labels: Tensor  # int64 [N], or float32 [N] of numbers


class Inputs(Protocol):
    """What rows are taken from: a tensor, or what decodes them when asked."""

    @property
    def device(self) -> torch.device: ...

    def __getitem__(self, rows: Tensor, /) -> Tensor: ...


@dataclass(frozen=True)
class Moments:
    """How many rows of features there are, their mean, and how they spread around it.

    A sum is of the rows of both: the spread that is added is that between the two means (Chan,
    Golub and LeVeque 1979, equation 2.1b of *Updating formulae and a pairwise algorithm for
    computing sample variances*, of vectors).
    """

    count: int
    mean: Tensor  # float64 [D]
    scatter: Tensor  # float64 [D, D], the sum of (z − mean)(z − mean)ᵀ

    @classmethod
    def of(cls, z: Tensor) -> "Moments":
        """Of features [N, D], N at least 1, on their device, some thousands of rows at a time."""
        return reduce(add, map(cls._at_once, z.split(BLOCK)))

    @classmethod
    def _at_once(cls, z: Tensor) -> "Moments":
        mean = z.double().mean(0)
        around = z.double() - mean
        return cls(len(z), mean, around.T @ around)

    def __add__(self, other: "Moments") -> "Moments":
        count = self.count + other.count
        gap = other.mean - self.mean
        between = torch.outer(gap, gap) * (self.count * other.count / count)
        mean = self.mean + gap * (other.count / count)
        return Moments(count, mean, self.scatter + other.scatter + between)


def extract(
    encoder: nn.Module, inputs: Inputs, rows: Tensor, device: torch.device, chunk: int = CHUNK
) -> Tensor:
    """float32 [N, num_features] on the CPU, of the N ``rows`` of a pack's inputs.

    In evaluation mode and float32: no statistic of the evaluated batch enters, and the result
    does not depend on the precision that trained.
    """
    z, start = torch.empty(0, 0), 0
    for part in encoded(encoder, inputs, rows, device, chunk):
        if not start:
            z = torch.empty(len(rows), *part.shape[1:], dtype=torch.float32)
        z[start : start + len(part)] = part
        start += len(part)
    return z


def moments_of(
    encoder: nn.Module, inputs: Inputs, rows: Tensor, device: torch.device, chunk: int = CHUNK
) -> Moments:
    """Those of what `extract` gives, of which no more than a chunk is in memory; on the CPU."""
    whole = reduce(add, map(Moments.of, encoded(encoder, inputs, rows, device, chunk)))
    return Moments(whole.count, whole.mean.cpu(), whole.scatter.cpu())


def encoded(
    encoder: nn.Module, inputs: Inputs, rows: Tensor, device: torch.device, chunk: int
) -> Iterator[Tensor]:
    """The features of one chunk of rows after the other, on the device, in the order of rows.

    Where inputs are not on the device, a thread gets those of the next chunk meanwhile.
    """
    encoder.eval()
    parts = rows.split(chunk)
    there = isinstance(inputs, Tensor) and inputs.device.type == device.type

    def read(part: Tensor) -> Tensor:
        return inputs[part.to(inputs.device)]

    with ThreadPoolExecutor(1, "extract") as thread:
        ahead = deque[Future[Tensor]]()
        for number, part in enumerate(parts):
            if there:
                found = read(part)
            else:
                wanted = parts[number + len(ahead) : number + 2]
                ahead.extend(thread.submit(read, one) for one in wanted)
                found = ahead.popleft().result()
            with torch.no_grad():
                z = encoder(as_read(found.to(device))).float()
            yield z
