"""SimSiam, BYOL and MoCo against their formulas, and their averages and queues."""

import math

import numpy as np
import pytest
import torch

from benchbench import Batch
from benchbench.checks.subject import TASK, Probe
from benchbench_siamese import BYOL, MoCo, MoCoV3, SimSiam, cosine, info_nce, two_tau_nce


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batch(progress=0.0, rows=8):
    views = torch.rand(2, rows, *TASK.image_shape, generator=torch.Generator().manual_seed(0))
    return Batch(tuple(views), None, None, progress)


def built(factory, **options):
    torch.manual_seed(0)
    encoder = Probe()
    return encoder, factory(encoder, TASK, **options)


def unit(rows):
    return [row / np.linalg.norm(row) for row in rows.detach().double().numpy()]


def test_info_nce_is_the_share_of_the_own_key():
    query, keys, queue = (
        torch.nn.functional.normalize(normal(n, 4, seed=n), dim=1) for n in (5, 5, 9)
    )
    keys = keys.roll(1, 0)
    total = 0.0
    for q, k in zip(query.numpy(), keys.numpy(), strict=True):
        own = math.exp(q @ k / 0.3)
        total -= math.log(own / (own + sum(math.exp(q @ other / 0.3) for other in queue.numpy())))
    assert info_nce(query, keys, queue, 0.3).item() == pytest.approx(total / 5, abs=1e-9)


def test_moco_v3s_loss_is_two_tau_times_cross_entropy():
    query, keys, tau = normal(6, 4), normal(6, 4, seed=1), 0.2
    q, k = unit(query), unit(keys)
    total = 0.0
    for i in range(6):
        shares = [math.exp(q[i] @ k[j] / tau) for j in range(6)]
        total -= math.log(shares[i] / sum(shares))
    wanted = 2 * tau * total / 6
    assert two_tau_nce(query.float(), keys.float(), tau).item() == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("factory", [SimSiam, BYOL])
def test_predictions_are_compared_with_the_other_view(factory):
    encoder, objective = built(factory)
    value = objective(encoder, batch()).item()
    views = batch().views
    online = [objective.projector(encoder(view)) for view in views]
    predicted = [unit(objective.predictor(z)) for z in online]
    branch = getattr(objective, "average", None)
    targets = [unit(branch(view) if branch else z) for view, z in zip(views, online, strict=True)]
    cosines = [
        np.mean([p @ z for p, z in zip(predicted[a], targets[b], strict=True)])
        for a, b in ((0, 1), (1, 0))
    ]
    wanted = -sum(cosines) / 2 if factory is SimSiam else sum(2 - 2 * c for c in cosines)
    assert value == pytest.approx(wanted, abs=1e-5)


def test_no_gradient_reaches_the_target():
    p, z = normal(4, 3).requires_grad_(), normal(4, 3, seed=1).requires_grad_()
    cosine(p, z).backward()
    assert z.grad is None and p.grad.abs().max() > 0


@pytest.mark.parametrize(
    ("factory", "rises"), [(BYOL, True), (MoCoV3, True), (MoCo, False)], ids=lambda v: str(v)
)
@pytest.mark.parametrize("progress", [0.0, 0.5, 0.99])
def test_the_average_moves_by_its_schedule(factory, rises, progress):
    encoder, objective = built(factory, momentum=0.9)
    assert not any(p.requires_grad for p in objective.average.parameters())
    objective(encoder, batch(progress))
    with torch.no_grad():
        for p in [*encoder.parameters(), *objective.projector.parameters()]:
            p.add_(1)
    before = [p.clone() for p in objective.average.parameters()]
    online = [p.clone() for p in (*encoder.parameters(), *objective.projector.parameters())]
    objective.after_step(encoder)
    m = 1 - 0.1 * (math.cos(math.pi * progress) + 1) / 2 if rises else 0.9
    for old, now, new in zip(before, online, objective.average.parameters(), strict=True):
        assert torch.allclose(new, m * old + (1 - m) * now, atol=1e-6)


def test_the_queue_holds_the_latest_keys_and_wraps_around():
    encoder, objective = built(MoCo, queue=20)
    start = objective.queue.clone()
    assert torch.allclose(start.norm(dim=1), torch.ones(20), atol=1e-6)
    seen = []
    for _ in range(3):
        objective(encoder, batch())
        seen.append(objective.keys.clone())
        objective.after_step(encoder)
    assert int(objective.next) == 24 % 20
    assert torch.equal(objective.queue[8:16], seen[1])
    assert torch.equal(objective.queue[16:], seen[2][:4])
    assert torch.equal(objective.queue[:4], seen[2][4:])
    assert torch.equal(objective.queue[4:8], seen[0][4:])


def test_a_queue_shorter_than_a_batch_keeps_the_last_keys():
    encoder, objective = built(MoCo, queue=5)
    objective(encoder, batch())
    keys = objective.keys.clone()
    objective.after_step(encoder)
    assert torch.equal(objective.queue, keys[-5:])
