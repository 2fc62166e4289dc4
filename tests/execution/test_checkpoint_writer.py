"""Checkpoints are of the step that was done, come in time, and hide no error."""

import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from audiences import lasting, quiet
from tiny import SUITE

from benchbench.execution import checkpoint_writer
from benchbench.execution.cell import execute, first_encoder, first_objective, silent, train_stage
from benchbench.execution.checkpoint_writer import writing_checkpoints
from benchbench.extension.errors import BadInput
from benchbench.store.artifacts import Store

PATIENCE = 30  # seconds, for a thread that does not come


def test_training_goes_on_while_the_state_of_its_step_is_written():
    state = {"weight": torch.arange(4.0), "losses": torch.zeros(3), "done": torch.tensor(1)}
    begun, free, kept = threading.Event(), threading.Event(), []

    def write(copy):
        begun.set()
        assert free.wait(PATIENCE)
        kept.append({name: value.clone() for name, value in copy.items()})

    with writing_checkpoints(write, 0.0, lambda: False) as checkpoints:
        checkpoints.save(state)
        assert begun.wait(PATIENCE) and not kept
        state["weight"] += 10  # the next step
        checkpoints.save(state)  # comes too soon: the one before is being written
        free.set()
    assert len(kept) == 1 and kept[0]["weight"].tolist() == [0, 1, 2, 3]
    assert kept[0].keys() == state.keys()


class Clock:
    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(checkpoint_writer, "time", clock)
    return clock


@pytest.mark.parametrize(
    ("every", "takes", "kept"),
    [
        (60.0, 1.0, [60, 120, 180, 240]),
        (10.0, 1.0, [10, 30, 50, 70, 90, 110, 130, 150, 170, 190, 210, 230, 250]),
        (10.0, 5.0, [10, 110, 210]),
        (0.0, 0.0, [*range(260)]),
    ],
)
def test_writing_takes_a_twentieth_of_the_time_at_most(clock, every, takes, kept):
    """A state a second; each is written at once, so that only its share of the time tells."""
    found = []

    def write(copy):
        found.append(int(copy["done"]))
        clock.now += takes

    with writing_checkpoints(write, every, lambda: False) as checkpoints:
        for second in range(260):
            clock.now = float(second)
            checkpoints.save({"done": torch.tensor(second)})
            if checkpoints._last:
                checkpoints._last.result()
    assert found == kept


def test_the_last_state_before_a_stop_is_kept_after_the_one_that_is_being_written():
    kept, free, stops = [], threading.Event(), []

    def write(copy):
        assert free.wait(PATIENCE)
        kept.append(int(copy["done"]))

    with writing_checkpoints(write, 0.0, lambda: bool(stops)) as checkpoints:
        checkpoints.save({"done": torch.tensor(1)})
        stops.append(True)
        threading.Timer(0.05, free.set).start()
        checkpoints.save({"done": torch.tensor(2)})
        assert kept == [1, 2], "both are there before training ends"


def test_a_state_that_grew_is_kept_whole():
    """As an optimizer's, whose slots come with the first gradient of a parameter."""
    kept = []
    with writing_checkpoints(
        lambda copy: kept.append({n: t.tolist() for n, t in copy.items()}), -1.0, lambda: False
    ) as checkpoints:
        for state in ({"a": torch.ones(2)}, {"a": torch.ones(3), "b": torch.ones(1)}, {}):
            checkpoints.save(state)
    assert kept == [{"a": [1, 1]}, {"a": [1, 1, 1], "b": [1]}, {}]


def full(copy):
    raise BadInput("store x cannot be written: No space left on device")


def test_a_full_disk_is_told_with_the_next_state_or_at_the_end():
    with (
        pytest.raises(BadInput, match="No space left"),
        writing_checkpoints(full, 0.0, lambda: False) as checkpoints,
    ):
        checkpoints.save({})
        checkpoints._last.exception()
        checkpoints.save({})
        pytest.fail("it was told of")
    with (
        pytest.raises(BadInput, match="No space left"),
        writing_checkpoints(full, 0.0, lambda: False) as checkpoints,
    ):
        checkpoints.save({})
    with (
        pytest.raises(KeyboardInterrupt),
        writing_checkpoints(full, 0.0, lambda: False) as checkpoints,
    ):
        checkpoints.save({})
        raise KeyboardInterrupt


def test_of_processes_that_train_together_one_packs_checkpoints_and_snapshots(plan_of, monkeypatch):
    text = SUITE.replace("precision", "snapshots = 2\nprecision")
    plan, kinds = replace(plan_of(text), checkpoint_every=-1.0), []
    (cell,) = plan.cells
    real = Store.write

    def write(self, kind, key, tensors, note=None):
        kinds.append(kind)
        return real(self, kind, key, tensors, note)

    monkeypatch.setattr(Store, "write", write)
    (link,) = plan.links(cell)

    def train(plan):
        encoder = first_encoder(cell, plan)
        objective = first_objective(cell, link, encoder, plan)
        watch = silent(link.stage)
        return train_stage(cell, link, encoder, objective, plan, watch, lambda: False)[0]

    digest = train(replace(plan, store=Store(plan.store.root, writes=False)))
    assert kinds == ["stages"] and not (plan.store.root / "stages").exists()
    assert train(plan) == digest
    assert kinds.count("checkpoints") == 5 and kinds.count("snapshots") == 1


CHILD = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
from audiences import quiet
from tiny import make_plan
from benchbench.execution.cell import execute
from benchbench.store import artifacts

plan = make_plan(Path(sys.argv[1]).read_text(), Path(sys.argv[2]), Path(sys.argv[2]).parent)
plan = replace(plan, checkpoint_every=-1.0)
real, begun = artifacts.blocks_of, []

def blocks_of(tensors, slots):
    begun.append(1)
    for number, block in enumerate(real(tensors, slots)):
        yield block
        if len(begun) == 3 and number == 2:
            os.kill(os.getpid(), signal.SIGKILL)

artifacts.blocks_of = blocks_of
execute(plan.cells[0], plan, quiet)
"""


def test_killed_while_a_checkpoint_is_written_it_goes_on_from_the_one_before(plan_of, tmp_path):
    suite, place = tmp_path / "suite.toml", tmp_path / "killed"
    suite.write_text(SUITE)
    child = subprocess.run([sys.executable, "-c", CHILD, str(suite), str(place)])
    assert child.returncode == -9
    plan = plan_of(SUITE, place)
    (cell,) = plan.cells
    (link,) = plan.links(cell)
    assert int(plan.store.read("checkpoints", link.key).tensors["done"]) == 2
    assert [*Path(place).rglob("*.part")], "it was killed in the middle of the third"
    steps = []
    record = execute(cell, plan, lambda stage: lambda done, loss: steps.append(done))
    assert steps == [3, 4, 5, 6]
    whole = execute(cell, plan_of(SUITE, tmp_path / "whole"), quiet)
    assert lasting(record) == lasting(whole)
