"""Does connectivity predict target accuracy? A linear fit, and whether it holds elsewhere.

Shen et al. 2022 (arXiv:2204.00570) fit accuracy to (α/γ)^w1 (β/γ)^w2. Here the logit of accuracy is
fitted by least squares to log(α/γ) and log(β/γ), and to what else might predict it, over cells: a
shift, in one direction, of a dataset under an augmentation. A fit is judged on datasets that it has
not seen.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from math import exp, log, nan
from statistics import mean

import numpy as np
from scipy.stats import spearmanr

from benchbench.diagnostics.connectivity import Connectivity
from benchbench.diagnostics.connectivity_report import ConnectivityTold
from benchbench.extension.errors import BadInput
from benchbench.training.seeds import derive_seed

SHIPPED = files("benchbench") / "diagnostics" / "accuracy_prediction.json"
PREDICTORS: Mapping[str, tuple[str, ...]] = {
    "connectivity": ("log α/γ", "log β/γ"),
    "α/γ alone": ("log α/γ",),
    "α, β and γ, no ratios": ("α", "β", "γ"),
    "domain distance of views": ("log domain error",),
    "A-distance of features": ("a_distance",),
    "A-distance within classes": ("domain_accuracy_within",),
    "MMD² of features": ("mmd_squared",),
    "CORAL distance of features": ("coral_distance",),
    "all four distances": ("log domain error", "a_distance", "mmd_squared", "coral_distance"),
    "source accuracy": ("logit source",),
    "source accuracy and connectivity": ("logit source", "log α/γ", "log β/γ"),
}
PERMUTED = 2000  # times
COVERED = 0.8  # of cells of datasets that a fit has not seen lie inside its interval


@dataclass(frozen=True)
class Point:
    """A shift of a dataset under an augmentation, and what came of pre-training with it."""

    dataset: str
    shift: str
    augmentation: str
    target: float  # accuracy, mean over seeds
    seeds: int
    values: dict[str, float]  # of what may predict it


@dataclass(frozen=True)
class Judged:
    """How well something predicts the logit of target accuracy."""

    inside: float  # R², of the fit to all points
    pairs: float  # R², each pair of domains predicted by a fit to all other pairs
    elsewhere: float  # R², each dataset predicted by a fit to the others
    rank: float  # Spearman's correlation of those predictions with accuracy
    within: float  # the same within a shift, over augmentations; mean over shifts
    chosen: float  # accuracy with the augmentation they prefer on each shift; mean over shifts
    chance_domains: float  # share of permutations of pairs of domains, in a dataset, of as high R²
    chance_within: float  # the same, of the augmentations within every shift


@dataclass(frozen=True)
class Fit:
    """Weights of the intercept and the predictors, and how far it errs on other datasets."""

    names: tuple[str, ...]
    weights: tuple[float, ...]
    error: float  # of the logit, which COVERED of unseen cells do not exceed

    @classmethod
    def to(cls, points: Sequence[Point], names: Sequence[str]) -> "Fit":
        """BadInput if there are fewer than two datasets to judge it by."""
        missed = np.abs(outcomes(points) - elsewhere(points, names))
        return cls(
            tuple(names),
            tuple(weights(points, names).tolist()),
            float(np.quantile(missed, COVERED)),
        )

    def accuracy(self, values: Mapping[str, float]) -> tuple[float, float, float]:
        """What it predicts, and the ends of the interval, all in (0, 1)."""
        told = self.weights[0] + sum(
            w * values[name] for w, name in zip(self.weights[1:], self.names, strict=True)
        )
        return expit(told), expit(told - self.error), expit(told + self.error)


def judge(points: Sequence[Point], names: Sequence[str]) -> Judged:
    """Of predictors by name; every point has them. BadInput if all are of one dataset."""
    y, there = outcomes(points), elsewhere(points, names)
    inside = r_squared(y, design(points, names) @ weights(points, names))
    shifts = sorted({(point.dataset, point.shift) for point in points})
    inner = [np.flatnonzero([(p.dataset, p.shift) == shift for p in points]) for shift in shifts]
    ranks = [rank_correlation(there[i], y[i]) for i in inner if len(i) > 2]
    pairs = [f"{p.dataset} {sorted(domains_of(p.shift))}" for p in points]
    return Judged(
        inside,
        r_squared(y, held_out(points, names, pairs)),
        r_squared(y, there),
        rank_correlation(there, y),
        mean(ranks) if ranks else float("nan"),
        mean(points[i[np.argmax(there[i])]].target for i in inner),
        by_chance(points, names, alike(points, pairs)),
        by_chance(points, names, [[np.array([i]) for i in group] for group in inner]),
    )


def judged(points: Sequence[Point]) -> dict[str, Judged]:
    """By name, each of ``PREDICTORS`` that all points have."""
    return {
        name: judge(points, names)
        for name, names in PREDICTORS.items()
        if all(set(names) <= point.values.keys() for point in points)
    }


def fixed_and_best(points: Sequence[Point]) -> tuple[str, float, float]:
    """The augmentation that is best on average, with its accuracy, and the best of every shift's.

    Means over shifts: what choosing one for each shift can be compared with. Of augmentations that
    every shift has.
    """
    by_shift: dict[tuple[str, str], dict[str, float]] = {}
    for point in points:
        by_shift.setdefault((point.dataset, point.shift), {})[point.augmentation] = point.target
    common = set.intersection(*(set(found) for found in by_shift.values()))
    means = {name: mean(found[name] for found in by_shift.values()) for name in sorted(common)}
    fixed = max(means, key=means.__getitem__, default="none")
    return fixed, means.get(fixed, nan), mean(max(found.values()) for found in by_shift.values())


def alike(points: Sequence[Point], pairs: Sequence[str]) -> list[list[np.ndarray]]:
    """The rows of every pair of domains, in one order, together with those of pairs like it."""
    found: dict[tuple[str, int], list[np.ndarray]] = {}
    for pair in sorted(set(pairs)):
        rows = [i for i, its in enumerate(pairs) if its == pair]
        rows.sort(key=lambda i: (points[i].shift, points[i].augmentation))
        found.setdefault((points[rows[0]].dataset, len(rows)), []).append(np.array(rows))
    return [*found.values()]


def by_chance(
    points: Sequence[Point], names: Sequence[str], exchanged: Sequence[Sequence[np.ndarray]]
) -> float:
    """How often a fit is as good when outcomes change places: whole blocks, in each collection.

    Connectivity is the same in both directions of a pair of domains and alike under related
    augmentations, so that single cells are no independent draws.
    """
    y, x = outcomes(points), design(points, names)
    through = x @ np.linalg.pinv(x)
    wanted = r_squared(y, through @ y)
    generator = np.random.default_rng(derive_seed(0, "permutations"))
    as_high = 0
    for _ in range(PERMUTED):
        mixed = y.copy()
        for blocks in exchanged:
            for block, other in zip(blocks, generator.permutation(len(blocks)), strict=True):
                mixed[block] = y[blocks[other]]
        as_high += r_squared(mixed, through @ mixed) >= wanted - 1e-12
    return (as_high + 1) / (PERMUTED + 1)


def elsewhere(points: Sequence[Point], names: Sequence[str]) -> np.ndarray:
    """Predicted logits, each by a fit to all other datasets; BadInput if there is no other."""
    if len(datasets(points)) < 2:
        raise BadInput("a fit needs points of two datasets at least, to be judged by the other")
    return held_out(points, names, [point.dataset for point in points])


def held_out(points: Sequence[Point], names: Sequence[str], groups: Sequence[str]) -> np.ndarray:
    """Predicted logits, each by a fit to the points of all other groups."""
    told = np.zeros(len(points))
    for group in sorted(set(groups)):
        others = [point for point, its in zip(points, groups, strict=True) if its != group]
        mine = [i for i, its in enumerate(groups) if its == group]
        told[mine] = design([points[i] for i in mine], names) @ weights(others, names)
    return told


def weights(points: Sequence[Point], names: Sequence[str]) -> np.ndarray:
    found: np.ndarray = np.linalg.lstsq(design(points, names), outcomes(points))[0]
    return found


def design(points: Sequence[Point], names: Sequence[str]) -> np.ndarray:
    return np.array([[1.0, *(point.values[name] for name in names)] for point in points])


def outcomes(points: Sequence[Point]) -> np.ndarray:
    return np.array([logit(point.target) for point in points])


def datasets(points: Sequence[Point]) -> list[str]:
    return sorted({point.dataset for point in points})


def r_squared(y: np.ndarray, told: np.ndarray) -> float:
    return float(1 - np.square(y - told).sum() / np.square(y - y.mean()).sum())


def rank_correlation(told: np.ndarray, y: np.ndarray) -> float:
    """Spearman's; 0 where one of the two is constant."""
    if np.ptp(told) == 0 or np.ptp(y) == 0:
        return 0.0
    return float(spearmanr(told, y).statistic)


def logit(share: float) -> float:
    held = min(max(share, 1e-3), 1 - 1e-3)  # of all right or all wrong, too
    return log(held / (1 - held))


def expit(value: float) -> float:
    return 1 / (1 + exp(-value))


def domains_of(shift: str) -> frozenset[str]:
    return frozenset(side.strip() for side in shift.split(">"))


def values_of(told: ConnectivityTold | Connectivity) -> dict[str, float]:
    """What connectivity alone says."""
    first, second = told.log_ratios
    values = {"log α/γ": first, "log β/γ": second}
    values |= {"α": told.alpha.value, "β": told.beta.value, "γ": told.gamma.value}
    if told.domain is not None:
        rows = told.alpha.rows
        values["log domain error"] = log((told.domain * rows + 0.5) / (rows + 1))
    return values


def shipped() -> list[Point]:
    """The points that came with benchbench, of leaderboards/connectivity."""
    return [Point(**fields) for fields in json.loads(SHIPPED.read_text(encoding="utf-8"))]


def as_json(points: Sequence[Point]) -> str:
    return json.dumps([asdict(point) for point in points], indent=1, ensure_ascii=False) + "\n"
