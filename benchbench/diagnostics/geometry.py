"""Why frozen features carry over or not: their disentanglement, invariance and health."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from benchbench.evaluation.feature_statistics import FEWEST, drawn, effective_rank, enough_threads
from benchbench.evaluation.features import RESOLUTION, Features
from benchbench.evaluation.readouts.interface import known, with_bias
from benchbench.evaluation.readouts.linear_probe import logistic_path
from benchbench.extension.constants import UNKNOWN
from benchbench.store.keys import key_of
from benchbench.store.records import Diagnostics

VERSION = 1  # of the numbers: what is kept under another version is not read
ROWS = 5000  # the most training rows, and the most held-out rows, that are read of a side
PAIRS = 1000  # the most rows of a side between which distances are taken
C = 0.1  # of logistic regression, on features whose mean square is 1; cosines depend on it
MAX_ITER = 100


@dataclass(frozen=True)
class Side:
    """The source of a shift, or its target: the rows of all its domains together."""

    train: Features
    held_out: Features  # of validation and test rows, which no stage has seen

    @classmethod
    def of(cls, train: Features, *held_out: Features) -> "Side":
        z, labels = ([getattr(rows, name) for rows in held_out] for name in ("z", "labels"))
        return cls(train, Features(torch.cat(z), torch.cat(labels)))

    @property
    def z(self) -> Tensor:
        return torch.cat([self.train.z, self.held_out.z])

    def of_class(self, label: int) -> "Side":
        return self.each(lambda rows: chosen(rows, rows.labels == label))

    def each(self, change: Callable[[Features], Features]) -> "Side":
        return Side(change(self.train), change(self.held_out))


@dataclass(frozen=True)
class Probe:
    """What tells source from target."""

    axis: Tensor  # float64 [D], from source to target
    accuracy: float | None  # balanced, of held-out rows; None if a side has none


def diagnostics_key(
    encoder_key: str, fingerprint: str, sources: tuple[str, ...], targets: tuple[str, ...]
) -> str:
    """Under which the numbers of an encoder on a shift are kept."""
    about = {"encoder": encoder_key, "data": fingerprint, "version": VERSION}
    return key_of({**about, "sources": sources, "targets": targets})


def diagnose(source: Side, target: Side, num_classes: int) -> Diagnostics:
    """What is known of the features of a shift; what its rows or labels do not tell is None.

    Heads and probes are fitted on training rows. Accuracies, distances and health are those of
    held-out rows, since an objective may know its training rows by heart; but effective rank, which
    wants many rows, is of training rows. Of large sides a fixed draw is read. Target labels are
    read as for a score: nothing is chosen by them. All None if a feature is not finite.
    """
    source, target = (side.each(lambda rows: some(rows, ROWS)) for side in (source, target))
    if any(len(side.z) == 0 or not side.z.isfinite().all() for side in (source, target)):
        return Diagnostics()
    if not num_classes:
        source, target = source.each(without_labels), target.each(without_labels)
    with enough_threads((source.z.numel() + target.z.numel()) * max(num_classes, 1)):
        told = health(source.held_out, target.held_out)
        told["effective_rank"] = effective_rank(torch.cat([source.train.z, target.train.z]))
        if scaled := on_one_scale(source, target):
            told |= separation(*scaled, num_classes)
            told |= distances(*(side.held_out.z for side in scaled))
    return Diagnostics(**told)


def some(rows: Features, most: int) -> Features:
    return chosen(rows, drawn(len(rows.z), most))


def chosen(rows: Features, which: Tensor) -> Features:
    return Features(rows.z[which], rows.labels[which])


def without_labels(rows: Features) -> Features:
    return Features(rows.z, torch.full((len(rows.z),), UNKNOWN))


def on_one_scale(source: Side, target: Side) -> tuple[Side, Side] | None:
    """In float64, centred and divided by one number, so that the mean square of a feature is 1.

    Both sides weigh the same, whatever their rows. So features of encoders that differ by a shift
    and a factor are the same here. None if the features are constant.
    """
    sides = [side.z.double() for side in (source, target)]
    centre = torch.stack([z.mean(0) for z in sides]).mean(0)
    scale = torch.stack([(z - centre).square().mean() for z in sides]).mean().sqrt()
    if scale <= RESOLUTION * torch.cat(sides).square().mean().sqrt():
        return None

    def moved(rows: Features) -> Features:
        return Features((rows.z.double() - centre) / scale, rows.labels)

    return source.each(moved), target.each(moved)


def separation(source: Side, target: Side, num_classes: int) -> dict[str, float | None]:
    """What linear heads for class and for domain tell, of features on one scale.

    Shen et al. 2022 (arXiv:2204.00570): class heads that source and target share, and that are
    orthogonal to the domain, carry over from one to the other, however far apart the two are. A
    probe within a class does not see that classes are more frequent on one side. The proxy
    A-distance is 2 (1 − 2 err) of Ben-David et al. 2007, err the balanced error.
    """
    heads = [class_heads(side.train, num_classes) for side in (source, target)]
    there = [each.isfinite().all(1) for each in heads]
    shared = (there[0] & there[1]).nonzero().flatten()
    on_source = relative(heads[0], there[0].nonzero().flatten())
    pooled = probes([(source, target)])
    within = probes((source.of_class(c), target.of_class(c)) for c in shared.tolist())
    accuracy = mean(probe.accuracy for probe in pooled)
    return {
        "class_cosine": cosine(relative(heads[0], shared), relative(heads[1], shared)),
        "domain_cosine": mean(cosine(on_source, probe.axis) for probe in pooled),
        "domain_cosine_within": mean(cosine(on_source, probe.axis) for probe in within),
        "domain_accuracy": accuracy,
        "domain_accuracy_within": mean(probe.accuracy for probe in within),
        "a_distance": None if accuracy is None else 2 * (1 - 2 * (1 - accuracy)),
    }


def class_heads(train: Features, num_classes: int) -> Tensor:
    """float64 [K, D]: the head of every class that has enough rows, NaN for the others."""
    rows = known(train)
    heads = torch.full((num_classes, train.z.shape[1]), torch.nan, dtype=torch.float64)
    there = (torch.bincount(rows.labels, minlength=num_classes) >= FEWEST).nonzero().flatten()
    if len(there) > 1:
        rows = chosen(rows, torch.isin(rows.labels, there))
        number = torch.searchsorted(there, rows.labels)
        heads[there] = logistic(rows.z, number, len(there))[:-1].T
    return heads


def relative(heads: Tensor, classes: Tensor) -> Tensor:
    """float64 [C, D]: heads of these classes less their mean, which softmax leaves open.

    No row if there are fewer than two of them.
    """
    few = heads[classes] if len(classes) > 1 else heads[:0]
    return few - few.mean(0)


def cosine(heads: Tensor, others: Tensor) -> float | None:
    """The mean |cosine| of rows [C, D] with the others' rows, or with one [D]; None of no row."""
    return mean(F.cosine_similarity(heads, others.expand_as(heads), dim=1).abs().tolist())


