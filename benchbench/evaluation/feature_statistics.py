"""What criteria and diagnostics both ask of features."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

FEWEST = 5  # training rows of a class, or of a side, for which a head is fitted
LITTLE = 1e8  # rows × features × classes for which several threads cost more than they spare


@contextmanager
def enough_threads(work: int) -> Iterator[None]:
    """Little work is done by one thread: on a busy machine several wait long for each other."""
    count = torch.get_num_threads()
    torch.set_num_threads(1 if work < LITTLE else count)
    try:
        yield
    finally:
        torch.set_num_threads(count)


def drawn(count: int, most: int) -> Tensor:
    """int64: ascending indices below ``count``, at most ``most``; the same whenever it is asked."""
    if count <= most:
        return torch.arange(count)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    return order[:most].sort().values


def effective_rank(z: Tensor) -> float | None:
    """exp of the entropy of the singular values of [N, D]; None if all are zero.

    RankMe (Garrido et al. 2023, arXiv:2210.02885, equation 1) without its ε of 1e-7.
    """
    values = torch.linalg.eigvalsh(z.double().T @ z.double()).clamp(min=0).sqrt()
    if values.sum() == 0:
        return None
    return torch.special.entr(values / values.sum()).sum().exp().item()
