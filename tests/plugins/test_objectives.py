"""Losses against slow transcriptions of their formulas, in float64."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchbench import UNKNOWN, Batch, Task
from benchbench_contrastive import nt_xent
from benchbench_invariance import CORAL, DANN, ReverseGradient, coral
from benchbench_supervised import erm


class Flat(torch.nn.Module):
    """An encoder that is one linear map."""

    num_features = 5

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(12, 5, bias=False)

    def forward(self, images):
        return self.linear(images.flatten(1))


TASK = Task((3, 2, 2), 3, 3)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batch_of(n=12, progress=0.5, seed=0):
    labels = torch.arange(n) % 3
    domains = torch.arange(n) % 2
    images = normal(n, 3, 2, 2, seed=seed).float()
    return Batch((images,), labels.masked_fill(domains == 1, UNKNOWN), domains, progress)


def slow_nt_xent(z0, z1, temperature):
    """Equation 1 of Chen et al. 2020, term by term."""
    z = [v / np.linalg.norm(v) for v in [*z0.numpy(), *z1.numpy()]]
    n = len(z0)
    total = 0.0
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        above = math.exp(z[i] @ z[j] / temperature)
        below = sum(math.exp(z[i] @ z[k] / temperature) for k in range(2 * n) if k != i)
        total -= math.log(above / below)
    return total / (2 * n)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_nt_xent_equals_a_double_loop(temperature):
    z0, z1 = normal(7, 5), normal(7, 5, seed=1)
    wanted = slow_nt_xent(z0, z1, temperature)
    assert nt_xent(z0, z1, temperature).item() == pytest.approx(wanted, abs=1e-9)


def test_nt_xent_forgets_scale_order_and_which_view_is_first():
    z0, z1 = normal(7, 5), normal(7, 5, seed=1)
    value = nt_xent(z0, z1, 0.2)
    order = torch.randperm(7, generator=torch.Generator().manual_seed(2))
    scales = torch.rand(7, 1, dtype=torch.float64) + 0.1
    for same in (
        nt_xent(z1, z0, 0.2),
        nt_xent(z0[order], z1[order], 0.2),
        nt_xent(z0 * scales, z1, 0.2),
    ):
        assert torch.allclose(value, same, atol=1e-12)


def test_gradients_are_those_of_finite_differences():
    z0, z1 = normal(4, 3).requires_grad_(), normal(4, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: nt_xent(a, b, 0.3), (z0, z1))
    domains = torch.tensor([0, 1, 0, 1])
    assert torch.autograd.gradcheck(lambda a: coral(a, domains, 2), (z0,))


def test_coral_is_the_papers_distance_of_covariances():
    z, domains = normal(20, 4), torch.tensor([0, 2] * 10)
    first, second = (np.cov(z[domains == d].numpy(), rowvar=False) for d in (0, 2))
    wanted = ((first - second) ** 2).sum() / (4 * 4**2)
    assert coral(z, domains, 3).item() == pytest.approx(wanted, abs=1e-9)


def test_coral_averages_over_pairs_and_ignores_domains_of_one_row():
    z, domains = normal(31, 4), torch.tensor([0, 1, 2] * 10 + [3])
    covariances = [np.cov(z[domains == d].numpy(), rowvar=False) for d in range(3)]
    pairs = [
        ((covariances[a] - covariances[b]) ** 2).sum() / 64 for a, b in ((0, 1), (0, 2), (1, 2))
    ]
    assert coral(z, domains, 4).item() == pytest.approx(np.mean(pairs), abs=1e-9)
    assert coral(z, torch.zeros(31, dtype=torch.int64), 4).item() == 0


def test_erm_is_cross_entropy_on_the_labelled_rows_only():
    torch.manual_seed(0)
    encoder = Flat()
    objective, batch = erm(encoder, TASK), batch_of()
    seen = batch.labels != UNKNOWN
    logits = objective.classifier(encoder(batch.views[0][seen]))
    wanted = -F.log_softmax(logits.double(), 1)[range(6), batch.labels[seen]].mean()
    assert objective(encoder, batch).item() == pytest.approx(wanted.item(), abs=1e-6)
    assert torch.equal(objective.predict(encoder(batch.views[0][seen])), logits)


@pytest.mark.parametrize("progress", [0.0, 0.3, 0.99])
def test_dann_reverses_the_domain_gradient_by_its_schedule(progress):
    torch.manual_seed(0)
    encoder = Flat()
    objective, batch = DANN(encoder, TASK, weight=0.7), batch_of(progress=progress)
    objective(encoder, batch).backward()
    reached = encoder.linear.weight.grad.clone()

    z = encoder(batch.views[0])
    weight = encoder.linear.weight
    label = F.cross_entropy(objective.classifier(z), batch.labels, ignore_index=UNKNOWN)
    domain = F.cross_entropy(objective.discriminator(z), batch.domains)
    (of_label,) = torch.autograd.grad(label, weight, retain_graph=True)
    (of_domain,) = torch.autograd.grad(domain, weight)
    scale = 0.7 * (2 / (1 + math.exp(-10 * progress)) - 1)
    assert torch.allclose(reached, of_label - scale * of_domain, atol=1e-6)


def test_the_discriminator_itself_learns_to_tell_domains_apart():
    torch.manual_seed(0)
    encoder = Flat()
    objective, batch = DANN(encoder, TASK), batch_of()
    objective(encoder, batch).backward()
    reached = [p.grad.clone() for p in objective.discriminator.parameters()]
    domain = F.cross_entropy(objective.discriminator(encoder(batch.views[0])), batch.domains)
    wanted = torch.autograd.grad(domain, list(objective.discriminator.parameters()))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(reached, wanted, strict=True))


def test_reversal_keeps_values():
    z = normal(3, 4)
    assert torch.equal(ReverseGradient.apply(z, 0.5), z)


def test_without_weight_coral_is_erm():
    torch.manual_seed(0)
    encoder = Flat()
    aligned, batch = CORAL(encoder, TASK, weight=0.0), batch_of()
    plain = erm(encoder, TASK)
    plain.classifier.load_state_dict(aligned.classifier.state_dict())
    assert aligned(encoder, batch).item() == pytest.approx(plain(encoder, batch).item())
