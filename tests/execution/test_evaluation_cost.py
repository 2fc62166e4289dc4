"""What follows training is estimated beforehand: as often as it is done, and as it grows."""

import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from audiences import Silent
from tiny import SUITE
from torch.utils.flop_counter import FlopCounterMode

from benchbench.evaluation.features import Features, Moments
from benchbench.evaluation.readouts.registry import resolve_readout
from benchbench.execution import evaluation_cost as module
from benchbench.execution.evaluation_cost import (
    Sizes,
    WholeCost,
    of_common,
    of_diagnostics,
    of_readout,
    of_validators,
    program_memory,
    trial,
)
from benchbench.execution.local import run_cells
from benchbench.suites import cost
from benchbench.suites.cost import Pace, total
from benchbench.training.device import held_memory

CPU = torch.device("cpu")
SECONDS = {of_readout: 5.0, of_validators: 0.5, of_common: 20.0, of_diagnostics: 100.0}
METHODS = SUITE.replace('chain = "simclr"', """chain = "simclr"
readout = ["linear", "knn"]
[[method]]
chain = "simclr > lp_ft"
readout = "head"
""")  # fmt: skip


@pytest.fixture
def paced(monkeypatch):
    """Stages and features take nothing, and the rest what SECONDS says. What was tried."""
    tried = []

    def seconds(readout, growth, sizes, device):
        tried.append((readout, growth))
        return SECONDS[growth]

    monkeypatch.setattr(cost, "pace_of", lambda cell, link, plan: Pace(0.0, 0.0))
    monkeypatch.setattr(cost, "seconds_per_row", lambda encoder, plan: 0.0)
    monkeypatch.setattr(module, "trial", seconds)
    return tried


def test_what_readouts_of_an_encoder_share_is_paid_for_once(plan_of, paced):
    plan = plan_of(METHODS)
    told = WholeCost(plan)
    linear, knn, tuned = (each.seconds for each in told.in_turn(plan.cells))
    assert linear == pytest.approx(5 + 0.5 + 20 + 100)
    assert knn == pytest.approx(5 + 0.5), "validators' own part, and no diagnostics"
    assert tuned == pytest.approx(5 + 0.5 + 20 + 100), "a probe to begin with; a head costs nothing"
    assert len(set(paced)) == len(paced), "each was tried once"
    run_cells(plan, plan.cells[:1], Silent())
    left = [each.seconds for each in WholeCost(plan).in_turn(plan.cells[1:])]
    assert left == pytest.approx([5.5, 125.5]), "what the store has is not paid for again"


def test_every_snapshot_is_read_off(plan_of, paced):
    plan = plan_of(SUITE.replace('precision = "fp32"', 'precision = "fp32"\nsnapshots = 3'))
    (cell,) = plan.cells
    told = WholeCost(plan)
    work = told.work(cell)
    states = told.states(cell)
    assert len(states) == 1 + len(plan.links(cell)[0].snapshots) == 3
    assert total(work.values()).seconds == pytest.approx(3 * (5 + 0.5 + 20) + 100)
    (record,) = run_cells(plan, plan.cells, Silent())
    assert len(record.snapshots) == 2
    kept = {path.stem for path in (plan.store.root / "features").rglob("*.safetensors")}
    assert kept and kept <= {*work}, "the features that a run keeps are those that were told"
    assert total(WholeCost(plan).work(cell).values()).seconds == pytest.approx(3 * 5.5)


def test_sizes_are_the_rows_of_each_role(plan_of):
    plan = plan_of(SUITE)
    (cell,) = plan.cells
    pack, rows = plan.pack, {}
    for domain, split, label in zip(pack.domains, pack.split, pack.labels, strict=True):
        place = pack.domain_names[domain], int(split), int(label) >= 0
        rows[place] = rows.get(place, 0) + 1
    both = ("left", "right")
    assert Sizes.of(cell, 7, plan) == Sizes(
        train=rows["left", 0, True],
        val=rows["left", 1, True],
        unlabelled=sum(rows[domain, 0, True] for domain in both),
        target=rows["right", 0, True],
        test=sum(rows[domain, 2, True] for domain in both),
        width=7,
        classes=3,
    )


SMALL = Sizes(train=400, val=100, unlabelled=600, target=300, test=200, width=32, classes=4)


@pytest.mark.parametrize("name", ["linear", "ridge", "knn", "pfa"])
@pytest.mark.parametrize("more", [{"train": 1600, "unlabelled": 2400}, {"width": 96}])
def test_a_readout_grows_as_the_products_that_it_takes_do(name, more):
    """Counted by torch; decompositions are not products, and are left out of both."""

    def counted(sizes):
        generator = torch.Generator().manual_seed(0)

        def drawn(count):
            z = torch.randn(count, sizes.width, generator=generator)
            return Features(z, torch.arange(count) % sizes.classes)

        text = "linear(max_iter=20)" if name == "linear" else name
        fit = resolve_readout(text)[1]()
        with FlopCounterMode(display=False) as counter:
            rest = drawn(sizes.unlabelled).z
            fitted = fit(drawn(sizes.train), drawn(sizes.val), lambda: Moments.of(rest), 4)
            fitted.scores(drawn(sizes.test).z)
        return counter.get_total_flops()

    large = replace(SMALL, **more)
    wanted = counted(large) / counted(SMALL)
    assert 0.5 * wanted < of_readout(name, large) / of_readout(name, SMALL) < 2 * wanted


def test_a_trial_is_of_few_rows_and_takes_every_part():
    few = replace(SMALL, train=10**6, width=4096, classes=1000).tried()
    assert (few.train, few.width, few.classes) == (1000, 256, 16)
    assert SMALL.tried() == SMALL
    for growth in SECONDS:
        assert trial("linear", growth, SMALL, CPU) > 0
    assert trial("ridge", of_readout, replace(SMALL, classes=0), CPU) > 0, "of numbers, too"


def test_the_program_itself_has_a_size():
    device = torch.device("cpu")
    assert 1e8 < program_memory(device) <= held_memory(device) + 1e8
    block = torch.ones(100_000_000)
    grown = held_memory(device)
    del block
    assert grown > 4e8


@pytest.mark.slow
def test_a_dry_run_tells_the_memory_that_a_run_takes(tmp_path):
    """In processes of their own: what tests before have loaded would be told, too."""
    (tmp_path / "suite.toml").write_text(SUITE.replace('"tiny"', '"digits"').replace(
        "left > right", "scans > photos"))  # fmt: skip
    words = [sys.executable, "-m", "benchbench", "run", str(tmp_path / "suite.toml"), "--device"]
    words += ["cpu", "--store", str(tmp_path / "store")]
    said = subprocess.run([*words, "--dry-run"], check=True, capture_output=True, text=True).stdout
    told = float(re.findall(r"([\d.]+) GB of memory", said)[-1])
    subprocess.run(words, check=True, capture_output=True)
    (record,) = (tmp_path / "store" / "records").rglob("*.json")
    peak = float(re.findall(r'"peak_memory_gb": ([\d.]+)', record.read_text())[0])
    assert told == pytest.approx(peak, rel=0.25)
