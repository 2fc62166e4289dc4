"""What the loop and a cell do, in order: compared with texts written by hand, and the weights with
sums in plain Python. The spies of `spies` write down what is done to them."""

import math
import shutil
from copy import deepcopy
from dataclasses import replace
from textwrap import dedent

import pytest
import torch
from spies import LOG, PACK, SpyEncoder, SpyObjective, listening, spy_plan
from tiny import Text
from torch import nn

from benchbench.execution.cell import execute
from benchbench.extension.constants import TEST, TRAIN, VAL
from benchbench.extension.contracts import Objective, Rows
from benchbench.store.records import read_record
from benchbench.training.budget import Budget
from benchbench.training.loop import Checkpoints, Views, train
from benchbench.training.seeds import derive_seed

SEED = 7
SEEDS = {derive_seed(SEED, kind, step): f"{kind} {step}" for kind in ("views", "model")
         for step in range(9)}  # fmt: skip


def said(words: str):
    """An augmentation that writes down that it was called, and by which seed."""

    def augment(images):
        LOG.append(f"{words}, seed of {SEEDS[torch.initial_seed()]}")
        return images

    return augment


class Seeded(SpyObjective):
    """With two views of each kind; tells the seed that its own random numbers follow."""

    n_views, n_weak, n_small = 2, 1, 1

    def forward(self, encoder, batch):
        LOG.append(f"forward, seed of {SEEDS[torch.initial_seed()]}")
        return super().forward(encoder, batch)


def feed(step: int) -> Rows:
    LOG.append(f"feed {step}")
    rows = PACK.rows("left", TRAIN)[2 * step : 2 * step + 2]
    return Rows(PACK.inputs[rows], PACK.labels[rows], PACK.domains[rows])


def test_a_step_is_these_calls_in_this_order():
    encoder = SpyEncoder(PACK.task)
    objective = Seeded(encoder, PACK.task)
    encoder.eval()
    objective.eval()
    stops = iter((False, False, True))

    def stopping() -> bool:
        LOG.append("asked whether to stop")
        return next(stops)

    with listening() as log, pytest.raises(KeyboardInterrupt):
        train(
            encoder,
            objective,
            Views(said("full view"), said("weak view"), said("small view")),
            feed,
            Budget(4, 2, 0.1, weight_decay=0.0, warmup=0.0, optimizer="sgd"),
            SEED,
            precision="fp32",
            watch=lambda done, loss: log.append(f"watch {done}, loss {loss.item():.4f}"),
            pauses={
                2: lambda: log.append(f"pause after 2, weight {encoder.matrix.item():.4f}"),
            },
            lap=lambda part: log.append(f"-- {part}"),
            checkpoints=Checkpoints(
                lambda state: log.append(
                    f"checkpoint after {int(state['done'])}, "
                    f"weight {state['encoder.matrix'].item():.4f}, "
                    f"moved {int(state['objective.moves'])} times, "
                    f"velocity {state['optimizer.0.momentum_buffer'].item():.2f}"
                ),
                every=1e9,
                stopping=stopping,
            ),
        )
    # the rates are half a cosine, 0.1 (1 + cos(π step / 4)) / 2; the velocity is 1, 1.9, 2.71
    assert "\n".join(log) == dedent("""\
        feed 0
        -- gather
        full view, seed of views 0
        full view, seed of views 0
        weak view, seed of views 0
        small view, seed of views 0
        -- views
        forward, seed of model 0
        first, training, at 0.000, moved 0 times
        encoder, training, with gradient: left train 2
        labels shown of 2 rows
        -- forward
        backward
        -- backward
        step at 0.1000, 0.1000, 0.1000, 0.1000; gradient +1.00
        first after step 1
        -- update
        watch 1, loss 1.0000
        asked whether to stop
        -- other
        feed 1
        -- gather
        full view, seed of views 1
        full view, seed of views 1
        weak view, seed of views 1
        small view, seed of views 1
        -- views
        forward, seed of model 1
        first, training, at 0.250, moved 1 times
        encoder, training, with gradient: left train 2
        labels shown of 2 rows
        -- forward
        backward
        -- backward
        step at 0.0854, 0.0854, 0.0854, 0.0854; gradient +1.00
        first after step 2
        -- update
        watch 2, loss 0.8000
        pause after 2, weight 0.7378
        asked whether to stop
        -- other
        feed 2
        -- gather
        full view, seed of views 2
        full view, seed of views 2
        weak view, seed of views 2
        small view, seed of views 2
        -- views
        forward, seed of model 2
        first, training, at 0.500, moved 2 times
        encoder, training, with gradient: left train 2
        labels shown of 2 rows
        -- forward
        backward
        -- backward
        step at 0.0500, 0.0500, 0.0500, 0.0500; gradient +1.00
        first after step 3
        -- update
        watch 3, loss 0.4756
        asked whether to stop
        checkpoint after 3, weight 0.6023, moved 3 times, velocity 2.71""")


