"""Where statistics of features are equal, and what becomes of them."""

import numpy as np
import pytest
import torch
from losses import normal
from torch import nn
from toy import TASK, Flat, batch_of, built, descend, share_of_domain, two_axes

from benchbench import UNKNOWN, Batch, Task, supervised_loss
from benchbench_invariance import AFN, CORAL, DAN, JAN
from benchbench_invariance.covariance import coral
from benchbench_invariance.kernels import gaussians, mmd
from benchbench_supervised import erm


def test_coral_averages_over_pairs_and_ignores_domains_of_one_row():
    z, domains = normal(31, 4), torch.tensor([0, 1, 2] * 10 + [3])
    covariances = [np.cov(z[domains == d].numpy(), rowvar=False) for d in range(3)]
    pairs = [
        ((covariances[a] - covariances[b]) ** 2).sum() / 64 for a, b in ((0, 1), (0, 2), (1, 2))
    ]
    assert coral(z, domains, 4).item() == pytest.approx(np.mean(pairs), abs=1e-9)
    assert coral(z, torch.zeros(31, dtype=torch.int64), 4).item() == 0


@pytest.mark.parametrize("factory", [AFN, CORAL, DAN, JAN])
def test_without_weight_it_is_erm(factory):
    encoder, aligned = built(factory, weight=0.0)
    plain, batch = erm(encoder, TASK), batch_of()
    plain.classifier.load_state_dict(aligned.classifier.state_dict())
    assert aligned(encoder, batch).item() == pytest.approx(plain(encoder, batch).item())


def test_the_discrepancy_of_equal_samples_is_zero_and_of_others_grows_with_their_distance():
    rows = normal(20, 3)
    second = torch.arange(40) >= 20
    values = [
        mmd(gaussians(torch.cat([rows, rows + shift])), second).item() for shift in (0, 0.5, 2)
    ]
    assert values[0] == pytest.approx(0, abs=1e-12)
    assert 0.01 < values[1] < values[2]


@pytest.mark.parametrize("second", [torch.zeros(6).bool(), torch.ones(6).bool()])
def test_one_sample_has_no_discrepancy(second):
    assert mmd(gaussians(normal(6, 3)), second).item() == 0


@pytest.mark.parametrize(
    ("factory", "options"),
    [(DAN, {}), (JAN, {}), (CORAL, {"weight": 10.0}), (CORAL, {"means": True})],
)
def test_an_encoder_that_aligns_domains_ignores_what_tells_them_apart(factory, options):
    torch.manual_seed(0)
    encoder = Flat()
    objective = factory(encoder, Task((3, 2, 2), 2, 2), **options)
    assert share_of_domain(encoder) > 0.7
    descend(objective, encoder, lambda step: two_axes(seed=step)[0], 300, lr=0.01)
    assert share_of_domain(encoder) < 0.25
    batch, labels = two_axes(seed=1000)
    assert (objective.predict(encoder(batch.views[0])).argmax(1) == labels).float().mean() > 0.97


@pytest.mark.parametrize(("known", "wanted"), [(0, 450), (1, 450), (None, 225)])
def test_each_domains_mean_norm_is_drawn_to_the_radius_by_itself(known, wanted):
    """Norms of 10 and 40 at radius 25: 15² each, where the mean of all norms is right."""
    encoder = nn.Identity()
    encoder.num_features = 12
    rows = torch.nn.functional.normalize(normal(12, 12).float(), dim=1)
    domains = torch.arange(12) // 6
    rows = rows * torch.tensor([10.0, 40.0])[domains][:, None]
    labels = (torch.arange(12) % 3).masked_fill(domains != (known or 0), UNKNOWN)
    if known is None:  # rows of one domain alone
        rows, labels = rows[6:], labels[6:]
    objective = AFN(encoder, TASK, weight=1.0, radius=25.0)
    price = objective(encoder, Batch((rows,), labels, None, 0.0))
    price = price - supervised_loss(objective.predict(rows), labels)
    assert price.item() == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("scale", [1e-8, 1e-4, 1.0, 1e4])
def test_the_scale_of_features_does_not_change_a_discrepancy(scale):
    rows = torch.cat([normal(20, 3), normal(20, 3, seed=1) + 1])
    second = torch.arange(40) >= 20
    found = mmd(gaussians(scale * rows), second).item()
    assert found == pytest.approx(mmd(gaussians(rows), second).item(), rel=1e-9)
    assert torch.equal(gaussians(torch.zeros(4, 3)), torch.full((4, 4), 5.0))


@pytest.mark.parametrize(("options", "wanted"), [({"radius": 4.0}, 4.0), ({}, None)])
def test_norms_are_drawn_out_or_to_the_radius(options, wanted):
    encoder, objective = built(AFN, weight=1.0, **options)
    batch = batch_of()

    def norm():
        return encoder(batch.views[0]).norm(dim=1).mean().item()

    before = norm()
    descend(objective, encoder, lambda step: batch, 200, lr=0.02)
    if wanted is None:
        assert norm() > 2 * before
    else:
        assert norm() == pytest.approx(wanted, rel=0.05)
