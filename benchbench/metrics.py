"""Metrics that a dataset may name as its own.

Each is ``metric(predictions, labels, groups)`` of int64 [N] to a number in [0, 1]; every label is
known. Group −1 is none.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from benchbench.spelling import instead
from benchbench.terms import BadInput

Metric = Callable[[Tensor, Tensor, Tensor | None], float]


@dataclass(frozen=True)
class Part:
    """The accuracy of one group of rows."""

    group: int
    accuracy: float
    n: int


def accuracy(predictions: Tensor, labels: Tensor, groups: Tensor | None = None) -> float:
    return (predictions == labels).double().mean().item()


def per_class_mean(predictions: Tensor, labels: Tensor, groups: Tensor | None = None) -> float:
    """The mean over classes, of those that have rows, of the accuracy on their rows."""
    return (
        torch.tensor([part.accuracy for part in parts(predictions, labels, labels)]).mean().item()
    )


def macro_f1(predictions: Tensor, labels: Tensor, groups: Tensor | None = None) -> float:
    """The mean of F1 over the classes that have rows, as WILDS scores iwildcam."""
    scores = []
    for label in labels.unique():
        right = ((predictions == label) & (labels == label)).sum()
        scores.append((2 * right / ((predictions == label).sum() + (labels == label).sum())).item())
    return sum(scores) / len(scores)


def worst_group(predictions: Tensor, labels: Tensor, groups: Tensor | None = None) -> float:
    """The lowest accuracy of a group that has rows."""
    assert groups is not None, "a pack with this metric has groups"
    return min(part.accuracy for part in parts(predictions, labels, groups))


def parts(predictions: Tensor, labels: Tensor, groups: Tensor) -> list[Part]:
    """One for every group that has rows, in ascending order."""
    right = (predictions == labels).double()
    found = []
    for group in groups[groups >= 0].unique().tolist():
        inside = groups == group
        found.append(Part(group, right[inside].mean().item(), int(inside.sum())))
    return found


METRICS: Mapping[str, Metric] = {
    "accuracy": accuracy,
    "macro_f1": macro_f1,
    "per_class_mean": per_class_mean,
    "worst_group": worst_group,
}


def resolve_metric(name: str, groups: Tensor | None) -> Metric:
    """BadInput if there is none of that name, or it needs groups and there are none."""
    if name not in METRICS:
        raise BadInput(f"no metric is named {name!r}; {instead(name, METRICS)}")
    if name == "worst_group" and groups is None:
        raise BadInput("the metric worst_group needs groups, and the dataset has none")
    return METRICS[name]
