"""Readouts: how predictions are read off frozen features.

``factory(*, options)`` returns ``fit(train, val, unlabelled, num_classes) -> Fitted``. What is left
open is chosen on ``val``, which is labelled source as ``train`` is; ``unlabelled`` are features
[N, D] of the training rows of source and target. Only features enter; `head` is the objective's.
Where labels are numbers, ``num_classes`` is 0 and there is one score, the prediction.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchbench.contracts import is_known
from benchbench.features import RESOLUTION, Features
from benchbench.spelling import instead, options_of, parse, pinned, settle, spell
from benchbench.terms import BadInput

Scores = Callable[[Tensor], Tensor]
WEAKEST = 1e-3  # the most that the weakest penalty may be, as a share of the features' variance
ALIKE = 1e-3  # rows whose mean 1 − cosine is below are compared in float64: float32 resolves 1e-7


@dataclass(frozen=True)
class Fitted:
    """Predictions, and how they were chosen."""

    scores: Scores  # features [N, D] to scores [N, num_classes or 1]
    selection: str  # the rule: "source-val", or "last" where nothing was chosen
    chosen: Mapping[str, float] = field(default_factory=dict)
    log_odds: bool = False  # of classes, up to a constant of the row: softmax gives probabilities


Fit = Callable[[Features, Features, Tensor, int], Fitted]


def linear(*, penalties: int = 45, max_iter: int = 200) -> Fit:
    """L2-regularised logistic regression, C chosen on source validation among 1e-6 … 1e5.

    All penalties at once. The path is that of CLIP (Radford et al. 2021, A.3) and of Shen et al.
    2022; features are not rescaled, but of a tiny scale C is larger (see `shrunk`). Onto numbers it
    is the readout `ridge`.
    """
    if penalties < 1 or max_iter < 1:
        raise BadInput(f"readout linear needs a penalty and a step, not {penalties} and {max_iter}")

    def fit(train: Features, val: Features, unlabelled: Tensor, num_classes: int) -> Fitted:
        if not num_classes:
            return ridge(penalties=penalties)(train, val, unlabelled, num_classes)
        weights, c = logistic_regression(train, val, num_classes, penalties, max_iter)
        return Fitted(lambda z: with_bias(z) @ weights, "source-val", {"C": c}, log_odds=True)

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


def knn(*, k: tuple[int, ...] = (1, 5, 10, 20, 50), temperature: float = 0.07) -> Fit:
    """k nearest neighbours by cosine, votes weighted by exp(cosine / temperature).

    Wu et al. 2018, section 3.4; k chosen on source validation. Of numbers, the mean so weighted.
    """
    if min(k, default=0) < 1 or temperature <= 0:
        raise BadInput(f"readout knn needs k ≥ 1 and temperature > 0, not {k} and {temperature}")

    def fit(train: Features, val: Features, unlabelled: Tensor, num_classes: int) -> Fitted:
        keys = F.normalize(train.z, dim=1)
        exact = keys.dtype
        if 1 - keys.double().mean(0).square().sum() < ALIKE:
            exact = torch.float64
            keys = F.normalize(train.z.to(exact), dim=1)
        votes = targets(train.labels, num_classes).float()
        sizes = [size for size in k if size <= len(keys)] or [len(keys)]

        def scores(z: Tensor, size: int) -> Tensor:
            parts = []
            for part in F.normalize(z.to(exact), dim=1).split(1024):
                near, index = (part @ keys.T).topk(size)
                weights = ((near - 1) / temperature).exp()[:, :, None]
                share = 1 if num_classes else weights.sum(1)
                parts.append((weights * votes[index]).sum(1) / share)
            return torch.cat(parts)

        right = [goodness(scores(val.z, size), val.labels) for size in sizes]
        best = sizes[right.index(max(right))]
        return Fitted(lambda z: scores(z, best), "source-val", {"k": float(best)})

    return fit


def ridge(*, penalties: int = 45) -> Fit:
    """Least squares onto one-hot labels or numbers, ‖XW − Y‖² + n a ‖W‖², a among 1e-6 … 1e5.

    Chosen on source validation. Closed form for all penalties from one eigendecomposition. The
    intercept is not penalised. Of features of a tiny scale a is smaller (see `shrunk`).
    """
    if penalties < 1:
        raise BadInput(f"readout ridge needs a penalty, not {penalties}")

    def fit(train: Features, val: Features, unlabelled: Tensor, num_classes: int) -> Fitted:
        weights, a = ridge_regression(train, val, num_classes, penalties)
        return Fitted(lambda z: with_bias(z) @ weights, "source-val", {"a": a})

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


def shrunk(z: Tensor, weakest: float) -> float:
    """What penalties on features [N, D] are multiplied by: 1, but of features of a tiny scale.

    There even the weakest penalty, on ‖W‖² beside a mean over rows, would leave nothing but the
    frequencies of classes: it becomes `WEAKEST` of the features' total variance.
    """
    variance = z.double().var(0, correction=0).sum().item() if len(z) else 0.0
    if variance <= RESOLUTION**2 * z.double().square().sum(1).mean().item():
        return 1.0
    return min(1.0, WEAKEST * variance / weakest)


def targets(labels: Tensor, num_classes: int) -> Tensor:
    """What least squares aim at, float64: one-hot rows [N, num_classes], or the numbers [N, 1]."""
    if num_classes:
        return F.one_hot(labels, num_classes).double()
    return labels.double()[:, None]


def ridge_path(z: Tensor, labels: Tensor, num_classes: int, path: list[float]) -> Tensor:
    """Weights [P, D + 1, K], the intercept last: scikit-learn's Ridge with alpha = n a."""
    y = targets(labels, num_classes)
    x, mean = z.double() - z.double().mean(0), z.double().mean(0)
    variance, basis = torch.linalg.eigh(x.T @ x / len(x))
    along = basis.T @ (x.T @ (y - y.mean(0))) / len(x)
    penalty = torch.tensor(path, dtype=torch.float64, device=z.device)[:, None, None]
    weights = basis @ (along / (variance.clamp(min=0)[:, None] + penalty))
    return torch.cat([weights, y.mean(0) - mean @ weights[:, None]], 1)


