"""Losses of Barlow Twins, VICReg and spectral contrastive learning, term by term in float64."""

import numpy as np
import pytest
import torch

from benchbench_decorrelation import barlow_twins, spectral, vicreg


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_barlow_twins(a, b, weight):
    """Equation 1 of Zbontar et al. 2021, entry by entry."""
    a, b = ((z - z.mean(0)) / np.sqrt(z.var(0) + 1e-5) for z in (a.numpy(), b.numpy()))
    total = 0.0
    for i in range(a.shape[1]):
        for j in range(b.shape[1]):
            c = sum(x * y for x, y in zip(a[:, i], b[:, j], strict=True)) / len(a)
            total += (1 - c) ** 2 if i == j else weight * c**2
    return total


def slow_vicreg(a, b, weights):
    """Equations 1 to 6 of Bardes et al. 2022."""
    a, b = a.numpy(), b.numpy()
    n, d = a.shape
    invariance = sum(np.sum((x - y) ** 2) for x, y in zip(a, b, strict=True)) / n / d
    variance = covariance = 0.0
    for z in (a, b):
        for j in range(d):
            variance += max(0.0, 1 - np.sqrt(np.var(z[:, j], ddof=1) + 1e-4)) / d
        c = np.cov(z, rowvar=False)
        covariance += sum(c[i, j] ** 2 for i in range(d) for j in range(d) if i != j) / d
    return weights[0] * invariance + weights[1] * variance + weights[2] * covariance


def slow_spectral(a, b):
    """The batch estimate of HaoChen et al. 2021, pair by pair."""
    a, b = a.numpy(), b.numpy()
    n = len(a)
    near = sum(a[i] @ b[i] for i in range(n)) / n
    apart = sum((a[i] @ b[j]) ** 2 for i in range(n) for j in range(n) if i != j)
    return apart / (n * (n - 1)) - 2 * near


def test_each_loss_equals_its_formula_term_by_term():
    a, b = normal(9, 5), 0.6 * normal(9, 5, seed=1)
    assert barlow_twins(a, b, 0.3).item() == pytest.approx(slow_barlow_twins(a, b, 0.3), abs=1e-9)
    weights = (25.0, 20.0, 1.5)
    assert vicreg(a, b, *weights).item() == pytest.approx(slow_vicreg(a, b, weights), abs=1e-9)
    assert spectral(a, b).item() == pytest.approx(slow_spectral(a, b), abs=1e-9)


LOSSES = {
    "barlow_twins": lambda a, b: barlow_twins(a, b, 5e-3),
    "vicreg": lambda a, b: vicreg(a, b, 25.0, 25.0, 1.0),
    "spectral": spectral,
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_gradients_are_those_of_finite_differences(loss):
    a, b = normal(6, 3).requires_grad_(), normal(6, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(loss, (a, b))


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_neither_order_nor_which_view_is_first_matters(loss):
    a, b = normal(8, 4), normal(8, 4, seed=1)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(2))
    rotation = torch.linalg.qr(normal(4, 4, seed=3)).Q
    assert torch.allclose(loss(a, b), loss(a[order], b[order]), atol=1e-12)
    assert torch.allclose(loss(a, b), loss(b, a), atol=1e-12)
    if loss is spectral:
        assert torch.allclose(loss(a, b), loss(a @ rotation, b @ rotation), atol=1e-12)


def test_barlow_twins_forgets_scale_and_shift_and_vanishes_at_the_identity():
    a, b = normal(50, 4), normal(50, 4, seed=1)
    moved = a * torch.tensor([1.0, 2.0, 5.0, 9.0]) + 3
    assert torch.allclose(barlow_twins(a, b, 0.1), barlow_twins(moved, b, 0.1), rtol=1e-4)
    white = torch.linalg.qr(normal(50, 4) - normal(50, 4).mean(0)).Q * 50**0.5
    assert barlow_twins(white, white, 1.0).item() < 1e-6


def test_vicreg_vanishes_where_views_agree_and_features_are_white_and_wide():
    centred = normal(60, 5) - normal(60, 5).mean(0)
    white = 2 * torch.linalg.qr(centred).Q * 59**0.5
    assert vicreg(white, white, 25.0, 25.0, 1.0).item() == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_spectral_reaches_the_eigenvectors_of_the_four_node_graph(k):
    """Two classes in two domains; how often two nodes are views of one image is an integer."""
    same, other_domain, other_class, both = 10, 4, 3, 1
    graph = torch.tensor(
        [
            [same, other_domain, other_class, both],
            [other_domain, same, both, other_class],
            [other_class, both, same, other_domain],
            [both, other_class, other_domain, same],
        ]
    )
    nodes = torch.arange(4)
    first = nodes.repeat_interleave(graph.sum(1)).repeat(30)
    second = torch.cat([nodes.repeat_interleave(row) for row in graph]).repeat(30)
    features = normal(4, k).requires_grad_()
    optimizer = torch.optim.LBFGS([features], max_iter=60, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = spectral(features[first], features[second])
        loss.backward()
        return loss

    optimizer.step(closure)
    normalised = graph.double() / graph.sum(1)
    values, vectors = np.linalg.eigh(normalised.numpy())
    top = np.argsort(-values)[:k]
    assert sorted(values * 18) == pytest.approx([4, 8, 10, 18])  # interaction, domain, class, 1
    wanted = 4 * (vectors[:, top] * values[top]) @ vectors[:, top].T  # p = 1/4 at every node
    gram = (features @ features.T).detach().numpy()
    assert np.abs(gram - wanted).max() < 0.01  # the batch's estimate differs by 1 / 2160
    assert closure().item() == pytest.approx(-(values[top] ** 2).sum(), abs=0.01)
