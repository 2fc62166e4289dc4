"""What is chosen among several: each test has data on which another choice would show.

Compared with scikit-learn, with scipy, and with sums over all that there was to choose from.
"""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier

from benchbench.evaluation.criteria import controlled_risk
from benchbench.evaluation.features import Features
from benchbench.evaluation.readouts.knn import knn
from benchbench.evaluation.readouts.linear_probe import linear, probe
from benchbench.evaluation.readouts.ridge import ridge
from benchbench.leaderboard.selection import RULES, chosen, states_of
from benchbench.leaderboard.statistics import Results, compare, interval
from benchbench.store.records import Validators

PATH = torch.logspace(-6, 5, 12, dtype=torch.float64).tolist()


# Readouts


def far_apart(rows: int) -> Features:
    """Three classes so far apart that every readout is right of every row, however penalised."""
    labels = torch.arange(rows) % 3
    corners = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    jitter = 0.01 * torch.randn(rows, 3, generator=torch.Generator().manual_seed(rows))
    return Features(10 * corners[labels] + jitter, labels)


def noisy(rows: int, seed: int, wrong: float) -> Features:
    """Three classes in twenty dimensions, of which three tell; a share of the labels is wrong."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % 3
    z = torch.randn(rows, 20, generator=generator)
    z[torch.arange(rows), labels] += 3
    flipped = torch.rand(rows, generator=generator) < wrong
    return Features(z, torch.where(flipped, (labels + 1) % 3, labels))


TRAIN, VAL = noisy(60, 0, 0.3), noisy(400, 1, 0.0)


def theirs(name: str, value: float):
    """scikit-learn's model of a readout's setting, fitted to the training rows."""
    x, y = TRAIN.z.double().numpy(), TRAIN.labels.numpy()
    if name == "C":
        return LogisticRegression(C=value, max_iter=5000, tol=1e-8).fit(x, y)
    if name == "a":
        return Ridge(alpha=value * len(x)).fit(x, np.eye(3)[y])
    weights = {"weights": lambda distance: np.exp((1 - distance) / 10)}
    return KNeighborsClassifier(int(value), metric="cosine", **weights).fit(x, y)


def right(name: str, value: float, rows: Features) -> float:
    said = theirs(name, value).predict(rows.z.double().numpy())
    said = said.argmax(1) if said.ndim > 1 else said
    return float((said == rows.labels.numpy()).mean())


READOUTS = {
    "C": (lambda: linear(penalties=12), PATH),
    "a": (lambda: ridge(penalties=12), PATH),
    "k": (lambda: knn(k=(1, 3, 15, 59), temperature=10.0), (1, 3, 15, 59)),
}


@pytest.mark.parametrize("name", READOUTS)
def test_the_setting_is_the_best_on_validation_rows_and_not_that_on_training_rows(name):
    make, settings = READOUTS[name]
    on_val = [right(name, value, VAL) for value in settings]
    on_train = [right(name, value, TRAIN) for value in settings]
    best = [value for value, share in zip(settings, on_val, strict=True) if share == max(on_val)]
    tempting = settings[on_train.index(max(on_train))]
    assert tempting not in best, "the training rows would have another chosen"
    found = make()(TRAIN, VAL, TRAIN.z, 3)
    assert found.selection == "source-val"
    assert found.chosen[name] in best
    assert found.chosen[name] not in (settings[0], settings[-1]), "nor is it an end of the list"
    predicted = found.scores(VAL.z).argmax(1)
    assert (predicted == VAL.labels).double().mean().item() == pytest.approx(max(on_val))


@pytest.mark.parametrize(
    ("readout", "options", "name", "strongest"),
    [
        (linear, {"penalties": 12}, "C", PATH[0]),
        (ridge, {"penalties": 12}, "a", PATH[-1]),
        (knn, {"k": (5, 1, 3)}, "k", 5),
        (knn, {"k": (3, 1, 5)}, "k", 3),
    ],
)
def test_of_settings_that_are_all_right_the_strongest_or_the_first_is_chosen(
    readout, options, name, strongest
):
    """All of them have every validation row right, as a readout of each alone shows."""
    train, val = far_apart(60), far_apart(45)
    found = readout(**options)(train, val, train.z, 3)
    assert found.chosen[name] == pytest.approx(strongest)
    assert (found.scores(val.z).argmax(1) == val.labels).all()
    if name == "C":
        x, y = train.z.double().numpy(), train.labels.numpy()
        for value in (PATH[0], PATH[5], PATH[-1]):
            model = LogisticRegression(C=value, max_iter=5000).fit(x - x.mean(0), y)
            assert model.score(val.z.double().numpy() - x.mean(0), val.labels.numpy()) == 1


def test_a_probe_to_begin_with_is_the_readout_linear_with_its_strongest_penalty():
    train, val = far_apart(60), far_apart(45)
    layer, fitted = probe(train, val, 3), linear()(train, val, train.z, 3)
    assert fitted.chosen == {"C": pytest.approx(1e-6)}
    with torch.no_grad():
        assert torch.allclose(layer(val.z).double(), fitted.scores(val.z), atol=1e-5)
    assert layer.weight.abs().max() < 1e-2, "a weak penalty has weights of about 1"


# Validators


@pytest.mark.parametrize("spread", [0.5, 0.05, 0.02])
def test_weights_that_vary_a_little_are_controlled_by_the_formula(spread):
    """You et al. 2019, equation 6: of weights w and losses ℓ, mean(wℓ) + η (mean(w) − 1)."""
    random = np.random.default_rng(3)
    weights = 1.1 + spread * random.standard_normal(200)
    losses = (random.random(200) < 0.3 + 0.5 * (weights > 1.1)).astype(float)
    eta = -np.cov(weights * losses, weights)[0, 1] / np.var(weights, ddof=1)
    wanted = np.mean(weights * losses) + eta * np.mean(weights) - eta
    assert abs(wanted - np.mean(weights * losses)) > 0.02, "the control matters here"
    found = controlled_risk(torch.from_numpy(weights), torch.from_numpy(losses))
    assert found == pytest.approx(wanted, rel=1e-6)


# Rules of selection


@dataclass(frozen=True)
class Run:
    """What a rule needs of a record."""

    draw: int
    values: tuple[float, ...] = ()  # of every validator: at the end, then at each snapshot
    status: str = "scored"

    @property
    def validators(self):
        return every(self.values[0])

    @property
    def scores(self):
        return ()

    @property
    def snapshots(self):
        return [_Snapshot(step, every(v)) for step, v in enumerate(self.values[1:], 1)]


@dataclass(frozen=True)
class _Snapshot:
    step: int
    validators: Validators
    scores: tuple[()] = ()


def every(value: float) -> Validators:
    return Validators(**dict.fromkeys(Validators.model_fields, value))


FAILED = Run(0, status="failed")
ENDS = {  # runs; what `last` takes; what any other rule takes
    "the suite's settings alone": ([Run(0, (0.1,))], (0, None), (0, None)),
    "draw 0 is worse": ([Run(0, (0.1,)), Run(1, (0.9,))], (0, None), (1, None)),
    "in another order": ([Run(1, (0.9,)), Run(0, (0.1,))], (0, None), (1, None)),
    "a snapshot is better": ([Run(0, (0.1, 0.7, 0.3))], (0, None), (0, 1)),
    "the end is better": ([Run(0, (0.8, 0.7, 0.3))], (0, None), (0, None)),
    "equals": ([Run(1, (0.5, 0.5)), Run(0, (0.5, 0.5))], (0, None), (0, None)),
    "draw 0 failed, one is left": ([FAILED, Run(1, (0.9,))], None, (1, None)),
    "draw 0 failed, two are left": ([FAILED, Run(1, (0.2,)), Run(2, (0.9,))], None, (2, None)),
    "draw 0 failed, a snapshot is left": ([FAILED, Run(1, (0.2, 0.4))], None, (1, 1)),
    "a later draw failed": ([Run(0, (0.2,)), Run(1, status="failed")], (0, None), (0, None)),
    "all failed": ([FAILED], None, None),
}


@pytest.mark.parametrize("case", ENDS)
@pytest.mark.parametrize("rule", RULES)
def test_last_is_the_end_of_draw_nought_and_every_other_rule_the_highest(rule, case):
    runs, last, highest = ENDS[case]
    values = {run.draw: run.values for run in runs if run.status == "scored"}

    def held_out(draw, step):
        return values[draw][step or 0]

    found = chosen(states_of(runs), rule, held_out)
    wanted = last if rule == "last" else highest
    assert (found and (found.record.draw, found.step)) == wanted


# Statistics


def opposite(share: float) -> tuple[Results, Results]:
    """Two shifts read off one encoder, whose seeds move the other way, beside a flat method."""
    seeds = np.array([0.04, -0.03, 0.01, -0.02])
    values = np.stack([0.6 + seeds, 0.5 - share * seeds])
    joined = np.ones((2, 2), dtype=bool)
    return Results(values, (), joined), Results(np.full((2, 4), 0.5), (), joined)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_degrees_of_freedom_are_at_most_shifts_times_seeds_less_one(share):
    """However well the seeds of two shifts cancel: few of them tell no more than all do."""
    a, b = opposite(share)
    found = compare(a, b)
    assert found.df <= 2 * (4 - 1) + 1e-9
    # the variance is at least that of shifts which do not vary together
    variance = np.var(a.values, axis=1, ddof=1).sum() / 4 / 2**2
    t = found.difference / np.sqrt(variance)
    assert found.p == pytest.approx(2 * stats.t.sf(t, found.df), rel=1e-9)
    margin = stats.t.ppf(0.975, found.df) * np.sqrt(variance)
    assert (found.low, found.high) == pytest.approx(
        (found.difference - margin, found.difference + margin)
    )


def test_an_interval_of_shifts_whose_seeds_cancel_is_no_point():
    low, high = interval(opposite(0.99)[0])
    assert high - low > 0