def prototype() -> Fit:
    """The nearest class mean, by Euclidean distance."""

    def fit(train: Features, val: Features, unlabelled: Tensor, num_classes: int) -> Fitted:
        means = class_sums(train, num_classes)
        means /= F.one_hot(train.labels, num_classes).sum(0).clamp(min=1)[:, None]
        offset = where_absent(train.labels, num_classes) - means.square().sum(1)
        return Fitted(lambda z: 2 * z.double() @ means.T + offset, "last")

    return fit


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

    def fit(train: Features, val: Features, unlabelled: Tensor, num_classes: int) -> Fitted:
        centre = unlabelled.double().mean(0) if centred else 0.0
        around = unlabelled.double() - centre
        walk = torch.linalg.matrix_power(around.T @ around / len(around), t - 1)
        rows = F.one_hot(train.labels, num_classes).double()
        average = rows.T @ (train.z.double() - centre)
        average /= rows.sum(0).clamp(min=1)[:, None] if centred else len(rows)
        directions, offset = average @ walk, where_absent(train.labels, num_classes)
        return Fitted(lambda z: (z.double() - centre) @ directions.T + offset, "last")

    return fit


def zero_shot(*, embeddings: str = "", sha256: str = "") -> Fit:
    """The class whose text is nearest (CLIP, Radford et al. 2021, arXiv:2103.00020, section 3.1.2).

    ``embeddings`` is an .npy file of floats [num_classes, D], a row for each class in the dataset's
    order, from the text tower that belongs to the encoder, which must keep its projection. The
    record holds the file's ``sha256``.
    """
    text = torch.from_numpy(read_embeddings(embeddings)).double()

    def fit(train: Features, val: Features, unlabelled: Tensor, num_classes: int) -> Fitted:
        if text.shape != (num_classes, train.z.shape[1]):
            raise BadInput(
                f"readout zero_shot: {embeddings} is of shape {list(text.shape)}, but there are "
                f"{num_classes} classes and {train.z.shape[1]} features"
            )
        directions = F.normalize(text, dim=1).T
        return Fitted(lambda z: F.normalize(z.double(), dim=1) @ directions, "last")

    return fit


def read_embeddings(path: str) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise BadInput(
            f"readout zero_shot: embeddings = {path!r} cannot be read: {error}"
        ) from None
    if array.ndim != 2 or array.dtype.kind != "f" or not np.isfinite(array).all():
        raise BadInput(f"readout zero_shot: {path} should hold finite floats [num_classes, D]")
    return array


def with_digest(options: dict[str, Any]) -> dict[str, Any]:
    """The options with the sha256 of the file they name; BadInput if another was asked for."""
    read_embeddings(options["embeddings"])
    return pinned("readout zero_shot", options, "embeddings")


def class_sums(features: Features, num_classes: int) -> Tensor:
    """float64 [K, D]"""
    return F.one_hot(features.labels, num_classes).double().T @ features.z.double()


def where_absent(labels: Tensor, num_classes: int) -> Tensor:
    """float64 [K]: 0, and for classes without a row the lowest score, so that none is predicted."""
    absent = ~torch.isin(torch.arange(num_classes), labels)
    lowest = torch.finfo(torch.float64).min
    return torch.zeros(num_classes, dtype=torch.float64).masked_fill(absent, lowest)