def probes(pairs: Iterable[tuple[Side, Side]]) -> list[Probe]:
    """Of all pairs that have enough training rows.

    Each is fitted on as many rows of the one side as of the other, drawn without replacement.
    """
    found = []
    for pair in pairs:
        count = min(len(side.train.z) for side in pair)
        if count >= FEWEST:
            z = torch.cat([some(side.train, count).z for side in pair])
            weights = logistic(z, torch.arange(2).repeat_interleave(count), 2)
            axis = weights[:-1, 1] - weights[:-1, 0]
            found.append(Probe(axis, balanced_accuracy(weights, [s.held_out.z for s in pair])))
    return found


def balanced_accuracy(weights: Tensor, sides: list[Tensor]) -> float | None:
    """The mean over sides of the share of rows that are assigned to it."""
    if not all(map(len, sides)):
        return None
    assigned = [(with_bias(z) @ weights).argmax(1) for z in sides]
    return mean((its == side).double().mean().item() for side, its in enumerate(assigned))


def logistic(z: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """float64 [D + 1, K]: logistic regression of one penalty, the intercept last.

    Of fewer rows than features it is fitted in the space of the rows, which has all of its heads.
    """
    if len(z) < z.shape[1]:
        basis = torch.linalg.qr((z - z.mean(0)).T).Q
        weights = logistic(z @ basis, labels, num_classes)
        return torch.cat([basis @ weights[:-1], weights[-1:]])
    return logistic_path(z, labels, num_classes, [C], MAX_ITER)[0]


def mean(values: Iterable[float | None]) -> float | None:
    """Of those that are known; None if none is."""
    told = [value for value in values if value is not None]
    return sum(told) / len(told) if told else None


def distances(x: Tensor, y: Tensor) -> dict[str, float | None]:
    """How far apart features [N, D] and [M, D] on one scale are."""
    if min(len(x), len(y)) < 2:
        return {}
    return {
        "coral_distance": coral(x, y),
        "mmd_squared": mmd(*(z[drawn(len(z), PAIRS)] for z in (x, y))),
    }


def coral(x: Tensor, y: Tensor) -> float:
    """‖C_x − C_y‖² / 4 D² of [N, D] and [M, D] (Sun & Saenko 2016, arXiv:1607.01719, eq. 1).

    On one scale, rows that differ by chance alone have about (1/N + 1/M) / 4.
    """
    gap = torch.cov(x.T) - torch.cov(y.T)
    return gap.square().sum().item() / (4 * x.shape[1] ** 2)


def mmd(x: Tensor, y: Tensor) -> float | None:
    """MMD² of rows [N, D] and [M, D], unbiased (Gretton et al. 2012, equation 3).

    The kernel is exp(−d² / 2σ²), σ the median distance of all pairs (section 8); None if it is
    zero, or rounding of zero.
    """
    pairs = [distinct(x), distinct(y), squared_distances(x, y).flatten()]
    median, mean = torch.cat(pairs).median(), torch.cat(pairs).mean()
    if median <= RESOLUTION**2 * mean:
        return None
    inside_x, inside_y, across = ((-d / (2 * median)).exp().mean().item() for d in pairs)
    return inside_x + inside_y - 2 * across


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """[N, M]"""
    lengths = x.square().sum(1)[:, None] + y.square().sum(1)
    return (lengths - 2 * x @ y.T).clamp(min=0)


def distinct(x: Tensor) -> Tensor:
    """[N (N − 1) / 2]: the squared distance of every pair of rows."""
    return squared_distances(x, x)[torch.ones(len(x), len(x), dtype=torch.bool).triu(1)]


def health(source: Features, target: Features) -> dict[str, float | None]:
    """Whether held-out features use the sphere that they have, and hold a class together on it.

    Alignment and uniformity are those of Wang & Isola 2020 (arXiv:2005.10242, section 4.1), but
    for the positive pairs: stored features are of rows without augmentation, and so a pair is of
    two rows of one class, every class weighing the same.
    """
    source, target = normalised(source), normalised(target)
    both = torch.cat([source.z, target.z])
    if len(both) < 2:
        return {}
    mine, theirs = by_class(source), by_class(target)
    few = torch.cat([some(rows, PAIRS).z for rows in (source, target)])
    return {
        "alignment": mean(2 * z.var(0).sum().item() for z in mine.values() if len(z) > 1),
        "alignment_across": mean(
            squared_distances(mine[label], theirs[label]).mean().item()
            for label in sorted(mine.keys() & theirs.keys())
        ),
        "uniformity": (-2 * distinct(few)).exp().mean().log().item(),
        "normalised_sd": both.std(0).mean().item() * both.shape[1] ** 0.5,
    }


def normalised(rows: Features) -> Features:
    return Features(F.normalize(rows.z.double(), dim=1), rows.labels)


def by_class(rows: Features) -> dict[int, Tensor]:
    """The features of every class that has rows."""
    labels = known(rows).labels.unique().tolist()
    return {label: rows.z[rows.labels == label] for label in labels}
