"""Linear probe: L2-regularised logistic regression, along a path of penalties."""

import math
from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchbench.evaluation.features import Features
from benchbench.evaluation.readouts.interface import (
    Fit,
    Fitted,
    Unlabelled,
    accuracy,
    linear_scores,
    shrunk,
    split_bias,
)
from benchbench.evaluation.readouts.lbfgs_solver import Curvature, lbfgs, warm_lbfgs
from benchbench.evaluation.readouts.ridge import ridge, ridge_regression
from benchbench.evaluation.readouts.row_blocks import (
    allowed,
    mean_of,
    second_moment,
    split,
)
from benchbench.extension.errors import BadInput
from benchbench.extension.grammar import options_of

SMALL = 2_000_000  # features of all rows: up to here penalties are solved together
PAIRS, FEWEST_PAIRS = 50, 5  # steps that are remembered, where there is room, and where not


def linear(*, penalties: int = 45, max_iter: int = 200) -> Fit:
    """L2-regularised logistic regression, C chosen on source validation among 1e-6 … 1e5.

    The path is that of CLIP (Radford et al. 2021, A.3) and of Shen et al. 2022; features are not
    rescaled, but of a tiny scale C is larger (see `shrunk`). Onto numbers it is the readout
    `ridge`.
    """
    if penalties < 1 or max_iter < 1:
        raise BadInput(f"readout linear needs a penalty and a step, not {penalties} and {max_iter}")

    def fit(train: Features, val: Features, unlabelled: Unlabelled, num_classes: int) -> Fitted:
        if not num_classes:
            return ridge(penalties=penalties)(train, val, unlabelled, num_classes)
        weights, c = logistic_regression(train, val, num_classes, penalties, max_iter)
        weights = weights.cpu()
        return Fitted(
            linear_scores(weights),
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
    right = [accuracy(linear_scores(weight)(val.z), val.labels) for weight in weights]
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
    penalised. L-BFGS, preconditioned by the eigenbasis of the features' second moment, in which the
    Hessian of cross-entropy at zero is diagonal. A penalty is done when its gradient is below 1e-5
    in that basis, or after ``max_iter`` steps. All penalties of a small problem are solved
    together, those of others one after another (`Regression`), within `row_blocks.allowed`.
    """
    n, width = z.shape
    if n < width:  # all that matters lies in the span of the rows
        basis = torch.linalg.qr((z.double() - z.double().mean(0)).T).Q
        inside = Regression(z.double() @ basis, labels, num_classes).along(path, max_iter)
        return torch.cat([basis @ inside[:, :-1], inside[:, -1:]], 1)
    copies = 24 * len(path) * num_classes * (n + 10 * width)  # of logits, and what L-BFGS keeps
    if n * width <= SMALL and copies <= allowed(z.device):
        return together(z, labels, num_classes, path, max_iter)
    return Regression(z, labels, num_classes).along(path, max_iter)


def together(
    z: Tensor, labels: Tensor, num_classes: int, path: list[float], max_iter: int
) -> Tensor:
    """`logistic_path` for all penalties at once, from zero: few operations, all of them large."""
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


class Regression:
    """Mean cross-entropy of logits x w[:, :-1]ᵀ + w[:, -1]; x are centred rows in their eigenbasis.

    Rows in that basis are held where there is room; else blocks of the features are taken as they
    are needed, and the weights are turned instead. From the strongest penalty to the weakest, each
    starts where the last two point to, with what all before have told of the curvature.
    """

    def __init__(self, z: Tensor, labels: Tensor, num_classes: int) -> None:
        self.z, self.labels, self.num_classes = z, labels, num_classes
        self.memory = allowed(z.device)
        self.centre = mean_of(z)  # a shift that the unpenalised intercept takes back
        self.variance, self.basis = torch.linalg.eigh(second_moment(z, self.centre))
        self.blocks = split(len(z), 8 * (2 * num_classes + 2 * z.shape[1]), self.memory / 4)
        self.held: Tensor | None = None
        if 8 * z.numel() <= self.memory / 2:
            self.held = z.new_empty(z.shape, dtype=torch.float64)
            for rows in self.blocks:
                torch.matmul(self.centred(rows), self.basis, out=self.held[rows])

    def centred(self, rows: slice) -> Tensor:
        return self.z[rows] - self.centre  # in float64

    def cross_entropy(self, w: Tensor) -> tuple[float, Tensor]:
        """Its value and its slope at w [K, D + 1]."""
        inside = w[:, :-1] if self.held is not None else w[:, :-1] @ self.basis.T
        value, slope = w.new_zeros(()), torch.zeros_like(w)
        for rows in self.blocks:
            x = self.held[rows] if self.held is not None else self.centred(rows)
            label = self.labels[rows][None]
            log_p = torch.addmm(w[:, -1:], inside, x.T).log_softmax(0)  # [K, n]: long rows are fast
            value -= log_p.gather(0, label).sum()
            error = log_p.exp_()
            error.scatter_add_(0, label, error.new_full((), -1.0).expand(label.shape))
            slope[:, :-1].addmm_(error, x)
            slope[:, -1] += error.sum(1)
        if self.held is None:
            slope[:, :-1] = slope[:, :-1] @ self.basis
        return value.item() / len(self.z), slope / len(self.z)

    def penalised(self, v: Tensor, scale: Tensor, decays: Tensor) -> tuple[float, Tensor]:
        """With a penalty of decays / 2 for each square: value and slope at v = w / scale, flat."""
        w = v.view(self.num_classes, -1) * scale
        value, slope = self.cross_entropy(w)
        decay = decays * w
        value += 0.5 * (decay * w).sum().item()
        return value, ((slope + decay) * scale).flatten()

    def solved(self, path: list[float], max_iter: int) -> Iterator[Tensor]:
        """w [K, D + 1] for every C of an ascending path."""
        classes, size = self.num_classes, self.num_classes * (len(self.centre) + 1)
        pairs = int(self.memory / 4 / (2 * 8 * size))
        known = Curvature(max(FEWEST_PAIRS, min(PAIRS, pairs)), size, self.z.device)
        curvature = F.pad(self.variance.clamp(min=0), (0, 1), value=1.0) / classes
        decays = [
            F.pad(torch.full_like(self.variance, 1 / (len(self.z) * c)), (0, 1)) for c in path
        ]
        scales = [(curvature + decay).rsqrt() for decay in decays]
        before = last = torch.zeros_like(curvature).expand(classes, -1)
        for i, (scale, decay) in enumerate(zip(scales, decays, strict=True)):
            if i:
                stiffer = (decay - decays[i - 1]) * scales[i - 1].square()
                factor = scale / scales[i - 1]
                known.rescale(factor.repeat(classes), stiffer.repeat(classes))
            start = last + steps_ahead(path, i) * (last - before)
            objective = partial(self.penalised, scale=scale, decays=decay)
            v = warm_lbfgs(objective, (start / scale).flatten(), max_iter, known)
            before, last = last, v.view(classes, -1) * scale
            yield last

    def along(self, path: list[float], max_iter: int) -> Tensor:
        """Weights [P, D + 1, K] of features as they are, the intercept last, for every C."""
        weights = self.z.new_empty(
            len(path), self.z.shape[1] + 1, self.num_classes, dtype=torch.float64
        )
        order = sorted(range(len(path)), key=path.__getitem__)
        solved = self.solved([path[i] for i in order], max_iter)
        for number, w in zip(order, solved, strict=True):
            torch.matmul(self.basis, w[:, :-1].T, out=weights[number, :-1])
            weights[number, -1] = w[:, -1] - self.centre @ weights[number, :-1]
        return weights


def steps_ahead(path: list[float], i: int) -> float:
    """How far C number i is from the one before, in steps from that before to it, on a log scale.

    0 where there are not two before, or where they are equal.
    """
    if i < 2 or path[i - 1] == path[i - 2]:
        return 0.0
    return math.log(path[i] / path[i - 1]) / math.log(path[i - 1] / path[i - 2])
