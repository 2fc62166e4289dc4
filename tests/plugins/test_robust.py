"""Where penalties vanish, and which domain gets the weight."""

import itertools

import numpy as np
import pytest
import torch
from losses import normal
from toy import batch_of, built, descend

from benchbench import UNKNOWN, BadInput, Batch, supervised_loss
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
def test_the_loss_is_the_mean_risk_and_the_weighed_penalty_on_both_sides_of_anneal(factory):
    encoder, objective = built(factory, weight=50.0, anneal=0.5)
    batch = batch_of(labelled=2)
    member = membership(batch.labels, batch.domains, 3)
    z = encoder(batch.views[0])
    logits = objective.predict(z)
    risk = mean_of(risk_of_each(logits, batch.labels, member), member).item()
    price = objective.penalty(z, logits, batch, member).item()
    if factory is Fishr:
        price /= 3 * (5 + 1)  # a mean over the entries of head and bias
    for progress, weight in ((0.4, 1), (0.5, 50)):
        at = Batch(batch.views, batch.labels, batch.domains, progress)
        assert objective(encoder, at).item() == pytest.approx(risk + weight * price, rel=1e-4)


@pytest.mark.parametrize("factory", [Fishr, GroupDRO, VREx])
def test_with_one_labelled_domain_loss_and_gradient_are_those_of_cross_entropy(factory):
    encoder, objective = built(factory)
    batch = batch_of(labelled=1, progress=0.9)
    for _ in range(3):
        plain = supervised_loss(objective.predict(encoder(batch.views[0])), batch.labels)
        loss = objective(encoder, batch)
        assert loss.item() == pytest.approx(plain.item(), rel=1e-6)
        members = [encoder.linear.weight, *objective.classifier.parameters()]
        pairs = (torch.autograd.grad(value, members) for value in (loss, plain))
        for ours, theirs in zip(*pairs, strict=True):
            assert torch.allclose(ours, theirs, atol=1e-6)
        objective.after_step(encoder)
        with torch.no_grad():
            encoder.linear.weight.mul_(1.1)


def of_irm(logits, labels, domains=None):
    """Penalty and gradient in the logits."""
    logits = logits.clone().requires_grad_()
    domains = torch.zeros(len(labels), dtype=torch.int64) if domains is None else domains
    batch = Batch((), labels, domains, 0.5)
    value = IRM.penalty(None, None, logits, batch, membership(labels, domains, 3))
    return value.item(), torch.autograd.grad(value, logits)[0]


def square(logits, labels):
    """The squared derivative of the risk of w · logits at w = 1, by autograd in w."""
    scale = torch.ones((), dtype=logits.dtype, requires_grad=True)
    risk = torch.nn.functional.cross_entropy(scale * logits, labels)
    return torch.autograd.grad(risk, scale, create_graph=True)[0].square()


CALIBRATED = torch.tensor([[np.log(3.0), 0.0]] * 4), torch.tensor([0, 0, 0, 1])


@pytest.mark.parametrize("logits, labels", [CALIBRATED, (2 * normal(4, 3), torch.arange(4) % 3)])
@pytest.mark.parametrize("size", [2, 3, 4])
def test_the_penalty_of_irm_is_in_the_mean_over_all_batches_the_square_of_the_population(
    logits, labels, size
):
    """Every batch drawn with replacement from four rows; the first rows are calibrated: zero."""
    logits = logits.double().requires_grad_()
    truth = square(logits, labels)
    wanted = torch.autograd.grad(truth, logits)[0]
    batches = [list(rows) for rows in itertools.product(range(4), repeat=size)]
    value, gradient, squares = 0.0, torch.zeros_like(logits), 0.0
    for rows in batches:
        one, slope = of_irm(logits.detach()[rows], labels[rows])
        value += one / len(batches)
        gradient.index_add_(0, torch.tensor(rows), slope / len(batches))
        squares += square(logits[rows], labels[rows]).item() / len(batches)
    assert value == pytest.approx(truth.item(), abs=1e-12)
    assert torch.allclose(gradient, wanted, atol=1e-12)
    assert squares > truth.item() + 1e-3  # what the square of one batch is in the mean


