"""Rows 5, 6 and 19: processes and machines that share a store, and clocks that jump."""

import errno
import fcntl
import json
import os
import random
import re
import shutil
import socket
import time
from pathlib import Path

import pytest
from audiences import Silent, lasting, run_all
from cases import QUICK
from tiny import SUITE

import benchbench
from benchbench.execution.local import run_cells
from benchbench.extension.errors import BadInput
from benchbench.store.locks import LOST_AFTER, Claims
from benchbench.store.records import read_records

FIFTY = QUICK.replace("seeds = [0]", "seeds = [0, 1, 2, 3, 4]").replace(
    '["left > right"]', '["left > right", "left > odd"]'
) + 'readout = ["ridge", "knn", "prototype", "linear", "pfa"]\n'  # fmt: skip


def test_row_05_two_processes_race_for_fifty_cells_and_do_each_once(warm, tmp_path):
    (tmp_path / "suite.toml").write_text(FIFTY)
    assert warm.run("run", tmp_path, copies=2) == 0, warm.log.read_text()[-2000:]
    records = read_records(tmp_path / "store" / "records" / "tiny")
    assert [record.status for record in records] == ["scored"] * 50
    stages = {key for record in records for key in record.artifacts.stages}
    trained = [stage for record in records for stage in record.cost.stages if not stage.reused]
    assert len(stages) == len(trained) == 10, "no stage was trained twice"
    assert Claims(tmp_path / "store").signs() == {}


def sign_of(folder: Path, *, host: str, pid: int = 1, ago: float = 0.0) -> Claims:
    """A claim that somebody gave, and last renewed so many seconds ago."""
    claims = Claims(folder)
    claims.folder.mkdir(parents=True, exist_ok=True)
    said = {"work": "x", "step": 1, "steps": 2, "since": 0.0, "began_at": 0}
    path = claims.folder / "key.json"
    path.write_text(json.dumps({**said, "host": host, "pid": pid}))
    os.utime(path, (time.time() - ago,) * 2)
    return claims


def test_row_05_a_claim_of_a_dead_process_or_of_a_machine_long_silent_is_free(tmp_path):
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    dead = sign_of(tmp_path / "dead", host=socket.gethostname(), pid=child)
    silent = sign_of(tmp_path / "silent", host="elsewhere", ago=LOST_AFTER + 1)
    heard = sign_of(tmp_path / "heard", host="elsewhere", ago=LOST_AFTER - 20)
    assert heard.take("key", "mine") is None
    for claims in (dead, silent):
        assert claims.take("key", "mine") is not None


def test_row_06_the_store_is_files_and_no_database():
    paths = sorted(Path(benchbench.__file__).parent.rglob("*.py"))
    assert len(paths) > 100
    for path in paths:
        assert not re.search("sqlite(?!:///)", path.read_text()), path


def test_row_06_without_its_claims_a_store_says_the_same(plan_of, tmp_path):
    run_all(plan_of(SUITE))
    shutil.rmtree(tmp_path / "store" / "claims")
    assert run_all(plan_of(SUITE)).records == []


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EIO])
def test_row_06_a_file_system_without_locks_is_told_in_a_sentence(tmp_path, monkeypatch, number):
    def refuses(descriptor, operation):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuses)
    with pytest.raises(BadInput, match=f"cannot be written: {os.strerror(number)}"):
        Claims(tmp_path).take("key", "mine")


def test_row_19_a_sign_from_the_future_is_believed_for_a_minute(tmp_path, monkeypatch):
    claims = sign_of(tmp_path, host="elsewhere", ago=-86400.0)
    assert claims.take("key", "mine") is None and claims.living("key")
    now = time.monotonic() + LOST_AFTER + 1
    monkeypatch.setattr(time, "monotonic", lambda: now)
    assert not claims.living("key")
    os.utime(claims.folder / "key.json", (time.time() + 90000,) * 2)  # it was renewed
    assert claims.living("key")


def test_row_19_clocks_that_jump_change_no_result(plan_of, tmp_path, monkeypatch):
    """And no order: what goes first, and which of two records counts, is not told by time."""
    text = QUICK + '[[method]]\nchain = "erm"\nsees = "source"\nreadout = "head"\n'
    run_all(plan_of(text, tmp_path / "whole"))
    chance, real = random.Random(0), time.time
    monkeypatch.setattr(time, "time", lambda: real() + chance.uniform(-30, 30) * 86400)
    plan = plan_of(text, tmp_path / "jumping")
    run_cells(plan, plan.cells, Silent())
    monkeypatch.undo()
    whole, jumping = (
        [lasting(r) for r in read_records(tmp_path / name / "records" / "tiny")]
        for name in ("whole", "jumping")
    )
    assert jumping == whole
