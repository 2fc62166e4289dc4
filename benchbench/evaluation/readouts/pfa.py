"""Preconditioned feature averaging."""

import torch

from benchbench.evaluation.features import Features
from benchbench.evaluation.readouts.interface import (
    Affine,
    Fit,
    Fitted,
    Unlabelled,
    class_sums,
    where_absent,
)
from benchbench.evaluation.readouts.row_blocks import blockwise
from benchbench.extension.errors import BadInput


def pfa(*, t: int = 2, centred: bool = True) -> Fit:
    """Preconditioned feature averaging (HaoChen et al. 2022, arXiv:2204.02683, algorithm 1).

    Scores are ⟨f(x), Σ^(t−1) b_i⟩, Σ the second moment of unlabelled features: a random walk of t
    steps from the labelled rows of class i. The theory is of features of the spectral contrastive
    loss, whose mean is the constant direction, in which every walk ends; other features have a
    mean that hides their classes. So ``f`` here is less the mean of unlabelled features, and b_i
    the mean of class i: the score is how much likelier than by chance the walk ends in a row of the
    class, however many labelled rows that has. Uncentred it is the algorithm as it is written, with
    b_i = E[1(y = i) f], to which a class counts by its share of rows. Large t end in the first
    direction that is left.
    """
    if t < 1:
        raise BadInput(f"readout pfa: t = {t} should be at least 1")

    def fit(train: Features, val: Features, unlabelled: Unlabelled, num_classes: int) -> Fitted:
        moments, device = unlabelled(), train.z.device
        mean, second = moments.mean.to(device), moments.scatter.to(device) / moments.count
        centre = mean if centred else torch.zeros_like(mean)
        if not centred:
            second = second + torch.outer(mean, mean)
        walk = torch.linalg.matrix_power(second, t - 1)
        average = class_sums(train, num_classes, centre)
        counts = torch.bincount(train.labels, minlength=num_classes)
        average /= counts.clamp(min=1)[:, None] if centred else len(train.labels)
        directions, offset = average @ walk, where_absent(train.labels, num_classes)
        affine = Affine(directions.T.cpu(), (offset - centre @ directions.T).cpu())
        origin, offset = centre.cpu(), offset.cpu()
        scores = blockwise(lambda z: (z - origin) @ affine.weight + offset, origin.device)
        return Fitted(scores, "last", affine=affine)

    return fit
