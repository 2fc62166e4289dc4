"""What predictions on unlabelled rows are drawn to, and which of them count."""

import math

import pytest
import torch
import torch.nn.functional as F
from losses import normal
from toy import Flat, batch_of, built, descend, two_axes

from benchbench import UNKNOWN, BadInput, Task
from benchbench_selftraining import BNM, MCC, SENTRY, FixMatch, NoisyStudent, PseudoLabel
from benchbench_selftraining.certainty import batch_nuclear_norm, class_confusion
from benchbench_selftraining.pseudo_labels import confident_cross_entropy, selective_entropy

ALL = torch.ones(12).bool()
CERTAIN = 50 * F.one_hot(torch.arange(12) % 3).double()  # as many of each class


def test_certain_predictions_confuse_no_classes_and_even_ones_confuse_all():
    assert class_confusion(CERTAIN, ALL, 2.5).item() == pytest.approx(0, abs=1e-7)
    assert class_confusion(torch.zeros(12, 3).double(), ALL, 2.5).item() == pytest.approx(2 / 3)


def test_the_nuclear_norm_is_largest_for_certain_and_balanced_predictions():
    largest = math.sqrt(12 * 3) / 12
    assert batch_nuclear_norm(CERTAIN, ALL).item() == pytest.approx(largest)
    one_class = CERTAIN[:1].expand(12, 3)
    for worse in (one_class, torch.zeros(12, 3).double(), 2 * normal(12, 3)):
        assert batch_nuclear_norm(worse, ALL).item() < largest - 1e-3


