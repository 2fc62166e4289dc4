"""The command line, as a person uses it."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from suites import SMALL

from benchbench.benchmarks.data_reading import compare_data
from benchbench.benchmarks.linear_readout import compare_readout
from benchbench.cli import main
from benchbench.training.device import Machine


@pytest.fixture
def run(tmp_path):
    """Runs a command in this process; returns its status, standard output and error."""
    (tmp_path / "small.toml").write_text(SMALL)

    def invoke(*words: str):
        text = [word.replace("SUITE", str(tmp_path / "small.toml")) for word in words]
        if words[0] in ("run", "status", "leaderboard", "diagnose"):
            text += ["--store", str(tmp_path / "store")]
        result = CliRunner().invoke(main, text)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return invoke


def test_run_trains_prints_the_board_and_does_nothing_twice(run):
    status, out, err = run("run", "SUITE", "--dry-run")
    assert status == 0
    assert "simclr · scans > photos · seed 0: to run" in out
    assert "0 cached, 2 to run, 0 cannot; 2 stages to train, about" in out

    status, out, err = run("run", "SUITE")
    assert status == 0
    assert out.startswith("| method") and "| erm " in out
    assert "1/2 simclr · scans > photos · seed 0: target" in err

    status, again, err = run("run", "SUITE")
    assert (status, again) == (0, out)
    assert "0 to run" in err and "1/2" not in err

    assert "cached" in run("run", "SUITE", "--dry-run")[1]
    assert run("status", "SUITE")[1].strip() == "small: 2 cells: 2 scored"
    assert run("leaderboard", "SUITE")[1] == out
    assert json.loads(run("leaderboard", "SUITE", "--format", "json")[1])[0]["method"]


def test_features_are_diagnosed_from_records_and_from_the_store(run, tmp_path):
    run("run", "SUITE")
    status, out, err = run("diagnose", "features", "SUITE")
    assert (status, err) == (0, "")
    assert "| simclr " in out and "| erm " in out and "* *a_distance*: proxy A-distance" in out
    board = run("leaderboard", "SUITE", "--columns", "domain_accuracy,effective_rank")[1]
    assert "effective_rank |" in board and "* *effective_rank*: " in board
    status, only, _ = run("diagnose", "features", "SUITE", "--only", "method=erm")
    assert "| simclr " not in only and "| erm " in only

    records = sorted((tmp_path / "store" / "records" / "small").glob("*.json"))
    for path in records:  # as older versions left them
        fields = json.loads(path.read_text())
        del fields["diagnostics"], fields["cost"]["diagnose_seconds"], fields["sha256"]
        path.write_text(json.dumps(fields))
    old = [path.read_text() for path in records]
    status, again, err = run("diagnose", "features", "SUITE")
    assert (status, again) == (0, out)
    assert "2 of 2 records have no diagnostics; they were computed from stored features" in err
    assert [path.read_text() for path in records] == old, "a record is never rewritten"

    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "suite.toml").write_text(SMALL)
    (tmp_path / "store" / "records" / "small").rename(folder / "records")
    status, bare, err = run("diagnose", "features", str(folder), "--format", "csv")
    assert status == 0 and err == "2 of 2 records have no diagnostics\n"
    assert bare.count("\n") == 3


def test_a_cell_without_features_in_the_store_is_told(run, tmp_path):
    run("run", "SUITE", "--only", "method=erm")
    (path,) = (tmp_path / "store" / "records" / "small").glob("*.json")
    fields = json.loads(path.read_text()) | {"diagnostics": None}
    del fields["sha256"]
    path.write_text(json.dumps(fields))
    for kept in (tmp_path / "store" / "features").iterdir():
        kept.unlink()
    status, out, err = run("diagnose", "features", "SUITE")
    assert status == 0 and "| erm " in out
    assert "erm · scans > photos · seed 0: neither diagnostics nor features are in the store" in err


def test_only_runs_some_cells_and_the_board_shows_the_rest_as_missing(run):
    status, out, err = run("run", "SUITE", "--only", "method=erm")
    assert status == 0 and "1 missing" in out and "1 cells, 1 to run" in err
    assert run("status", "SUITE")[1].strip() == "small: 2 cells: 1 scored, 1 to run"
    assert run("run", "SUITE", "--only", "method=x")[0] == 2


@pytest.mark.parametrize(
    "words",
    [
        ("run", "no-such-suite"),
        ("run", "SUITE", "--device", "cuda:99"),
        ("run", "SUITE", "--only", "colour=red"),
        ("leaderboard", "no-such-folder"),
        ("leaderboard", "SUITE", "--columns", "domain_acuracy"),
        ("diagnose", "features", "no-such-suite"),
        ("diagnose", "features", "SUITE"),  # nothing is scored yet
        ("bench", "resnet19@32"),
        ("list", "objectivs"),
        ("run",),
    ],
)
def test_bad_input_is_one_sentence_and_status_two(run, words):
    status, out, err = run(*words)
    assert (status, out) == (2, "")
    assert "Traceback" not in err and err.strip()


def test_a_cell_that_cannot_run_is_told_by_dry_run(run, tmp_path):
    path = tmp_path / "wide.toml"
    path.write_text(SMALL.replace("batch_size = 16", "batch_size = 4000"))
    status, out, err = run("run", str(path), "--dry-run")
    assert status == 2
    assert "cannot run, because batch_size = 4000 takes 2000 rows of domain 'scans'" in out


def test_list_shows_what_there_is(run):
    status, out, _ = run("list")
    assert status == 0
    assert "simclr(width=128, temperature=0.2)" in out and "digits(" in out
    assert "digits(" not in run("list", "objectives")[1]
    suites = run("list", "suites")[1].split()
    assert suites[0] == "suites" and {"digits", "quickstart", "u-wilds/camelyon17"} < {*suites}
    assert suites[1:] == json.loads(run("list", "suites", "--json")[1])["suites"]
    assert "u-wilds/camelyon17" in out and "u-wilds/common" not in out
    offers = json.loads(run("list", "encoders", "--json")[1])
    assert {offer["name"] for offer in offers["offers"]} == {
        "hugging_face",
        "small_cnn",
        "timm",
        "transformer",
    }
    assert offers["set_aside"] == [] and offers["api"] == "1.0"


def test_sysinfo_names_versions_and_no_host_or_user(run):
    status, out, _ = run("sysinfo")
    assert status == 0 and "torch" in out
    for secret in (os.uname().nodename, str(Path.home())):
        assert secret not in out
    assert json.loads(run("sysinfo", "--json")[1])["plugins"]


def test_bench_prints_a_ratio_to_the_floor(run):
    words = ("bench", "small_cnn@32", "--batch-size", "16", "--rounds", "1", "--steps", "2")
    status, out, _ = run(*words, "--json")
    report = json.loads(out)
    assert status == 0
    assert 0 < report["gather"] < report["step"] and 0 < report["views"] < report["step"]
    assert report["ratio_range"] == [report["ratio"]] * 2 == [report["step"] / report["floor"]] * 2


def test_an_interrupt_stops_cleanly_and_says_how_to_go_on(tmp_path):
    path = tmp_path / "long.toml"
    path.write_text(SMALL.replace("steps = 3", "steps = 100000"))
    command = [sys.executable, "-m", "benchbench", "run", str(path), "--store", str(tmp_path / "s")]
    child = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert "to run on" in child.stderr.readline()
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=60)
    finally:
        child.kill()
    assert child.returncode == 130
    assert "Stopped. What was finished is kept; go on with: benchbench run" in err
    assert "Traceback" not in err


def test_bench_compares_every_objective_with_simclr(run):
    words = ("objectives:small_cnn@32", "--batch-size", "8", "--rounds", "1", "--steps", "2")
    status, out, _ = run("bench", *words)
    assert status == 0
    rows = {line.split("|")[1].strip(): line for line in out.splitlines() if line.startswith("|")}
    assert {"erm", "swav", "vada"} <= rows.keys()
    assert float(rows["simclr"].split("|")[4]) > 0
    assert "mae: mae is for timm's vision transformers" in out
    status, _, err = run("bench", "objectives:small_cnn@23")
    assert status == 2 and "did you mean 'objectives:small_cnn@32'" in err


def test_bench_compares_the_readout_with_scikit_learn():
    figures = compare_readout(rows=300, width=12, classes=4, penalties=5)
    assert figures["penalties_above_scikit_learn"] == 0
    assert figures["largest_excess"] <= 1e-9
    assert figures["equal_predictions"] >= 0.99
    assert figures["ratio"] == figures["seconds"] / figures["scikit_learn_seconds"]


def test_bench_measures_preparing_fetching_and_opening(catalog):
    machine = Machine.choose("cpu", "fp32")
    figures = compare_data(catalog, machine, photographs=4, rounds=1, batch_size=8, rows=1000)
    assert figures["rows"] == 1000 and figures["open_peak_growth_mb"] < 100
    assert all(figures[name] > 0 for name in figures if name.endswith(("seconds", "_to_step")))
