"""Cross-entropy alone: from scratch, from a probe, on mixed images."""

import pytest
import torch
import torch.nn.functional as F
from losses import LABELS, normal
from toy import TASK, batch_of, built

from benchbench import UNKNOWN, BadInput, Batch
from benchbench.extension.conformance.fixtures import Probe
from benchbench_supervised import LPFT, Mixup, erm, finetune, mixed_cross_entropy


def test_erm_is_cross_entropy_on_the_labelled_rows_only():
    encoder, objective = built(erm)
    batch = batch_of()
    seen = batch.labels != UNKNOWN
    logits = objective.classifier(encoder(batch.views[0][seen]))
    wanted = -F.log_softmax(logits.double(), 1)[range(6), batch.labels[seen]].mean()
    assert objective(encoder, batch).item() == pytest.approx(wanted.item(), abs=1e-6)
    assert torch.equal(objective.predict(encoder(batch.views[0][seen])), logits)


def test_lp_ft_takes_over_a_head_and_leaves_statistics_alone():
    torch.manual_seed(0)
    encoder = Probe()
    objective, head = LPFT(encoder, TASK), torch.nn.Linear(10, 3)
    objective.begin(head)
    images = torch.rand(8, 3, 16, 16)
    encoder.eval()
    wanted = F.cross_entropy(head(encoder(images)), torch.arange(8) % 3)
    encoder.train()
    kept = encoder.norm.running_mean.clone()
    value = objective(encoder, Batch((images,), torch.arange(8) % 3, None, 0.0))
    assert value.item() == pytest.approx(wanted.item(), abs=1e-6)
    assert torch.equal(encoder.norm.running_mean, kept)
    value.backward()
    assert encoder.convolution.weight.grad.abs().max() > 0


def test_mixing_nothing_is_cross_entropy():
    logits = normal(12, 3)
    known = LABELS != UNKNOWN
    plain = F.cross_entropy(logits[known], LABELS[known])
    mixed = mixed_cross_entropy(logits, LABELS, LABELS.roll(1), 1.0)
    assert mixed.item() == pytest.approx(plain.item())
    assert mixed_cross_entropy(logits, torch.full((12,), -1), LABELS, 1.0).item() == 0


def test_mixup_mixes_images_and_labels_by_one_share():
    encoder, objective = built(Mixup, alpha=1.0)
    batch = batch_of(labelled=2)
    torch.manual_seed(3)
    value = objective(encoder, batch).item()
    torch.manual_seed(3)
    share = torch.distributions.Beta(1.0, 1.0).sample().item()
    partner = torch.randperm(12)
    images = share * batch.views[0] + (1 - share) * batch.views[0][partner]
    log_p = objective.predict(encoder(images)).log_softmax(1)
    soft = share * F.one_hot(batch.labels) + (1 - share) * F.one_hot(batch.labels[partner])
    assert value == pytest.approx(-(soft * log_p).sum(1).mean().item(), abs=1e-6)


@pytest.mark.parametrize(
    ("factory", "options", "words"),
    [
        (finetune, {"encoder_lr": -1.0}, "finetune: encoder_lr = -1.0 should not be negative"),
        (LPFT, {"encoder_lr": -1.0}, "lp_ft: encoder_lr = -1.0 should not be negative"),
        (Mixup, {"alpha": 0.001}, "mixup: alpha = 0.001 should be at least 0.01"),
    ],
)
def test_options_that_make_no_sense_are_refused(factory, options, words):
    with pytest.raises(BadInput, match=words):
        built(factory, **options)
