"""What statistics make of the same rows in another order, twice, or in other coordinates.

What is in a table is the same; what is not differs, and the reason stands beside it.
"""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchbench.diagnostics.geometry import Side, diagnose
from benchbench.evaluation.criteria import (
    bnm,
    class_ami,
    density_ratio,
    entropy,
    in_common,
    infomax,
    snd,
)
from benchbench.evaluation.features import Features, Moments
from benchbench.evaluation.metrics import METRICS
from benchbench.evaluation.readouts.registry import READOUTS

WIDTH, CLASSES = 8, 3
TURN = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(3))).Q
SCALED: dict[str, Callable[[Tensor], Tensor]] = {
    f"times {scale:g}": lambda z, scale=scale: scale * z for scale in (1e-4, 1e-2, 1e2, 1e4)
}
TURNED = {"rotated": lambda z: z @ TURN}
MOVED = {"moved by 5": lambda z: z + 5, "moved and divided": lambda z: 1e-4 * (z + 5)}
EVERY = SCALED | TURNED | MOVED


def rows(count: int, seed: int, offset: float = 0.0) -> Features:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    z = 2 * F.one_hot(labels, WIDTH) + torch.randn(count, WIDTH, generator=generator)
    return Features(z + offset * F.one_hot(torch.tensor(5), WIDTH), labels)


def shift(change: Callable[[Features], Features]) -> list[Side]:
    sides = [Side(rows(90, s, offset), rows(60, s + 1, offset)) for s, offset in ((1, 0), (3, 1))]
    return [side.each(change) for side in sides]


# Of features on one scale: whatever moves, scales or turns all of them changes nothing.
ON_ONE_SCALE = {
    "class_cosine", "domain_cosine", "domain_cosine_within", "domain_accuracy",
    "domain_accuracy_within", "a_distance", "coral_distance", "mmd_squared",
}  # fmt: skip
# Of the sphere, or of the second moment: a common mean is a part of what they measure.
OF_THE_ORIGIN = {"effective_rank", "alignment", "alignment_across", "uniformity"}
# The mean over features of their standard deviations depends on the axes, too.
OF_THE_AXES = {"normalised_sd"}


@pytest.mark.parametrize("change", EVERY)
def test_diagnostics_are_the_same_in_other_coordinates(change):
    before = diagnose(*shift(lambda r: r), CLASSES).model_dump()
    made = shift(lambda r: Features(EVERY[change](r.z), r.labels))
    after = diagnose(*made, CLASSES).model_dump()
    assert before.keys() == ON_ONE_SCALE | OF_THE_ORIGIN | OF_THE_AXES
    assert None not in before.values()
    same = ON_ONE_SCALE | (set() if change in MOVED else OF_THE_ORIGIN)
    same |= OF_THE_AXES if change in SCALED else set()
    for name in same:
        assert after[name] == pytest.approx(before[name], rel=2e-3, abs=2e-4), name
    if change in MOVED:
        assert abs(after["effective_rank"] - before["effective_rank"]) > 0.1


def test_diagnostics_do_not_depend_on_the_order_of_rows():
    def mixed(rows: Features) -> Features:
        order = torch.randperm(len(rows.z), generator=torch.Generator().manual_seed(9))
        return Features(rows.z[order], rows.labels[order])

    before = diagnose(*shift(lambda r: r), CLASSES).model_dump()
    after = diagnose(*shift(mixed), CLASSES).model_dump()
    assert after == pytest.approx(before, rel=2e-3, abs=2e-4)


@pytest.mark.parametrize("change", EVERY)
def test_validators_of_features_are_the_same_in_other_coordinates(change):
    """But for RankMe and clusters of directions, of which a common mean is a part."""
    sides = rows(90, 1).z, rows(60, 2).z, rows(90, 3, offset=1).z
    made = [EVERY[change](z) for z in sides]
    before, after = in_common(*sides, CLASSES), in_common(*made, CLASSES)
    torch.testing.assert_close(after.ratio, before.ratio, rtol=5e-3, atol=1e-3)
    assert before.ratio.std() > 0.1
    torch.testing.assert_close(density_ratio(made[0], made[2], made[1]), after.ratio)
    if change not in MOVED:
        assert after.rankme == pytest.approx(before.rankme, rel=1e-4)
        assert class_ami(after.clusters, before.clusters) == pytest.approx(1)


@pytest.mark.parametrize("function", [entropy, infomax, snd, bnm])
def test_validators_of_predictions_depend_on_no_order_or_name_and_only_one_on_rows_twice(function):
    p = torch.randn(40, 5, generator=torch.Generator().manual_seed(1)).double().softmax(1)
    value = function(p)
    assert function(p.flip(0)) == pytest.approx(value)
    assert function(p[:, [3, 0, 4, 1, 2]]) == pytest.approx(value)
    twice = function(p.repeat(2, 1))
    if function is snd:  # every row has itself for a neighbour
        assert abs(twice - value) > 0.01
    else:
        assert twice == pytest.approx(value)
    p[3, 1] = torch.nan
    assert np.isnan(function(p))


# The penalties of `linear` and `ridge` are of features as they are: other scales, other choices.
# Neighbours by cosine are of directions from the origin.
SAME_PREDICTIONS = {
    "prototype": EVERY,
    "pfa": EVERY,
    "knn": SCALED | TURNED,
    "linear": TURNED,
    "ridge": TURNED | {"moved by 5": MOVED["moved by 5"]},
}


@pytest.mark.parametrize("name", SAME_PREDICTIONS)
def test_readouts_predict_the_same_in_other_coordinates(name):
    sides = rows(150, 1), rows(60, 2), rows(200, 3)

    def told(change: Callable[[Tensor], Tensor]) -> Tensor:
        train, val, test = (Features(change(r.z), r.labels) for r in sides)
        fitted = READOUTS[name]()(
            train, val, lambda: Moments.of(torch.cat([train.z, test.z])), CLASSES
        )
        return fitted.scores(test.z).argmax(1)

    before = told(lambda z: z)
    for how, change in SAME_PREDICTIONS[name].items():
        assert (told(change) == before).double().mean() >= 0.99, how


@pytest.mark.parametrize("name", METRICS)
def test_metrics_depend_on_no_order_name_or_unit_and_not_on_rows_twice(name):
    random = np.random.default_rng(0)
    labels = torch.from_numpy(random.integers(0, 4, 300))
    predictions = torch.where(torch.from_numpy(random.random(300)) < 0.6, labels, 3 - labels)
    groups = torch.from_numpy(random.integers(-1, 5, 300))
    if numbers := "pearson" in name:
        labels, predictions = labels.double(), predictions + 0.1 * labels.double()
    value = METRICS[name](predictions, labels, groups)
    assert METRICS[name](*(part.flip(0) for part in (predictions, labels, groups))) == (
        pytest.approx(value)
    )
    twice = (part.repeat(2) for part in (predictions, labels, groups))
    assert METRICS[name](*twice) == pytest.approx(value)
    if numbers:
        for scale in (1e-4, 1e4):
            units = scale * predictions + 3, scale * labels - 100, groups
            assert METRICS[name](*units) == pytest.approx(value)
    else:
        names = torch.tensor([2, 0, 3, 1])
        assert METRICS[name](names[predictions], names[labels], groups) == pytest.approx(value)
