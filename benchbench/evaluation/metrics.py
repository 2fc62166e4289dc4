"""Metrics that a dataset may name as its own.

Each is ``metric(predictions, labels, groups)`` of a shift's test rows in one domain, to a number of
which more is better, at most 1; every label is known. Predictions and labels are int64 [N] of
classes, or float [N] of numbers; groups are int64 [N], where −1 is none, or bool [N, G].
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from benchbench.extension.contracts import is_known
from benchbench.extension.errors import BadInput
from benchbench.extension.grammar import instead
from benchbench.store.records import GroupScore, Score

Metric = Callable[[Tensor, Tensor, Tensor | None], float]


@dataclass(frozen=True)
class Part:
    """The accuracy of one group of rows, or r where labels are numbers."""

    group: int
    value: float
    n: int


def accuracy(predictions: Tensor, labels: Tensor, groups: Tensor | None = None) -> float:
    return (predictions == labels).double().mean().item()


def per_class_mean(predictions: Tensor, labels: Tensor, groups: Tensor | None = None) -> float:
    """The mean over classes, of those that have rows, of the accuracy on their rows."""
    return fmean(part.value for part in parts(predictions, labels, labels))


def macro_f1(predictions: Tensor, labels: Tensor, groups: Tensor | None = None) -> float:
    """The mean of F1 over the classes that have rows, as WILDS scores iwildcam."""
    scores = []
    for label in labels.unique():
        right = ((predictions == label) & (labels == label)).sum()
        scores.append((2 * right / ((predictions == label).sum() + (labels == label).sum())).item())
    return sum(scores) / len(scores)


def worst_group(predictions: Tensor, labels: Tensor, groups: Tensor | None = None) -> float:
    """The lowest accuracy of a group that has rows, or r."""
    return min(values_of_groups(predictions, labels, groups))


def tenth_percentile(predictions: Tensor, labels: Tensor, groups: Tensor | None = None) -> float:
    """The accuracy that a tenth of the groups that have rows stay below, as WILDS scores amazon."""
    return float(np.percentile(values_of_groups(predictions, labels, groups), 10))


def pearson(predictions: Tensor, labels: Tensor, groups: Tensor | None = None) -> float:
    """Pearson's r in [−1, 1]; zero where either is constant."""
    if any((values == values[:1]).all() for values in (predictions, labels)):
        return 0.0  # less its mean, which is rounded, a constant may not be 0
    x, y = (values.double() - values.double().mean() for values in (predictions, labels))
    scale = (x.square().sum() * y.square().sum()).sqrt()
    return ((x * y).sum() / scale).item() if scale > 0 else 0.0


def values_of_groups(predictions: Tensor, labels: Tensor, groups: Tensor | None) -> list[float]:
    assert groups is not None, "a pack with such a metric has groups"
    return [part.value for part in parts(predictions, labels, groups)]


def parts(predictions: Tensor, labels: Tensor, groups: Tensor) -> list[Part]:
    """One for every group that has rows, in ascending order."""
    if labels.dtype.is_floating_point:
        return [
            Part(group, pearson(predictions[rows], labels[rows]), len(rows))
            for group, rows in rows_of_groups(groups)
        ]
    right = (predictions == labels).double()
    return [
        Part(group, right[rows].mean().item(), len(rows)) for group, rows in rows_of_groups(groups)
    ]


def rows_of_groups(groups: Tensor) -> list[tuple[int, Tensor]]:
    """The rows of every group that has some."""
    if groups.dtype == torch.bool:
        every = [(group, inside.nonzero().flatten()) for group, inside in enumerate(groups.T)]
        return [(group, rows) for group, rows in every if len(rows)]
    order = groups.argsort(stable=True)
    names, sizes = groups[order].unique_consecutive(return_counts=True)
    split = order.split(sizes.tolist())
    return [(name, rows) for name, rows in zip(names.tolist(), split, strict=True) if name >= 0]


METRICS: Mapping[str, Metric] = {
    "accuracy": accuracy,
    "macro_f1": macro_f1,
    "pearson": pearson,
    "per_class_mean": per_class_mean,
    "tenth_percentile": tenth_percentile,
    "worst_group": worst_group,
    "worst_group_pearson": worst_group,
}
OF_NUMBERS = ("pearson", "worst_group_pearson")
OF_GROUPS = ("tenth_percentile", "worst_group", "worst_group_pearson")


def resolve_metric(name: str, groups: Tensor | None, *, classes: bool) -> Metric:
    """BadInput if there is none of that name, or the dataset has not what it needs.

    ``classes``: whether labels are classes, and not numbers.
    """
    if name not in METRICS:
        raise BadInput(f"no metric is named {name!r}; {instead(name, METRICS)}")
    if classes == (name in OF_NUMBERS):
        theirs, other = ("classes", "numbers") if classes else ("numbers", "classes")
        raise BadInput(f"the metric {name} is of {other}, and the dataset's labels are {theirs}")
    if name in OF_GROUPS and groups is None:
        raise BadInput(f"the metric {name} needs groups, and the dataset has none")
    return METRICS[name]


def score_of(
    domain: str,
    role: Literal["source", "target"],
    predictions: Tensor,
    labels: Tensor,
    groups: Tensor | None,
    metric: str,
    class_names: Sequence[str],
    group_names: Sequence[str],
) -> Score | None:
    """What a record says of predictions [N] on a domain's test rows; None if no label is known."""
    known, classes = is_known(labels), bool(class_names)
    if not known.any():  # as in a source whose authors keep no rows for it
        return None
    labels = labels[known]
    chosen = predictions.to(labels.dtype)[known]
    groups = None if groups is None else groups[known]
    measure = resolve_metric(metric, groups, classes=classes)
    named = parts(chosen, labels, groups) if groups is not None and group_names else []
    return Score(
        domain=domain,
        role=role,
        accuracy=accuracy(chosen, labels) if classes else None,
        per_class_mean=per_class_mean(chosen, labels) if classes else None,
        value=measure(chosen, labels, groups),
        groups=tuple(
            GroupScore(group=group_names[part.group], value=part.value, n=part.n) for part in named
        ),
        n=len(labels),
    )