SUITE = Text("""
name = "spied"
dataset = "numbered"
shifts = ["left > right"]
seeds = [0]
encoder = "spy_encoder"
precision = "fp32"
snapshots = 2
readout = "spy"
stage = { steps = 2, batch_size = 4, lr = 0.1, optimizer = "sgd", warmup = 0.0, weight_decay = 0.0 }
[[method]]
name = "two stages"
chain = ["spy", { objective = "spy(name='second', begins='head')", sees = "source" }]
""")


def executed(plan, cell):
    """The record of a cell, and what was done, the stages by how many steps they have."""

    def watcher(stage):
        LOG.append(f"told of a stage of {stage.budget.steps} steps")
        return lambda done, loss: LOG.append(f"watch {done}")

    plan.links(cell)  # settled before, as a run does
    with listening() as log:
        record = execute(cell, plan, watcher)
    return record, list(log)


def test_a_cell_of_two_stages_is_these_calls_in_this_order(tmp_path, monkeypatch):
    """The weight of a state, and that of its readout, say which state it is: each is another.

    The readout's is the sum of two parameters, 2 × weight − 1.
    """
    plan = replace(spy_plan(SUITE, tmp_path, monkeypatch), checkpoint_every=-1.0)
    (cell,) = plan.cells
    record, log = executed(plan, cell)
    assert "\n".join(log) == dedent("""\
        told of a stage of 2 steps
        first, training, at 0.000, moved 0 times
        encoder, training, with gradient: left train 2 + right train 2
        labels shown of 2 rows
        backward
        step at 0.1000, 0.1000, 0.1000, 0.1000; gradient +1.00
        first after step 1
        watch 1
        keep snapshots, weight 0.9000
        keep checkpoints of 1 steps, weight 0.9000
        first, training, at 0.500, moved 1 times
        encoder, training, with gradient: left train 2 + right train 2
        labels shown of 2 rows
        backward
        step at 0.0500, 0.0500, 0.0500, 0.0500; gradient +1.00
        first after step 2
        watch 2
        keep stages, weight 0.8050
        remove checkpoints
        second begins with [2.0, 2.0]
        told of a stage of 2 steps
        second, training, at 0.000, moved 0 times
        encoder, training, with gradient: left train 4
        labels shown of 4 rows
        backward
        step at 0.1000, 0.1000, 0.1000, 0.1000; gradient +1.00
        second after step 1
        watch 1
        keep snapshots, weight 0.7050
        keep checkpoints of 1 steps, weight 0.7050
        second, training, at 0.500, moved 1 times
        encoder, training, with gradient: left train 4
        labels shown of 4 rows
        backward
        step at 0.0500, 0.0500, 0.0500, 0.0500; gradient +1.00
        second after step 2
        watch 2
        keep stages, weight 0.6100
        remove checkpoints
        encoder, evaluating, without gradient: left train 8 + left val 4 + left test 4
        keep features
        encoder, evaluating, without gradient: right train 8 + right val 4 + right test 4
        keep features
        readout of weight 0.2200
          fitted on left train 8
          chosen on left val 4
          unlabelled 16 rows, numbered 12.50 in the mean
          predicts left test 4
          predicts right test 4
        keep diagnostics
          predicts left val 4
          predicts right val 4
          predicts left val 4
          predicts right train 8
        keep diagnostics
        encoder, evaluating, without gradient: left train 8 + left val 4 + left test 4
        keep features
        encoder, evaluating, without gradient: right train 8 + right val 4 + right test 4
        keep features
        readout of weight 0.4100
          fitted on left train 8
          chosen on left val 4
          unlabelled 16 rows, numbered 12.50 in the mean
          predicts left test 4
          predicts right test 4
        keep diagnostics
          predicts left val 4
          predicts right val 4
          predicts left val 4
          predicts right train 8
        keep record, scored""")
    assert read_record(plan.store.records("spied") / record.file_name) == record
    assert [score.domain for score in record.scores] == ["left", "right"]
    assert [score.n for score in record.scores] == [4, 4]
    assert [snapshot.step for snapshot in record.snapshots] == [1]
    for kind in ("features", "diagnostics"):
        shutil.rmtree(plan.store.root / kind)
    _, again = executed(plan, cell)
    trained = [line for line in again if line.startswith(("step", "keep stages", "encoder, train"))]
    assert not trained, "what is in the store is not trained again"
    assert [line for line in again if line.startswith("readout of")] == [
        "readout of weight 0.2200",
        "readout of weight 0.4100",
    ], "and the states that were kept are those that are read off"


