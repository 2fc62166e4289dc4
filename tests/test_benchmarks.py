"""What `benchbench bench` says. No test asserts how fast anything is."""

import json
from dataclasses import replace
from itertools import count
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner

from benchbench.benchmarks import peer_packages
from benchbench.benchmarks.launch_overhead import compare_launch
from benchbench.benchmarks.long_run import Diary
from benchbench.benchmarks.paired_rounds import ratio, side_by_side
from benchbench.benchmarks.peer_packages import Job, accuracy_of, compare_accuracy, compare_peers
from benchbench.benchmarks.simclr_pipelines import PIPELINES
from benchbench.benchmarks.store_throughput import compare_store
from benchbench.benchmarks.training_step import PARTS, Laps, measure
from benchbench.cli import main
from benchbench.data.pack import in_memory
from benchbench.evaluation.features import extract
from benchbench.extension.catalog import Wanted
from benchbench.extension.constants import TEST
from benchbench.training.device import Machine

MACHINE = Machine.choose("cpu", "fp32")
LOSS = torch.zeros(())


def told(*words: str) -> dict:
    result = CliRunner().invoke(main, ["bench", *words, "--json"], catch_exceptions=False)
    assert result.exit_code == 0
    return json.loads(result.stdout)


@pytest.fixture
def job(catalog) -> Job:
    """Twelve rows a step of a dataset that is made in no time."""
    made = Job.make(catalog, MACHINE, "small_cnn@32", 12, rows=24, steps=2)
    return replace(made, dataset=catalog.resolve("dataset", "tiny"))


def test_every_part_of_a_step_takes_some_time(catalog):
    report = measure(catalog, MACHINE, "small_cnn@32", 64, rounds=1, steps=12)
    parts = [getattr(report, part) for part in PARTS]
    assert min(parts) > 0 and report.step > 0


def test_the_parts_of_a_step_make_it_up(monkeypatch):
    """By a clock of our own: what is between two laps belongs to the second."""
    clock = map(float, [0, 1, 3, 6, 10, 15])
    monkeypatch.setattr("benchbench.benchmarks.training_step.now", lambda machine: next(clock))
    laps = Laps(MACHINE)
    for part in ("gather", "views", "forward", "gather", "views", "forward"):
        laps(part)
    told = {part: spans for part, spans in laps.spans.items() if spans}
    assert told == {"views": [1, 4], "forward": [2, 5], "gather": [3]}


def test_a_lap_after_a_pause_is_not_counted(monkeypatch):
    clock = map(float, [0, 1, 3, 100, 104])
    monkeypatch.setattr("benchbench.benchmarks.training_step.now", lambda machine: next(clock))
    laps = Laps(MACHINE)
    for part in ("gather", "views", "forward"):
        laps(part)
    laps.pause()
    for part in ("gather", "views"):
        laps(part)
    assert {part: spans for part, spans in laps.spans.items() if spans} == {
        "views": [1, 4],
        "forward": [2],
    }


def test_floor_and_step_are_compiled_alike(catalog, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda run, dynamic: compiled.append(run) or run)
    for wanted in (False, True):
        machine = replace(MACHINE, compiled=wanted)
        report = measure(catalog, machine, "small_cnn@32", 8, rounds=1, steps=2)
        assert report.compiled == wanted
    floor, warm_up, step = compiled
    assert floor.__self__ is warm_up.__self__ is step.__self__


def test_a_round_runs_everything_once_in_turn():
    numbers = count(1)
    rounds = side_by_side(2, {"one": lambda: next(numbers), "other": lambda: next(numbers)})
    assert rounds == {"one": [1, 3], "other": [2, 4]}
    assert ratio("r", rounds["other"], rounds["one"]) == {
        "r": (2 + 4 / 3) / 2,
        "r_lowest": 4 / 3,
        "r_highest": 2,
    }


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")  # workers are forked
@pytest.mark.parametrize("name", [name for name in PIPELINES if name != "floor"])
def test_every_pipeline_trains_the_encoder_it_is_given(name, job):
    if why := peer_packages.missing(name):
        pytest.skip(why)
    pack = in_memory(job.dataset.build(None))
    setting = job.setting(pack, pack.domain_names[:2], steps=5, seed=0)
    encoder, _ = setting.networks
    before = [parameter.clone() for parameter in encoder.parameters()]
    ticks = []
    trained = PIPELINES[name](setting, lambda: ticks.append(True))
    assert len(ticks) == 5
    assert not any(torch.equal(*pair) for pair in zip(before, encoder.parameters(), strict=True))
    z = extract(trained, pack.inputs, torch.arange(4), torch.device("cpu"))
    assert z.shape == (4, encoder.num_features)


def test_a_peer_that_is_not_installed_is_named_in_a_sentence(catalog, monkeypatch):
    monkeypatch.setattr(peer_packages, "find_spec", lambda name: name != "kornia" or None)
    names = ("floor", "benchbench", "kornia")
    report = compare_peers(
        catalog, MACHINE, "small_cnn@32", 8, rounds=1, steps=2, rows=32, names=names
    )
    assert report["left_out"] == {
        "kornia": 'kornia is not installed: pip install "benchbench-shift[peers]"'
    }
    floor, ours = report["pipelines"].values()
    assert ours["ratio"] == 1
    assert report["step_to_floor"] == pytest.approx(ours["epoch_seconds"] / floor["epoch_seconds"])
    assert ours["epoch_seconds"] == pytest.approx(32 / ours["images_per_second"])
    json.dumps(report)


