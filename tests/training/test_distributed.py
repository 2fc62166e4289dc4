"""Batches that pass through an encoder in parts, compiled, or over processes."""

import shutil
from functools import partial

import pytest
import safetensors.torch
import torch
from torch import nn

from benchbench.data.batches import Feed
from benchbench.extension.conformance import fixtures
from benchbench.extension.conformance.fixtures import (
    Probe,
    TokenProbe,
    bars,
    jittered,
    packed,
    shrunk,
)
from benchbench.extension.conformance.two_processes import furthest, in_two, losses
from benchbench.extension.contracts import Task, begun
from benchbench.store.artifacts import packed as stored
from benchbench.training.budget import Budget
from benchbench.training.distributed import alike, spread, untracked
from benchbench.training.loop import Checkpoints, Views, make_optimizer, parameter_groups, train
from benchbench_contrastive import SimCLR
from benchbench_supervised import erm


def run(catalog, name, probe, *, steps=5, batch=12, options=None, **budget):
    """Losses and encoder of a short run of the real loop."""
    pack = packed(bars())
    torch.manual_seed(0)
    encoder = probe(pack.task)
    torch.manual_seed(0)
    objective = catalog.resolve("objective", name).build(encoder, pack.task)
    begun(objective, encoder, pack.task)
    device = torch.device("cpu")
    feed = Feed(pack, pack.inputs, ("left", "right"), ("left",), batch, 0, device)
    spent = Budget(steps, batch, 1e-3, weight_decay=1e-4, warmup=0.1, **budget)
    views = Views(jittered, small=shrunk)
    told = train(encoder, objective, views, feed, spent, 0, precision="fp32", **(options or {}))
    return told, encoder, objective


@pytest.mark.parametrize("objective", ["simclr", "byol", "swav(prototypes=6)", "barlow_twins"])
def test_parts_of_a_batch_give_the_loss_and_the_gradient_of_the_whole(catalog, objective):
    if "swav" in objective:
        objective = "swav(prototypes=6, small=0)"  # the transformer reads one size
    whole, encoder, _ = run(catalog, objective, TokenProbe, optimizer="sgd")
    parts, other, _ = run(catalog, objective, TokenProbe, optimizer="sgd", parts=5)
    rounding = 1e-4 if objective == "barlow_twins" else 1e-5
    assert furthest(whole, parts) < rounding
    for mine, theirs in zip(encoder.parameters(), other.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)


def test_less_is_kept_of_a_batch_in_parts(catalog):
    def kept(parts):
        sizes = {}

        def count(tensor):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        encoder = Probe()
        objective = catalog.resolve("objective", "simclr").build(encoder, packed(bars()).task)
        with (
            spread(encoder, objective, parts=parts),
            torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor),
        ):
            z = encoder(torch.rand(64, 3, 16, 16))
        assert z.shape == (64, 10)
        return sum(sizes.values())

    images = 64 * 3 * 16 * 16 * 4
    assert kept(8) == images < kept(1) / 2


def test_batch_norm_counts_every_part_once(catalog):
    _, encoder, _ = run(catalog, "simclr", Probe, steps=3, parts=4)
    assert encoder.norm.num_batches_tracked == 12
    other = Probe()
    torch.manual_seed(0)
    rows = torch.rand(8, 3, 16, 16)
    objective = catalog.resolve("objective", "simclr").build(other, packed(bars()).task)
    by_hand = nn.BatchNorm2d(10)
    for part in rows.chunk(2):
        by_hand(other.convolution(part))
    with spread(other, objective, parts=2):
        other(rows).sum().backward()
    assert torch.allclose(other.norm.running_var, by_hand.running_var)


def test_only_copies_of_the_encoder_are_taken_for_it(catalog):
    task = packed(bars()).task
    for name, count in (("simclr", 0), ("byol", 1), ("moco_v3", 1)):
        encoder = Probe()
        objective = catalog.resolve("objective", name).build(encoder, task)
        assert sum(alike(module, encoder) for module in objective.modules()) == count
    assert not alike(Probe(task, 11), Probe(task, 10))


def test_the_encoder_is_as_it_was_afterwards(catalog):
    encoder = Probe()
    objective = catalog.resolve("objective", "byol").build(encoder, packed(bars()).task)
    with pytest.raises(ZeroDivisionError), spread(encoder, objective, parts=2):
        assert "forward" in vars(encoder) and "forward" in vars(objective.average[0])
        raise ZeroDivisionError
    assert "forward" not in vars(encoder) and "forward" not in vars(objective.average[0])


def test_untracked_batch_norm_comes_back_with_what_it_counted():
    encoder = Probe()
    encoder(torch.rand(4, 3, 16, 16))
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    with untracked(encoder):
        encoder(torch.rand(4, 3, 16, 16))
    assert all(torch.equal(before[name], value) for name, value in encoder.state_dict().items())
    encoder(torch.rand(4, 3, 16, 16))
    assert encoder.norm.num_batches_tracked == 2


