"""Ridge regression, in closed form."""

import torch
from torch import Tensor

from benchbench.evaluation.features import Features
from benchbench.evaluation.readouts.interface import (
    Fit,
    Fitted,
    Unlabelled,
    goodness,
    linear_scores,
    shrunk,
    split_bias,
    targets,
    where_absent,
)
from benchbench.evaluation.readouts.row_blocks import in_float64, mean_of, second_moment
from benchbench.extension.errors import BadInput


def ridge(*, penalties: int = 45) -> Fit:
    """Least squares onto one-hot labels or numbers, ‖XW − Y‖² + n a ‖W‖², a among 1e-6 … 1e5.

    Chosen on source validation. Closed form for all penalties from one eigendecomposition. The
    intercept is not penalised. Of features of a tiny scale a is smaller (see `shrunk`).
    """
    if penalties < 1:
        raise BadInput(f"readout ridge needs a penalty, not {penalties}")

    def fit(train: Features, val: Features, unlabelled: Unlabelled, num_classes: int) -> Fitted:
        weights, a = ridge_regression(train, val, num_classes, penalties)
        weights = weights.cpu()
        affine = split_bias(weights)
        return Fitted(linear_scores(weights), "source-val", {"a": a}, affine=affine)

    return fit


def ridge_regression(
    train: Features, val: Features, num_classes: int, penalties: int
) -> tuple[Tensor, float]:
    """Weights [D + 1, K], the intercept last, and the a that is best on ``val``."""
    shrink = shrunk(train.z, 1e-6)
    path = (torch.logspace(-6, 5, penalties, dtype=torch.float64) * shrink).tolist()
    weights = ridge_path(train.z, train.labels, num_classes, path)
    if num_classes:
        weights[:, -1] += where_absent(train.labels, num_classes)
    right = [goodness(linear_scores(weight)(val.z), val.labels) for weight in weights]
    best = max(range(penalties), key=lambda i: (right[i], i))  # of equals the strongest
    return weights[best], path[best]


def ridge_path(z: Tensor, labels: Tensor, num_classes: int, path: list[float]) -> Tensor:
    """Weights [P, D + 1, K], the intercept last: scikit-learn's Ridge with alpha = n a."""
    mean = mean_of(z)
    sums = [targets(labels[rows], num_classes).sum(0) for rows, _ in in_float64(z)]
    level = torch.stack(sums).sum(0) / len(z)
    variance, basis = torch.linalg.eigh(second_moment(z, mean))
    both = z.new_zeros(z.shape[1], len(level), dtype=torch.float64)
    for rows, part in in_float64(z):
        both += (part - mean).T @ (targets(labels[rows], num_classes) - level)
    along = basis.T @ both / len(z)
    penalty = torch.tensor(path, dtype=torch.float64, device=z.device)[:, None, None]
    weights = basis @ (along / (variance.clamp(min=0)[:, None] + penalty))
    return torch.cat([weights, level - mean @ weights[:, None]], 1)
