"""Boards as folders, and two methods compared."""

import csv
import io
import json
import os
import shutil
from dataclasses import replace
from statistics import mean

import numpy as np
import pytest
from audiences import Silent
from click.testing import CliRunner
from scipy import stats
from tiny import SUITE, make_plan

import benchbench.leaderboard.publishing as publishing
from benchbench.cli import main
from benchbench.execution.local import run_cells
from benchbench.extension.errors import BadInput
from benchbench.leaderboard.board_folder import of_folder
from benchbench.leaderboard.comparison import compared, lines_of
from benchbench.leaderboard.publishing import (
    BELOW,
    board_of_plan,
    differences,
    generated,
    of_plan,
    publish,
    regenerate,
    thinned,
)
from benchbench.leaderboard.table import board
from benchbench.leaderboard.table_formats import as_json, markdown
from benchbench.store.artifacts import Store
from benchbench.suites.suite import chosen

SEEDED = SUITE.replace("seeds = [0]", "seeds = [0, 1, 2]") + (
    '[[method]]\nchain = "erm"\nreadout = "head"\nsees = "source"\n'
)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ran")
    plan = make_plan(SEEDED, folder / "store", folder)
    run_cells(plan, plan.cells, Silent())
    return plan


@pytest.fixture
def folder(ran, tmp_path):
    publish(ran, SEEDED, tmp_path / "board")
    return tmp_path / "board"


def test_a_published_folder_says_what_the_store_says(ran, folder):
    there, here = board(of_folder(folder)), board(of_plan(ran))
    assert as_json(there) == as_json(here)
    assert [row.method for row in there.ranked] == [row.method for row in here.ranked]
    assert len(there.ranked) == 2 and all(row.interval for row in there.rows)
    assert there.source.curves and all(len(c) == 6 for c in there.source.curves.values())


def test_a_board_is_made_again_as_soon_as_anything_is_another(ran, tmp_path, monkeypatch):
    def told(plan, *how, **named):
        return board_of_plan(plan, plan.state(), *how, **named)

    made, folder = [], tmp_path / "store"
    shutil.copytree(ran.store.root, folder)
    plan = replace(ran, store=Store(folder))
    monkeypatch.setattr(publishing, "checked_board", lambda *of: made.append(of) or board(*of))
    text = markdown(board(of_plan(plan)))
    assert told(plan) == told(plan) == text and len(made) == 2  # too new
    for path in plan.store.records("tiny").iterdir():
        os.utime(path, (path.stat().st_mtime - 3600,) * 2)
    made.clear()
    for _ in range(3):
        assert told(plan) == text
    assert len(made) == 1
    assert told(plan, "csv") != text and len(made) == 2
    assert "effective_rank" in told(plan, columns=("effective_rank",)) and len(made) == 3
    told(plan, rule="last")
    other = replace(plan, suite=plan.suite.model_copy(update={"baseline": "erm"}))
    assert told(other) != text and len(made) == 5
    monkeypatch.setattr(publishing, "source_digest", lambda name: "other code")
    assert told(plan) == text and len(made) == 6
    next(plan.store.records("tiny").glob("erm*--1--*.json")).unlink()
    assert "missing" in told(plan) and len(made) == 7