def test_on_rows_that_are_there_twice_the_penalty_of_irm_is_the_square():
    logits, labels = 2 * normal(8, 3), torch.arange(8) % 3
    twice = logits.repeat_interleave(2, 0), labels.repeat_interleave(2)
    value, gradient = of_irm(*twice)
    logits.requires_grad_()
    wanted = square(logits, labels)
    assert value == pytest.approx(wanted.item(), abs=1e-12)
    both = gradient.view(8, 2, 3).sum(1)
    assert torch.allclose(both, torch.autograd.grad(wanted, logits)[0], atol=1e-12)


def test_the_halves_of_irm_are_of_each_domains_known_rows_and_one_row_has_none():
    logits, labels = 2 * normal(7, 3), torch.tensor([0, 1, 2, UNKNOWN, 1, 0, 2])
    domains = torch.tensor([0, 1, 0, 0, 0, 2, 2])  # known rows: 0, 2 and 4; 1; 5 and 6

    def slope(rows):
        scale = torch.ones((), dtype=torch.float64, requires_grad=True)
        risk = torch.nn.functional.cross_entropy(scale * logits[rows], labels[rows])
        return torch.autograd.grad(risk, scale)[0].item()

    wanted = (slope([0, 4]) * slope([2]) + slope([5]) * slope([6])) / 2
    assert of_irm(logits, labels, domains)[0] == pytest.approx(wanted, abs=1e-12)
    assert of_irm(logits[:2], labels[:2], domains[:2])[0] == 0


class DomainBedsFishr:
    """`Fishr` and `MovingAverage` of DomainBed, gradients row by row instead of by BackPACK.

    Its average starts at the first variances, not at zero, as ours does.
    """

    def __init__(self, momentum):
        self.momentum, self.kept = momentum, {}

    def penalty(self, z, logits, labels, domains):
        averages = []
        for domain in sorted(set(domains.tolist())):
            rows = (domains == domain).nonzero().flatten().tolist()
            gradients = []
            for i in rows:
                error = logits[i].softmax(0) - torch.nn.functional.one_hot(labels[i], 3)
                gradients.append(torch.cat([torch.outer(error, z[i]).flatten(), error]))
            gradients = torch.stack(gradients)
            now = (gradients - gradients.mean(0)).pow(2).mean(0)
            before = self.kept.get(domain, now.detach())
            data = self.momentum * before + (1 - self.momentum) * now
            self.kept[domain] = data.detach()
            averages.append(data / (1 - self.momentum))
        mean = torch.stack(averages).mean(0)
        return sum((each - mean).pow(2).mean() for each in averages) / len(averages)


def test_fishr_is_domainbeds_but_for_the_factor_that_the_methods_name():
    """Over several steps, with another batch and other weights at each."""
    momentum = 0.75
    encoder, objective = built(Fishr, momentum=momentum)
    encoder, objective, other = encoder.double(), objective.double(), DomainBedsFishr(momentum)
    domains = torch.arange(12) % 2
    for step in range(5):
        x, labels = normal(12, 3, 2, 2, seed=step) + 1, (torch.arange(12) + step) % 3
        z = encoder(x * (1 + domains[:, None, None, None]))
        logits = objective.predict(z)
        member = membership(labels, domains, 3)
        ours = objective.penalty(z, logits, Batch((), labels, domains, 0.5), member) / 18
        theirs = other.penalty(z, logits, labels, domains)
        members = [encoder.linear.weight, *objective.classifier.parameters()]
        pairs = [torch.autograd.grad(v, members, retain_graph=True) for v in (ours, theirs)]
        assert ours.item() == pytest.approx((1 - momentum) ** 2 * theirs.item(), rel=1e-9)
        for one, two in zip(*pairs, strict=True):
            assert one.abs().max() > 0
            assert torch.allclose(one, (1 - momentum) * two, atol=1e-12)
        objective.after_step(encoder)
        with torch.no_grad():
            encoder.linear.weight.add_(0.1 * normal(5, 12, seed=step))


def test_a_small_weight_of_a_domain_does_not_shrink_the_loss_of_group_dro():
    encoder, objective = built(GroupDRO, eta=1.0)
    batch = batch_of(labelled=1)
    objective.weights.copy_(torch.tensor([1e-20, 0.5, 0.5]))
    plain = supervised_loss(objective.predict(encoder(batch.views[0])), batch.labels)
    assert objective(encoder, batch).item() == pytest.approx(plain.item(), rel=1e-5)


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