def test_a_process_that_ends_is_told_by_name(job):
    with (
        peer_packages.process("benchbench", job) as ask,
        pytest.raises(RuntimeError, match="of benchb"),
    ):
        ask("no such question")


def test_accuracy_is_that_of_seeds_with_an_untrained_encoder_beside_it():
    asks = {
        "benchbench": lambda what, epochs, seed: epochs + seed / 10,
        "lightly": lambda what, epochs, seed: 5.0,
    }
    found = compare_accuracy(asks, epochs=2, seeds=3)
    assert found["benchbench"] == {
        "epochs": 2,
        "mean": pytest.approx(2.1),
        "sd": pytest.approx(0.1),
        "values": [2.0, 2.1, 2.2],
    }
    assert (found["lightly"]["mean"], found["lightly"]["sd"]) == (5, 0)
    assert found["untrained"]["values"] == [0.0, 0.1, 0.2]


@pytest.mark.parametrize(("epochs", "turned", "right"), [(0, False, 1), (2, True, 0)])
def test_accuracy_is_of_test_rows_that_nothing_was_fitted_to(job, epochs, turned, right):
    data = job.dataset.build(None)  # so easy that every test row is right
    if turned:
        wrong = (data.labels + 1) % len(data.class_names)
        data = replace(data, labels=torch.where(data.split == TEST, wrong, data.labels))
    job = replace(job, dataset=SimpleNamespace(build=lambda root: data))
    assert accuracy_of("benchbench", job, epochs, seed=0) == right


@pytest.mark.parametrize("leak", [0.0, 0.5])
def test_a_steady_run_tells_growth_pace_and_slow_steps(leak):
    spans = [0.01] * 100
    spans[50], spans[90:] = 0.05, [0.02] * 10
    clock = iter(torch.tensor(spans).double().cumsum(0).tolist())
    done = count(1)
    memory = []
    diary = Diary(100, lambda: memory[-1], lambda: next(clock))
    for step in range(1, 101):
        memory.append(300 + leak * next(done))
        diary(step, LOSS)
    report = diary.told()
    assert report["growth_mb"] == pytest.approx(95 * leak)
    assert report["memory_after_5_percent_mb"] == pytest.approx(300 + 5 * leak)
    assert report["step_ms"] == report["first_tenth_ms"] == pytest.approx(10)
    assert report["last_to_first"] == pytest.approx(2)
    assert report["slow_steps"] == 1
    assert report["slowest_to_median"] == pytest.approx(5)


def test_a_steady_run_is_told_as_json():
    report = told("steady:small_cnn@32", "--batch-size", "8", "--steps", "40")
    assert report["steps"] == 40
    assert report["memory_after_5_percent_mb"] > 50
    assert report["growth_mb"] == pytest.approx(
        report["memory_at_the_end_mb"] - report["memory_after_5_percent_mb"]
    )


def test_a_step_from_files_is_compared_with_one_from_memory():
    report = told("streams:small_cnn@32", "--batch-size", "8", "--rounds", "1", "--steps", "2")
    assert report["encoded_to_resident"] == report["encoded_ms"] / report["resident_ms"]
    assert "host_ms" not in report, "on the CPU the host's memory is the device's"


@pytest.mark.slow
def test_cells_that_are_launched_are_compared_with_those_of_one_process():
    figures = compare_launch(Wanted.here(), ("local", "local:1"))
    assert figures["local:1_over_local_ms"] == pytest.approx(
        figures["local:1_cell_ms"] - figures["local_cell_ms"]
    )
    assert figures["local_first_s"] > 0


def test_a_step_is_told_as_json_and_as_a_table():
    words = ("small_cnn@32", "--batch-size", "8", "--rounds", "1", "--steps", "2")
    report = told(*words)
    assert {"shape", "precision", "compiled", "floor", "step", "ratio_range", *PARTS} <= set(report)
    result = CliRunner().invoke(main, ["bench", *words])
    rows = {line.split("|")[1].strip() for line in result.stdout.splitlines() if "|" in line}
    assert {"floor", "step", *PARTS} <= rows


def test_the_store_is_compared_with_plain_files(catalog):
    figures = compare_store(catalog, 1, "small_cnn@32", records=3)
    for name in ("write", "read"):
        quotient = figures[f"{name}_ms"] / figures[f"plain_{name}_ms"]
        assert figures[f"{name}_to_plain"] == pytest.approx(quotient)
        assert figures[f"{name}_to_plain_lowest"] == figures[f"{name}_to_plain_highest"]
    assert figures["records"] == 3 and figures["record_ms"] > 0
    assert figures["mb"] > 0.1


def test_startup_is_compared_with_python_and_torch():
    figures = told("startup", "--rounds", "1")
    assert figures["help_to_python"] == figures["help_ms"] / figures["python_ms"]
    assert figures["list_to_import_torch"] == figures["list_ms"] / figures["import_torch_ms"]


@pytest.mark.parametrize(
    "what", ["peers:resnet19@32", "steady:small_cnn", "peers:", "floor:small_cnn@32", "stores"]
)
def test_an_unknown_measurement_is_refused_with_those_there_are(what):
    result = CliRunner().invoke(main, ["bench", what])
    assert result.exit_code == 2 and result.stdout == ""
    assert f"there is no measurement {what!r}" in result.stderr
    assert "peers:resnet18@32" in result.stderr and "startup" in result.stderr
