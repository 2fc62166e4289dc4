"""Images that stay as their files' bytes, because their pixels would not fit on the disk."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchbench.data.decoding import quiet, read_image

SUFFIX = ".bytes"


class Encoded:
    """Like a tensor uint8 [N, 3, size, size], of which rows are decoded when they are asked for.

    The bytes of all files lie one after the other in one memory-mapped file; beside it lie, as
    .npy, where each starts.
    """

    device = torch.device("cpu")
    dtype = torch.uint8
    ndim = 4

    def __init__(self, place: Path, size: int, crop: float | None) -> None:
        self.content = np.memmap(place, np.uint8, "r")
        self.starts = np.load(starts_of(place), allow_pickle=False)
        self.size, self.crop = size, crop

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self), 3, self.size, self.size))

    def __len__(self) -> int:
        return len(self.starts) - 1

    @cached_property
    def pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor()

    def __iter__(self) -> Iterator[Tensor]:
        for row in range(len(self)):
            pixels = torch.empty(self.shape[1:], dtype=self.dtype)
            self._decode(row, pixels.numpy())
            yield pixels

    def __getitem__(self, index: Tensor | slice) -> Tensor:
        """uint8 [B, 3, size, size] of the rows ``index``, int64 [B] or a slice."""
        rows = torch.arange(len(self))[index]
        pixels = torch.empty((len(rows), *self.shape[1:]), dtype=self.dtype)
        self.read(rows, pixels)
        return pixels

    def read(self, rows: Tensor, pixels: Tensor) -> None:
        """Decode rows, int64 [B], into uint8 [B, 3, size, size], by several threads."""
        with quiet():
            list(self.pool.map(self._decode, rows.tolist(), pixels.numpy()))

    def _decode(self, row: int, pixels: np.ndarray) -> None:
        content = self.content[self.starts[row] : self.starts[row + 1]]
        pixels[:] = read_image(io.BytesIO(content.tobytes()), self.size, self.crop)


def starts_of(place: Path) -> Path:
    return place.with_suffix(".starts.npy")