def test_all_that_is_generated_is_a_function_of_the_other_files(folder, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    for name in generated(folder):
        (copy / name).unlink()
    regenerate(copy)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (copy / path.relative_to(folder)).read_bytes(), path.name


def test_means_of_a_folder_are_those_of_its_records_read_as_json(folder):
    told = {}
    for path in (folder / "records").glob("*.json"):
        record = json.loads(path.read_text())
        (right,) = [s["value"] for s in record["scores"] if s["role"] == "target"]
        told.setdefault(record["method"], []).append(100 * right)
    assert {len(values) for values in told.values()} == {3} and len(told) == 2
    rows = list(csv.DictReader(io.StringIO((folder / "board.csv").read_text())))
    assert {r["method"]: float(r["left > right mean"]) for r in rows} == {
        name: pytest.approx(mean(values)) for name, values in told.items()
    }
    for name in ("README.md", "board.tex", "site/index.html"):
        text = (folder / name).read_text()
        assert all(f"{mean(values):.1f}" in text for values in told.values()), name


def test_words_above_the_mark_are_kept(folder):
    readme = folder / "README.md"
    text = readme.read_text()
    assert text.startswith("# tiny\n\n" + BELOW)
    readme.write_text("Mine.\n\n" + text.partition("\n\n")[2])
    regenerate(folder)
    assert readme.read_text() == "Mine.\n\n" + text.partition("\n\n")[2]


def test_publishing_again_renews_its_own_records_and_keeps_what_others_sent(ran, folder):
    path = next((folder / "records").glob("simclr*.json"))
    record = json.loads(path.read_text())
    del record["sha256"]
    for method in ("sent", "gone"):
        (folder / "records" / f"{method}.json").write_text(json.dumps({**record, "method": method}))
    (folder / "levels.json").write_text(json.dumps({"sent": {"level": "consistent"}}))
    publish(ran, SEEDED, folder)
    kept = {path.name for path in (folder / "records").glob("*.json")}
    assert "sent.json" in kept and "gone.json" not in kept
    rows = {row.method: row for row in board(of_folder(folder)).rows}
    assert rows["sent"].level.level == "consistent" and rows["sent"].unranked == "missing"


def test_a_folder_of_another_suite_is_left_alone(ran, folder):
    (folder / "suite.toml").write_text(SEEDED.replace("steps = 6", "steps = 7"))
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(BadInput, match="another suite"):
        publish(ran, SEEDED, folder)
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_suite_that_extends_a_file_has_to_be_put_there(ran, tmp_path):
    with pytest.raises(BadInput, match="extends a file"):
        publish(ran, 'extends = "elsewhere.toml"\nname = "tiny"', tmp_path / "board")
    assert not list((tmp_path / "board").rglob("*.json"))


def test_a_store_without_records_publishes_nothing(ran, tmp_path):
    empty = make_plan(SEEDED, tmp_path / "store", tmp_path)
    with pytest.raises(BadInput, match="nothing of suite tiny was run yet"):
        publish(empty, SEEDED, tmp_path / "board")
    assert not (tmp_path / "board").exists()


def test_other_settings_make_a_record_stale_until_it_is_run_again(ran, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(ran.store.root, store)
    changed = make_plan(SEEDED.replace("lr = 0.01", "lr = 0.02"), store, tmp_path)
    source = of_plan(changed)
    assert len(source.stale) == 6 and set(source.stale.values()) == {"other settings"}
    made = board(source)
    assert not made.ranked
    assert all(row.unranked == "stale" and row.entries["left > right"].values for row in made.rows)
    assert "3 stale" in markdown(made) and "--only stale" in markdown(made)
    stale = chosen(changed.cells, "stale, method=erm", changed.older_records)
    assert [cell.method.name for cell in stale] == ["erm"] * 3
    run_cells(changed, stale, Silent())
    again = board(of_plan(changed))
    assert [row.method for row in again.ranked] == ["erm"]
    assert chosen(changed.cells, "method=erm,stale", changed.older_records) == []


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"protocol": "uda/0"}, "protocol uda/0"),
        ({"data": {"fingerprint": "f" * 64}}, "other data"),
        ({"digest": "0" * 64}, "other code of plugin benchbench_contrastive"),
        ({}, "other versions of torch or timm, or other snapshots"),
    ],
)
def test_a_stale_record_says_why(ran, change, why):
    from benchbench.execution.cell import describe

    cell = ran.cells[0]
    today = describe(cell, ran)
    update = dict(change)
    if "data" in update:
        update["data"] = today.data.model_copy(update=update["data"])
    if digest := update.pop("digest", None):
        update["plugins"] = tuple(
            p.model_copy(update={"digest": digest}) if p.name == "benchbench_contrastive" else p
            for p in today.plugins
        )
    assert differences(today.model_copy(update=update), today) == [why]


def test_a_comparison_over_seeds_alone_is_the_paired_t_test(ran):
    source = replace(of_plan(ran), truth=None)
    (line, whole) = lines_of(source, "simclr", "erm")
    told = stats.ttest_rel(*(entry.values for entry in line.entries))
    assert line.comparison.p == pytest.approx(told.pvalue)
    assert line.comparison.difference == pytest.approx(
        mean(line.entries[0].values) - mean(line.entries[1].values)
    )
    assert whole.comparison == line.comparison
    text = compared(source, "simclr", "erm", as_json=False)
    assert "| all" in text
    verdict = "cannot be told apart" if whole.comparison.p > 0.05 else "is better than"
    assert verdict in text
    fields = json.loads(compared(source, "simclr", "erm", as_json=True))
    assert [line["shift"] for line in fields] == ["left > right", "all"]
    assert fields[0]["p"] == pytest.approx(told.pvalue)


def test_a_comparison_names_methods_that_are_there(ran):
    with pytest.raises(BadInput, match="has no method 'simcl'; did you mean 'simclr'"):
        compared(of_plan(ran), "simcl", "erm", as_json=False)
    with pytest.raises(BadInput, match="compared with itself"):
        compared(of_plan(ran), "erm", "erm", as_json=False)


def test_curves_are_thinned_by_means():
    losses = np.random.default_rng(0).normal(size=1000).tolist()
    assert mean(thinned(losses)) == pytest.approx(mean(losses), abs=1e-2)
    assert len(thinned(losses)) == 64 and thinned([1.0, 2.0]) == [1.0, 2.0] and thinned([]) == []


def tree(folder):
    """What is there: the bytes of files, None for folders."""
    return {p: p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("board.csv", "board.csv is a folder, where a file belongs; nothing was written"),
        ("site", "cannot be written: (File exists|Not a directory)"),
        ("records", "cannot be written: (File exists|Not a directory)|it has no records"),
    ],
)
def test_where_a_file_has_no_place_nothing_is_written(ran, folder, name, sentence, again):
    shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()
    (folder / name).mkdir() if "." in name else (folder / name).write_text("")
    (folder / "board.json").write_text("of another day")
    before = tree(folder)
    with pytest.raises(BadInput, match=sentence):
        publish(ran, SEEDED, folder) if not again else regenerate(folder)
    assert tree(folder.parent) == {folder: None, **before}


