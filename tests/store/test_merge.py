"""Stores that share no folder."""

import os
import tarfile
from pathlib import Path

import pytest
from audiences import Count, lasting, run_all
from click.testing import CliRunner
from suites import METHODS
from tiny import SUITE, Text

from benchbench.cli import main
from benchbench.execution.cell import describe
from benchbench.execution.local import run_cells
from benchbench.extension.errors import BadInput
from benchbench.store.artifacts import Store
from benchbench.store.merge import Taken, everything, export_files, import_store
from benchbench.store.records import read_records
from benchbench.suites.suite import chosen


def export(store, archive, *, records_only):
    export_files(store, archive, everything(store, records_only=records_only))


def test_two_machines_do_a_half_each_and_one_gathers_both(plan_of, tmp_path):
    run_all(plan_of(METHODS, tmp_path / "whole"))
    for number, shift in enumerate(("left > right", "right > left")):
        plan = plan_of(METHODS, tmp_path / f"part-{number}")
        run_cells(plan, chosen(plan.cells, f"shift={shift}"), Count())
        export(plan.store, tmp_path / f"{number}.tar", records_only=False)
    gathered = Store(tmp_path / "gathered")
    first, second = (import_store(gathered, tmp_path / f"{n}.tar") for n in range(2))
    assert (first.records, first.known, second.records) == (6, 0, 6)
    assert second.known == 3, "simclr of both ways is one; erm here is the ceiling there, twice"
    assert not first.refused + second.refused
    rest = run_all(plan_of(METHODS, tmp_path / "gathered"))
    assert {record.shift for record in rest.records} == {"left > odd"}
    assert sorted(rest.stages) == ["dann", "erm", "finetune", "simclr"]
    whole, again = (
        {r.file_name: lasting(r) for r in read_records(tmp_path / name / "records" / "tiny")}
        for name in ("whole", "gathered")
    )
    assert whole == again
    export(gathered, tmp_path / "a.tar", records_only=True)
    export(gathered, tmp_path / "b.tar", records_only=True)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    assert import_store(Store(tmp_path / "few"), tmp_path / "a.tar").stages == 0


def test_what_is_damaged_or_strange_is_left_out_and_told(plan_of, tmp_path):
    plan = plan_of(METHODS)
    run_cells(plan, plan.cells[3:5], Count())
    store, archive = plan.store, tmp_path / "x.tar"
    stage, *_ = (store.root / "stages").glob("*.safetensors")
    stage.write_bytes(stage.read_bytes()[:-9] + b"123456789")
    record, other = sorted(store.records("tiny").glob("*.json"))
    record.write_text(Text(record.read_text()).replace('"seed', '"sead'))
    predictions = other.with_suffix(".safetensors")
    predictions.write_bytes(predictions.read_bytes()[:-1] + b"!")
    export(store, archive, records_only=False)
    with tarfile.open(archive, "a") as tar:
        for name in ("../out.json", "stages/../../out.json"):
            tar.add(Path(__file__), name)
    words = ["store", "import", str(archive), "--store", str(tmp_path / "new")]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 1
    for words in (f"{stage.name} is damaged", "is no record", "has other predictions than it says",
                  "../out.json is nothing that"):  # fmt: skip
        assert words in result.stderr
    assert "0 records and 0 stages are new" in result.stdout
    assert not list(tmp_path.rglob("out.json"))
    assert not [p for p in (tmp_path / "new").rglob("*") if p.is_file()]


def test_what_is_no_archive_is_told(tmp_path):
    (tmp_path / "x.tar").write_text("words")
    with pytest.raises(BadInput, match="cannot be read as an archive of a store"):
        import_store(Store(tmp_path / "new"), tmp_path / "x.tar")
    with pytest.raises(BadInput, match="has nothing to export"):
        export(Store(tmp_path / "new"), tmp_path / "y.tar", records_only=False)
    assert not (tmp_path / "y.tar").exists()


def test_a_record_without_a_score_replaces_nothing(plan_of, tmp_path):
    """Of one cell there is a scored record here, a failed one there, and a later failed one."""
    plan, archive = plan_of(SUITE), tmp_path / "x.tar"
    (cell,) = plan.cells
    for number, reason in enumerate(("a first reason", "a second reason")):
        failed = Store(tmp_path / f"failed-{number}")
        failed.write_record(describe(cell, plan, "failed", reason))
        export(failed, tmp_path / f"{number}.tar", records_only=True)
    run_cells(plan, [cell], Count())
    export(plan.store, archive, records_only=True)
    scored = plan.record(cell)
    assert scored.status == "scored"
    assert import_store(plan.store, tmp_path / "0.tar") == Taken(known=1)
    assert plan.record(cell) == scored
    other = Store(tmp_path / "other")
    stem = plan.stem(cell)
    assert import_store(other, tmp_path / "0.tar").records == 1
    assert import_store(other, tmp_path / "1.tar") == Taken(known=1)
    assert other.record("tiny", stem).reason == "a first reason"
    assert import_store(other, archive).records == 1
    assert other.record("tiny", stem) == scored, "a score takes the place of a failure"
    assert import_store(other, archive) == Taken(known=1)


def test_a_record_under_the_name_of_another_is_left_out(plan_of, tmp_path):
    """Of another suite by its folder, and of another cell by its name."""
    plan = plan_of(SUITE)
    (cell,) = plan.cells
    plan.store.write_record(describe(cell, plan, "failed", "a reason"))
    (path,) = plan.store.records("tiny").glob("*.json")
    digits = path.stem[-12:]
    for place in (
        plan.store.records("other") / path.name,
        path.with_name(path.name.replace(digits, digits[::-1])),
    ):
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(path.read_bytes())
    export(plan.store, tmp_path / "a.tar", records_only=True)
    taken = import_store(Store(tmp_path / "new"), tmp_path / "a.tar")
    assert taken.records == 1 and len(taken.refused) == 2
    assert all(text.endswith("is a record of something else") for text in taken.refused)


def test_an_archive_names_no_time_and_no_user(plan_of, tmp_path):
    plan = plan_of(SUITE)
    run_cells(plan, plan.cells, Count())
    export(plan.store, tmp_path / "a.tar", records_only=False)
    for path in everything(plan.store, records_only=False):
        os.utime(path, (1, 1))
        path.chmod(0o600)
    export(plan.store, tmp_path / "b.tar", records_only=False)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as tar:
        facts = {(m.uid, m.gid, m.uname, m.gname, m.mtime, m.mode) for m in tar}
    assert facts == {(0, 0, "", "", 0, 0o644)}
    other = Store(tmp_path / "other")
    assert import_store(other, tmp_path / "a.tar") == Taken(records=1, stages=1)
    assert import_store(other, tmp_path / "a.tar") == Taken(known=2)
