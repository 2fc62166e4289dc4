"""Which rows are encoded and kept: compared with features of every row, from which these are taken.

Three domains; two of them have thousands of training rows that nobody has labelled.
"""

import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import wide_pack
from audiences import quiet
from resident import STATUS
from safetensors.torch import load_file
from tiny import SUITE
from torch import nn

from benchbench.data.pack import Pack, in_memory
from benchbench.diagnostics import geometry
from benchbench.evaluation import criteria
from benchbench.execution.cell import execute
from benchbench.extension.constants import TEST, TRAIN, UNKNOWN, VAL
from benchbench.extension.contracts import DomainData
from benchbench.suites import shift_features as tested
from benchbench.suites.cost import Calibration, total
from benchbench.suites.shift_features import (
    every_key,
    shares_of,
    shift_features,
    stored_features,
    unread,
)

NAMES = ("left", "right", "odd")
ALONE, BOTH = (("left",), ("right",)), (("left",), ("right", "odd"))


def of_many_rows() -> Pack:
    """Images of 8 × 8: 400 labelled rows of a domain, and many more without a label."""
    generator = torch.Generator().manual_seed(0)
    domains = torch.tensor([0] * 400 + [1] * 11_400 + [2] * 12_400)
    domains = domains[torch.randperm(len(domains), generator=generator)]
    order = torch.stack([(domains == d).cumsum(0) * (domains == d) for d in range(3)]).sum(0)
    split = torch.where(order <= 100, TEST, torch.where(order <= 200, VAL, TRAIN))
    truth = torch.randint(0, 3, (len(domains),), generator=generator)
    labels = torch.where(order <= 400, truth, UNKNOWN)
    images = torch.randint(0, 90, (len(domains), 3, 8, 8), generator=generator)
    images += 30 * domains[:, None, None, None]
    images[:, :, :4] += 60 * (truth == 1)[:, None, None, None]
    images[:, :, 4:] += 60 * (truth == 2)[:, None, None, None]
    number = torch.arange(len(domains))
    images[:, 0, 0, 0], images[:, 1, 0, 0] = number // 256, number % 256
    classes = ("low", "middle", "high")
    return in_memory(
        DomainData(images.byte(), labels, domains, classes, NAMES, split, licence="made here")
    )


@pytest.fixture(scope="module")
def pack():
    return of_many_rows()


class Numbers(nn.Module):
    """Features that say whose they are, and one of another scale; and which rows were asked for."""

    num_features = 3

    def __init__(self):
        super().__init__()
        self.asked = []

    def forward(self, images):
        row = (images[:, 0, 0, 0] * 255).round() * 256 + (images[:, 1, 0, 0] * 255).round()
        self.asked += row.long().tolist()
        return torch.stack([row, 1e4 + images[:, 2].mean((1, 2)), (row * 0.7).sin()], 1)


def every(pack: Pack) -> torch.Tensor:
    return Numbers()(pack.inputs.float() / 255)


def slow_rows(pack: Pack, domains, split, most=None) -> list[int]:
    """Of every domain in turn, one row after the other; of too many a draw that was always this."""
    theirs, splits = pack.domains.tolist(), pack.split.tolist()
    rows = [
        row
        for domain in domains
        for row in range(len(theirs))
        if theirs[row] == NAMES.index(domain) and splits[row] == split
    ]
    if most is None or len(rows) <= most:
        return rows
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))
    return [rows[place] for place in sorted(order[:most].tolist())]


@pytest.fixture
def plan(plan_of, pack):
    made = plan_of(SUITE)
    return replace(made, pack=pack)


@pytest.mark.parametrize("sides", [ALONE, BOTH])
def test_what_is_read_is_what_is_taken_from_features_of_all_rows(plan, pack, sides):
    encoder, z = Numbers(), every(pack)
    found = shift_features(encoder, "e", sides, plan)
    domains = [domain for side in sides for domain in side]
    for domain in domains:
        for split in (TRAIN, VAL, TEST):
            known = [row for row in slow_rows(pack, [domain], split) if pack.labels[row] >= 0]
            told = found.known((domain,), split)
            assert torch.equal(told.z, z[known]) and torch.equal(told.labels, pack.labels[known])
    for side in sides:
        for most in (geometry.ROWS, criteria.ROWS):
            rows = slow_rows(pack, side, TRAIN, most)
            told = found.sample(side, most)
            assert torch.equal(told.z, z[rows]) and torch.equal(told.labels, pack.labels[rows])
        for split in (VAL, TEST):
            rows = slow_rows(pack, side, split)
            assert torch.equal(found.held_out(side, split).z, z[rows])
    assert (
        len(encoder.asked)
        == len(set(encoder.asked))
        < 0.95 * sum(len(slow_rows(pack, domains, split)) for split in (TRAIN, VAL, TEST))
    )
    with pytest.raises(KeyError, match="the features of [0-9]+ rows are not kept"):
        found.held_out(sides[1], TRAIN)


