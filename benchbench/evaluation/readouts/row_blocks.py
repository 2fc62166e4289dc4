"""Rows of features in blocks, so that the memory a readout takes is bounded however many there are.

Beside features, labels, fitted weights and scores, and matrices of min(N, D) × D, a readout works
within `allowed` bytes. Where all of it fits, there is one block.
"""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from benchbench.evaluation.features import Features

ON_CPU = 2 * 10**9  # bytes
OF_GPU = 0.25  # the share of a GPU's free memory


def allowed(device: torch.device) -> int:
    """Bytes that a readout may take for its work on a device."""
    if device.type != "cuda":
        return ON_CPU
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(OF_GPU * (torch.cuda.mem_get_info(device)[0] + unused))


def where_they_fit(rows: Iterable[Features], device: torch.device) -> list[Features]:
    """All on the device, where that is another and they are within what is allowed there."""
    these = list(rows)
    if device.type == "cpu" or sum(each.z.nbytes for each in these) > allowed(device):
        return these
    return [Features(each.z.to(device), each.labels.to(device)) for each in these]


def split(count: int, bytes_a_row: float, memory: float) -> list[slice]:
    """Consecutive rows, as many in each part as fit into ``memory``, and at least one."""
    size = max(1, int(memory // bytes_a_row))
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def in_float64(z: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Which rows of [N, D], and these rows in float64, until the next are taken.

    All blocks share their memory: fresh ones leave gaps between small results, which add up.
    """
    blocks = split(len(z), 3 * 8 * max(z.shape[1], 1), allowed(z.device) / 4)
    if blocks:
        shared = z.new_empty(blocks[0].stop, z.shape[1], dtype=torch.float64)
        for rows in blocks:
            yield rows, shared[: rows.stop - rows.start].copy_(z[rows])


def mean_of(z: Tensor) -> Tensor:
    """float64 [D], of rows [N, D]"""
    total = z.new_zeros(z.shape[1], dtype=torch.float64)
    for _, part in in_float64(z):
        total += part.sum(0)
    return total / len(z)


def second_moment(z: Tensor, centre: Tensor) -> Tensor:
    """float64 [D, D]: the mean of (z − centre)(z − centre)ᵀ over rows of [N, D]."""
    moment = z.new_zeros(z.shape[1], z.shape[1], dtype=torch.float64)
    for _, part in in_float64(z):
        part = part - centre
        moment.addmm_(part.T, part)
    return moment / len(z)


def blockwise(
    scores: Callable[[Tensor], Tensor], device: torch.device
) -> Callable[[Tensor], Tensor]:
    """The same scores of rows [N, D] on any device: made on ``device``, left where the rows are.

    ``scores`` is given float64.
    """

    def made(z: Tensor) -> Tensor:
        parts = [scores(part.to(device)).to(z.device) for _, part in in_float64(z)]
        return torch.cat(parts) if parts else scores(z.double().to(device)).to(z.device)

    return made