def head(predict: Scores) -> Fit:
    """The objective's own head, as the last step left it."""

    @torch.no_grad()
    def scores(z: Tensor) -> Tensor:
        return predict(z)

    def fit(train: Features, val: Features, unlabelled: Tensor, num_classes: int) -> Fitted:
        return Fitted(scores, "last", log_odds=bool(num_classes))

    return fit


READOUTS: Mapping[str, Callable[..., Fit]] = {
    "linear": linear,
    "ridge": ridge,
    "knn": knn,
    "prototype": prototype,
    "pfa": pfa,
    "zero_shot": zero_shot,
}
PINNED = {"zero_shot": with_digest}  # what reads a file is spelled with the file's content
HEAD = "head"
OF_NUMBERS = ("linear", "ridge", "knn", HEAD)


def check_task(text: str, num_classes: int) -> None:
    """BadInput if labels are numbers and the readout wants classes."""
    name, _ = parse(text)
    if not num_classes and name not in OF_NUMBERS:
        known = ", ".join(OF_NUMBERS)
        raise BadInput(f"readout {name} wants classes, and labels are numbers; there is {known}")


def resolve_readout(text: str) -> tuple[str, Callable[[], Fit] | None]:
    """The spelling with all defaults, and what builds it; None for the objective's own head."""
    name, chosen = parse(text)
    if name == HEAD and not chosen:
        return HEAD, None
    if name not in READOUTS:
        raise BadInput(f"no readout is named {name!r}; {instead(name, [*READOUTS, HEAD])}")
    factory = READOUTS[name]
    options = settle(f"readout {name}", options_of(factory), chosen)
    options = PINNED.get(name, dict)(options)
    return spell(name, options), lambda: factory(**options)


def accuracy(scores: Tensor, labels: Tensor) -> float:
    return (scores.argmax(1) == labels).double().mean().item()


def goodness(scores: Tensor, labels: Tensor) -> float:
    """Accuracy; of numbers, minus the mean squared error."""
    if labels.dtype.is_floating_point:
        return -(scores[:, 0].double() - labels.double()).square().mean().item()
    return accuracy(scores, labels)


def with_bias(z: Tensor) -> Tensor:
    return F.pad(z.double(), (0, 1), value=1.0)


def known(features: Features) -> Features:
    """The rows whose label is known."""
    keep = is_known(features.labels)
    return Features(features.z[keep], features.labels[keep])


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


def lbfgs(
    value_and_slope: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    start: Tensor,
    max_iter: int,
    tolerance: float = 1e-5,
    memory: int = 10,
) -> Tensor:
    """Minimise P independent functions of [A, B] together; ``start`` is [P, A, B].

    Nocedal and Wright, algorithm 7.5, with Armijo backtracking. ``value_and_slope(v, lanes)``
    evaluates the functions that ``lanes`` numbers. A function that has converged leaves.
    """
    result = start.clone()
    lanes = torch.arange(len(start), device=start.device)
    v = start.clone()
    value, slope = value_and_slope(v, lanes)
    pairs: list[tuple[Tensor, Tensor]] = []  # (step, change of slope), oldest first
    for _ in range(max_iter):
        going = slope.abs().amax((1, 2)) > tolerance
        if not going.all():
            result[lanes] = v
            if not going.any():
                return result
            lanes, v, value, slope = lanes[going], v[going], value[going], slope[going]
            pairs = [(s[going], y[going]) for s, y in pairs]
        direction = -_inverse_hessian(slope, pairs)
        descent = _dot(direction, slope)
        size = torch.ones_like(value)
        for _ in range(30):
            new_v = v + size[:, None, None] * direction
            new_value, new_slope = value_and_slope(new_v, lanes)
            enough = new_value <= value + 1e-4 * size * descent + 1e-15 * value.abs()
            if enough.all():
                break
            size = torch.where(enough, size, size / 2)
        moved = torch.where(enough[:, None, None], new_v, v)
        settled = torch.where(enough[:, None, None], new_slope, slope)
        pairs = [*pairs[-memory + 1 :], (moved - v, settled - slope)]
        v, value, slope = moved, torch.where(enough, new_value, value), settled
    result[lanes] = v
    return result


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((1, 2))


def _inverse_hessian(slope: Tensor, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The two-loop recursion for every function on its own; a pair without curvature is skipped."""
    q = slope.clone()
    kept = []
    for s, y in reversed(pairs):
        curved = _dot(s, y)
        weight = torch.where(curved > 1e-20, 1 / curved.clamp(min=1e-20), 0.0)
        along = weight * _dot(s, q)
        q -= along[:, None, None] * y
        kept.append((s, y, weight, along))
    if pairs:
        s, y = pairs[-1]
        ratio = _dot(s, y) / _dot(y, y).clamp(min=1e-30)
        q *= torch.where(ratio > 0, ratio, 1.0)[:, None, None]
    for s, y, weight, along in reversed(kept):
        q += (along - weight * _dot(y, q))[:, None, None] * s
    return q
