"""Where the losses of Barlow Twins, VICReg and spectral contrastive learning have their minima."""

import itertools

import numpy as np
import pytest
import torch
from losses import normal
from torch import nn

from benchbench import Batch, Task
from benchbench_decorrelation import (
    BarlowTwins,
    Spectral,
    VICReg,
    barlow_twins,
    spectral,
    vicreg,
)


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


@pytest.mark.parametrize("factory", [BarlowTwins, Spectral, VICReg])
def test_each_view_is_normalised_by_itself(factory):
    """The second view is half as strong and brighter, which batch norm of each view undoes."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    encoder.num_features = 5
    objective = factory(encoder, Task((3, 2, 2), 3, 2)).double()
    encoder.double()
    first, other = normal(2, 16, 3, 2, 2)
    views = first, 0.5 * other + 1
    loss = objective(encoder, Batch(views, None, None, 0.0))
    linear, _, _, last = objective.projector
    projections = []
    for view in views:
        hidden = linear(encoder(view))
        scaled = (hidden - hidden.mean(0)) / (hidden.var(0, correction=0) + 1e-5).sqrt()
        projections.append(last(scaled.relu()).float())
    assert loss.item() == pytest.approx(objective.loss(*projections).item(), rel=1e-4)


def test_spectral_is_in_the_mean_over_all_batches_the_loss_of_the_population():
    """Every batch of three pairs, drawn with replacement from four."""
    a, b = normal(4, 3), normal(4, 3, seed=1)
    batches = [list(rows) for rows in itertools.product(range(4), repeat=3)]
    mean = sum(spectral(a[rows], b[rows]).item() for rows in batches) / len(batches)
    near = sum(a[i] @ b[i] for i in range(4)) / 4
    apart = sum((a[i] @ b[j]) ** 2 for i in range(4) for j in range(4)) / 16
    assert mean == pytest.approx((apart - 2 * near).item(), abs=1e-12)


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
