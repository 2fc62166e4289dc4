"""Will it transfer, which augmentation connects the domains, or must one label?"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, exp
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from benchbench.contracts import as_read, is_known
from benchbench.diagnose.connectivity import Connectivity
from benchbench.diagnose.fit import (
    COVERED,
    PREDICTORS,
    Fit,
    datasets,
    elsewhere,
    outcomes,
    r_squared,
    rank_correlation,
    shipped,
    values_of,
)
from benchbench.diagnose.measure import Measured, Meter
from benchbench.diagnose.pseudo import pseudo_labels
from benchbench.diagnose.report import ConnectivityTold, told
from benchbench.plan import build_augmentation
from benchbench.suite import Shift
from benchbench.terms import BadInput, derive_seed

Labels = Literal["source", "given"]
Verdict = Literal["transfers", "borderline", "label this domain"]
PREDICTOR = "connectivity"
LEAST_GAP = 0.05  # between predicted accuracy and goal: a smaller one is not worth settling
FITTED = (7, 10)  # least and most classes of the datasets of the shipped fit
POOR = 1.5  # α/γ of a class below which it counts as poorly connected
SHOWN_CLASSES = 2  # of those that are connected least, and of those that are most
SHOWN_PAIRS = 3  # of a class,
CANDIDATES, VIEWS = 20, 12  # out of so many rows of each side, and views of each


@dataclass(frozen=True)
class Option:
    """An augmentation for a target."""

    connectivity: ConnectivityTold
    accuracy: float  # predicted, of the target
    low: float
    high: float

    @property
    def augmentation(self) -> str:
        return self.connectivity.augmentation

    @property
    def ratios(self) -> tuple[float, float]:
        first, second = self.connectivity.log_ratios
        return exp(first), exp(second)


@dataclass(frozen=True)
class Pair:
    """A row of the source and one of the target, of one class, and their closest views."""

    source: int
    target: int
    source_view: Tensor  # float32 [C, H, W]
    target_view: Tensor


@dataclass(frozen=True)
class ClassAdvice:
    """How well a class is connected across the shift by the best augmentation."""

    name: str
    ratio: float  # its α/γ
    connects: tuple[Pair, ...]
    separates: tuple[Pair, ...]


@dataclass(frozen=True)
class TargetAdvice:
    """What is known of one new domain."""

    target: str
    options: tuple[Option, ...]  # best first
    verdict: Verdict
    labels_to_settle: int  # test labels that would show on which side of the goal it is
    agreement: float  # of two classifiers of the source on its rows
    classes: tuple[ClassAdvice, ...]  # least connected first
    left_out: tuple[str, ...]  # a sentence for each class that has too few rows

    @property
    def best(self) -> Option:
        return self.options[0]

    @property
    def poor(self) -> tuple[ClassAdvice, ...]:
        """Classes that meet others across the domains nearly as often as themselves."""
        return tuple(item for item in self.classes if item.ratio < POOR)


@dataclass(frozen=True)
class Advice:
    """For a labelled source, on every target."""

    dataset: str
    sources: tuple[str, ...]
    goal: float
    labels: Labels
    targets: tuple[TargetAdvice, ...]

    @cached_property
    def trust(self) -> dict[str, float]:
        """How far the shipped fit holds on datasets that it has not seen."""
        points = shipped()
        y, there = outcomes(points), elsewhere(points, PREDICTORS[PREDICTOR])
        return {
            "cells": len(points),
            "datasets": len(datasets(points)),
            "r_squared_elsewhere": r_squared(y, there),
            "rank_elsewhere": rank_correlation(there, y),
            "covered": COVERED,
        }


def advise(
    meter: Meter,
    dataset: str,
    sources: Sequence[str],
    targets: Sequence[str],
    augmentations: Sequence[str],
    *,
    goal: float,
    labels: Labels,
) -> Advice:
    """Measure connectivity of every target under every augmentation, and say what follows.

    With ``labels`` "source", no target label is read: classes of the target are those on which two
    classifiers of the source agree. What is named twice counts once. BadInput, before anything is
    measured, if a domain is unknown or an augmentation cannot be built; and if "given" labels are
    not.
    """
    fit = Fit.to(shipped(), PREDICTORS[PREDICTOR])
    candidates = list(dict.fromkeys(augmentations))
    for text in candidates:
        build_augmentation(meter.steps(text), meter.pack.task)
    shifts = [
        Shift.parse(f"{' + '.join(sources)} > {target}", meter.pack.domain_names)
        for target in dict.fromkeys(targets)
    ]
    found = [advise_on(meter, dataset, s, candidates, fit, goal, labels) for s in shifts]
    return Advice(dataset, tuple(sources), goal, labels, tuple(found))


def advise_on(
    meter: Meter,
    dataset: str,
    shift: Shift,
    augmentations: Sequence[str],
    fit: Fit,
    goal: float,
    labels: Labels,
) -> TargetAdvice:
    (target,) = shift.targets
    pack = meter.pack
    here = pack.domains == pack.domain_names.index(target)
    if labels == "given" and not is_known(pack.labels[here]).any():
        raise BadInput(f"domain {target!r} has no labels; leave out --labels given")
    pseudo = pseudo_labels(meter, augmentations[0], shift)
    classes = pseudo.labels if labels == "source" else None
    try:
        measured = [meter.of(text, shift, classes) for text in augmentations]
    except BadInput as error:
        if classes is None:
            raise
        raise BadInput(
            f"two classifiers of {' + '.join(shift.sources)} agree on {pseudo.agreement:.0%} of "
            f"{target!r}, and connectivity of these rows cannot be measured: {error}; label some "
            "and say --labels given, or leave this domain out"
        ) from None
    options = [option(dataset, meter, shift, pair, fit, labels) for pair in measured]
    order = sorted(range(len(options)), key=lambda i: -options[i].accuracy)
    best, nodes = options[order[0]], measured[order[0]]
    return TargetAdvice(
        target,
        tuple(options[i] for i in order),
        verdict_of(best, pseudo.agreement, goal),
        labels_to_settle(best.accuracy, goal),
        pseudo.agreement,
        classes_of(meter, pack.domain_names.index(target), *nodes),
        nodes[0].left_out,
    )


def option(
    dataset: str,
    meter: Meter,
    shift: Shift,
    found: tuple[Measured, Connectivity],
    fit: Fit,
    labels: Labels,
) -> Option:
    said = told(dataset, meter, shift, found, labels)
    return Option(said, *fit.accuracy(values_of(said)))


def verdict_of(best: Option, agreement: float, goal: float) -> Verdict:
    """By the interval and by agreement.

    It transfers if the whole interval reaches the goal, or if so many rows are agreed on already by
    classifiers of the source and the classes are connected (α > γ), which speaks against both being
    misled alike. To be labelled is what reaches the goal by neither.
    """
    if best.low >= goal or (agreement >= goal and best.ratios[0] > 1):
        return "transfers"
    return "label this domain" if best.high < goal and agreement < goal else "borderline"


def labels_to_settle(accuracy: float, goal: float) -> int:
    """Test labels whose 95 % interval would exclude the goal, were the prediction true.

    In four of five draws of them, by the normal approximation (Cohen 1988, chapter 6):
    n = (1.96 + 0.84)² p (1 − p) / (p − goal)², at least 30. With 1.96 alone it would be in one of
    two. A gap below ``LEAST_GAP`` is taken for that.
    """
    gap = max(abs(accuracy - goal), LEAST_GAP)
    return max(30, ceil((1.96 + 0.84) ** 2 * accuracy * (1 - accuracy) / gap**2))


def classes_of(
    meter: Meter, target: int, measured: Measured, result: Connectivity
) -> tuple[ClassAdvice, ...]:
    """Every class, the least connected first; of the first and last, pairs of rows that show it."""
    ratios = {}
    for label, (alpha, gamma) in result.of_class.items():
        rows = sum(len(measured.mistakes.rows[i]) for i in sides_of(measured, label, target))
        ratios[label] = (alpha * rows + 0.5) / (gamma * rows + 0.5)
    order = sorted(ratios, key=lambda label: ratios[label])
    shown = {*order[:SHOWN_CLASSES], *order[-SHOWN_CLASSES:]}
    advice = []
    for label in order:
        sides = sides_of(measured, label, target) if label in shown else []
        connects, separates = (
            closest_pairs(meter, measured, sides, connected=connected)
            for connected in (True, False)
        )
        name = meter.pack.class_names[label]
        advice.append(ClassAdvice(name, ratios[label], connects, separates))
    return tuple(advice)


def sides_of(measured: Measured, label: int, target: int) -> list[int]:
    """A class's nodes, those of the source first and that of the target last."""
    mine = [i for i, node in enumerate(measured.nodes) if node.label == label]
    return sorted(mine, key=lambda i: measured.nodes[i].domain == target)


