"""The nearest class mean, which suites call ``prototype``."""

import torch.nn.functional as F

from benchbench.evaluation.features import Features
from benchbench.evaluation.readouts.interface import (
    Affine,
    Fit,
    Fitted,
    Unlabelled,
    class_sums,
    where_absent,
)


def prototype() -> Fit:
    """The nearest class mean, by Euclidean distance."""

    def fit(train: Features, val: Features, unlabelled: Unlabelled, num_classes: int) -> Fitted:
        means = class_sums(train, num_classes)
        means /= F.one_hot(train.labels, num_classes).sum(0).clamp(min=1)[:, None]
        offset = where_absent(train.labels, num_classes) - means.square().sum(1)
        affine = Affine(2 * means.T, offset)
        return Fitted(lambda z: 2 * z.double() @ means.T + offset, "last", affine=affine)

    return fit
