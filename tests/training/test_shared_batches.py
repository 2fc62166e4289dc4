"""Batches of which each process makes the views of its own rows, as one process makes them all."""

import json
import multiprocessing

import pytest
import torch
import torch.distributed as dist

from benchbench.data.batches import Feed
from benchbench.data.gathering import Streamed
from benchbench.extension.catalog import Wanted, load
from benchbench.extension.conformance.fixtures import TEXTS, Probe, bars, packed, shrunk, texts
from benchbench.extension.contracts import Task, begun
from benchbench.training.budget import Budget
from benchbench.training.loop import Views, train
from benchbench.training.row_draws import DrawsOfAll, NotByRow
from benchbench.training.shared_batches import TRIED
from benchbench.training.shares import View, positions

ROWS, STEPS = 13, 8  # rows that two processes cannot share equally
DEALT_OUT = {"randaugment", "wilds_strong"}  # rows to operations, by a permutation of all of them
TASK = Task((3, 16, 16), 3, 3)


def made(entry, rows, total, seed, own=slice(None)):
    """What an augmentation makes of some rows of a batch, and where it leaves the generator."""
    generator = torch.Generator().manual_seed(5)
    if entry.modalities == {"text"}:
        inputs, task = texts(total, seed=5).long(), TEXTS
    else:
        inputs, task = torch.rand(total, 3, 16, 16, generator=generator), TASK
    augment = entry.factory(task, **entry.options)
    torch.manual_seed(seed)
    if rows == slice(None):
        view = augment(inputs)[own]
    else:
        with DrawsOfAll(total, rows):
            view = augment(inputs[rows])
    return view, torch.get_rng_state()


def test_rows_are_augmented_as_among_the_whole_batch(catalog):
    """Every first-party augmentation but those that deal the rows out."""
    entries = [entry for (kind, _), entry in catalog.entries.items() if kind == "augmentation"]
    entries = [e for e in entries if e.factory.__module__.startswith("benchbench_")]
    assert len(entries) >= 20
    apart = set()
    for entry in entries:
        for rank, ranks in ((0, 2), (1, 2), (2, 3)):
            own = slice(rank, None, ranks)
            whole, state = made(entry, slice(None), 17, rank, own)
            try:
                found, after = made(entry, own, 17, rank)
            except NotByRow:
                apart.add(entry.name)
                continue
            assert torch.allclose(found, whole, atol=1e-6), entry.name
            assert torch.equal(state, after), entry.name
    assert apart == DEALT_OUT


DRAWS = {
    "rand": lambda x: torch.rand(len(x), 2),
    "rand of a shape": lambda x: torch.rand((2, len(x), 1)),
    "rand of a size": lambda x: torch.rand(size=(len(x),), dtype=torch.float64),
    "randn": lambda x: torch.randn(len(x)),
    "randint below": lambda x: torch.randint(7, (len(x), 3)),
    "randint between": lambda x: torch.randint(2, 7, (len(x),)),
    "randint named": lambda x: torch.randint(high=7, size=(len(x),)),
    "like": torch.randn_like,
    "channels last": lambda x: torch.randn_like(x.to(memory_format=torch.channels_last)),
    "in place": lambda x: torch.empty(len(x)).uniform_(2, 3),
    "one for all": lambda x: torch.rand(()).expand(len(x)),
    "an order of operations": lambda x: torch.randperm(9),
    "a share for all": lambda x: torch.distributions.Beta(1.0, 1.0).sample(),
}


@pytest.mark.parametrize("how", DRAWS)
def test_a_draw_for_each_row_is_that_of_the_whole_batch(how):
    x = torch.zeros(11, 3, 4, 5)
    torch.manual_seed(3)
    whole = DRAWS[how](x)
    own = slice(1, None, 3)
    torch.manual_seed(3)
    with DrawsOfAll(len(x), own):
        found = DRAWS[how](x[own])
    axis = next((n for n, size in enumerate(whole.shape) if size == 11), None)
    assert torch.equal(found, whole[(slice(None),) * (axis or 0) + (own,)] if axis is not None
                       else whole)  # fmt: skip
    assert found.dtype == whole.dtype


@pytest.mark.parametrize(
    "draw",
    [
        lambda x: torch.randperm(len(x)),
        lambda x: torch.bernoulli(torch.full((len(x),), 0.5)),
        lambda x: torch.nn.functional.dropout(x),
        lambda x: torch.distributions.Beta(torch.ones(len(x)), torch.ones(len(x))).sample(),
        lambda x: torch.normal(0.0, 1.0, (len(x),)),
        lambda x: torch.rand(len(x), generator=torch.Generator()),
    ],
)
def test_what_cannot_be_told_apart_by_rows_is_refused(draw):
    with pytest.raises(NotByRow), DrawsOfAll(8, slice(0, None, 2)):
        draw(torch.ones(4, 2))


