"""The nearest class mean, which suites call ``prototype``."""

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


def prototype() -> Fit:
    """The nearest class mean, by Euclidean distance."""

    def fit(train: Features, val: Features, unlabelled: Unlabelled, num_classes: int) -> Fitted:
        means = class_sums(train, num_classes)
        means /= torch.bincount(train.labels, minlength=num_classes).clamp(min=1)[:, None]
        offset = where_absent(train.labels, num_classes) - means.square().sum(1)
        affine = Affine(2 * means.T.cpu(), offset.cpu())
        scores = blockwise(lambda z: z @ affine.weight + affine.bias, affine.weight.device)
        return Fitted(scores, "last", affine=affine)

    return fit
