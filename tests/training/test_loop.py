"""Numbers of the loop beside closed forms: precision, optimizers, groups, how often it saves."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from tiny import tiny
from torch import nn

import benchbench.training.loop as loop
from benchbench import Objective
from benchbench.data.batches import Feed
from benchbench.data.pack import in_memory
from benchbench.extension.conformance.fixtures import Probe, Reader, short_run
from benchbench.training.budget import Budget
from benchbench.training.loop import Checkpoints, Views, make_optimizer, parameter_groups, train

LR, DECAY = 0.1, 0.02
PACK = in_memory(tiny(None))


def trained(steps=8, **options):
    """A reader of labels on a small convolution."""
    torch.manual_seed(0)
    encoder = Probe()
    objective = Reader(encoder, PACK.task)
    domains = ("left", "right")
    feed = Feed(PACK, PACK.inputs, domains, ("left",), 12, 0, torch.device("cpu"))
    budget = Budget(steps, 12, 0.01, weight_decay=1e-3, warmup=0.25)
    views = Views(lambda images: images)
    return train(encoder, objective, views, feed, budget, 0, **{"precision": "fp32", **options})


def test_bf16_is_another_precision_and_near_that_of_float32():
    exact, coarse = trained(), trained(precision="bf16")
    assert all(a != b for a, b in zip(exact, coarse, strict=True))
    assert coarse == pytest.approx(exact, rel=0.05)


def slow_sgd(w, gradients, lr, decay):
    """Sutskever et al. 2013 as torch has it: v ← 0.9 v + g + λw; w ← w − lr v."""
    v = torch.zeros_like(w)
    for g in gradients:
        v = 0.9 * v + g + decay * w
        w = w - lr * v
    return w


def slow_adamw(w, gradients, lr, decay):
    """Loshchilov and Hutter 2019, algorithm 2, with β = (0.9, 0.999) and ε = 1e-8."""
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    for t, g in enumerate(gradients, 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g.square()
        step = (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
        w = w - lr * step - lr * decay * w
    return w


@pytest.mark.parametrize(("name", "slow"), [("sgd", slow_sgd), ("adamw", slow_adamw)])
def test_other_optimizers_are_those_of_their_papers(name, slow):
    torch.manual_seed(0)
    w = nn.Parameter(torch.randn(3, 4))
    gradients = [torch.randn(3, 4) for _ in range(4)]
    expected = slow(w.detach().clone(), gradients, LR, DECAY)
    without = slow(w.detach().clone(), [sum(gradients[:k]) for k in range(1, 5)], LR, DECAY)
    groups = [{"params": [w], "weight_decay": DECAY, "scale": 1.0}]
    optimizer = make_optimizer(groups, Budget(4, 1, LR, DECAY, warmup=0.0, optimizer=name))
    optimizer.param_groups[0]["lr"] = LR  # as the loop sets it before each step
    for gradient in gradients:
        w.grad = gradient.clone()
        optimizer.step()
    assert torch.allclose(w, expected, atol=1e-6)
    assert not torch.allclose(w, without, atol=1e-3), "gradients that add up would show"


def test_gradients_of_a_step_are_those_of_its_batch_alone():
    """The first two steps of plain SGD, by hand."""

    class Pull(Objective):
        n_views = 1

        def __init__(self, encoder, task):
            super().__init__()
            self.w = nn.Parameter(torch.tensor([1.0, 2.0]))

        def forward(self, encoder, batch):
            return self.w.square().sum() + 0 * encoder(batch.views[0]).sum()

    encoder = Probe()
    objective = Pull(encoder, PACK.task)
    feed = Feed(PACK, PACK.inputs, ("left",), (), 4, 0, torch.device("cpu"))
    budget = Budget(2, 4, LR, weight_decay=0.0, warmup=0.0, optimizer="sgd")
    losses = train(encoder, objective, Views(lambda x: x), feed, budget, 0, precision="fp32")
    rates = [loop.learning_rate(budget, step) for step in range(2)]
    w = torch.tensor([1.0, 2.0])
    v = 2 * w
    second = w - rates[0] * v
    v = 0.9 * v + 2 * second
    assert losses == pytest.approx([5.0, second.square().sum().item()])
    assert torch.allclose(objective.w, second - rates[1] * v)


@pytest.mark.parametrize(
    ("returned", "sentence"),
    [
        (lambda w: None, "returns None"),
        (lambda w: 1.0, "returns 1.0"),
        (lambda w: w.expand(4), r"returns a tensor of shape \[4\]"),
        (lambda w: w.detach(), "has no gradient"),
    ],
)
def test_a_loss_that_is_no_number_with_a_gradient_is_refused_before_it_is_used(returned, sentence):
    class Odd(Objective):
        n_views = 1

        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(()))

        def forward(self, encoder, batch):
            return returned(self.w)

    feed = Feed(PACK, PACK.inputs, ("left",), ("left",), 12, 0, torch.device("cpu"))
    views = Views(lambda images: images)
    with pytest.raises(TypeError, match=sentence):
        train(
            Probe(), Odd(), views, feed, Budget(1, 12, LR, DECAY, warmup=0.0), 0, precision="fp32"
        )


def test_only_what_learns_is_updated_and_a_shared_tensor_once():
    encoder, shared = Probe(), Probe()
    encoder.norm.weight.requires_grad_(False)

    class Tied(Objective):
        n_views, encoder_lr = 1, 0.5

        def __init__(self):
            super().__init__()
            self.tower = shared
            self.tied = encoder.convolution.weight

        def forward(self, encoder, batch):
            return encoder(batch.views[0]).sum()

    groups = parameter_groups(encoder, Tied(), Budget(1, 1, LR, DECAY, warmup=0.0))
    members = [p for group in groups for p in group["params"]]
    wanted = [p for p in (*encoder.parameters(), *shared.parameters()) if p.requires_grad]
    assert len(wanted) == 7 and sorted(map(id, members)) == sorted(map(id, wanted))
    (of_tied,) = (g for g in groups if any(p is encoder.convolution.weight for p in g["params"]))
    assert of_tied["scale"] == 0.5, "it is the encoder's"


def test_the_state_is_kept_once_in_so_many_seconds(monkeypatch):
    """A step takes ten seconds here, and the state is kept when more than 25 have gone by."""
    clock = itertools.count(0, 10)
    now = [next(clock)]
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: now[0]))
    kept = []
    checkpoints = Checkpoints(lambda state: kept.append(int(state["done"])), every=25.0)
    trained(8, checkpoints=checkpoints, watch=lambda done, loss: now.__setitem__(0, next(clock)))
    assert kept == [3, 6]


def test_a_run_that_has_to_stop_keeps_its_state_and_stops():
    kept, done = [], []
    checkpoints = Checkpoints(
        lambda state: kept.append(int(state["done"])), every=1e9, stopping=lambda: len(done) == 5
    )
    with pytest.raises(KeyboardInterrupt):
        trained(8, checkpoints=checkpoints, watch=lambda step, loss: done.append(step))
    assert kept == [5] and done == [1, 2, 3, 4, 5]


def test_the_kit_trains_by_the_same_loop():
    run = short_run(Probe, Reader, PACK, steps=3)
    assert len(run.losses) == 3 and run.losses[0] != run.losses[1]
