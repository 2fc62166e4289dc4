"""k nearest neighbours."""

import torch
import torch.nn.functional as F
from torch import Tensor

from benchbench.evaluation.features import Features
from benchbench.evaluation.readouts.interface import Fit, Fitted, Unlabelled, goodness
from benchbench.evaluation.readouts.row_blocks import allowed, split
from benchbench.extension.errors import BadInput

ALIKE = 1e-3  # rows whose mean 1 − cosine is below are compared in float64: float32 resolves 1e-7
Neighbours = tuple[Tensor, Tensor]  # cosines [M, k], the largest first, and which rows they are of
QUERIES = 1024  # rows that are compared with the training rows at a time


def knn(*, k: tuple[int, ...] = (1, 5, 10, 20, 50), temperature: float = 0.07) -> Fit:
    """k nearest neighbours by cosine, votes weighted by exp(cosine / temperature).

    Wu et al. 2018, section 3.4; k chosen on source validation. Of numbers, the mean so weighted.
    """
    if min(k, default=0) < 1 or temperature <= 0:
        raise BadInput(f"readout knn needs k ≥ 1 and temperature > 0, not {k} and {temperature}")

    def fit(train: Features, val: Features, unlabelled: Unlabelled, num_classes: int) -> Fitted:
        keys = Keys(train.z)
        sizes = [size for size in k if size <= len(train.z)] or [len(train.z)]

        def vote(cosines: Tensor, rows: Tensor) -> Tensor:
            """Scores [N, K] of N rows by their nearest: cosines [N, k], and which they are."""
            weights = ((cosines - 1) / temperature).exp()[:, :, None]
            its = train.labels[rows][:, :, None]
            if not num_classes:
                return (weights * its.float()).sum(1) / weights.sum(1)
            return (weights * (its == torch.arange(num_classes, device=its.device))).sum(1)

        def scores(z: Tensor, neighbours: Neighbours) -> Tensor:
            """Left where the rows are."""
            near, index = (each.split(QUERIES) for each in neighbours)
            parts = [vote(*part).to(z.device) for part in zip(near, index, strict=True)]
            return torch.cat(parts)

        nearest = keys.nearest(val.z, sizes)
        right = [goodness(scores(val.z, its), val.labels) for its in nearest]
        best = sizes[right.index(max(right))]
        return Fitted(
            lambda z: scores(z, keys.nearest(z, [best])[0]),
            "source-val",
            {"k": float(best)},
            votes=bool(num_classes),
        )

    return fit


class Keys:
    """Training rows [N, D] that others are compared with, by cosine.

    At length 1 they are held where there is room; else a block of them is normalised as it is
    needed. They stay on their device.
    """

    def __init__(self, z: Tensor) -> None:
        self.z, self.memory = z, allowed(z.device)
        self.hold(z.dtype)
        if 1 - self.mean().square().sum() < ALIKE:
            self.hold(torch.float64)

    def hold(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        fits = dtype.itemsize * self.z.numel() <= self.memory / 2
        self.held = F.normalize(self.z.to(dtype), dim=1) if fits else None

    def mean(self) -> Tensor:
        """float64 [D]: of the rows at length 1."""
        parts = split(len(self.z), 3 * 8 * self.z.shape[1], self.memory / 4)
        return torch.stack([self.unit(rows).double().sum(0) for rows in parts]).sum(0) / len(self.z)

    def unit(self, rows: slice) -> Tensor:
        if self.held is not None:
            return self.held[rows]
        return F.normalize(self.z[rows].to(self.dtype), dim=1)

    def nearest(self, z: Tensor, sizes: list[int]) -> list[Neighbours]:
        """For each size the cosines [M, size] of M rows' nearest keys, and their numbers.

        The nearest first. Which of equals are taken, and in what order, is left to torch's `topk`
        where there is one block of keys, as if it were asked for each size by itself; across blocks
        those of earlier blocks come first.
        """
        bytes_a_key = 8 * (QUERIES * 3 + (0 if self.held is not None else 2 * self.z.shape[1]))
        blocks = split(len(self.z), bytes_a_key, self.memory / 4)
        parts = [self.nearest_of(part, sizes, blocks) for part in z.split(QUERIES)]
        return [
            (torch.cat([near for near, _ in its]), torch.cat([index for _, index in its]))
            for its in zip(*parts, strict=True)
        ]

    def nearest_of(self, z: Tensor, sizes: list[int], blocks: list[slice]) -> list[Neighbours]:
        queries = F.normalize(z.to(self.z.device, self.dtype), dim=1)
        found: list[Neighbours] = []
        for rows in blocks:
            here = largest(queries @ self.unit(rows).T, sizes)
            here = [(near, index + rows.start) for near, index in here]
            pairs = zip(found, here, sizes, strict=True)
            found = [merged(*each) for each in pairs] if found else here
        return found


def largest(cosines: Tensor, sizes: list[int]) -> list[Neighbours]:
    """`topk` of [M, N] for each size, or for N, if that is less; from one search for the most.

    Of equal cosines `topk` may take others, in another order, for another size: there it is asked.
    """
    count = cosines.shape[1]
    most = min(max(sizes), count)
    near, index = cosines.topk(most)
    found = []
    for size in sizes:
        if size >= most:
            found.append((near, index))
            continue
        few, which = near[:, :size].clone(), index[:, :size].clone()
        tied = (near[:, :size] == near[:, 1 : size + 1]).any(1).nonzero().flatten()
        if len(tied):
            few[tied], which[tied] = cosines[tied].topk(size)
        found.append((few, which))
    return found


def merged(one: Neighbours, other: Neighbours, most: int) -> Neighbours:
    """Of both, the largest cosines; of equals those of ``one``."""
    near = torch.cat([one[0], other[0]], 1)
    near, order = near.sort(dim=1, descending=True, stable=True)
    index = torch.cat([one[1], other[1]], 1).gather(1, order)
    return near[:, :most], index[:, :most]