def closest_pairs(
    meter: Meter, measured: Measured, sides: Sequence[int], *, connected: bool
) -> tuple[Pair, ...]:
    """Pairs of a class in two domains, and of each the views that come closest.

    ``sides`` are its nodes, those of the source first and that of the target last. If ``connected``
    the pairs that come closest, from the rows that are most often taken for the other domain's;
    else those that stay farthest apart, from the rows that are least often. None of texts.
    """
    if meter.pack.vocabulary or len(sides) < 2:
        return ()
    first, second = sides[0], sides[-1]
    taken, rows = measured.mistakes.taken, measured.mistakes.rows
    augment = build_augmentation(meter.steps(measured.augmentation), meter.pack.task)
    seen = []
    for own, other in ((first, second), (second, first)):
        share = taken[own][:, other]
        order = share.argsort(descending=connected, stable=True)[:CANDIDATES]
        chosen = rows[own][order]
        inputs = as_read(meter.pack.inputs[chosen])
        torch.manual_seed(derive_seed(meter.seed, "closest", own))
        seen.append((chosen, torch.stack([augment(inputs) for _ in range(VIEWS)], 1)))
    (a, views_a), (b, views_b) = seen
    coarse_a, coarse_b = (F.adaptive_avg_pool2d(v.flatten(0, 1), 8).flatten(1)
                          for v in (views_a, views_b))  # fmt: skip
    apart = (
        torch.cdist(coarse_a, coarse_b)
        .unflatten(0, views_a.shape[:2])
        .unflatten(2, views_b.shape[:2])
    )
    nearest = apart.permute(0, 2, 1, 3).flatten(2).min(2)  # [rows of a, rows of b]
    pairs, distance = [], nearest.values if connected else -nearest.values
    for _ in range(min(SHOWN_PAIRS, *distance.shape)):
        i, j = divmod(int(distance.argmin()), distance.shape[1])
        view_a, view_b = divmod(int(nearest.indices[i, j]), VIEWS)
        views = views_a[i, view_a].clone(), views_b[j, view_b].clone()  # not all views are kept
        pairs.append(Pair(int(a[i]), int(b[j]), *views))
        distance[i], distance[:, j] = torch.inf, torch.inf
    return tuple(pairs)
