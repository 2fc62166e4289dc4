"""Ridge regression, in closed form."""

import torch
from torch import Tensor

from benchbench.evaluation.features import Features
from benchbench.evaluation.readouts.interface import (
    Fit,
    Fitted,
    Unlabelled,
    goodness,
    shrunk,
    split_bias,
    targets,
    where_absent,
    with_bias,
)
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
        affine = split_bias(weights)
        return Fitted(lambda z: with_bias(z) @ weights, "source-val", {"a": a}, affine=affine)

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
    right = [goodness(with_bias(val.z) @ weight, val.labels) for weight in weights]
    best = max(range(penalties), key=lambda i: (right[i], i))  # of equals the strongest
    return weights[best], path[best]


def ridge_path(z: Tensor, labels: Tensor, num_classes: int, path: list[float]) -> Tensor:
    """Weights [P, D + 1, K], the intercept last: scikit-learn's Ridge with alpha = n a."""
    y = targets(labels, num_classes)
    x, mean = z.double() - z.double().mean(0), z.double().mean(0)
    variance, basis = torch.linalg.eigh(x.T @ x / len(x))
    along = basis.T @ (x.T @ (y - y.mean(0))) / len(x)
    penalty = torch.tensor(path, dtype=torch.float64, device=z.device)[:, None, None]
    weights = basis @ (along / (variance.clamp(min=0)[:, None] + penalty))
    return torch.cat([weights, y.mean(0) - mean @ weights[:, None]], 1)
