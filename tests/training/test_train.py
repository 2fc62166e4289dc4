"""The one training loop."""

import math

import pytest
import safetensors.torch
import torch
from tiny import tiny

from benchbench.data.batches import Feed
from benchbench.data.gathering import resident
from benchbench.data.pack import in_memory
from benchbench.extension.catalog import Catalog
from benchbench.extension.contracts import Batch, Objective
from benchbench.store.artifacts import packed
from benchbench.suites.plan import build_augmentation, build_encoder
from benchbench.training.budget import Budget
from benchbench.training.device import Machine
from benchbench.training.loop import (
    Checkpoints,
    Diverged,
    Views,
    learning_rate,
    make_batch,
    parameter_groups,
    train,
)

BUDGET = Budget(steps=8, batch_size=12, lr=0.01, weight_decay=1e-3, warmup=0.25)


class Setting:
    """An encoder, an objective and their data, built anew from a seed."""

    def __init__(self, catalog: Catalog, folder, objective="simclr", seed=0):
        self.pack = in_memory(tiny(None))
        task = self.pack.task
        encoder = catalog.resolve("encoder", "small_cnn(width=4)")
        self.encoder = build_encoder(encoder, task, seed)
        self.encoder.to(memory_format=torch.channels_last)
        self.objective = catalog.resolve("objective", objective).build(self.encoder, task)
        steps = catalog.pipeline("noise | horizontal_flip")
        self.views = Views(build_augmentation(steps, task))
        self.seed = seed
        domains = ("left", "right")
        self.feed = Feed(
            self.pack, self.pack.inputs, domains, ("left",), 12, seed, torch.device("cpu")
        )

    def give_rows(self, device):
        images = resident(self.pack.inputs, Machine(device, "fp32"))
        seen, shown = ("left", "right"), ("left",)
        self.feed = Feed(self.pack, images, seen, shown, 12, self.seed, device)

    def train(self, precision="fp32", **options):
        return train(
            self.encoder,
            self.objective,
            self.views,
            self.feed,
            BUDGET,
            self.seed,
            precision=precision,
            **options,
        )

    def weights(self):
        return torch.cat([p.detach().flatten() for p in self.encoder.state_dict().values()])


@pytest.fixture
def setting(catalog, tmp_path):
    return lambda *args, **options: Setting(catalog, tmp_path, *args, **options)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("objective", ["simclr", "dann", "coral", "erm"])
def test_the_same_seed_gives_the_same_encoder_bit_for_bit(setting, objective, precision):
    one, two, three = setting(objective), setting(objective), setting(objective, seed=1)
    losses = one.train(precision)
    assert losses == two.train(precision)
    three.train(precision)
    assert torch.equal(one.weights(), two.weights())
    assert not torch.equal(one.weights(), three.weights())
    assert len(losses) == BUDGET.steps and all(map(math.isfinite, losses))


@pytest.mark.parametrize("objective", ["simclr", "dann"])
@pytest.mark.parametrize("stop", [1, 5, 7])
def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(setting, objective, stop):
    whole, cut, resumed = setting(objective), setting(objective), setting(objective, seed=0)
    states = []

    def save(state):
        states.append(safetensors.torch.load(packed(state)))  # as the store would

    losses = whole.train()
    cut.train(checkpoints=Checkpoints(save, every=-1.0))
    assert [int(state["done"]) for state in states] == list(range(1, BUDGET.steps))
    assert resumed.train(resume=states[stop - 1]) == losses
    assert torch.equal(resumed.weights(), whole.weights())


class Spy(Objective):
    """Keeps what it is given."""

    def __init__(self, reads, n_views):
        super().__init__()
        self.reads, self.n_views, self.batches = reads, n_views, []

    def forward(self, encoder, batch: Batch):
        self.batches.append(batch)
        torch.rand(self.n_views)  # what an objective draws must not shift the next step's views
        return encoder(batch.views[0]).square().mean()


def test_rows_and_views_do_not_depend_on_the_objective(setting):
    spies = []
    for reads, n_views in ((set(), 2), ({"labels"}, 1), ({"labels", "domains"}, 3)):
        run = setting()
        run.objective = Spy(reads, n_views)
        run.train()
        spies.append(run.objective.batches)
    assert len(spies[0]) == BUDGET.steps
    for one, two, three in zip(*spies, strict=True):
        assert torch.equal(one.views[0], two.views[0]) and torch.equal(two.views[0], three.views[0])
        assert torch.equal(one.views[1], three.views[1])
        assert not torch.equal(one.views[0], one.views[1])


def test_what_an_objective_does_not_read_is_hidden(setting):
    run = setting()
    for reads in (set(), {"labels"}, {"domains"}, {"labels", "domains"}):
        batch = make_batch(run.feed(0), run.views, Spy(reads, 1), 0, 0, 0.0)
        assert (batch.labels is not None) == ("labels" in reads)
        assert (batch.domains is not None) == ("domains" in reads)


