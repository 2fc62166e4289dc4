"""Will it transfer, which augmentation connects the domains, or must one label?"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil, exp
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from benchbench.data.pack import Pack
from benchbench.diagnostics.accuracy_prediction import (
    COVERED,
    PREDICTORS,
    Fit,
    Point,
    datasets,
    elsewhere,
    outcomes,
    r_squared,
    rank_correlation,
    shipped,
    values_of,
)
from benchbench.diagnostics.augmentation_search_space import fits
from benchbench.diagnostics.connectivity import Connectivity
from benchbench.diagnostics.connectivity_measurement import Measured, Meter
from benchbench.diagnostics.connectivity_report import ConnectivityTold, told
from benchbench.diagnostics.pseudo_labels import CLASSIFIERS, Pseudo, pseudo_labels
from benchbench.extension.constants import COLOURS, CROPS
from benchbench.extension.contracts import as_read, is_known
from benchbench.extension.errors import BadInput
from benchbench.suites.plan import build_augmentation
from benchbench.suites.suite import Shift
from benchbench.training.seeds import derive_seed

Labels = Literal["source", "given"]
Verdict = Literal["transfers", "borderline", "label this domain", "cannot tell"]
PREDICTOR = "connectivity"
ENOUGH = 0.9  # of the classes measured, and of the rows agreed on; with less nothing is predicted
FEW = 5  # mistaken test rows: of fewer one more or less changes a ratio by a fifth and more
LEARNT = 0.5  # of the way from chance to 1 that classifiers of the source must go on held-out rows
LEAST_GAP = 0.05  # between predicted accuracy and goal: a smaller one is not worth settling
UNKNOWN_GAP = 0.1  # the same, where no accuracy can be predicted
FITTED = (7, 10)  # least and most classes of the datasets of the shipped fit
POOR = 1.5  # α/γ of a class below which it counts as poorly connected
SHOWN_CLASSES = 2  # of those that are connected least, and of those that are most
SHOWN_PAIRS = 3  # of a class,
TRIED = (f"{CROPS} | {COLOURS}", CROPS, COLOURS, f"{CROPS} | {COLOURS} | invert", "affine",
         "wilds_strong", "noise | gaussian_blur")  # fmt: skip
OF_TEXTS = ("token_dropout", "span", "synonyms", "span | synonyms")
SECONDS = (13, 61)  # of 300 steps, 32 pixels, two CPU cores: leaderboards/connectivity
CANDIDATES, VIEWS = 20, 12  # out of so many rows of each side, and views of each


@dataclass(frozen=True)
class Option:
    """An augmentation for a target."""

    connectivity: ConnectivityTold
    accuracy: float  # predicted, of the target
    low: float
    high: float
    doubts: tuple[str, ...] = ()  # sentences; with one, what is predicted says nothing

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
    options: tuple[Option, ...]  # best first; as they were asked for, if it "cannot tell"
    verdict: Verdict
    reasons: tuple[str, ...]  # a sentence for each reason why it "cannot tell"
    next_steps: tuple[str, ...]  # what to do where it "cannot tell", a sentence each
    labels_to_settle: int  # test labels that would show on which side of the goal it is
    agreement: float  # of two classifiers of the source on its rows
    source_accuracy: tuple[float, ...]  # of these classifiers, on source rows they have not seen
    classes: tuple[ClassAdvice, ...]  # least connected first
    left_out: tuple[str, ...]  # a sentence for each class that has too few rows

    @property
    def best(self) -> Option:
        return self.options[0]

    @property
    def poor(self) -> tuple[ClassAdvice, ...]:
        """Classes that meet others across the domains nearly as often as themselves.

        None where it "cannot tell": which they are would be as uncertain as the prediction.
        """
        return tuple(item for item in self.classes if item.ratio < POOR and not self.reasons)


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
            "covered_elsewhere": covered_elsewhere(points),
        }


@dataclass(frozen=True)
class Fitted:
    """A fit, and the range of the cells it was fitted to: outside it says nothing."""

    fit: Fit
    values: dict[str, tuple[float, float]]  # least and highest of each predictor
    accuracy: tuple[float, float]  # and of what was measured

    @classmethod
    def to(cls, points: Sequence[Point]) -> "Fitted":
        """BadInput if the points are of fewer than two datasets."""
        names = PREDICTORS[PREDICTOR]
        return cls(
            Fit.to(points, names),
            {name: range_of([point.values[name] for point in points]) for name in names},
            range_of([point.target for point in points]),
        )

    def option(self, said: ConnectivityTold) -> Option:
        """What is predicted from measured connectivity, and what speaks against believing it."""
        accuracy, low, high = self.fit.accuracy(values_of(said))
        doubts = (*self.outside(said, accuracy), *decided_by_a_row(said))
        return Option(said, accuracy, low, high, doubts)

    def outside(self, said: ConnectivityTold, accuracy: float) -> list[str]:
        """A sentence for each quantity that no cell of the fit came as low as, or as high."""
        found = values_of(said)
        doubts = [
            f"{name} is {found[name]:.1f} under {said.augmentation}; the fit that predicts has "
            f"seen {low:.1f} to {high:.1f}"
            for name, (low, high) in self.values.items()
            if not low <= found[name] <= high
        ]
        low, high = self.accuracy
        if not low <= accuracy <= high:
            doubts.append(
                f"the prediction under {said.augmentation} is outside the accuracies that the fit "
                f"has seen, {low:.0%} to {high:.0%}"
            )
        return doubts


def range_of(values: Sequence[float]) -> tuple[float, float]:
    return min(values), max(values)


def decided_by_a_row(said: ConnectivityTold) -> list[str]:
    """A sentence for each of α, β and γ that fewer than ``FEW`` mistaken test rows make up.

    A row counts as one if all its views are taken for every node that it is compared with, and for
    less if some are: value · rows of them make up the value. With m of them, one more makes the
    smoothed value (m + 1.5) / (m + 0.5) times what it was: three times if m = 0, 1.2 if m = 5.
    """
    found = []
    for name, part in (("α", said.alpha), ("β", said.beta), ("γ", said.gamma)):
        mistaken = part.value * part.rows
        if mistaken < FEW:
            found.append(
                f"{name} is {part.value:.4f} under {said.augmentation}: {mistaken:.1f} of "
                f"{part.rows} test rows are mistaken, and one more would change it by a factor of "
                f"{(mistaken + 1.5) / (mistaken + 0.5):.1f}; {FEW} are needed"
            )
    return found


def covered_elsewhere(points: Sequence[Point]) -> float:
    """Share of points that lie in the interval of a fit to all other datasets.

    The width of the interval is of these others, too, so that nothing of a dataset decides its own.
    """
    inside = []
    for dataset in datasets(points):
        fit = Fit.to([p for p in points if p.dataset != dataset], PREDICTORS[PREDICTOR])
        for point in points:
            if point.dataset == dataset:
                _, low, high = fit.accuracy(point.values)
                inside.append(low <= point.target <= high)
    return sum(inside) / len(inside)


def usual(meter: Meter) -> list[str]:
    """Of the usual candidates, those that can be built for the data.

    Colours, say, want one channel or three. BadInput if there is none.
    """
    every = OF_TEXTS if meter.pack.vocabulary else TRIED
    found = [text for text in every if fits(meter.catalog, meter.pack.task, text)]
    if not found:
        raise BadInput("none of the usual augmentations is for such data; say --augmentation")
    return found


def in_advance(networks: int, steps: int) -> str:
    """Roughly how long it takes: by what one network took for the boards of connectivity."""
    return (
        f"training up to {networks} small networks, {steps} steps each; those in the store are not "
        f"trained again. 300 steps with images of 32 pixels took {SECONDS[0]} to {SECONDS[1]} s on "
        "two CPU cores"
    )


def advise(
    meter: Meter,
    dataset: str,
    sources: Sequence[str],
    targets: Sequence[str],
    augmentations: Sequence[str],
    *,
    goal: float,
    labels: Labels,
    watch: Callable[[int], None] = lambda networks: None,
) -> Advice:
    """Measure connectivity of every target under every augmentation, and say what follows.

    With ``labels`` "source", no target label is read: classes of the target are those on which two
    classifiers of the source agree. What is named twice counts once. ``watch`` is told how many
    networks are trained at most, before the first is. BadInput, before that, if a domain is unknown
    or an augmentation cannot be built; and if "given" labels are not.
    """
    fitted = Fitted.to(shipped())
    candidates = list(dict.fromkeys(augmentations))
    for text in candidates:
        build_augmentation(meter.steps(text), meter.pack.task)
    shifts = [
        Shift.parse(f"{' + '.join(sources)} > {target}", meter.pack.domain_names)
        for target in dict.fromkeys(targets)
    ]
    watch(len(shifts) * (CLASSIFIERS + len(candidates)))
    found = [advise_on(meter, dataset, s, candidates, fitted, goal, labels) for s in shifts]
    return Advice(dataset, tuple(sources), goal, labels, tuple(found))


def advise_on(
    meter: Meter,
    dataset: str,
    shift: Shift,
    augmentations: Sequence[str],
    fitted: Fitted,
    goal: float,
    labels: Labels,
) -> TargetAdvice:
    (target,) = shift.targets
    pack = meter.pack
    number = pack.domain_names.index(target)
    if labels == "given" and not is_known(pack.labels[pack.domains == number]).any():
        raise BadInput(f"domain {target!r} has no labels; leave out --labels given")
    pseudo = pseudo_labels(meter, augmentations[0], shift)
    assumed = pseudo.labels if labels == "source" else None
    try:
        measured = [meter.of(text, shift, assumed) for text in augmentations]
    except BadInput as error:
        if assumed is None:
            raise
        raise BadInput(
            f"two classifiers of {' + '.join(shift.sources)} agree on {pseudo.agreement:.0%} of "
            f"{target!r}, and connectivity of these rows cannot be measured: {error}; label some "
            "and say --labels given, or leave this domain out"
        ) from None
    options = [fitted.option(told(dataset, meter, shift, pair, labels)) for pair in measured]
    order = sorted(range(len(options)), key=lambda i: -options[i].accuracy)
    best = options[order[0]]
    reasons = (
        *doubts_of_data(pack),
        *doubts_of_classifiers(pseudo, shift, labels),
        *doubts_of_classes(pack, shift, labels, len(measured[0][1].of_class)),
        *best.doubts,
    )
    if reasons:
        order = list(range(len(options)))
    needed = labels_to_settle(None if reasons else best.accuracy, goal)
    return TargetAdvice(
        target,
        tuple(options[i] for i in order),
        "cannot tell" if reasons else verdict_of(best, pseudo.agreement, goal),
        reasons,
        next_steps(target, needed, labels) if reasons else (),
        needed,
        pseudo.agreement,
        pseudo.source,
        classes_of(meter, number, *measured[order[0]]),
        measured[0][0].left_out,
    )


def doubts_of_data(pack: Pack) -> list[str]:
    """Sentences on what the datasets of the shipped fit have not: such classes, or texts."""
    doubts, classes = [], len(pack.class_names)
    if pack.vocabulary:
        doubts.append("the data are texts; the fit that predicts is of images")
    if not FITTED[0] <= classes <= FITTED[1]:
        doubts.append(
            f"the data have {classes} classes; the fit that predicts is of datasets with "
            f"{FITTED[0]} to {FITTED[1]}"
        )
    return doubts


def doubts_of_classifiers(pseudo: Pseudo, shift: Shift, labels: Labels) -> list[str]:
    """Sentences on classifiers of the source that know neither it nor the target.

    With given labels how far they agree is no matter of what is measured.
    """
    doubts, source, (target,) = [], " + ".join(shift.sources), shift.targets
    least = pseudo.chance + LEARNT * (1 - pseudo.chance)
    if min(pseudo.source) < least:
        read = " and ".join(f"{accuracy:.0%}" for accuracy in pseudo.source)
        doubts.append(
            f"two classifiers of {source} have not learnt it: they read {read} of its own held-out "
            f"rows, mean over classes; {least:.0%} is needed, where chance is {pseudo.chance:.0%}"
        )
    if labels == "source" and pseudo.agreement < ENOUGH:
        doubts.append(
            f"two classifiers of {source} agree on {pseudo.agreement:.0%} of {target}; "
            f"{ENOUGH:.0%} are needed, to take for its classes what they say"
        )
    if labels == "source" and pseudo.classes < 2:
        doubts.append(f"all rows of {target} that they agree on are of one class to them")
    return doubts


def doubts_of_classes(pack: Pack, shift: Shift, labels: Labels, measured: int) -> list[str]:
    """A sentence if fewer than ``ENOUGH`` of the classes could be measured.

    Of the target's if its labels are given, else of those that the source has labels of.
    """
    side = shift.targets if labels == "given" else shift.sources
    numbers = torch.tensor([pack.domain_names.index(name) for name in side])
    here = pack.labels[torch.isin(pack.domains, numbers)]
    there = len(here[is_known(here)].unique())
    if measured >= ENOUGH * there:
        return []
    return [
        f"{measured} of {there} classes of {' + '.join(side)} could be measured, {ENOUGH:.0%} are "
        "needed; of the others too few rows are of known class in one of the domains"
    ]


def verdict_of(best: Option, agreement: float, goal: float) -> Verdict:
    """By the interval first, and by agreement where the interval leaves it open.

    It transfers if the whole interval reaches the goal; or if the prediction itself does, so many
    rows are agreed on already by classifiers of the source, and the classes are connected (α > γ),
    which speaks against both being misled alike. To be labelled is what reaches the goal neither
    with the interval nor by agreement. If the two contradict each other it is borderline.
    """
    agreed = agreement >= goal and best.ratios[0] > 1
    if best.low >= goal or (best.accuracy >= goal and agreed):
        return "transfers"
    return "label this domain" if best.high < goal and agreement < goal else "borderline"


def labels_to_settle(accuracy: float | None, goal: float) -> int:
    """Test labels whose 95 % interval would exclude the goal, were the prediction true.

    In four of five draws of them, by the normal approximation (Cohen 1988, chapter 6):
    n = (1.96 + 0.84)² p (1 − p) / (p − goal)², at least 30. With 1.96 alone it would be in one of
    two. A gap below ``LEAST_GAP`` is taken for that. Of an unknown accuracy (None) p is 0.5, where
    p (1 − p) is largest, and the gap ``UNKNOWN_GAP``: one that far from the goal, or farther, is
    told from it wherever it lies.
    """
    if accuracy is None:
        p, gap = 0.5, UNKNOWN_GAP
    else:
        p, gap = accuracy, max(abs(accuracy - goal), LEAST_GAP)
    return max(30, ceil((1.96 + 0.84) ** 2 * p * (1 - p) / gap**2))


def next_steps(target: str, needed: int, labels: Labels) -> tuple[str, ...]:
    """Sentences: what tells where a measurement without target labels does not."""
    given = (
        f"If the data hold labels of {target}, or once some are there, measure with --labels given."
    )
    return (
        f"Label {needed} rows of {target}, drawn at random, and test a classifier on them: this "
        f"tells its accuracy from a goal that is {100 * UNKNOWN_GAP:.0f} or more points away.",
        *([given] if labels == "source" else []),
        "Run the suite that the page ends with: it trains and scores what was to be predicted.",
    )


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
