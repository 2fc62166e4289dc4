"""Validators against closed forms, slow loops, other people's code and shifts that we make."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_mutual_info_score

from benchbench.evaluation import criteria
from benchbench.evaluation.criteria import (
    bnm,
    class_ami,
    clusters_of,
    controlled_risk,
    density_ratio,
    dev,
    divided,
    entropy,
    in_common,
    infomax,
    quality,
    snd,
    tells_a_risk,
    validate,
)
from benchbench.evaluation.feature_statistics import drawn, effective_rank
from benchbench.evaluation.features import Features, Moments
from benchbench.evaluation.readouts.interface import Fitted, accuracy, with_bias
from benchbench.evaluation.readouts.linear_probe import linear, logistic_path
from benchbench.evaluation.readouts.objective_head import head
from benchbench.evaluation.readouts.registry import READOUTS
from benchbench.evaluation.readouts.ridge import ridge
from benchbench.extension.constants import UNKNOWN
from benchbench.store.records import Validators

CLASSES, WIDTH = 4, 12
OF_PROBABILITIES = {"entropy", "infomax", "snd", "bnm"}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed))


def rows(count: int, *, seed: int, apart: float = 3.0, offset: float = 0.0) -> Features:
    """Classes are axes of their own, and ``offset`` goes along the first, towards class 0."""
    labels = torch.arange(count) % CLASSES
    z = apart * F.one_hot(labels, WIDTH).float() + noise(count, WIDTH, seed=seed)
    return Features(z + offset * F.one_hot(torch.tensor(0), WIDTH), labels)


def probabilities(count: int = 40, classes: int = CLASSES, *, seed: int = 0) -> torch.Tensor:
    return (2 * noise(count, classes, seed=seed).double()).softmax(1)


def one_hot(count: int, classes: int = CLASSES) -> torch.Tensor:
    return F.one_hot(torch.arange(count) % classes, classes).double()


SOURCE, SOURCE_VAL, TARGET = rows(200, seed=1), rows(80, seed=2), rows(160, seed=3, offset=1)
TARGET_VAL = rows(60, seed=4, offset=1)


def fit(build, train: Features = SOURCE, val: Features = SOURCE_VAL) -> Fitted:
    return build()(train, val, lambda: Moments.of(train.z), CLASSES)


WEIGHTS = logistic_path(SOURCE.z, SOURCE.labels, CLASSES, [1.0], 200)[0]
FITTED = Fitted(lambda z: with_bias(z) @ WEIGHTS, "last", log_odds=True)


def told(**changes) -> Validators:
    """Of logistic regression and a mild shift, but for what is changed."""
    given = {
        "fitted": FITTED,
        "source_train": SOURCE,
        "source_val": SOURCE_VAL,
        "target_train": TARGET.z,
        "target_val": TARGET_VAL,
        "num_classes": CLASSES,
    } | changes
    train = given.pop("source_train").z
    val, target, count = (given[n] for n in ("source_val", "target_train", "num_classes"))
    return validate(common=in_common(train, val.z, target, count), **given)


def dev_of(fitted: Fitted, train: torch.Tensor, val: Features, target: torch.Tensor) -> float:
    return dev(fitted, density_ratio(train, target, val.z), val)


def ami_of(z: torch.Tensor, predicted: torch.Tensor) -> float | None:
    return class_ami(predicted, clusters_of(z, CLASSES))


def known_of(values: Validators) -> dict[str, float]:
    return {name: value for name, value in values.model_dump().items() if value is not None}


def test_only_linear_and_the_head_give_log_odds_and_only_of_classes(tmp_path):
    path = tmp_path / "texts.npy"
    np.save(path, noise(CLASSES, WIDTH).numpy())
    options = {"zero_shot": {"embeddings": str(path)}}

    def moments() -> Moments:
        return Moments.of(SOURCE.z)

    gives = {
        name: factory(**options.get(name, {}))(SOURCE, SOURCE_VAL, moments, CLASSES).log_odds
        for name, factory in READOUTS.items()
    }
    assert {name for name, does in gives.items() if does} == {"linear"}
    numbers = Features(SOURCE.z, SOURCE.z[:, 0])
    assert not linear()(numbers, numbers, numbers.z, 0).log_odds
    of_objective = head(lambda z: z[:, :CLASSES])
    assert of_objective(SOURCE, SOURCE_VAL, SOURCE.z, CLASSES).log_odds
    assert not of_objective(numbers, numbers, numbers.z, 0).log_odds


def uneven(count: int, *, seed: int) -> Features:
    """Features of scales so different that a strong penalty does not see some of the classes."""
    of = rows(count, seed=seed)
    return Features(of.z * torch.logspace(0, -2, WIDTH), of.labels)


def test_softmax_of_what_linear_scores_is_the_probability_that_scikit_learn_gives():
    train, val = uneven(200, seed=1), uneven(300, seed=2)
    fitted = fit(linear, train, val)
    model = LogisticRegression(C=fitted.chosen["C"], max_iter=20_000, tol=1e-9)
    model.fit(train.z.double().numpy(), train.labels.numpy())
    theirs = torch.tensor(model.predict_proba(val.z.double().numpy()))
    assert theirs.max() > 0.8  # or uniform rows would agree, too
    torch.testing.assert_close(fitted.scores(val.z).softmax(1), theirs, atol=1e-3, rtol=0)


def test_entropy_is_that_of_scipy_and_log_k_of_uniform_rows():
    p = probabilities()
    assert entropy(p) == pytest.approx(scipy.stats.entropy(p.numpy(), axis=1).mean())
    assert entropy(torch.full((7, 5), 0.2, dtype=torch.float64)) == pytest.approx(math.log(5))
    assert entropy(one_hot(8)) == 0


def test_infomax_is_the_mutual_information_of_row_and_prediction():
    p = probabilities().numpy()
    joint = p / len(p)
    independent = joint.sum(1, keepdims=True) * joint.sum(0, keepdims=True)
    mutual = (joint * np.log(joint / independent)).sum()
    assert infomax(torch.tensor(p)) == pytest.approx(mutual)
    assert infomax(one_hot(12)) == pytest.approx(math.log(CLASSES))
    same = probabilities(1).expand(9, -1)
    assert infomax(same) == pytest.approx(0, abs=1e-12)


def test_snd_is_that_of_a_double_loop():
    p = probabilities(15).numpy()
    total = 0.0
    for i, row in enumerate(p):
        others = [other for j, other in enumerate(p) if j != i]
        cosines = [row @ o / np.linalg.norm(row) / np.linalg.norm(o) for o in others]
        likely = np.exp(np.array(cosines) / 0.05)
        total += scipy.stats.entropy(likely / likely.sum())
    assert snd(torch.tensor(p)) == pytest.approx(total / len(p))


def test_snd_of_identical_rows_is_the_log_of_the_number_of_the_others():
    assert snd(probabilities(1).expand(30, -1)) == pytest.approx(math.log(29))
    assert snd(one_hot(40)) == pytest.approx(math.log(9), abs=1e-6)  # of its own class, 10 rows
    assert snd(one_hot(1)) is None


@pytest.mark.parametrize(("count", "classes"), [(40, 4), (3, 7)])
def test_bnm_is_the_sum_of_singular_values_over_its_bound(count, classes):
    p = probabilities(count, classes)
    values = np.linalg.svd(p.numpy(), compute_uv=False)
    assert bnm(p) == pytest.approx(values.sum() / math.sqrt(count * min(count, classes)))


def test_bnm_is_one_of_balanced_one_hot_rows_and_less_of_others():
    assert bnm(one_hot(40)) == pytest.approx(1)
    assert bnm(one_hot(3, 7)) == pytest.approx(1)
    assert bnm(probabilities()) < 1
    alike = torch.full((10, CLASSES), 1 / CLASSES, dtype=torch.float64)
    assert bnm(alike) == pytest.approx(1 / CLASSES)


def test_class_ami_is_that_of_scikit_learn():
    z, predicted = TARGET.z, FITTED.scores(TARGET.z).argmax(1)
    unit = z.double().numpy() / np.linalg.norm(z.double().numpy(), axis=1, keepdims=True)
    clusters = KMeans(CLASSES, n_init=3, random_state=0).fit(unit).labels_
    expected = adjusted_mutual_info_score(predicted.numpy(), clusters)
    assert ami_of(z, predicted) == pytest.approx(expected)
    assert ami_of(100 * z, predicted) == pytest.approx(expected)


def test_class_ami_does_not_mind_names_and_is_near_zero_by_chance():
    clear = rows(200, seed=5, apart=20)
    assert ami_of(clear.z, (clear.labels + 1) % CLASSES) == pytest.approx(1)
    chance = torch.randint(CLASSES, (200,), generator=generator(0))
    assert abs(ami_of(clear.z, chance)) < 0.03


def test_class_ami_is_none_where_there_are_no_clusters():
    one = torch.zeros(8, dtype=torch.int64)
    assert ami_of(torch.ones(8, WIDTH), one) is None  # scikit-learn says 1
    assert ami_of(SOURCE.z[:3], one[:3]) is None
    assert ami_of(SOURCE.z, torch.zeros(200, dtype=torch.int64)) == pytest.approx(0)


def test_the_controlled_risk_is_that_of_its_definition():
    weights, losses = noise(50, seed=1).exp().double(), (noise(50, seed=2) > 0).double()
    w, loss = weights.numpy(), losses.numpy()
    eta = -np.cov(w * loss, w)[0, 1] / np.var(w, ddof=1)
    expected = np.mean(w * loss) + eta * np.mean(w) - eta
    assert controlled_risk(weights, losses) == pytest.approx(expected)


def test_the_controlled_risk_of_even_weights_is_the_weighted_mean():
    losses = (noise(50, seed=2) > 0).double()
    assert controlled_risk(torch.ones(50).double(), losses) == pytest.approx(losses.mean().item())
    nearly = 1.2 + 1e-9 * noise(50, seed=3).double()
    for scale in (1e-8, 1.0, 1e8):
        expected = np.average(losses.numpy(), weights=nearly.numpy())
        assert controlled_risk(scale * nearly, losses) == pytest.approx(expected)
    assert controlled_risk(torch.ones(1).double(), losses[:1]) == losses[0]


def risk_of_the_authors(weight: np.ndarray, error: np.ndarray) -> float:
    """As `get_dev_risk` in dev.py of github.com/thuml/Deep-Embedded-Validation."""
    weighted = weight * error
    cov = np.cov(np.stack([weighted, weight], 1), rowvar=False)[0][1]
    eta = -cov / np.var(weight, ddof=1)
    return np.mean(weighted) + eta * np.mean(weight) - eta


SOME_WEIGHTS = {
    "of a wide range": noise(300, seed=1).double().exp(),
    "of one large row": F.one_hot(torch.tensor(7), 300).double() + 1e-3,
    "that vary by a hundredth": 1 + 0.01 * noise(300, seed=2).double(),
    "that do not vary": torch.ones(300).double(),
}


@pytest.mark.parametrize("scale", [1e-8, 1e-4, 1.0, 1e4, 1e8])
@pytest.mark.parametrize("kind", SOME_WEIGHTS)
def test_the_controlled_risk_depends_on_losses_as_a_risk_does_at_any_scale_of_weights(kind, scale):
    weights, losses = scale * SOME_WEIGHTS[kind], torch.rand(300, generator=generator(4)).double()
    one = torch.ones_like(losses)
    assert controlled_risk(weights, one) == pytest.approx(
        1, rel=1e-5
    )  # of a readout that is always wrong
    assert controlled_risk(weights, 0.3 * one) == pytest.approx(0.3, rel=1e-5)
    moved = 2 * controlled_risk(weights, losses) + 0.5
    assert controlled_risk(weights, 2 * losses + 0.5) == pytest.approx(moved)
    order = torch.randperm(300, generator=generator(5))
    assert controlled_risk(weights[order], losses[order]) == pytest.approx((moved - 0.5) / 2)
    assert controlled_risk(weights.repeat(2), losses.repeat(2)) == pytest.approx((moved - 0.5) / 2)
    if kind != "that do not vary":
        theirs = risk_of_the_authors(weights.numpy(), losses.numpy())
        assert controlled_risk(weights, losses) == pytest.approx(theirs)


def always_wrong(val: Features) -> Fitted:
    return Fitted(lambda z: F.one_hot((val.labels + 1) % CLASSES, CLASSES).double(), "last")


@pytest.mark.parametrize("apart", [0, 0.5, 1, 2, 3, 4, 6, 10])
def test_dev_is_told_of_domains_that_overlap_and_not_of_separable_ones(apart):
    """x ~ N(0, 1) in the source, N(a, 1) in the target; the class of a row is whether x > a / 2.

    A readout that always says class 0 is wrong on Φ(a / 2) of the target.
    """
    source, target, z = (noise(n, 2, seed=seed) for n, seed in ((800, 1), (800, 2), (300, 3)))
    target[:, 0] += apart
    val = Features(z, (z[:, 0] > apart / 2).long())
    zero = Fitted(lambda z: F.one_hot(torch.zeros(len(z)).long(), CLASSES).double(), "last")
    found = dev_of(zero, source, val, target), dev_of(always_wrong(val), source, val, target)
    if apart < 4:
        assert -found[0] == pytest.approx(scipy.stats.norm.cdf(apart / 2), abs=0.03)
        assert found[1] == pytest.approx(-1)
    else:  # there the authors' formula, too, has risks of 0 for 0.999
        assert found == (None, None)


def test_what_tells_no_risk_is_said_of_weights_at_any_number_of_rows():
    even = torch.ones(300).double()
    assert tells_a_risk(even) and tells_a_risk(1.9 * even) and tells_a_risk(0.6 * even)
    for scale in (0.0, 1e-6, 0.4, 2.1, 1e6, math.nan, math.inf):
        assert not tells_a_risk(scale * even)
    few = torch.zeros(300).double()
    few[:4] = 75.0  # four rows stand for all: the mean is 1
    assert not tells_a_risk(few)
    few[:8] = 37.5
    assert tells_a_risk(few)
    off = 1.5 + 0.01 * noise(300, seed=2).double()  # the line is told at 1.5, and asked at 1
    assert not tells_a_risk(off) and tells_a_risk(off - 0.5)


def test_of_digits_and_inverted_digits_no_readout_has_a_dev():
    """Where domains are separable every readout had 0, the best value, also a wrong one."""
    digits = load_digits()
    order = torch.randperm(len(digits.data), generator=generator(0))
    z, labels = torch.tensor(digits.data / 16).float()[order], torch.tensor(digits.target)[order]
    source, val, target = z[:900], Features(z[900:1200], labels[900:1200]), 1 - z[1200:]
    ratio = density_ratio(source, target, val.z)
    assert ratio.mean() < 1e-4
    wrong = Fitted(lambda z: F.one_hot((val.labels + 1) % 10, 10).double(), "last")
    assert dev(wrong, ratio, val) is None
    assert controlled_risk(ratio, torch.ones(300).double()) == pytest.approx(1)


def test_of_a_known_ratio_the_controlled_risk_is_right_on_average_and_surer_than_without_control():
    """x ~ N(0, 1) in the source, N(1/2, 1) in the target: the ratio is exp(x/2 − 1/8)."""
    x = noise(2000, 100, seed=7).double()
    weights, losses = (x / 2 - 1 / 8).exp(), (x > 0).double()
    with_control = np.array(list(map(controlled_risk, weights, losses)))
    without = (weights * losses).mean(1).numpy()
    truth = scipy.stats.norm.cdf(0.5)
    standard_error = with_control.std() / math.sqrt(len(x))
    assert with_control.mean() == pytest.approx(truth, abs=4 * standard_error)
    assert abs(losses.mean().item() - truth) > 0.15
    assert with_control.std() < 0.7 * without.std()


@pytest.mark.parametrize("count", [2000, 400])
def test_the_ratio_of_densities_is_found_also_where_one_side_is_small(count):
    source, target = noise(2000, 3, seed=1), noise(count, 3, seed=2) + torch.tensor([0.8, 0, 0])
    z = noise(500, 3, seed=3)
    expected = 0.8 * z[:, 0].double() - 0.32
    found = density_ratio(10 * source, 10 * target, 10 * z).log()
    assert (found - expected).abs().mean() < 0.15
    torch.testing.assert_close(density_ratio(source, target, z).log(), found, atol=1e-4, rtol=0)


def test_the_ratio_is_that_of_the_regression_with_the_best_held_out_cross_entropy():
    source, target = SOURCE.z[:150], TARGET.z
    (a, held_a), (b, held_b) = divided(source), divided(target)
    assert (len(a), len(held_a), len(b), len(held_b)) == (120, 30, 128, 32)
    x, y = torch.cat([a, b]).double().numpy(), np.repeat([0, 1], [120, 128])
    held, truth = torch.cat([held_a, held_b]).double().numpy(), np.repeat([0, 1], [30, 32])
    best = (math.inf, None)
    for c in np.logspace(-6, 2, 9) / x.var(0, ddof=1).mean():
        # with a weight for each class, softmax of two halves the penalty of a difference
        model = LogisticRegression(C=2 * c, tol=1e-9, max_iter=5000).fit(x, y)
        likely = model.predict_proba(held)[np.arange(62), truth]
        best = min(best, (-np.log(likely).mean(), model), key=lambda each: each[0])
    p = best[1].predict_proba(SOURCE_VAL.z.double().numpy())
    expected = torch.tensor(p[:, 1] / p[:, 0] * 120 / 128)
    found = density_ratio(source, target, SOURCE_VAL.z)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_a_row_is_either_fitted_on_or_chosen_by():
    fitted, chosen = divided(torch.arange(23).float()[:, None])
    assert len(chosen) == 4
    assert sorted(torch.cat([fitted, chosen]).flatten().tolist()) == list(range(23))


def test_of_one_domain_dev_is_the_accuracy_on_the_source_less_one():
    source, val = rows(2000, seed=1, apart=1.5), rows(1000, seed=2, apart=1.5)
    fitted = fit(ridge, source, val)
    again = rows(2000, seed=3, apart=1.5).z
    assert dev_of(fitted, source.z, val, again) + 1 == pytest.approx(quality(fitted, val), abs=0.02)
    assert dev_of(fitted, source.z, val, source.z) + 1 == pytest.approx(
        quality(fitted, val), abs=0.005
    )


def test_of_a_shift_of_covariates_dev_is_the_accuracy_on_the_target_less_one():
    """Labels are noisier the further x is: the source is a bad judge of accuracy there."""

    def world(count: int, offset: float, seed: int) -> Features:
        x = noise(count, 2, seed=seed) + torch.tensor([offset, 0])
        wrong = torch.rand(count, generator=generator(seed + 100)) < 0.5 * torch.sigmoid(
            2 * x[:, 0]
        )
        return Features(x, (x[:, 1] > 0).long() ^ wrong.long())

    source, val, target = world(3000, 0, 1), world(3000, 0, 2), world(3000, 1, 3)
    fitted = Fitted(lambda z: torch.stack([-z[:, 1], z[:, 1]], 1), "last")
    truth = accuracy(fitted.scores(target.z), target.labels)
    assert abs(quality(fitted, val) - truth) > 0.1
    assert dev_of(fitted, source.z, val, target.z) + 1 == pytest.approx(truth, abs=0.03)


def test_all_validators_are_told_of_classes_and_are_what_their_parts_say():
    p = FITTED.scores(TARGET.z).softmax(1)
    assert told().model_dump() == pytest.approx(
        {
            "source_val": accuracy(FITTED.scores(SOURCE_VAL.z), SOURCE_VAL.labels),
            "dev": dev_of(FITTED, SOURCE.z, SOURCE_VAL, TARGET.z),
            "entropy": -entropy(p),
            "infomax": infomax(p),
            "snd": snd(p),
            "bnm": bnm(p),
            "class_ami": ami_of(TARGET.z, p.argmax(1)),
            "rankme": effective_rank(TARGET.z),
            "target_val": accuracy(FITTED.scores(TARGET_VAL.z), TARGET_VAL.labels),
        }
    )


@pytest.mark.parametrize(
    "labels",
    [
        (TARGET_VAL.labels + 1) % CLASSES,
        torch.full_like(TARGET_VAL.labels, UNKNOWN),
        torch.full_like(TARGET_VAL.labels, 10**9),
    ],
    ids=["others", "unknown", "absurd"],
)
def test_labels_of_the_target_touch_nothing_but_the_oracle(labels):
    before = told().model_dump()
    after = told(target_val=Features(TARGET_VAL.z, labels)).model_dump()
    assert {name for name in before if before[name] != after[name]} == {"target_val"}


def test_nothing_but_the_oracle_reads_the_validation_rows_of_the_target():
    without = told(target_val=Features(TARGET_VAL.z[:0], TARGET_VAL.labels[:0])).model_dump()
    assert without == told().model_dump() | {"target_val": None}


@pytest.mark.parametrize("name", ["ridge", "knn", "prototype", "pfa"])
def test_readouts_without_probabilities_are_judged_by_what_needs_none(name):
    values = known_of(told(fitted=fit(READOUTS[name])))
    assert set(Validators.model_fields) - set(values) == OF_PROBABILITIES


def test_of_numbers_there_are_errors_and_the_rank():
    numbers = {
        name: Features(its.z, its.z[:, 0] + its.z[:, 1])
        for name, its in {"source_train": SOURCE, "source_val": SOURCE_VAL}.items()
    }
    target_val = Features(TARGET_VAL.z, TARGET_VAL.z[:, 0])
    fitted = linear()(numbers["source_train"], numbers["source_val"], SOURCE.z, 0)
    values = known_of(told(fitted=fitted, target_val=target_val, num_classes=0, **numbers))
    assert set(values) == {"source_val", "target_val", "rankme"}
    gap = fitted.scores(TARGET_VAL.z)[:, 0] - target_val.labels
    assert values["target_val"] == pytest.approx(-gap.square().mean().item())
    assert values["source_val"] == pytest.approx(0, abs=1e-6)


def spoilt(features: Features, value: float) -> Features:
    z = features.z.clone()
    z[0, 0] = value
    return Features(z, features.labels)


def authors_dev(weight: np.ndarray, wrong: np.ndarray) -> float:
    """You et al. 2019, algorithm 1; of even weights, of which it divides by 0, the mean."""
    if np.ptp(weight) < 1e-6 * weight.mean():
        return wrong.mean()
    joint = np.cov(weight * wrong, weight)
    eta = -joint[0, 1] / joint[1, 1]
    return (weight * wrong).mean() + eta * weight.mean() - eta


READ = {  # what each validator is a function of
    "source_val": {"fitted", "source_val"},
    "target_val": {"fitted", "target_val"},
    "dev": {"fitted", "source_train", "source_val", "target_train"},
    "rankme": {"target_train"},
    **{name: {"fitted", "target_train"} for name in (*OF_PROBABILITIES, "class_ami")},
}
ENDS = {  # the least and the most that each can be; infomax and entropy of probabilities
    "source_val": (0, 1),
    "target_val": (0, 1),
    "dev": (-1, 0),
    "entropy": (-math.log(CLASSES), 0),
    "infomax": (0, math.log(CLASSES)),
    "snd": (0, math.log(len(TARGET.z) - 1)),
    "bnm": (0, 1),
    "class_ami": (-1, 1),
    "rankme": (1, WIDTH),
}
NO_ROW = Features(SOURCE.z[:0], SOURCE.labels[:0])
ONE_CLASS = Fitted(
    lambda z: F.one_hot(torch.zeros(len(z)).long(), CLASSES) * 900.0, "last", {}, True
)
FREE_OF_TARGET = {"source_val", "target_val"}
ALL = set(Validators.model_fields)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"target_train": TARGET.z[:0]}, FREE_OF_TARGET),
        ({"target_train": TARGET.z[:1]}, ALL - {"dev", "snd", "class_ami"}),
        ({"target_train": TARGET.z[:6]}, ALL - {"dev"}),
        ({"target_train": torch.ones_like(TARGET.z)}, ALL - {"class_ami", "dev"}),
        ({"target_train": torch.zeros_like(TARGET.z)}, ALL - {"class_ami", "rankme", "dev"}),
        ({"target_train": spoilt(TARGET, math.nan).z}, FREE_OF_TARGET),
        ({"target_train": 1e30 * TARGET.z}, ALL - {"dev"}),
        ({"target_train": TARGET.z + 1e4}, ALL - {"dev"}),
        ({"source_train": spoilt(SOURCE, math.inf)}, ALL - {"dev"}),
        ({"source_train": NO_ROW}, ALL - {"dev"}),
        ({"source_val": NO_ROW}, ALL - {"dev", "source_val"}),
        ({"source_val": Features(SOURCE_VAL.z[:1], SOURCE_VAL.labels[:1])}, ALL - {"dev"}),
        ({"source_val": spoilt(SOURCE_VAL, math.nan)}, ALL - {"dev", "source_val"}),
        ({"source_val": Features(1e9 * SOURCE_VAL.z, SOURCE_VAL.labels)}, ALL - {"dev"}),
        ({"target_val": spoilt(TARGET_VAL, math.nan)}, ALL - {"target_val"}),
        ({"fitted": ONE_CLASS}, ALL),
        ({"fitted": Fitted(lambda z: z[:, :CLASSES] * math.nan, "last", {}, True)}, {"rankme"}),
        ({"source_train": Features(torch.ones(9, WIDTH), SOURCE.labels[:9]),
          "target_train": torch.ones(9, WIDTH)}, ALL - {"class_ami"}),
    ],
)  # fmt: skip
def test_whatever_it_is_given_a_value_is_finite_or_none(changes, expected):
    values, before = known_of(told(**changes)), known_of(told())
    assert set(values) == expected
    for name, value in values.items():
        low, high = ENDS[name]
        assert low - 1e-6 <= value <= high + 1e-6, name
        if not changes.keys() & READ[name]:
            assert value == before[name], f"{name} reads what it does not say"
    if "dev" in values:
        given = {"fitted": FITTED, "source_val": SOURCE_VAL, "source_train": SOURCE}
        given |= {"target_train": TARGET.z} | changes
        fitted, val, train = (given[n] for n in ("fitted", "source_val", "source_train"))
        ratio = density_ratio(train.z, given["target_train"], val.z).numpy()
        wrong = (fitted.scores(val.z).argmax(1) != val.labels).double().numpy()
        assert values["dev"] == pytest.approx(-authors_dev(ratio, wrong), abs=1e-9)


def test_a_collapsed_readout_is_not_preferred_by_what_asks_for_diversity():
    collapsed, good = told(fitted=ONE_CLASS), told()
    assert collapsed.entropy == 0 > good.entropy  # which is why the others exist
    assert collapsed.infomax == pytest.approx(0) and good.infomax > 0.5
    assert collapsed.bnm == pytest.approx(0.5) and good.bnm > 0.8
    assert collapsed.class_ami == pytest.approx(0) and good.class_ami > 0.3
    assert math.copysign(1, collapsed.entropy) == 1


def test_the_better_state_is_preferred_where_classes_of_the_target_are_clear_or_blurred():
    """As features of a state that connects the domains, and of one that does not."""
    clear = rows(160, seed=3, apart=4)
    blurred = rows(160, seed=3, apart=0.7)
    better, worse = (
        told(target_train=side.z, target_val=Features(side.z, side.labels))
        for side in (clear, blurred)
    )
    for name in ("target_val", "entropy", "infomax", "snd", "bnm", "class_ami"):
        assert getattr(better, name) > getattr(worse, name), name
    flat = blurred.z.clone()
    flat[:, 2:] = 0
    assert told(target_train=flat).rankme < 2.01 < worse.rankme


def test_the_source_is_judged_like_the_target_where_it_looks_like_it():
    """Errors of a readout are on one side; of two, the one that errs far from the target."""
    target = Features(TARGET.z + 4 * F.one_hot(torch.tensor(5), WIDTH), TARGET.labels)
    source = Features(torch.cat([SOURCE.z, target.z]), torch.cat([SOURCE.labels, target.labels]))

    def errs(far: bool) -> Fitted:
        def scores(z: torch.Tensor) -> torch.Tensor:
            wrong = (z[:, 5] < 2) if far else (z[:, 5] >= 2)
            right = F.one_hot(z[:, :CLASSES].argmax(1), CLASSES).double()
            return torch.where(wrong[:, None], right.roll(1, 1), right)

        return Fitted(scores, "last")

    far, near = (
        told(fitted=errs(far), source_train=source, source_val=source, target_train=target.z)
        for far in (True, False)
    )
    assert far.dev > near.dev + 0.5
    assert far.source_val < near.source_val


def test_of_many_rows_a_fixed_draw_is_read(monkeypatch):
    monkeypatch.setattr(criteria, "ROWS", 50)
    monkeypatch.setattr(criteria, "FEW", 20)
    values = told()
    assert values == told()
    read = TARGET.z[drawn(160, 50)]
    few = read[drawn(50, 20)]
    p = FITTED.scores(few).softmax(1)
    assert values.rankme == pytest.approx(effective_rank(read))
    assert values.entropy == pytest.approx(-entropy(FITTED.scores(read).softmax(1)))
    assert (values.snd, values.bnm) == pytest.approx((snd(p), bnm(p)))
    assert values.class_ami == pytest.approx(ami_of(few, p.argmax(1)))
    seen = []
    slow = Fitted(lambda z: seen.append(len(z)) or FITTED.scores(z), "last")
    assert told(fitted=slow).class_ami == values.class_ami
    assert seen.count(20) == 1 and 50 not in seen  # what needs few rows scores few


def test_the_same_features_give_the_same_numbers_whatever_was_drawn_before():
    torch.manual_seed(1)
    before, state = told(), torch.get_rng_state()
    np.random.seed(2)
    torch.manual_seed(3)
    assert told() == before
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)