def test_what_is_kept_of_an_encoder_is_what_its_objective_hands_over(tmp_path, monkeypatch):
    """One whose weight is more by 1. Training goes on with the one that was trained."""

    def more(self, encoder):
        other = deepcopy(encoder)
        with torch.no_grad():
            other.matrix += 1
        return other

    monkeypatch.setattr(SpyObjective, "trained_encoder", more)
    plan = spy_plan(SUITE, tmp_path, monkeypatch)
    _, log = executed(plan, plan.cells[0])
    told = ("keep stages", "keep snapshots", "readout of")
    assert [line for line in log if line.startswith(told)] == [
        "keep snapshots, weight 1.9000",
        "keep stages, weight 1.8050",
        "keep snapshots, weight 2.7050",
        "keep stages, weight 2.6100",
        "readout of weight 2.2200",
        "readout of weight 2.4100",
    ]


def test_a_ceiling_is_fitted_chosen_and_trained_on_the_target(tmp_path, monkeypatch):
    text = SUITE.partition("[[method]]")[0].replace("snapshots = 2", "")
    text += '[[method]]\nchain = "spy"\nsees = "target"\nlabels = "target"\n'
    plan = spy_plan(text, tmp_path, monkeypatch)
    _, log = executed(plan, plan.cells[0])
    assert [line for line in log if line.startswith("encoder, training")] == [
        "encoder, training, with gradient: right train 4"
    ] * 2
    assert [line for line in log if "on right" in line or "on left" in line] == [
        "  fitted on right train 8",
        "  chosen on right val 4",
    ]
    assert [line for line in log if line.startswith("labels")] == ["labels shown of 4 rows"] * 2


def test_a_head_reads_off_in_evaluation(tmp_path, monkeypatch):
    plan = spy_plan(SUITE.replace('readout = "spy"', 'readout = "head"'), tmp_path, monkeypatch)
    _, log = executed(plan, plan.cells[0])
    assert {line for line in log if line.startswith("head")} == {"head in evaluation"}


def test_a_stage_that_begins_with_a_probe_gets_one_of_the_encoder_it_starts_from(
    tmp_path, monkeypatch
):
    """Fitted on labelled training rows and chosen on validation rows, before the first step."""
    import benchbench.execution.cell

    asked = []

    def probe(train, val, num_classes):
        asked.append((whole(train.z), whole(val.z), round(train.z[0, 2].item(), 4)))
        layer = nn.Linear(3, 2)
        nn.init.constant_(layer.bias, 0.25)
        return layer

    def whole(z):
        return sorted(z[:, 0].round().int().tolist())

    monkeypatch.setattr(benchbench.execution.cell, "probe", probe)
    text = SUITE.replace("begins='head'", "begins='probe'") + '[[method]]\nchain = ""\n'
    plan = spy_plan(text, tmp_path, monkeypatch)
    two_stages, untrained = plan.cells
    executed(plan, untrained)  # whose features lie in the store, and are others
    _, log = executed(plan, two_stages)
    rows = [(PACK.rows("left", split) + 1).tolist() for split in (TRAIN, VAL)]
    assert asked == [(*rows, pytest.approx(2 * 0.805 - 1, abs=1e-4))]
    place = log.index("second begins with [0.25, 0.25]")
    assert log[place - 3 : place] == [
        "remove checkpoints",
        "encoder, evaluating, without gradient: left train 8 + left val 4 + left test 4",
        "keep features",
    ]
    assert log[place + 2] == "second, training, at 0.000, moved 0 times"
    assert log[place + 3].startswith("encoder, training")


def test_scores_are_of_test_rows_in_their_order(tmp_path, monkeypatch):
    """The spy's readout is right of every row; turned over in the labels of test rows, of none."""
    plan = spy_plan(SUITE, tmp_path, monkeypatch)
    record, _ = executed(plan, plan.cells[0])
    assert [score.accuracy for score in record.scores] == [1.0, 1.0]
    for split, wanted in ((TEST, 0.0), (VAL, 1.0), (TRAIN, 1.0)):
        labels = torch.where(plan.pack.split == split, 1 - plan.pack.labels, plan.pack.labels)
        pack = replace(plan.pack, labels=labels, fingerprint=f"turned over in {split}")
        other = replace(plan, pack=pack)
        record, _ = executed(other, other.cells[0])
        assert [score.accuracy for score in record.scores] == [wanted, wanted]
        assert [record.validators.source_val, record.validators.target_val] == [
            1.0 - (split == VAL)
        ] * 2


