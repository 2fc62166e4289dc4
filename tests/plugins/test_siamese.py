"""What SimSiam, BYOL, MoCo and DINO put into their losses, their averages, queues and centre."""

import math

import numpy as np
import pytest
import torch
from losses import normal, softmax

from benchbench import Batch
from benchbench.extension.conformance.fixtures import TASK, Probe
from benchbench_siamese import BYOL, DINO, MoCo, MoCoV3, SimSiam, cosine, info_nce


def batch(progress=0.0, rows=8, small=0):
    generator = torch.Generator().manual_seed(0)
    views = torch.rand(2, rows, *TASK.input_shape, generator=generator)
    crops = torch.rand(small, rows, 3, 8, 8, generator=generator)
    return Batch(tuple(views), None, None, progress, small=tuple(crops))


def built(factory, **options):
    torch.manual_seed(0)
    encoder = Probe()
    return encoder, factory(encoder, TASK, **options)


def unit(rows):
    return [row / np.linalg.norm(row) for row in rows.detach().double().numpy()]


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


def test_moco_encodes_with_the_keys_branch_only_the_view_that_is_used():
    """The loss and its gradient are those of both views encoded, to the last digit."""
    encoder, objective = built(MoCo)
    passed = []
    objective.average.register_forward_hook(lambda module, inputs, out: passed.append(inputs[0]))
    loss = objective(encoder, batch())
    ours = torch.autograd.grad(loss, list(encoder.parameters()))
    assert len(passed) == 1 and torch.equal(passed[0], batch().views[1])
    other, both = built(MoCo)
    with torch.no_grad():
        _, key = [torch.nn.functional.normalize(both.average(v), dim=1) for v in batch().views]
    query = torch.nn.functional.normalize(both.projector(other(batch().views[0])), dim=1)
    wanted = info_nce(query, key, both.queue, both.temperature)
    theirs = torch.autograd.grad(wanted, list(other.parameters()))
    assert torch.equal(loss, wanted)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_dino_is_read_off_its_teacher_and_the_others_off_the_encoder():
    for factory in (BYOL, MoCo, MoCoV3, SimSiam):
        encoder, objective = built(factory)
        assert objective.trained_encoder(encoder) is encoder
    encoder, objective = built(DINO)
    assert objective.trained_encoder(encoder) is objective.average[0]


def test_a_queue_shorter_than_a_batch_keeps_the_last_keys():
    encoder, objective = built(MoCo, queue=5)
    objective(encoder, batch())
    keys = objective.keys.clone()
    objective.after_step(encoder)
    assert torch.equal(objective.queue, keys[-5:])


@pytest.mark.parametrize("progress", [0.0, 0.15, 0.8])
def test_dino_sharpens_centres_and_compares_every_other_view(progress):
    encoder, objective = built(DINO, small=3, outputs=20)
    given = batch(progress, small=3)
    objective.centre.copy_(normal(20))
    value = objective(encoder, given).item()
    sharp = 0.04 + 0.03 * min(progress / 0.3, 1)
    centre = objective.centre.double().numpy()
    seen = [encoder(torch.cat(kind)) for kind in (given.views, given.small)]
    scores = objective.projector(torch.cat(seen)).double().detach().numpy().reshape(5, 8, 20)
    targets = [objective.average(view).double().detach().numpy() for view in given.views]
    terms = []
    for i, target in enumerate(targets):
        for j, student in enumerate(scores):
            if i != j:
                shares = [softmax((row - centre) / sharp) for row in target]
                rows = zip(shares, student / 0.1, strict=True)
                terms += [-np.sum(share * np.log(softmax(row))) for share, row in rows]
    assert value == pytest.approx(np.mean(terms), abs=1e-4)


def test_dinos_centre_keeps_nine_tenths_and_its_last_layer_waits():
    encoder, objective = built(DINO, small=0, outputs=20)
    objective(encoder, batch(0.005)).backward()
    assert objective.projector[-1].weight.grad is None
    wanted = 0.1 * torch.cat([objective.average(view) for view in batch().views]).mean(0)
    objective.after_step(encoder)
    assert torch.allclose(objective.centre, wanted, atol=1e-5)
    objective(encoder, batch(0.01)).backward()
    assert objective.projector[-1].weight.grad.abs().max() > 0