@pytest.mark.parametrize("sides", [ALONE, BOTH])
def test_moments_are_those_of_all_training_rows_and_only_a_joint_draw_is_encoded_again(
    plan, pack, sides
):
    domains = [domain for side in sides for domain in side]
    rows = slow_rows(pack, domains, TRAIN)
    z = every(pack)[rows].double().numpy()
    encoder = Numbers()
    found = shift_features(encoder, "e", sides, plan)
    before = len(encoder.asked)
    told = found.moments()
    assert told.count == len(rows) and len(encoder.asked) > before
    assert np.allclose(told.mean, z.mean(0), rtol=1e-12)
    scale = z.std(0)
    theirs = np.cov(z.T, bias=True) * len(rows)
    assert np.allclose(told.scatter, theirs, rtol=0, atol=1e-9 * len(rows) * np.outer(scale, scale))
    beyond = [share.rows for share in shares_of(sides, pack) if share.part == "drawn"]
    twice = [row for row, count in Counter(encoder.asked).items() if count > 1]
    assert sorted(twice) == sorted(torch.cat([torch.arange(0), *beyond]).tolist())
    again = stored_features("e", sides, plan).moments()
    assert again.count == told.count and torch.equal(again.scatter, told.scatter)


def test_where_all_rows_are_read_they_are_kept_as_ever(plan_of):
    """Under the key that features had before only a part of them was kept."""
    pack = plan_of(SUITE).pack
    labels = pack.labels.where(torch.arange(len(pack.labels)) % 4 > 0, UNKNOWN)
    shares = shares_of(BOTH, replace(pack, labels=labels))
    assert [share.domains for share in shares] == [("left",), ("right",), ("odd",)]
    for share in shares:
        number = pack.domain_names.index(share.domains[0])
        assert share.part == "all"
        assert torch.equal(share.rows, (pack.domains == number).nonzero().flatten())
        assert share.key("e", "f") == tested.features_key("e", share.domains[0], "f")


def test_features_of_which_a_part_is_gone_are_not_read(plan):
    shift_features(Numbers(), "e", BOTH, plan)
    assert stored_features("e", BOTH, plan) and stored_features("other", BOTH, plan) is None
    parts = [*(plan.store.root / "features").iterdir()]
    assert len(parts) == 4, "two domains, one of which is whole, and what a draw of two takes"
    parts[0].unlink()
    assert stored_features("e", BOTH, plan) is None


def test_what_records_need_of_features_is_known_without_the_data(pack):
    """As cleaning up a store has to know it."""
    for sides in (ALONE, BOTH):
        shares = [*shares_of(sides, pack), *unread(sides, pack)]
        assert {share.part for share in shares} >= {"all", "read", "moments"}
        keys = [share.key("e", "f") for share in shares]
        assert len({*keys}) == len(keys) and {*keys} <= every_key("e", sides, "f")
    assert "drawn" in {share.part for share in shares}
    assert not {*keys} & (every_key("other", sides, "f") | every_key("e", sides, "other"))


METHODS = SUITE.replace('"left > right"', '"left > right + odd"').replace(
    'chain = "simclr"', 'chain = ""\nreadout = ["linear", "pfa"]'
)


def test_a_record_is_that_of_a_run_that_keeps_every_row(plan_of, pack, tmp_path, monkeypatch):
    """And what is kept of features is what was said beforehand."""

    def ran(folder):
        plan = replace(plan_of(METHODS, folder), pack=pack)
        said = Calibration(plan, timed=False).in_turn(plan.cells)
        record = execute(plan.cells[1], plan, quiet)
        files = (plan.store.root / "features").iterdir()
        size = sum(path.stat().st_size for path in files)
        assert 0 < size - total(said).features < 6 * 500, "headers of six files"
        assert Calibration(plan, timed=False).beyond(plan.cells[0], set()).features == 0
        place = plan.store.records("tiny") / record.file_name
        return record, load_file(place.with_suffix(".safetensors")), said[0].features, size

    mine, predicted, linear, size = ran(tmp_path / "part")
    every_row = lambda domain, rows, pack: torch.ones(len(rows), dtype=torch.bool)  # noqa: E731
    monkeypatch.setattr(tested, "always_read", every_row)
    theirs, wanted, _, larger = ran(tmp_path / "whole")
    assert linear < size < 0.95 * larger, "the readout linear reads no moments"
    for part in ("validators", "diagnostics"):
        told, other = (getattr(record, part).model_dump() for record in (mine, theirs))
        assert {n for n in told if told[n] is None} == {n for n in other if other[n] is None}
        numbers = {name: value for name, value in other.items() if value is not None}
        assert len(numbers) > 3
        assert {n: told[n] for n in numbers} == pytest.approx(numbers, rel=1e-4, abs=1e-6)
    assert [score.n for score in mine.scores] == [score.n for score in theirs.scores] == [100] * 3
    assert predicted.keys() == wanted.keys() == {*NAMES}
    for domain, values in wanted.items():
        assert (predicted[domain] == values).sum() >= 99 and len(values.unique()) > 1


@pytest.mark.slow
@pytest.mark.skipif(not STATUS.exists(), reason="Linux alone says what is resident")
def test_a_pack_larger_than_memory_is_planned_fed_and_extracted_in_little(tmp_path):
    """300,000 images of 96 pixels, 8.3 GB. With 3,000,000 the helper says how it is by hand."""
    helper = Path(wide_pack.__file__)
    command = [sys.executable, str(helper), str(tmp_path), "300000"]
    child = subprocess.run(command, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    words = child.stdout.split()
    taken = dict(zip(words[::2], map(float, words[1::2]), strict=True))
    assert taken.keys() == {"planned", "fed", "extracted", "summed", "process", "rows"}
    assert taken.pop("rows") < 300_000 / 5
    assert max(taken.values()) < 1000 < 300_000 * 3 * 96 * 96 / 1e6 / 8
