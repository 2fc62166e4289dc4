"""Rows 8 and 9: numbers that are none, and memory that ends. Each in a process of its own."""

import re
import resource
from pathlib import Path

import pytest
from cases import QUICK

from benchbench.store.records import read_records

BESIDE = QUICK.replace("steps = 2", "steps = 6") + '[[method]]\nchain = "faulty(does=DOES)"\n'
RECORDS = "store/records/tiny"


def run_beside(warm, folder, does, **how):
    """The records of an objective that misbehaves and of one that does not, by method."""
    folder.mkdir()
    (folder / "suite.toml").write_text(BESIDE.replace("DOES", repr(does)))
    assert warm.run("run", folder, **how) == 0, warm.log.read_text()[-2000:]
    found = {record.method.partition("(")[0]: record for record in read_records(folder / RECORDS)}
    assert found["simclr"].status == "scored"
    return found["faulty"]


def test_row_08_features_that_are_infinite_are_no_score(warm, tmp_path):
    record = run_beside(warm, tmp_path / "x", "ruins the encoder")
    assert (record.status, record.scores) == ("diverged", ())
    assert re.search("finite|nan", record.reason)


@pytest.mark.parametrize("does", ["takes all memory", "takes all memory of Python"])
def test_row_09_where_memory_ends_a_cell_is_oom_and_the_others_go_on(warm, tmp_path, does):
    used = int(Path(f"/proc/{warm.process.pid}/statm").read_text().split()[0])
    most = used * resource.getpagesize() + (4 << 30)
    record = run_beside(warm, tmp_path / "x", does, at=most, fault="AS")
    assert (record.status, record.scores) == ("oom", ())


def test_row_10_an_objective_that_exits_fails_alone(warm, tmp_path):
    record = run_beside(warm, tmp_path / "x", "exits")
    assert (record.status, record.reason) == ("failed", "SystemExit: 3")
