import numpy as np
import pytest
import torch
from scipy.stats import pearsonr
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from benchbench.evaluation.metrics import METRICS, parts, pearson, resolve_metric
from benchbench.extension.errors import BadInput


@pytest.fixture
def answers():
    """Predictions of six classes where four are asked for, and groups of which one is empty."""
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 1, 3, 5], 400, p=[0.5, 0.3, 0.15, 0.05])
    predictions = np.where(rng.random(400) < 0.5, labels, rng.integers(0, 6, 400))
    groups = rng.choice([-1, 0, 2, 3], 400)
    return [torch.from_numpy(values) for values in (predictions, labels, groups)]


def test_metrics_are_those_of_scikit_learn(answers):
    predictions, labels, groups = answers
    y, p = labels.numpy(), predictions.numpy()
    asked = np.unique(y)
    assert METRICS["accuracy"](*answers) == pytest.approx(accuracy_score(y, p))
    with pytest.warns(UserWarning, match="y_pred contains classes"):
        balanced = balanced_accuracy_score(y, p)
    assert METRICS["per_class_mean"](*answers) == pytest.approx(balanced)
    f1 = f1_score(y, p, average="macro", labels=asked)
    assert METRICS["macro_f1"](*answers) == pytest.approx(f1)
    by_group = {g: accuracy_score(y[groups == g], p[groups == g]) for g in (0, 2, 3)}
    assert METRICS["worst_group"](*answers) == pytest.approx(min(by_group.values()))
    assert {part.group: part.value for part in parts(*answers)} == pytest.approx(by_group)
    assert sum(part.n for part in parts(*answers)) == int((groups >= 0).sum())


def test_groups_may_overlap_and_be_many():
    rng = np.random.default_rng(1)
    right, members = rng.random(300) < 0.7, rng.random((300, 12)) < 0.3
    members[:, 5] = False  # nobody
    predictions, labels = torch.from_numpy(right).long(), torch.ones(300, dtype=torch.int64)
    rates = {g: right[members[:, g]].mean() for g in range(12) if g != 5}
    found = parts(predictions, labels, torch.from_numpy(members))
    assert {part.group: part.value for part in found} == pytest.approx(rates)
    assert {part.group: part.n for part in found} == {g: members[:, g].sum() for g in rates}
    users = rng.integers(0, 60, 300)
    means = [right[users == user].mean() for user in np.unique(users)]
    tenth = METRICS["tenth_percentile"](predictions, labels, torch.from_numpy(users))
    assert tenth == pytest.approx(np.percentile(means, 10))


def test_numbers_are_compared_by_r():
    rng = np.random.default_rng(2)
    y, groups = rng.normal(size=200), rng.integers(0, 3, 200)
    p = y + rng.normal(size=200)
    both = torch.from_numpy(p).float(), torch.from_numpy(y).float()
    assert METRICS["pearson"](*both) == pytest.approx(pearsonr(p, y)[0], abs=1e-6)
    lowest = min(pearsonr(p[groups == g], y[groups == g])[0] for g in range(3))
    worst = METRICS["worst_group_pearson"](*both, torch.from_numpy(groups))
    assert worst == pytest.approx(lowest, abs=1e-6)
    assert METRICS["pearson"](torch.ones(5), torch.arange(5.0)) == 0.0


@pytest.mark.parametrize("value", [0.1, 0.7, 1e-4, 12345.678])
def test_a_constant_has_no_r_whatever_rounding_makes_of_its_mean(value):
    for count in range(2, 40):
        for kind in (torch.float32, torch.float64):  # the mean of float32 is exact in float64
            constant = torch.full((count,), value, dtype=kind)
            assert pearson(constant, constant) == 0
            assert pearson(constant, torch.arange(count).float()) == 0


def test_a_metric_that_is_not_there_or_lacks_groups_is_refused():
    with pytest.raises(BadInput, match="no metric is named 'acuracy'; did you mean 'accuracy'"):
        resolve_metric("acuracy", None, classes=True)
    with pytest.raises(BadInput, match="worst_group needs groups"):
        resolve_metric("worst_group", None, classes=True)
    with pytest.raises(BadInput, match="accuracy is of classes, and the dataset's labels are num"):
        resolve_metric("accuracy", None, classes=False)
