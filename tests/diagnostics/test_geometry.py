"""Diagnostics of features, against slow or other people's code and against worlds that we make."""

import math
from itertools import combinations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from audiences import quiet
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score
from tiny import make_plan
from trees import WILDS

from benchbench.diagnostics import geometry
from benchbench.diagnostics.geometry import (
    C,
    Side,
    class_heads,
    coral,
    diagnose,
    health,
    logistic,
    mmd,
    on_one_scale,
    probes,
    relative,
)
from benchbench.evaluation.feature_statistics import drawn, effective_rank
from benchbench.evaluation.features import Features
from benchbench.execution.cell import execute
from benchbench.extension.constants import UNKNOWN
from benchbench.store.records import Diagnostics

CLASSES, WIDTH = 4, 32
NOTHING = Diagnostics()


def noise(*shape: int, seed: int = 0, scale: float = 1.0) -> torch.Tensor:
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def rows(count: int, offset: torch.Tensor, *, seed: int, scale: float = 0.2) -> Features:
    """Classes are axes of their own, and a domain is an offset."""
    labels = torch.arange(count) % CLASSES
    z = 2 * F.one_hot(labels, WIDTH).float() + noise(count, WIDTH, seed=seed, scale=scale)
    return Features(z + offset, labels)


def side(offset: torch.Tensor, seed: int, count: int = 120, **how) -> Side:
    return Side(rows(count, offset, seed=seed, **how), rows(count, offset, seed=seed + 1, **how))


def along(*axes: float) -> torch.Tensor:
    """An offset along the first axes, those of the classes, or with none along another one."""
    offset = torch.zeros(WIDTH)
    if not axes:
        offset[CLASSES] = 4
    offset[: len(axes)] = torch.tensor(axes)
    return offset


NONE = torch.zeros(WIDTH)


def test_class_and_domain_on_axes_of_their_own_are_disentangled_and_told_apart():
    told = diagnose(side(NONE, 1), side(along(), 11), CLASSES)
    assert told.class_cosine > 0.9
    assert told.domain_cosine < 0.05 and told.domain_cosine_within < 0.1
    assert told.domain_accuracy == told.domain_accuracy_within == 1 and told.a_distance == 2
    assert told.mmd_squared > 0.5 and told.coral_distance < 0.01


def test_a_domain_along_the_classes_is_entangled():
    apart = diagnose(side(NONE, 1), side(along(), 11), CLASSES)
    told = diagnose(side(NONE, 1), side(along(4.0, -4.0), 11), CLASSES)
    assert told.domain_cosine > 0.3 > 6 * apart.domain_cosine
    assert told.domain_cosine_within > 0.3 > 3 * apart.domain_cosine_within


def test_domains_that_are_alike_have_no_distance():
    told = diagnose(side(NONE, 1, 400), side(NONE, 11, 400), CLASSES)
    assert abs(told.domain_accuracy - 0.5) < 0.06 and abs(told.a_distance) < 0.2
    assert abs(told.domain_accuracy_within - 0.5) < 0.06
    assert abs(told.mmd_squared) < 0.01
    assert told.coral_distance < (1 / 400 + 1 / 400) / 2


def test_classes_that_are_more_frequent_on_one_side_are_not_seen_within_a_class():
    source, target = side(NONE, 1, 400), side(NONE, 11, 400)
    rare = target.each(lambda r: geometry.chosen(r, (r.labels > 1) | (torch.arange(400) % 5 == 0)))
    told = diagnose(source, rare, CLASSES)
    assert told.domain_accuracy > 0.6 > told.domain_accuracy_within + 0.03
    assert told.domain_cosine > 1.5 * told.domain_cosine_within


def test_a_large_side_and_many_features_do_not_make_noise_look_like_a_domain():
    source = Side(rows(60, NONE, seed=1), rows(500, NONE, seed=2))
    target = Side(rows(900, NONE, seed=3), rows(70, NONE, seed=4))
    assert abs(diagnose(source, target, CLASSES).domain_accuracy - 0.5) < 0.08


