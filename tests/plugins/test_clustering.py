"""SwAV's codes, its queue and its views."""

import numpy as np
import pytest
import torch
from losses import normal, slow_codes, softmax

from benchbench import BadInput, Batch
from benchbench.extension.conformance.fixtures import TASK, Probe
from benchbench_clustering import SwAV, sinkhorn


def batch(progress=0.5, rows=8, small=0):
    generator = torch.Generator().manual_seed(0)
    views = torch.rand(2, rows, *TASK.input_shape, generator=generator)
    crops = torch.rand(small, rows, 3, 8, 8, generator=generator)
    return Batch(tuple(views), None, None, progress, small=tuple(crops))


def built(**options):
    torch.manual_seed(0)
    encoder = Probe()
    return encoder, SwAV(encoder, TASK, **{"prototypes": 6, "width": 5, **options})


def test_codes_use_every_prototype_equally_and_their_rows_are_shares():
    scores = 0.3 * normal(40, 8)
    q = sinkhorn(scores, 0.05, 3)
    assert torch.allclose(q.sum(1), torch.ones(40).double(), atol=1e-12)
    q = sinkhorn(scores, 0.05, 200)
    assert torch.allclose(q.sum(0), torch.full((8,), 5.0).double(), atol=1e-6)


def test_codes_are_the_optimal_transport_plan_with_entropy():
    """At the optimum log q − scores / ε is a number for the row plus one for the column."""
    scores = 0.3 * normal(12, 4)
    left = sinkhorn(scores, 0.1, 500).log() - scores / 0.1
    double_centred = left - left.mean(0) - left.mean(1, keepdim=True) + left.mean()
    assert double_centred.abs().max() < 1e-9


def test_the_loss_swaps_codes_over_all_other_views():
    encoder, objective = built(small=3)
    given = batch(small=3)
    value = objective(encoder, given).item()
    seen = [encoder(torch.cat(kind)) for kind in (given.views, given.small)]
    z = torch.nn.functional.normalize(objective.projector(torch.cat(seen)), dim=1)
    prototypes = torch.nn.functional.normalize(objective.prototypes, dim=1)
    scores = (z @ prototypes.T).double().detach().numpy().reshape(5, 8, 6)
    terms = []
    for i in range(2):
        for j in range(5):
            if i != j:
                rows = zip(slow_codes(scores[i], 0.03, 3), scores[j] / 0.1, strict=True)
                terms += [-np.sum(q * np.log(softmax(row))) for q, row in rows]
    assert value == pytest.approx(np.mean(terms), abs=1e-4)


def test_prototypes_wait_for_the_first_share_of_the_stage():
    encoder, objective = built(small=0, frozen=0.1)
    objective(encoder, batch(0.09)).backward()
    assert objective.prototypes.grad is None
    objective(encoder, batch(0.1)).backward()
    assert objective.prototypes.grad.abs().max() > 0


def test_the_queue_holds_the_latest_projections_and_takes_part_in_codes_when_it_is_time():
    encoder, objective = built(small=0, queue=12, queue_from=0.5)
    seen = []
    for _ in range(2):
        objective(encoder, batch(0.4))
        seen.append(objective.latest.clone())
        objective.after_step(encoder)
    assert torch.equal(objective.queue[:, :8], seen[1])
    assert torch.equal(objective.queue[:, 8:], seen[0][:, :4])
    early, late = (objective(encoder, batch(p)).item() for p in (0.4, 0.5))
    assert early != pytest.approx(late, abs=1e-5)
    scores = torch.rand(8, 6)
    prototypes = torch.nn.functional.normalize(objective.prototypes, dim=1).detach()
    codes = objective.codes(batch(0.5), (scores, scores), torch.rand(16, 5), prototypes)
    together = torch.cat([scores, objective.queue[1] @ prototypes.T])
    assert torch.allclose(codes[1], sinkhorn(together, 0.03, 3)[:8])


def test_prototypes_are_ten_per_class_unless_named():
    assert SwAV(Probe(), TASK).prototypes.shape == (30, 128)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prototypes": 0}, "swav: sizes and iterations should be positive"),
        ({"small": -1}, "small and queue not less"),
        ({"epsilon": 0.0}, "swav: temperature and epsilon should be positive"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, words):
    with pytest.raises(BadInput, match=words):
        built(**options)