@pytest.mark.parametrize(("rows", "classes"), [(512, 182), (40, 65), (9, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_nuclear_norm_and_its_gradient_are_those_of_singular_values(rows, classes, dtype):
    logits = 3 * normal(rows, classes).to(dtype)
    chosen, ours, theirs = torch.arange(rows) % 3 > 0, logits.clone(), logits.clone()
    norm = batch_nuclear_norm(ours.requires_grad_(), chosen)
    p = theirs.requires_grad_().softmax(1)[chosen]
    wanted = torch.linalg.matrix_norm(p, "nuc") / chosen.sum()
    norm.backward()
    wanted.backward()
    near = 1e-5 if dtype == torch.float32 else 1e-12
    assert norm.item() == pytest.approx(wanted.item(), rel=near)
    assert (ours.grad - theirs.grad).norm() <= near * theirs.grad.norm()


def test_the_nuclear_norm_of_rows_that_are_alike_has_a_gradient():
    """Singular values of zero have none of their own; the others' is that of the norm of one."""
    logits = normal(1, 5).expand(8, 5).clone().requires_grad_()
    norm = batch_nuclear_norm(logits, torch.ones(8).bool())
    norm.backward()
    assert norm.item() == pytest.approx((logits.softmax(1).norm() / 8).item())
    (wanted,) = torch.autograd.grad(logits.softmax(1).norm() / 8, logits)
    assert torch.allclose(logits.grad, wanted)


@pytest.mark.parametrize("loss", [lambda x, c: class_confusion(x, c, 2.5), batch_nuclear_norm])
def test_no_unlabelled_row_means_no_loss(loss):
    assert loss(CERTAIN, ~ALL).item() == 0


@pytest.mark.parametrize("factory", [MCC, BNM, PseudoLabel])
def test_unlabelled_rows_become_certain_and_keep_their_classes(factory):
    torch.manual_seed(0)
    encoder = Flat()
    objective = factory(encoder, Task((3, 2, 2), 2, 2))
    batch, labels = two_axes(seed=1000)
    target = batch.labels == UNKNOWN
    descend(objective, encoder, lambda step: two_axes(seed=step)[0], 200, lr=0.01)
    p = objective.predict(encoder(batch.views[0])).softmax(1)[target]
    assert p.max(1).values.mean() > 0.95
    assert (p.argmax(1) == labels[target]).float().mean() > 0.95


@pytest.mark.parametrize(("threshold", "counts"), [(0.0, 12), (1.0, 0)])
def test_only_pseudo_labels_above_the_threshold_count(threshold, counts):
    rows = confident_cross_entropy(normal(12, 3), normal(12, 3, seed=1), threshold)
    assert int((rows > 0).sum()) == counts


def test_pseudo_labels_come_in_over_the_first_two_fifths():
    encoder, objective = built(PseudoLabel, threshold=0.0)
    values = [objective(encoder, batch_of(progress=p)).item() for p in (0.0, 0.2, 0.4, 0.9)]
    assert values[1] - values[0] == pytest.approx((values[2] - values[0]) / 2, rel=1e-4)
    assert values[2] == pytest.approx(values[3])
    assert values[2] > values[0] + 1e-3


def test_fixmatch_labels_strong_views_by_weak_ones_without_a_gradient_through_these():
    encoder, objective = built(FixMatch, threshold=0.0)
    batch = batch_of(weak=1)
    hidden = batch.labels == UNKNOWN
    strong, weak = (objective.predict(encoder(v)) for v in (*batch.views, *batch.weak))
    wanted = F.cross_entropy(strong[~hidden], batch.labels[~hidden])
    wanted = wanted + F.cross_entropy(strong[hidden], weak.argmax(1)[hidden])
    assert objective(encoder, batch).item() == pytest.approx(wanted.item(), abs=1e-5)


def test_a_noisy_student_learns_what_its_teacher_says_and_the_teacher_stays():
    encoder, objective = built(NoisyStudent, dropout=0.0)
    head = torch.nn.Linear(5, 3)
    objective.begin(head)
    batch = batch_of(weak=1)
    hidden = batch.labels == UNKNOWN
    teacher = head(encoder(batch.weak[0])).argmax(1)
    logits = objective.predict(encoder(batch.views[0]))
    wanted = F.cross_entropy(logits[~hidden], batch.labels[~hidden])
    wanted = wanted + F.cross_entropy(logits[hidden], teacher[hidden])
    assert objective(encoder, batch).item() == pytest.approx(wanted.item(), abs=1e-5)
    descend(objective, encoder, lambda step: batch, 3)
    assert torch.equal(objective.teacher[1].weight, head.weight)
    assert not torch.equal(objective.classifier.weight, head.weight)


def test_a_student_drops_features_in_training_only():
    _, objective = built(NoisyStudent)
    z = normal(4, 5).float()
    assert not torch.equal(objective.predict(z), objective.predict(z))
    objective.eval()
    assert torch.equal(objective.predict(z), objective.classifier(z))


def test_a_committee_that_agrees_becomes_certain_and_one_that_does_not_uncertain():
    weak = CERTAIN
    assert (selective_entropy(weak, torch.stack([weak / 50] * 3)) > 0).all()
    assert (selective_entropy(weak, torch.stack([weak.roll(1, 1) / 50] * 3)) < 0).all()


def test_sentry_remembers_the_latest_pseudo_labels_of_unlabelled_rows():
    encoder, objective = built(SENTRY, memory=8)
    batch = batch_of(views=3, weak=1)
    hidden = batch.labels == UNKNOWN
    seen = []
    for _ in range(3):
        objective(encoder, batch)
        seen += objective.predict(encoder(batch.weak[0])).argmax(1)[hidden].tolist()
        objective.after_step(encoder)
    assert int(objective.next) == 18 % 8
    ring = objective.recent.roll(-int(objective.next)).tolist()
    assert ring == seen[-8:]


@pytest.mark.parametrize(
    ("factory", "options", "words"),
    [
        (MCC, {"temperature": 0.0}, "mcc: temperature = 0.0 should be positive"),
        (FixMatch, {"threshold": 1.5}, "fixmatch: threshold = 1.5 should be between 0 and 1"),
        (FixMatch, {"start": "warm"}, "start = 'warm' should be 'fresh' or 'head'"),
        (SENTRY, {"start": "warm"}, "start = 'warm' should be 'fresh' or 'head'"),
        (PseudoLabel, {"start": "warm"}, "start = 'warm' should be 'fresh' or 'head'"),
        (NoisyStudent, {"dropout": 1.0}, "noisy_student: dropout = 1.0 should be in"),
        (SENTRY, {"memory": 0}, "sentry: memory = 0 should be at least 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(factory, options, words):
    with pytest.raises(BadInput, match=words):
        built(factory, **options)