# The weights themselves


class Sum(Objective):
    """A loss whose gradient is the same at every parameter and step, for sums in plain Python."""

    n_views = 1

    def __init__(self, encoder, task, *, encoder_lr=1.0):
        super().__init__()
        self.encoder_lr = encoder_lr
        self.own = nn.Parameter(torch.full((1, 1), 2.0, dtype=torch.float64))

    def forward(self, encoder, batch):
        factor = 1.0 if batch.progress < 0.5 else -0.5
        return factor * (encoder.matrix.sum() + encoder.vector.sum() + self.own.sum())


BUDGETS = {
    "sgd": Budget(10, 2, 0.2, weight_decay=0.1, warmup=0.3, optimizer="sgd"),
    "adamw": Budget(10, 2, 0.2, weight_decay=0.1, warmup=0.25, optimizer="adamw"),
}


def walked(budget: Budget, start: float, scale: float, decay: float) -> list[float]:
    """The value of a parameter after every step, from the definitions of the optimizers."""
    value, first, second, seen = start, 0.0, 0.0, []
    for step in range(budget.steps):
        rise = budget.warmup * budget.steps
        if step < rise:
            rate = budget.lr * (step + 1) / (math.ceil(rise) + 1)
        else:
            rate = budget.lr * (1 + math.cos(math.pi * (step - rise) / (budget.steps - rise))) / 2
        rate, gradient = rate * scale, 1.0 if step < budget.steps / 2 else -0.5
        if budget.optimizer == "sgd":
            gradient += decay * value
            first = gradient if step == 0 else 0.9 * first + gradient
            value -= rate * first
        else:  # Loshchilov and Hutter 2019, algorithm 2
            value -= rate * decay * value
            first = 0.9 * first + 0.1 * gradient
            second = 0.999 * second + 0.001 * gradient**2
            mean, square = first / (1 - 0.9 ** (step + 1)), second / (1 - 0.999 ** (step + 1))
            value -= rate * mean / (math.sqrt(square) + 1e-8)
        seen.append(value)
    return seen


@pytest.mark.parametrize("optimizer", [*BUDGETS])
def test_weights_are_those_of_the_optimizers_definition_after_every_step(optimizer):
    """Rates, decay of matrices alone, the encoder's own rate, and that no gradient is kept."""
    budget = BUDGETS[optimizer]
    encoder = SpyEncoder(PACK.task).double()
    objective = Sum(encoder, PACK.task, encoder_lr=0.3)
    seen: list[tuple[float, ...]] = []
    kept = {}
    train(
        encoder,
        objective,
        Views(lambda images: images),
        lambda step: feed(0),
        budget,
        SEED,
        precision="fp32",
        watch=lambda done, loss: seen.append(
            (encoder.matrix.item(), encoder.vector.item(), objective.own.item())
        ),
        pauses={
            k: lambda k=k: kept.update({k: encoder.matrix.item()}) for k in (1, 4, budget.steps)
        },
    )
    wanted = [
        walked(budget, 1.0, 0.3, decay=0.1),
        walked(budget, 0.0, 0.3, decay=0.0),
        walked(budget, 2.0, 1.0, decay=0.1),
    ]
    for found, expected in zip(zip(*seen, strict=True), wanted, strict=True):
        assert found == pytest.approx(expected, rel=1e-9)
    assert kept == {k: pytest.approx(wanted[0][k - 1], rel=1e-9) for k in (1, 4, budget.steps)}


@pytest.mark.parametrize(("encoder_lr", "mode"), [(1.0, True), (0.5, True), (0.0, False)])
def test_a_frozen_encoder_is_trained_on_in_evaluation(encoder_lr, mode):
    modes = []

    class Mode(Sum):
        def forward(self, encoder, batch):
            modes.append((encoder.training, self.training))
            return super().forward(encoder, batch)

    encoder = SpyEncoder(PACK.task).double()
    objective = Mode(encoder, PACK.task, encoder_lr=encoder_lr)
    train(
        encoder, objective, Views(lambda images: images), lambda step: feed(0),
        Budget(2, 2, 0.1, 0.0, 0.0), SEED, precision="fp32",
    )  # fmt: skip
    assert modes == [(mode, True)] * 2