def test_held_out_rows_that_are_also_training_rows_show():
    """What an oversampling before the split would do: so the test above would see it."""
    few = 40
    held_out = [Features(noise(few, 200, seed=s), torch.zeros(few).long()) for s in (1, 2)]
    honest = [Features(noise(few, 200, seed=s), torch.zeros(few).long()) for s in (3, 4)]
    clean = diagnose(*(Side(t, h) for t, h in zip(honest, held_out, strict=True)), 1)
    leaky = diagnose(*(Side(h, h) for h in held_out), 1)
    assert clean.domain_accuracy < 0.65 and leaky.domain_accuracy > 0.95


@pytest.mark.parametrize("count", [20, 90])  # fewer rows than features, and more
def test_heads_are_those_of_scikit_learn(count):
    train = rows(count, NONE, seed=5, scale=1.0)
    model = LogisticRegression(C=C, tol=1e-10, max_iter=10_000)
    model.fit(train.z.double().numpy(), train.labels.numpy())
    weights = logistic(train.z.double(), train.labels, CLASSES)
    assert torch.allclose(weights[:-1].T, torch.from_numpy(model.coef_), atol=2e-4)
    intercepts = torch.from_numpy(model.intercept_)
    assert torch.allclose(weights[-1], intercepts, atol=2e-4)
    assert weights[:-1].mean(1).abs().max() < 1e-12, "the penalty makes heads sum to zero"


def test_a_probe_has_the_axis_and_the_balanced_accuracy_of_scikit_learns():
    source, target = side(NONE, 1, 90, scale=1.0), side(along() / 4, 11, 200, scale=1.0)
    (probe,) = probes([(source, target)])
    few = target.train.z[drawn(200, 90)]
    x = torch.cat([source.train.z, few]).double().numpy()
    model = LogisticRegression(C=2 * C, tol=1e-10, max_iter=10_000)  # one vector, not two heads
    model.fit(x, np.repeat([0, 1], 90))
    axis = torch.from_numpy(model.coef_[0])
    assert F.cosine_similarity(probe.axis, axis, dim=0) > 1 - 1e-7
    assert torch.allclose(probe.axis, axis, atol=1e-3)
    guessed = model.predict(torch.cat([source.held_out.z, target.held_out.z]).double().numpy())
    right = balanced_accuracy_score(np.repeat([0, 1], [90, 200]), guessed)
    assert probe.accuracy == pytest.approx(right)


