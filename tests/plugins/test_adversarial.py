"""What adversaries do to the encoder, and where their games end."""

import math

import pytest
import torch
import torch.nn.functional as F
from losses import normal
from toy import TASK, Flat, batch_of, built, descend, share_of_domain, two_axes

from benchbench import UNKNOWN, BadInput, Batch, Task
from benchbench_adversarial import CDAN, DANN, DIRTT, MCD, MDD, VADA
from benchbench_adversarial.reversal import ReverseGradient
from benchbench_adversarial.virtual import untracked, virtual_adversarial


def reached(objective, encoder, batch):
    objective(encoder, batch).backward()
    return encoder.linear.weight.grad.clone()


@pytest.mark.parametrize("progress", [0.0, 0.3, 0.99])
def test_dann_reverses_the_domain_gradient_by_its_schedule(progress):
    encoder, objective = built(DANN, weight=0.7)
    batch = batch_of(progress=progress)
    gradient = reached(objective, encoder, batch)
    z, weight = encoder(batch.views[0]), encoder.linear.weight
    label = F.cross_entropy(objective.classifier(z), batch.labels, ignore_index=UNKNOWN)
    domain = F.cross_entropy(objective.discriminator(z), batch.domains)
    (of_label,) = torch.autograd.grad(label, weight, retain_graph=True)
    (of_domain,) = torch.autograd.grad(domain, weight)
    scale = 0.7 * (2 / (1 + math.exp(-10 * progress)) - 1)
    assert torch.allclose(gradient, of_label - scale * of_domain, atol=1e-6)


def test_the_discriminator_itself_learns_to_tell_domains_apart():
    encoder, objective = built(DANN)
    batch = batch_of()
    objective(encoder, batch).backward()
    gradients = [p.grad.clone() for p in objective.discriminator.parameters()]
    domain = F.cross_entropy(objective.discriminator(encoder(batch.views[0])), batch.domains)
    wanted = torch.autograd.grad(domain, list(objective.discriminator.parameters()))
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(gradients, wanted, strict=True))


def test_reversal_keeps_values():
    z = normal(3, 4)
    assert torch.equal(ReverseGradient.apply(z, 0.5), z)


@pytest.mark.parametrize("factory", [DANN, CDAN, MDD])
def test_where_the_game_ends_the_encoder_ignores_the_domain_and_tells_classes(factory):
    torch.manual_seed(0)
    encoder = Flat()
    options = {"weight": 1.0} if factory is MDD else {}
    objective = factory(encoder, Task((3, 2, 2), 2, 2), width=32, **options)
    assert share_of_domain(encoder) > 0.7
    descend(objective, encoder, lambda step: two_axes(seed=step)[0], 400, lr=0.01)
    assert share_of_domain(encoder) < 0.25
    batch, labels = two_axes(seed=1000)
    z = encoder(batch.views[0])
    assert (objective.predict(z).argmax(1) == labels).float().mean() > 0.97
    if factory is DANN:  # its discriminator can do no better than chance
        loss = F.cross_entropy(objective.discriminator(z), batch.domains)
        assert loss.item() == pytest.approx(math.log(2), abs=0.1)


def test_a_large_conditional_map_is_projected_at_random_and_keeps_inner_products():
    torch.manual_seed(0)
    encoder = torch.nn.Linear(1, 1)
    encoder.num_features = 1500
    objective = CDAN(encoder, TASK)
    assert objective.discriminator[0].in_features == 1024
    z, p = normal(2, 1500).float(), normal(2, 3, seed=1).float().softmax(1)
    joint = (z @ objective.of_features) * (p @ objective.of_classes) / 1024**0.5
    exact = (p[:, :, None] * z[:, None]).flatten(1)
    assert torch.allclose(joint @ joint.T, exact @ exact.T, atol=0.15 * exact.norm() ** 2)


def test_two_heads_that_agree_have_no_discrepancy():
    encoder, objective = built(MCD)
    objective.other.load_state_dict(objective.one.state_dict())
    batch = batch_of()
    fit = F.cross_entropy(objective.one(encoder(batch.views[0])), batch.labels, ignore_index=-1)
    assert objective(encoder, batch).item() == pytest.approx(2 * fit.item(), abs=1e-6)