def view_of(whole, rank, ranks, asked):
    def make():
        asked.append(rank)
        return whole

    return View(whole[rank::ranks], ((0, len(whole)),), rank, ranks, make)


@pytest.mark.parametrize("ranks", [2, 3])
def test_a_view_is_the_whole_tensor_made_only_when_its_values_are_asked_for(ranks):
    torch.manual_seed(0)
    first, second = torch.rand(2, 7, 3, 2, 2)
    for rank in range(ranks):
        asked = []
        both = torch.cat([view_of(first, rank, ranks, asked), view_of(second, rank, ranks, asked)])
        part, plain = both[4:11], torch.cat([first, second])[4:11]
        assert part.shape == plain.shape and len(part) == 7 and part.dtype == plain.dtype
        assert part.device == plain.device and part.ndim == 4 and not part.requires_grad
        assert isinstance(part, View) and asked == []
        mine = positions(part.segments, ranks, torch.device("cpu"))[rank]
        numbers = [*range(4, 7), *range(4)]  # rows of the batch that are in it
        assert mine.tolist() == [n for n, row in enumerate(numbers) if row % ranks == rank]
        assert torch.equal(part.own, plain[mine])
        assert both[3:3].shape == (0, 3, 2, 2) and both[3:3].own.shape == (0, 3, 2, 2)
        assert torch.equal(part * 2, plain * 2) and len(asked) == 2
        assert torch.equal(torch.nn.functional.avg_pool2d(both, 2)[4:11, :, 0, 0],
                           plain.mean((2, 3)))  # fmt: skip
        assert len(asked) == 2, "made once"
        assert (view_of(first, rank, ranks, asked).numpy() == first.numpy()).all()


class Counted(Streamed):
    """The pack's inputs, not on the device: rows count when they are read."""

    def __init__(self, inputs):
        super().__init__(inputs, torch.device("cpu"))
        self.asked = []

    def read(self, index, buffer):
        self.asked.append(len(index))
        super().read(index, buffer)


def trained(name, options, views):
    """Losses of the real loop; rows read for each step, and rows that enter each augmentation."""
    pack, catalog = packed(bars()), load(Wanted.here())
    inputs = Counted(pack.inputs)
    torch.manual_seed(0)
    encoder = Probe(pack.task)
    objective = catalog.entries["objective", name].factory(encoder, pack.task, **options)
    begun(objective, encoder, pack.task)
    steps = [choice.build(pack.task) for choice in catalog.pipeline(views)]
    entered = []

    def augment(images):
        entered.append(len(images))
        for step in steps:
            images = step(images)
        return images

    feed = Feed(pack, inputs, ("left", "right"), ("left",), ROWS, 0, torch.device("cpu"))
    budget = Budget(STEPS, ROWS, 1e-3, weight_decay=1e-4, warmup=0.1, optimizer="sgd")
    made = Views(augment, small=shrunk)
    losses = train(encoder, objective, made, feed, budget, 0, precision="fp32")
    return {"losses": losses, "entered": entered, "read": inputs.asked}


VIEWS = "random_resized_crop | horizontal_flip | color_jitter | gaussian_blur | noise"
CASES = (  # objective, its options, views, and whether it can do with own rows
    ("simclr", {}, VIEWS, True),
    ("swav", {"prototypes": 6}, VIEWS, True),  # with small views
    ("fixmatch", {}, "wilds_strong", False),  # whose operations take rows of the whole batch
    ("mixup", {}, VIEWS, False),  # which reads the pixels of other rows
)


def one_of_two(rank, folder):
    torch.set_num_threads(1)
    meeting = f"file://{folder / 'meeting'}"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
    told = [trained(*how) for *how, _ in CASES]
    (folder / f"told-{rank}").write_text(json.dumps(told))
    dist.destroy_process_group()


def test_each_process_augments_its_own_rows(tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchbench.extension.conformance.fixtures"])
    processes = [context.Process(target=one_of_two, args=(rank, tmp_path)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    told = [json.loads((tmp_path / f"told-{rank}").read_text()) for rank in range(2)]
    for number, (*how, apart) in enumerate(CASES):
        alone = trained(*how)
        calls = len(alone["entered"]) // STEPS
        assert set(alone["entered"]) == {ROWS}
        for rank, mine in enumerate(both[number] for both in told):
            assert mine["losses"] == pytest.approx(alone["losses"], rel=1e-5, abs=1e-5), how
            wanted = (7, 6)[rank] if apart else ROWS
            later = mine["entered"][-calls * (STEPS - TRIED) :]
            assert later == [wanted] * len(later), how
            assert mine["read"][-1] == wanted  # what is ahead is gathered for these rows, too