def test_mmd_is_that_of_two_loops():
    x, y = noise(7, 3, seed=1).double(), 1 + noise(9, 3, seed=2).double()
    every = torch.cat([x, y])
    squares = [float((a - b).square().sum()) for a, b in combinations(every, 2)]
    median = sorted(squares)[(len(squares) - 1) // 2]

    def k(a, b):
        return math.exp(-float((a - b).square().sum()) / (2 * median))

    inside_x = sum(k(x[i], x[j]) for i in range(7) for j in range(7) if i != j) / (7 * 6)
    inside_y = sum(k(y[i], y[j]) for i in range(9) for j in range(9) if i != j) / (9 * 8)
    across = sum(k(a, b) for a in x for b in y) / (7 * 9)
    assert mmd(x, y) == pytest.approx(inside_x + inside_y - 2 * across, abs=1e-12)
    assert mmd(torch.ones(4, 3).double(), torch.ones(5, 3).double()) is None
    for seed in range(10):  # of most of their distances rounding is left, on either side of zero
        most = noise(1, 100, seed=seed).double().expand(40, -1).clone()
        most[:3] += noise(3, 100, seed=20 + seed).double()
        assert mmd(most, most) is None and mmd(1e4 * most, 1e4 * most) is None


def test_coral_is_numpys():
    x, y = noise(20, 5, seed=1).double(), 2 * noise(30, 5, seed=2).double()
    gap = np.cov(x.numpy(), rowvar=False) - np.cov(y.numpy(), rowvar=False)
    assert coral(x, y) == pytest.approx((gap**2).sum() / (4 * 25))


def test_effective_rank_has_closed_forms():
    assert effective_rank(7 * torch.eye(6)) == pytest.approx(6)
    assert effective_rank(noise(50, 1, seed=1) @ noise(1, 8, seed=2)) == pytest.approx(1, abs=1e-4)
    assert effective_rank(torch.zeros(5, 3)) is None
    z = noise(40, 6, seed=3)
    p = np.linalg.svd(z.double().numpy(), compute_uv=False)
    p /= p.sum()
    assert effective_rank(z) == pytest.approx(math.exp(-(p * np.log(p)).sum()))
    assert effective_rank(1000 * z) == pytest.approx(effective_rank(z))


def test_alignment_uniformity_and_sd_are_those_of_loops():
    source = Features(noise(9, 4, seed=1), torch.tensor([0, 0, 0, 1, 1, 2, UNKNOWN, 3, 3]))
    target = Features(noise(6, 4, seed=2), torch.tensor([0, 0, 1, 3, 4, UNKNOWN]))
    s, t = (F.normalize(side.z.double(), dim=1) for side in (source, target))

    def gap(a, b):
        return float((a - b).square().sum())

    inside = [
        np.mean([gap(s[i], s[j]) for i, j in combinations(range(9), 2)
                 if source.labels[i] == source.labels[j] == label])
        for label in (0, 1, 3)
    ]  # fmt: skip
    across = [
        np.mean([gap(a, b) for a, x in zip(s, source.labels, strict=True)
                 for b, y in zip(t, target.labels, strict=True) if x == y == label])
        for label in (0, 1, 3)
    ]  # fmt: skip
    both = torch.cat([s, t])
    close = [math.exp(-2 * gap(a, b)) for a, b in combinations(both, 2)]
    told = health(source, target)
    assert told["alignment"] == pytest.approx(np.mean(inside))
    assert told["alignment_across"] == pytest.approx(np.mean(across))
    assert told["uniformity"] == pytest.approx(math.log(np.mean(close)))
    assert told["normalised_sd"] == pytest.approx(np.std(both.numpy(), 0, ddof=1).mean() * 2)


def test_features_in_all_directions_are_healthy_and_constant_ones_collapsed():
    wide = [Features(noise(900, 16, seed=s), torch.arange(900) % 3) for s in range(4)]
    told = diagnose(Side(*wide[:2]), Side(*wide[2:]), 3)
    assert told.normalised_sd == pytest.approx(1, abs=0.03) and told.effective_rank > 15.9
    one = Features(torch.full((90, 16), 0.3), torch.arange(90) % 3)
    told = diagnose(Side(one, one), Side(one, one), 3)
    known = {name for name, value in told if value is not None}
    assert known == {"alignment", "alignment_across", "uniformity", "normalised_sd",
                     "effective_rank"}  # fmt: skip
    assert told.normalised_sd == pytest.approx(0, abs=1e-6)
    assert told.uniformity == pytest.approx(0, abs=1e-6)
    assert told.effective_rank == pytest.approx(1, abs=1e-4)


def test_a_shift_and_a_factor_of_all_features_change_no_head_probe_or_distance():
    source, target = side(NONE, 1), side(along(1.0, 2.0), 11)
    moved = (each.each(lambda r: Features(50 * r.z - 3, r.labels)) for each in (source, target))
    one, other = (on_one_scale(*sides) for sides in ((source, target), moved))
    for a, b in zip(one, other, strict=True):
        assert torch.allclose(a.z, b.z, atol=1e-5)
    means = torch.stack([each.z.mean(0) for each in one])
    assert means.mean(0).abs().max() < 1e-12
    assert torch.stack([each.z.square().mean() for each in one]).mean() == pytest.approx(1)


NEEDS_CLASSES = {"class_cosine", "domain_cosine", "domain_cosine_within",
                 "domain_accuracy_within", "alignment", "alignment_across"}  # fmt: skip


def unknown(told: Diagnostics) -> set[str]:
    return {name for name, value in told if value is None}


def test_what_labels_or_rows_do_not_tell_is_none():
    source, target = side(NONE, 1), side(along(), 11)
    numbers = [s.each(lambda r: Features(r.z, r.labels.float())) for s in (source, target)]
    assert unknown(diagnose(*numbers, 0)) == NEEDS_CLASSES
    hidden = Side(geometry.without_labels(target.train), target.held_out)
    told = diagnose(source, hidden, CLASSES)
    assert unknown(told) == {"class_cosine", "domain_cosine_within", "domain_accuracy_within"}
    assert told.domain_cosine < 0.05, "it needs the source's labels alone"
    empty = Features(torch.zeros(0, WIDTH), torch.zeros(0).long())
    assert unknown(diagnose(Side(source.train, empty), target, CLASSES)) == {
        "domain_accuracy", "domain_accuracy_within", "a_distance", "coral_distance",
        "mmd_squared", "alignment", "alignment_across",
    }  # fmt: skip
    assert unknown(diagnose(source, Side(empty, target.held_out), CLASSES)) == {
        "class_cosine", "domain_cosine", "domain_cosine_within", "domain_accuracy",
        "domain_accuracy_within", "a_distance",
    }  # fmt: skip
    assert diagnose(Side(empty, empty), target, CLASSES) == NOTHING
    spoilt = target.train.z.clone()
    spoilt[3, 4] = torch.nan
    broken = Side(Features(spoilt, target.train.labels), target.held_out)
    assert diagnose(source, broken, CLASSES) == NOTHING


def test_a_class_that_one_side_lacks_is_left_out_and_does_not_move_the_others():
    source, target = side(NONE, 1), side(NONE, 11)
    three = target.each(lambda r: geometry.chosen(r, r.labels != 2))
    heads = [class_heads(s.train, CLASSES) for s in (source, three)]
    assert heads[1].isnan().all(1).tolist() == [False, False, True, False]
    few = torch.tensor([0, 1, 3])
    assert relative(heads[0], few).mean(0).abs().max() < 1e-12
    told = diagnose(source, three, CLASSES)
    assert told.class_cosine > 0.9
    one = target.each(lambda r: geometry.chosen(r, r.labels == 2))
    assert diagnose(source, one, CLASSES).class_cosine is None


def test_large_sides_are_read_in_part_and_always_the_same(monkeypatch):
    source, target = side(NONE, 1, 400), side(along(), 11, 400)
    whole = diagnose(source, target, CLASSES)
    monkeypatch.setattr(geometry, "ROWS", 100)
    monkeypatch.setattr(geometry, "PAIRS", 50)
    torch.manual_seed(1)  # what others draw, or have drawn, decides nothing
    part = diagnose(source, target, CLASSES)
    torch.manual_seed(2)
    assert diagnose(source, target, CLASSES) == part != whole
    few = (s.each(lambda r: geometry.chosen(r, drawn(400, 100))) for s in (source, target))
    assert part == diagnose(*few, CLASSES)
    assert len(drawn(400, 100).unique()) == 100 and drawn(7, 9).tolist() == list(range(7))


def test_every_number_has_a_name_and_is_explained():
    source, target = side(NONE, 1), side(along(), 11)
    assert unknown(diagnose(source, target, CLASSES)) == set()
    assert all(field.description for field in Diagnostics.model_fields.values())


def test_features_of_texts_are_diagnosed_too(tmp_path):
    WILDS["amazon"](tmp_path)
    text = """
name = "texts"
dataset = "amazon(length=12)"
shifts = ["train > test"]
seeds = [0]
encoder = "transformer(width=8, heads=2)"
precision = "fp32"
readout = "prototype"
stage = { steps = 2, batch_size = 8, lr = 0.01, augmentation = "none" }
[[method]]
chain = ""
"""
    plan = make_plan(text, tmp_path / "store", tmp_path)
    told = execute(plan.cells[0], plan, quiet).diagnostics
    assert told.effective_rank >= 1 and told.normalised_sd > 0


def test_little_work_is_done_by_one_thread_whatever_is_asked_for():
    source, target = side(NONE, 1), side(along(1.0, 2.0), 11)
    before = torch.get_num_threads()
    told = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            told.append(diagnose(source, target, CLASSES))
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(before)
    assert told[0] == told[1]