def of_plugin(catalog, name):
    entry = catalog.entries["objective", name]
    return entry.factory, entry.options, Probe


def by_sgd(encoder, task):
    """An objective, and a process that trains by SGD from then on."""
    fixtures.Budget = partial(Budget, optimizer="sgd")
    return SimCLR(encoder, task)


def in_five(encoder, task):
    """An objective, and a process that passes batches through encoders in five parts."""
    fixtures.Budget = partial(Budget, parts=5)
    return SimCLR(encoder, task)


OTHERWISE = {"simclr": by_sgd, "parts": in_five}


@pytest.mark.parametrize("objective", ["simclr", "parts", "byol"])
def test_two_processes_have_the_losses_of_one(catalog, objective, monkeypatch):
    """The rest of the objectives, as slow checks of the kit.

    AdamW does not mind if all gradients are multiplied by a number; SGD does. Of 26 images in five
    parts the last has two; batch norm is over those of a part in both cases.
    """
    monkeypatch.setattr(fixtures, "Budget", Budget)  # and put back afterwards
    made = OTHERWISE.get(objective)
    how = (made, {}, Probe) if made else of_plugin(catalog, objective)
    alone = losses(*how)
    for together in in_two(*how):
        assert furthest(alone, together) < 1e-5


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("objective", ["simclr", "byol"])
def test_a_compiled_encoder_has_the_losses_of_the_other(catalog, objective):
    eager, _, _ = run(catalog, objective, Probe, steps=8)
    compiled, encoder, _ = run(catalog, objective, Probe, steps=8, options={"compiled": True})
    assert furthest(eager, compiled) < 1e-5
    assert "forward" not in vars(encoder)


@pytest.mark.parametrize("decay", [0.0, 1e-4, 0.1])
def test_lars_scales_each_matrix_by_its_own_trust(decay):
    """You et al. 2017, algorithm 1: v ← m v + lr λ (g + β w), λ = 0.001 ‖w‖ / (‖g‖ + β ‖w‖).

    Norms and biases have λ = 1 and β = 0.
    """
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3), nn.Linear(3, 2))
    encoder.num_features = 2
    objective = erm(encoder, Task((3, 2, 2), 2, 1))
    members = [*encoder.parameters(), *objective.parameters()]
    assert {p.ndim for p in members} == {1, 2}
    budget = Budget(1, 2, lr=1.0, weight_decay=decay, warmup=0.0, optimizer="lars")
    optimizer = make_optimizer(parameter_groups(encoder, objective, budget), budget)
    slow = [p.detach().double() for p in members]
    speed = [torch.zeros_like(p) for p in slow]
    for lr in (0.5, 0.3, 2.0):
        for group in optimizer.param_groups:
            group["lr"] = lr
        for number, p in enumerate(members):
            p.grad = torch.randn_like(p) * 10.0 ** (number % 5 - 2)
        for number, (w, p) in enumerate(zip(slow, members, strict=True)):
            g, trust, beta = p.grad.double(), 1.0, 0.0
            if w.ndim > 1:
                beta = decay
                trust = (
                    0.001 * (w**2).sum() ** 0.5 / ((g**2).sum() ** 0.5 + beta * (w**2).sum() ** 0.5)
                )
            speed[number] = 0.9 * speed[number] + trust * (g + beta * w)
            slow[number] = w - lr * speed[number]
        optimizer.step()
    for w, p in zip(slow, members, strict=True):
        assert torch.allclose(p.detach().double(), w, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "lars"])
def test_other_optimizers_train(catalog, optimizer):
    late = "swav(prototypes=6, frozen=0.5)"  # some get no gradient at first
    swav, _, _ = run(catalog, late, Probe, steps=6, optimizer=optimizer)
    assert all(loss > 0 for loss in swav)
    told, _, _ = run(catalog, "erm", Probe, steps=6, optimizer=optimizer)
    adamw, _, _ = run(catalog, "erm", Probe, steps=6)
    assert all(0 < loss < 2 for loss in told) and told[0] == adamw[0] and told[2] != adamw[2]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "lars"])
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(catalog, optimizer):
    settings = {"steps": 6, "optimizer": optimizer, "parts": 2}
    late, states = "swav(prototypes=6, frozen=0.5)", []
    keep = Checkpoints(lambda state: states.append(safetensors.torch.load(stored(state))), -1.0)
    whole, encoder, _ = run(catalog, late, Probe, options={"checkpoints": keep}, **settings)
    assert len(states) == 5
    for state in states:
        told, other, _ = run(catalog, late, Probe, options={"resume": state}, **settings)
        assert told == whole
        pairs = zip(encoder.parameters(), other.parameters(), strict=True)
        assert all(torch.equal(*pair) for pair in pairs)
