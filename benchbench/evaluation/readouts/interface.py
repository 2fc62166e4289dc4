"""Readouts: how predictions are read off frozen features.

``factory(*, options)`` returns ``fit(train, val, unlabelled, num_classes) -> Fitted``. What is left
open is chosen on ``val``, which is labelled source as ``train`` is. ``unlabelled()`` returns the
moments of the features of all training rows of source and target. There may be millions of rows, so
moments are computed when a readout asks for them. Only features enter; `head` is the objective's.
Where labels are numbers, ``num_classes`` is 0 and there is one score, the prediction.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from benchbench.evaluation.features import RESOLUTION, Features, Moments
from benchbench.evaluation.readouts.row_blocks import blockwise, in_float64, mean_of
from benchbench.extension.contracts import is_known

Scores = Callable[[Tensor], Tensor]
WEAKEST = 1e-3  # the most that the weakest penalty may be, as a share of the features' variance


@dataclass(frozen=True)
class Affine:
    """Scores ``z @ weight + bias`` of features z [N, D], scaled to length 1 first if ``unit``."""

    weight: Tensor  # float64 [D, K]
    bias: Tensor  # float64 [K]
    unit: bool = False


@dataclass(frozen=True)
class Fitted:
    """Predictions, and how they were chosen."""

    scores: Scores  # features [N, D], on any device, to scores [N, num_classes or 1] on the same
    selection: str  # the rule: "source-val", or "last" where nothing was chosen
    chosen: Mapping[str, float] = field(default_factory=dict)
    log_odds: bool = False  # of classes, up to a constant of the row: softmax gives probabilities
    votes: bool = False  # the scores are weights of votes, none negative
    affine: Affine | None = None  # the same scores up to rounding, where they are of this form


Unlabelled = Callable[[], Moments]
Fit = Callable[[Features, Features, Unlabelled, int], Fitted]


def shrunk(z: Tensor, weakest: float) -> float:
    """What penalties on features [N, D] are multiplied by: 1, but of features of a tiny scale.

    There even the weakest penalty, on ‖W‖² beside a mean over rows, would leave nothing but the
    frequencies of classes: it becomes `WEAKEST` of the features' total variance.
    """
    if not len(z):
        return 1.0
    centre = mean_of(z)
    sums = [((part - centre).square().sum(), part.square().sum()) for _, part in in_float64(z)]
    variance, size = (sum(each).item() / len(z) for each in zip(*sums, strict=True))
    if variance <= RESOLUTION**2 * size:
        return 1.0
    return min(1.0, WEAKEST * variance / weakest)


def targets(labels: Tensor, num_classes: int) -> Tensor:
    """What least squares aim at, float64: one-hot rows [N, num_classes], or the numbers [N, 1]."""
    if num_classes:
        return F.one_hot(labels, num_classes).double()
    return labels.double()[:, None]


def class_sums(features: Features, num_classes: int, centre: Tensor | float = 0.0) -> Tensor:
    """float64 [K, D]: of the rows less the centre, of each class."""
    sums = features.z.new_zeros(num_classes, features.z.shape[1], dtype=torch.float64)
    for rows, part in in_float64(features.z):
        sums += F.one_hot(features.labels[rows], num_classes).double().T @ (part - centre)
    return sums


def where_absent(labels: Tensor, num_classes: int) -> Tensor:
    """float64 [K]: 0, and for classes without a row the lowest score, so that none is predicted."""
    absent = ~torch.isin(torch.arange(num_classes, device=labels.device), labels)
    lowest = torch.finfo(torch.float64).min
    zeros = torch.zeros(num_classes, dtype=torch.float64, device=labels.device)
    return zeros.masked_fill(absent, lowest)


def accuracy(scores: Tensor, labels: Tensor) -> float:
    return (scores.argmax(1) == labels).double().mean().item()


def goodness(scores: Tensor, labels: Tensor) -> float:
    """Accuracy; of numbers, minus the mean squared error."""
    if labels.dtype.is_floating_point:
        return -(scores[:, 0].double() - labels.double()).square().mean().item()
    return accuracy(scores, labels)


def with_bias(z: Tensor) -> Tensor:
    return F.pad(z.double(), (0, 1), value=1.0)


def linear_scores(weights: Tensor) -> Scores:
    """``z @ weights[:-1] + weights[-1]`` of features z [N, D], for weights [D + 1, K]."""
    return blockwise(lambda z: with_bias(z) @ weights, weights.device)


def split_bias(weights: Tensor) -> Affine:
    """Of weights [D + 1, K], the intercept last."""
    return Affine(weights[:-1], weights[-1])


def known(features: Features) -> Features:
    """The rows whose label is known."""
    keep = is_known(features.labels)
    return Features(features.z[keep], features.labels[keep])
