"""Where penalties vanish, and which domain gets the weight."""

import numpy as np
import pytest
import torch
from losses import normal
from toy import batch_of, built, descend

from benchbench import UNKNOWN, BadInput
from benchbench_robust import (
    IRM,
    Fishr,
    GroupDRO,
    VREx,
    gradient_variances,
    mean_of,
    membership,
    raised,
    risk_of_each,
    scale_gradients,
)

ALL = [Fishr, GroupDRO, IRM, VREx]


def environment(agree, of_cause=0.8, n=1000):
    """Every combination of cause, shortcut and label, as often as its probability says.

    The label agrees with the cause in a share ``of_cause``, with the shortcut in ``agree``.
    """
    rows, labels = [], []
    for label in (0, 1):
        for cause in (0, 1):
            for shortcut in (0, 1):
                p = 0.5 * (of_cause if cause == label else 1 - of_cause)
                p *= agree if shortcut == label else 1 - agree
                count = round(n * p)
                rows += [[2.0 * cause - 1, 2.0 * shortcut - 1]] * count
                labels += [label] * count
    return torch.tensor(rows, dtype=torch.float64), torch.tensor(labels)


def two_environments():
    (first, one), (second, other) = environment(0.9), environment(0.7)
    domains = torch.cat([torch.zeros(len(one)), torch.ones(len(other))]).long()
    return torch.cat([first, second]), torch.cat([one, other]), domains


def penalty(weight):
    x, labels, domains = two_environments()
    logits = x @ torch.tensor(weight, dtype=torch.float64)
    logits = torch.stack([-logits / 2, logits / 2], 1)
    member = membership(labels, domains, 2)
    return mean_of(scale_gradients(logits, labels, member).square(), member).item()


def test_the_penalty_of_irm_vanishes_at_the_invariant_predictor_and_not_at_the_shortcut():
    log_odds = np.log(0.8 / 0.2)
    assert penalty([log_odds, 0.0]) == pytest.approx(0, abs=1e-20)
    assert penalty([log_odds, 1.0]) > 1e-3
    assert penalty([0.0, np.log(0.8 / 0.2)]) > 1e-3  # the shortcut's odds of both together


def test_equal_domains_have_no_variance_of_risks_nor_of_gradients():
    labels = torch.arange(6) % 3
    logits, z = normal(6, 3), normal(6, 4)
    both = [torch.cat([x, x]) for x in (logits, z, labels)]
    member = membership(both[2], torch.arange(12) // 6, 2)
    risks = risk_of_each(both[0], both[2], member)
    assert torch.allclose(risks[0], risks[1])
    one, other = gradient_variances(both[1], both[0], both[2], member)
    assert torch.allclose(one, other)


def test_the_worst_domain_gets_the_weight_and_weights_stay_a_distribution():
    weights = torch.tensor([0.5, 0.3, 0.2])
    for _ in range(100):
        weights = raised(weights, torch.tensor([1.0, 2.0, 0.5]), 0.1)
        assert weights.sum().item() == pytest.approx(1)
    assert weights[1] > 0.99
    encoder, objective = built(GroupDRO, eta=1.0)
    batch = batch_of(labelled=2)
    with torch.no_grad():  # the second domain's labels become wrong
        wrong = torch.where(batch.domains == 1, (batch.labels + 1) % 3, batch.labels)
    batch = type(batch)(batch.views, wrong, batch.domains, 0.5)
    descend(objective, encoder, lambda step: batch, 30)
    member = membership(batch.labels, batch.domains, 3)
    risks = risk_of_each(objective.predict(encoder(batch.views[0])), batch.labels, member)
    assert (risks[0] - risks[1]).abs() < 0.2  # it does not give up on the hard one
    assert objective.weights[2] < 0.2  # where there are no rows


@pytest.mark.parametrize("factory", [IRM, VREx, Fishr])
def test_the_penalty_is_annealed_and_the_loss_scaled_back(factory):
    encoder, objective = built(factory, weight=50.0, anneal=0.5)
    batch = batch_of(labelled=2, progress=0.4)
    member = membership(batch.labels, batch.domains, 3)
    z = encoder(batch.views[0])
    logits = objective.predict(z)
    risk = mean_of(risk_of_each(logits, batch.labels, member), member).item()
    price = objective.penalty(z, logits, batch, member).item()
    assert objective(encoder, batch).item() == pytest.approx(risk + price, rel=1e-4)
    later = type(batch)(batch.views, batch.labels, batch.domains, 0.5)
    wanted = (risk + 50 * price) / 50
    assert objective(encoder, later).item() == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("factory", ALL)
def test_rows_without_a_label_do_not_count(factory):
    encoder, objective = built(factory)
    batch = batch_of(n=18, labelled=1)
    seen = batch.labels != UNKNOWN
    rows = type(batch)((batch.views[0][seen],), batch.labels[seen], batch.domains[seen], 0.5)
    alone = objective(encoder, rows).item()
    assert objective(encoder, batch).item() == pytest.approx(alone, abs=1e-6)


def test_fishr_averages_variances_over_steps():
    encoder, objective = built(Fishr, momentum=0.75)
    batch = batch_of(labelled=2)
    member = membership(batch.labels, batch.domains, 3)
    z = encoder(batch.views[0])
    now = gradient_variances(z, objective.predict(z), batch.labels, member)
    objective(encoder, batch)
    objective.after_step(encoder)
    assert torch.allclose(objective.variances, now) and objective.seen.tolist() == [1, 1, 0]
    with torch.no_grad():
        encoder.linear.weight.mul_(2)
    z = encoder(batch.views[0])
    later = gradient_variances(z, objective.predict(z), batch.labels, member)
    objective(encoder, batch)
    objective.after_step(encoder)
    assert torch.allclose(objective.variances, 0.75 * now + 0.25 * later, atol=1e-6)


def test_a_share_of_the_stage_is_between_zero_and_one():
    with pytest.raises(BadInput, match="anneal = 2 should be between 0 and 1"):
        built(IRM, anneal=2)
