"""Linear probe: L2-regularised logistic regression, for every penalty at once."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchbench.evaluation.features import Features
from benchbench.evaluation.readouts.interface import (
    Fit,
    Fitted,
    Unlabelled,
    accuracy,
    shrunk,
    split_bias,
    with_bias,
)
from benchbench.evaluation.readouts.lbfgs_solver import lbfgs
from benchbench.evaluation.readouts.ridge import ridge, ridge_regression
from benchbench.extension.errors import BadInput
from benchbench.extension.grammar import options_of


def linear(*, penalties: int = 45, max_iter: int = 200) -> Fit:
    """L2-regularised logistic regression, C chosen on source validation among 1e-6 … 1e5.

    All penalties at once. The path is that of CLIP (Radford et al. 2021, A.3) and of Shen et al.
    2022; features are not rescaled, but of a tiny scale C is larger (see `shrunk`). Onto numbers it
    is the readout `ridge`.
    """
    if penalties < 1 or max_iter < 1:
        raise BadInput(f"readout linear needs a penalty and a step, not {penalties} and {max_iter}")

    def fit(train: Features, val: Features, unlabelled: Unlabelled, num_classes: int) -> Fitted:
        if not num_classes:
            return ridge(penalties=penalties)(train, val, unlabelled, num_classes)
        weights, c = logistic_regression(train, val, num_classes, penalties, max_iter)
        return Fitted(
            lambda z: with_bias(z) @ weights,
            "source-val",
            {"C": c},
            log_odds=True,
            affine=split_bias(weights),
        )

    return fit


def logistic_regression(
    train: Features, val: Features, num_classes: int, penalties: int, max_iter: int
) -> tuple[Tensor, float]:
    """Weights [D + 1, K], the intercept last, and the C that is best on ``val``."""
    shrink = shrunk(train.z, 1e-5 / max(len(train.z), 1))
    path = (torch.logspace(-6, 5, penalties, dtype=torch.float64) / shrink).tolist()
    weights = logistic_path(train.z, train.labels, num_classes, path, max_iter)
    right = [accuracy(with_bias(val.z) @ weight, val.labels) for weight in weights]
    best = right.index(max(right))  # of equals the strongest penalty
    return weights[best], path[best]


def probe(train: Features, val: Features, num_classes: int) -> nn.Linear:
    """What the readout `linear` would predict with, for a stage to begin with."""
    if num_classes:
        weights, _ = logistic_regression(train, val, num_classes, **options_of(linear))
    else:
        weights, _ = ridge_regression(train, val, num_classes, **options_of(ridge))
    layer = nn.Linear(*(weights[1:].shape))
    layer.weight.data, layer.bias.data = weights[:-1].T.float().contiguous(), weights[-1].float()
    return layer


def logistic_path(
    z: Tensor, labels: Tensor, num_classes: int, path: list[float], max_iter: int
) -> Tensor:
    """Weights [P, D + 1, K] minimising mean cross-entropy + ‖W‖² / (2 n C) for every C in ``path``.

    scikit-learn's LogisticRegression up to the factor n C; the intercept, the last row, is not
    penalised. L-BFGS on all penalties together, preconditioned by the eigenbasis of the features'
    second moment, in which the Hessian of cross-entropy at zero is diagonal. A penalty leaves
    when its gradient is below 1e-5 in that basis, or after ``max_iter`` steps.
    """
    n, k = len(z), num_classes
    centre = z.double().mean(0)  # a shift that the unpenalised intercept takes back
    x = z.double() - centre
    variance, basis = torch.linalg.eigh(x.T @ x / n)
    x = F.pad(x @ basis, (0, 1), value=1.0)
    columns = x.T.contiguous()
    target = F.one_hot(labels, k).double().T.contiguous()  # [K, n]: long rows make softmax fast
    curvature = F.pad(variance.clamp(min=0), (0, 1), value=1.0) / k
    penalty = torch.tensor([1 / (n * c) for c in path], dtype=torch.float64, device=z.device)
    ridge = F.pad(penalty[:, None].expand(-1, len(basis)), (0, 1))[:, None]  # [P, 1, D + 1]
    scale = (curvature + ridge).rsqrt()

    def value_and_slope(v: Tensor, lanes: Tensor) -> tuple[Tensor, Tensor]:
        w = v * scale[lanes]
        log_p = (w.flatten(0, 1) @ columns).view(len(lanes), k, n).log_softmax(1)
        decay = ridge[lanes] * w
        value = -(log_p * target).sum((1, 2)) / n + 0.5 * (decay * w).sum((1, 2))
        error = log_p.exp_().sub_(target)
        slope = (error.flatten(0, 1) @ x).view_as(w) / n + decay
        return value, slope * scale[lanes]

    w = scale * lbfgs(value_and_slope, x.new_zeros(len(path), k, x.shape[1]), max_iter)
    weights = w[:, :, :-1] @ basis.T
    intercepts = w[:, :, -1] - weights @ centre
    return torch.cat([weights, intercepts[:, :, None]], 2).mT