@pytest.mark.parametrize("factory", [MCD, MDD])
def test_the_encoder_gets_the_reversed_gradient_of_what_the_heads_play(factory):
    encoder, objective = built(factory, weight=0.5)
    batch = batch_of(progress=0.3)
    with_play = reached(objective, encoder, batch)
    encoder.zero_grad()
    objective.weight = 0.0
    without = reached(objective, encoder, batch)
    encoder.zero_grad()
    objective.weight = -1.0  # not reversed, and in full
    plain = reached(objective, encoder, batch)
    scale = 2 / (1 + math.exp(-3)) - 1
    assert torch.allclose(with_play - without, -0.5 * (plain - without), atol=1e-6)
    assert (plain - without).abs().max() / scale > 1e-4


def test_the_adversarial_direction_of_a_linear_model_is_that_of_its_weights():
    weight = normal(12, 2)
    images = normal(6, 3, 2, 2, seed=1)
    steepest = F.normalize((weight[:, 1] - weight[:, 0])[None], dim=1)
    moves = []

    def classify(x):
        moves.append((x - images).flatten(1).detach())
        return x.flatten(1) @ weight

    value = virtual_adversarial(classify, images, images.flatten(1) @ weight, radius=0.5, step=1e-4)
    direction = F.normalize(moves[-1], dim=1)
    assert torch.allclose(moves[-1].norm(dim=1), torch.full((6,), 0.5).double())
    assert ((direction @ steepest.T).abs() > 0.999).all()
    p = (images.flatten(1) @ weight).softmax(1)
    q = ((images.flatten(1) + moves[-1]) @ weight).softmax(1)
    assert torch.allclose(value, (p * (p / q).log()).sum(1))


def test_statistics_of_the_batch_are_used_but_not_kept():
    norm = torch.nn.BatchNorm1d(4)
    x = normal(9, 4).float() + 3
    wanted = norm(x)
    kept = {name: value.clone() for name, value in norm.state_dict().items()}
    with untracked(norm):
        assert torch.equal(norm(x), wanted)
    assert all(torch.equal(value, kept[name]) for name, value in norm.state_dict().items())
    assert norm.momentum == 0.1


def test_vada_without_smoothness_is_dann():
    encoder, objective = built(VADA, weight=0.4, source=0.0, target=0.0)
    plain = DANN(encoder, TASK, weight=0.4, width=256)
    plain.load_state_dict(objective.state_dict())
    batch = batch_of()
    assert objective(encoder, batch).item() == pytest.approx(plain(encoder, batch).item())


def test_dirt_t_keeps_to_its_teacher_which_is_renewed_at_every_round():
    encoder, objective = built(DIRTT, target=0.0, stay=1.0, rounds=2)
    head = torch.nn.Linear(5, 3)
    objective.begin(head)
    batch = batch_of()

    def at(progress):
        return objective(encoder, Batch(batch.views, None, None, progress)).item()

    assert at(0.0) == pytest.approx(0, abs=1e-7)
    with torch.no_grad():
        encoder.linear.weight.mul_(1.5)
    assert at(0.49) > 1e-4
    assert at(0.5) == pytest.approx(0, abs=1e-7)
    assert torch.equal(objective.teacher[0].linear.weight, encoder.linear.weight)
    assert torch.equal(objective.classifier.weight, head.weight)


@pytest.mark.parametrize(
    ("factory", "options", "words"),
    [
        (MDD, {"margin": 0.0}, "mdd: margin = 0.0 should be positive"),
        (VADA, {"radius": 0.0}, "vada: radius = 0.0 should be positive"),
        (DIRTT, {"rounds": 0}, "dirt_t: rounds = 0 should be positive"),
    ],
)
def test_options_that_make_no_sense_are_refused(factory, options, words):
    with pytest.raises(BadInput, match=words):
        built(factory, **options)