def test_what_goes_wrong_in_the_middle_leaves_the_board_of_before(ran, folder, monkeypatch):
    """A disk that is full from any of the calls that write on, or a page that cannot be made."""
    (folder / "board.json").write_text("of another day")
    before, writes = tree(folder), []
    really = publishing.place

    def place(path, content):
        if len(writes) == limit:
            raise OSError(28, "No space left on device")
        writes.append(path)
        really(path, content)

    monkeypatch.setattr(publishing, "place", place)
    for limit in (0, 3, 14, 18, 22):
        writes.clear()
        with pytest.raises(BadInput, match=r"^board .*board cannot be written: No space left"):
            publish(ran, SEEDED, folder)
        assert len(writes) == limit and tree(folder.parent) == {folder: None, **before}
    with pytest.raises(BadInput, match="No space left"):
        publish(ran, SEEDED, folder.parent / "new")
    assert tree(folder.parent) == {folder: None, **before}, "not even a folder"
    limit = -1
    publish(ran, SEEDED, folder)
    assert (folder / "board.json").read_text() == as_json(board(of_folder(folder)))


DAMAGES = {
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "a bit flipped": lambda p: p.write_bytes(p.read_bytes()[:-1] + bytes([p.read_bytes()[-1] ^ 1])),
    "empty": lambda path: path.write_bytes(b""),
    "of another record": lambda path: shutil.copy(
        next(other for other in path.parent.glob("erm*.safetensors") if other != path), path
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_predictions_are_named_by_all_that_would_use_them(ran, folder, tmp_path, damage):
    store = tmp_path / "store"
    shutil.copytree(ran.store.root, store)
    plan = replace(ran, store=Store(store))
    for path in plan.store.records("tiny").iterdir():
        os.utime(path, (path.stat().st_mtime - 3600,) * 2)
    board_of_plan(plan, plan.state())  # is told again while nothing changes
    before = tree(folder)
    (path,) = plan.store.records("tiny").glob("simclr*--1--*.safetensors")
    DAMAGES[damage](path)
    named = f"{path.name} holds other predictions than its record says"
    with pytest.raises(BadInput, match=named):
        board_of_plan(plan, plan.state())
    with pytest.raises(BadInput, match=f"^{path.parent}/{named}; nothing was written"):
        publish(plan, SEEDED, folder)
    assert tree(folder) == before
    shutil.copy(path, folder / "records" / path.name)
    before = tree(folder)
    for words in (["leaderboard", folder], ["compare", folder, "simclr", "erm"]):
        done = CliRunner().invoke(main, [*map(str, words)])
        assert (done.exit_code, done.stdout) == (2, "") and named in done.stderr
    with pytest.raises(BadInput, match=f"^{folder}/records/{named}; nothing was written"):
        regenerate(folder)
    assert tree(folder) == before
    publish(ran, SEEDED, folder)  # whose own are whole puts that right
    assert board(of_folder(folder)).by_row


def test_damaged_predictions_that_no_row_needs_are_named(ran, folder, tmp_path):
    """Those of a method whose other seed is missing."""
    store = tmp_path / "store"
    shutil.copytree(ran.store.root, store)
    plan = replace(ran, store=Store(store))
    for records in (plan.store.records("tiny"), folder / "records"):
        for path in records.glob("simclr*--0--*"):
            path.unlink()
        (path,) = records.glob("simclr*--1--*.safetensors")
        DAMAGES["cut off"](path)
    named = "holds other predictions than its record says"
    with pytest.raises(BadInput, match=named):
        board_of_plan(plan, plan.state())
    done = CliRunner().invoke(main, ["leaderboard", str(folder)])
    assert (done.exit_code, done.stdout) == (2, "") and named in done.stderr


@pytest.mark.parametrize(
    "name",
    ["levels.json", "stale.json", "curves.json", "connectivity.json", "reported.toml",
     "truth.safetensors", "suite.toml"],
)  # fmt: skip
@pytest.mark.parametrize("content", [b"", b"{", b"[3]", b'{"a": 1e999}', b"\xff\xfe"])
def test_a_damaged_file_of_a_board_is_named(folder, name, content):
    path = folder / name
    path.write_bytes(content)
    before = tree(folder)
    if content == b"" and name == "reported.toml":
        return  # of no paper
    for words in (["leaderboard", folder], ["compare", folder, "simclr", "erm"],
                  ["publish", folder]):  # fmt: skip
        done = CliRunner().invoke(main, [*map(str, words)])
        assert isinstance(done.exception, SystemExit), done.exception
        assert (done.exit_code, done.stdout) == (2, "")
        assert done.stderr.count("\n") == 1 and str(path) in done.stderr, done.stderr
    assert tree(folder) == before
