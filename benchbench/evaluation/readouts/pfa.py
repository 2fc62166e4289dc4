"""Preconditioned feature averaging."""

import torch
import torch.nn.functional as F

from benchbench.evaluation.features import Features
from benchbench.evaluation.readouts.interface import Affine, Fit, Fitted, Unlabelled, where_absent
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
        moments = unlabelled()
        centre = moments.mean if centred else torch.zeros_like(moments.mean)
        second = moments.scatter / moments.count
        if not centred:
            second = second + torch.outer(moments.mean, moments.mean)
        walk = torch.linalg.matrix_power(second, t - 1)
        rows = F.one_hot(train.labels, num_classes).double()
        average = rows.T @ (train.z.double() - centre)
        average /= rows.sum(0).clamp(min=1)[:, None] if centred else len(rows)
        directions, offset = average @ walk, where_absent(train.labels, num_classes)
        affine = Affine(directions.T, offset - centre @ directions.T)
        return Fitted(
            lambda z: (z.double() - centre) @ directions.T + offset, "last", affine=affine
        )

    return fit