def test_a_loss_that_is_no_number_ends_the_stage_with_its_step(setting):
    run = setting("unstable(at=3)")
    with pytest.raises(Diverged, match="nan at step 4"):
        run.train()


def test_the_learning_rate_rises_linearly_and_falls_as_a_cosine():
    budget = Budget(steps=100, batch_size=1, lr=2.0, weight_decay=0.0, warmup=0.1)
    rates = [learning_rate(budget, step) for step in range(100)]
    assert rates[:10] == pytest.approx([2.0 * (s + 1) / 11 for s in range(10)])
    assert rates[10] == 2.0 == max(rates)
    assert rates[55] == pytest.approx(1.0)
    assert 0 < rates[99] < 0.001
    assert learning_rate(Budget(1, 1, 2.0, 0.0, 0.0), 0) == 2.0


def test_norms_and_biases_are_not_decayed_and_the_encoder_may_be_slower(setting):
    run = setting("finetune(encoder_lr=0.1)")
    groups = parameter_groups(run.encoder, run.objective, BUDGET)
    for group in groups:
        matrices = {p.ndim > 1 for p in group["params"]}
        assert matrices == {group["weight_decay"] > 0}
    assert {group["scale"] for group in groups} == {0.1, 1.0}
    members = [id(p) for group in groups for p in group["params"]]
    everything = [*run.encoder.parameters(), *run.objective.parameters()]
    assert sorted(members) == sorted(map(id, everything))


def test_a_frozen_encoder_stays_as_it_was(setting):
    run = setting("finetune(encoder_lr=0.0)")
    before = run.weights()
    run.train()
    assert torch.equal(run.weights(), before)


class OnGpu(Setting):
    """The same on the GPU; ``ahead`` leaves the images in the host's memory, as if they were many.

    Views are the images themselves: what is random differs between devices.
    """

    def __init__(self, catalog, folder, objective, *, ahead=False):
        super().__init__(catalog, folder, objective)
        device = torch.device("cuda")
        self.encoder.to(device)
        self.objective.to(device)
        machine = Machine(device, "fp32")
        images = self.pack.inputs if ahead else resident(self.pack.inputs, machine)
        self.feed = Feed(self.pack, images, ("left", "right"), ("left",), 12, 0, device)
        self.views = Views(lambda images: images)


@pytest.mark.gpu
@pytest.mark.parametrize("objective", ["simclr", "dann"])
def test_on_a_gpu_the_loop_learns_as_on_the_cpu(catalog, tmp_path, objective):
    here, there = Setting(catalog, tmp_path, objective), OnGpu(catalog, tmp_path, objective)
    here.views = there.views
    assert there.train() == pytest.approx(here.train(), rel=1e-2)


@pytest.mark.gpu
@pytest.mark.parametrize("objective", ["simclr", "dann"])
def test_on_a_gpu_a_resumed_run_has_the_losses_of_a_whole_one(catalog, tmp_path, objective):
    whole, cut, resumed = (OnGpu(catalog, tmp_path, objective) for _ in range(3))
    states = []
    keep = Checkpoints(lambda state: states.append(safetensors.torch.load(packed(state))), -1.0)
    cut.train(checkpoints=keep)
    assert resumed.train(resume=states[4]) == pytest.approx(whole.train(), rel=1e-4)


@pytest.mark.gpu
def test_on_a_gpu_what_is_fetched_ahead_is_what_lies_there(catalog, tmp_path):
    there, ahead = (OnGpu(catalog, tmp_path, "simclr", ahead=ahead) for ahead in (False, True))
    for step in (0, 1, 2, 7, 3):
        rows, others = there.feed(step), ahead.feed(step)
        assert others.inputs.is_cuda and torch.equal(rows.inputs, others.inputs)
        assert torch.equal(rows.labels, others.labels)
    assert ahead.train() == pytest.approx(there.train(), rel=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("objective", ["simclr", "byol", "dino", "dann", "vada", "fixmatch"])
def test_on_a_gpu_no_step_waits_for_the_device(catalog, tmp_path, objective, ahead):
    """CUDA itself says where the host waits; the first step and the last may."""
    run, modes = OnGpu(catalog, tmp_path, objective, ahead=ahead), {1: "error", 6: "default"}

    def watch(done, loss):
        if done in modes:
            torch.cuda.set_sync_debug_mode(modes[done])

    try:
        run.train("bf16", watch=watch)
        torch.cuda.set_sync_debug_mode("error")
        with pytest.raises(RuntimeError, match="synchronizing"):
            float(torch.ones(1, device="cuda"))
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu("torch.compile asks the device itself")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_on_a_gpu_a_compiled_run_has_the_losses_of_the_other(catalog, tmp_path, precision):
    eager, compiled = (OnGpu(catalog, tmp_path, "simclr") for _ in range(2))
    near = 1e-2 if precision == "fp32" else 5e-2
    told = compiled.train(precision, compiled=True)
    assert told == pytest.approx(eager.train(precision), rel=near)
