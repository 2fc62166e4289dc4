"""Diagnoses as functions: of data in memory they say what commands say of the same data by name."""

import json
import re
from html import unescape
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from benchbench import BadInput, api, domain_data
from benchbench.cli import main
from benchbench.diagnostics import accuracy_prediction, node_classifiers
from benchbench.diagnostics.connectivity_report import EVERY
from benchbench.extension.conformance.fixtures import bars

BOARDS = Path(__file__).parents[2] / "leaderboards"
PLUGIN = """
from benchbench import hookimpl
from benchbench.extension.conformance.fixtures import bars


def bars_by_name(root):
    return bars(40)


@hookimpl
def benchbench_datasets():
    return {"bars_by_name": bars_by_name}
"""
UNIQUE = ("dataset", "seconds", "suite")  # what two measurements of the same data may differ in


@pytest.fixture
def few(tmp_path) -> dict:
    """Arguments of a measurement that is quick, in a store of the test."""
    return {
        "encoder": "small_cnn(width=4)",
        "steps": 12,
        "device": "cpu",
        "store": tmp_path / "store",
        "progress": False,
    }


@pytest.fixture
def by_name(tmp_path):
    """Runs a command on the data by name, in another store; returns its standard output."""
    (tmp_path / "named.py").write_text(PLUGIN)

    def invoke(*words: str) -> str:
        more = ("--plugin", str(tmp_path / "named.py"), "--store", str(tmp_path / "other"),
                "--encoder", "small_cnn(width=4)", "--steps", "12", "--device", "cpu")  # fmt: skip
        result = CliRunner().invoke(main, [*words, *more], catch_exceptions=False)
        assert result.exit_code == 0, result.stderr
        return result.stdout

    return invoke


def same(told: object) -> object:
    """Without what depends on the clock, or on what the dataset is called."""
    if isinstance(told, dict):
        return {name: same(value) for name, value in told.items() if name not in UNIQUE}
    return [same(item) for item in told] if isinstance(told, list) else told


def never(*given, **more):
    raise AssertionError("something was trained")


def test_advice_on_data_in_memory_is_that_on_data_by_name(few, by_name, tmp_path):
    out = tmp_path / "named.html"
    words = ("advise", "bars_by_name", "--source", "left", "--augmentation", "noise")
    words += ("--labels", "given", "--target", "right")
    told = json.loads(by_name(*words, "--out", str(out), "--json"))
    asked = {"targets": "right", "augmentations": "noise", "labels": "given"}
    report = api.advise(bars(40), "left", **asked, **few)
    assert same(json.loads(report.to_json())) == same(told)
    (target,) = told["targets"]
    assert str(report).startswith(f"right: {target['verdict']}\n")
    framed = re.fullmatch(r'<iframe srcdoc="([^"]*)" [^>]*></iframe>', report._repr_html_())
    assert framed and unescape(framed[1]) == report.page
    assert report.page.split(report.advice.dataset) == out.read_text().split("bars_by_name")


def test_arrays_are_the_data_that_they_make(few):
    data = bars(40)
    names = [data.domain_names[number] for number in data.domains]
    given = (data.inputs.numpy(), data.labels.numpy(), names)
    one, other = (
        api.connectivity(dataset, shifts="left > right", augmentations="noise", **few).found[0]
        for dataset in (given, domain_data(*given))
    )
    assert same(one.model_dump()) == same(other.model_dump())
    assert {node.domain for node in one.nodes} == {"left", "right"}


def test_connectivity_under_a_function_is_that_under_its_name(few, by_name):
    words = ("diagnose", "connectivity", "bars_by_name", "--shift", "left > right", "--format")
    (named,) = EVERY.validate_json(by_name(*words, "json", "--augmentation", "none"))

    def alike(inputs):
        return inputs

    def other(inputs):
        return inputs.mean((2, 3), keepdim=True).expand_as(inputs)

    report = api.connectivity(
        bars(40), shifts=["left > right"], augmentations=[alike, [alike, other]], **few
    )
    mine, worse = report.found
    assert (mine.augmentation, worse.augmentation) == ("alike", "alike | other")
    for kind in ("alpha", "beta", "gamma", "log_ratios", "classes", "nodes", "fingerprint"):
        assert getattr(mine, kind) == getattr(named, kind)
    assert mine.beta.value < worse.beta.value, "nothing is left of the class"
    assert EVERY.validate_json(report.to_json()) == report.found
    assert str(report) == report._repr_markdown_() and str(report).count("left > right") == 2


def test_what_is_known_by_its_code_is_measured_once_and_what_is_not_leaves_nothing(
    few, tmp_path, monkeypatch, capsys
):
    def brighter(share):
        return lambda inputs: inputs.mul(share).clamp(0, 1)

    asked = {"shifts": ["left > right"], **few}
    first = api.connectivity(bars(40), augmentations=[brighter(1.5)], **asked)
    shares = (share for share in iter(lambda: 0.5, None))
    strange = [lambda inputs: inputs * next(shares)]
    api.connectivity(bars(40), augmentations=strange, **asked | {"progress": True})
    with monkeypatch.context() as patched:
        patched.setattr(node_classifiers, "train", never)
        again = api.connectivity(bars(40), augmentations=[brighter(1.5)], **asked)
        with pytest.raises(AssertionError, match="was trained"):
            api.connectivity(bars(40), augmentations=[brighter(1.6)], **asked)
    assert again == first
    assert "is unregistered, as " in capsys.readouterr().err
    assert len([*(tmp_path / "store" / "connectivity").iterdir()]) == 1
    assert [*(tmp_path / "store").glob(".unregistered-*")] == []


def test_nothing_is_said_where_no_progress_is_wanted(few, capfd):
    api.connectivity(bars(40), shifts="left > right", augmentations="none", **few)
    assert capfd.readouterr() == ("", "")


def test_a_search_takes_data_and_an_encoder_from_memory(few):
    def tiny(task):
        encoder = torch.nn.Sequential(
            torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.LazyLinear(8)
        )
        encoder(task.blank(2))
        encoder.num_features = 8
        return encoder

    found = api.search(
        bars(40),
        "left > right",
        trials=1,
        sampler="random",
        among=["invert", "noise"],
        finalists=1,
        pretrain_steps=2,
        **few | {"encoder": tiny, "steps": 30},
    )
    told = json.loads(found.to_json())
    assert told["encoder"] == "tiny" and told["best"] == found.best
    assert len(told["trials"]) == 1 and all(one["source"] for one in told["finalists"])
    assert str(found).splitlines()[-1] == f"augmentation = {json.dumps(found.best)}"


def test_features_of_a_suite_that_is_a_dict_are_refused_by_its_name(tmp_path):
    suite = {
        "name": "mine",
        "dataset": bars(8),
        "shifts": ["left > right"],
        "encoder": "small_cnn(width=4)",
        "method": [{"name": "plain", "chain": []}],
    }
    with pytest.raises(BadInput, match="none of these cells of mine is scored yet"):
        api.diagnose_features(suite, store=tmp_path / "store", progress=False)


def test_features_are_told_as_text_csv_and_json(capfd, tmp_path):
    report = api.diagnose_features(BOARDS / "digits", only="method=erm", out=tmp_path / "far.svg")
    rows = report.to_csv().splitlines()
    lines = json.loads(report.to_json())
    assert len(lines) == len(rows) - 1 > 0 and {line["method"] for line in lines} == {"erm"}
    assert str(report).count("| erm ") == len(lines)
    assert (tmp_path / "far.svg").read_text().startswith("<?xml")
    assert len(report.records) == sum(len(line["seeds"]) for line in lines)


def test_predictors_are_judged_by_all_points_that_are_given(monkeypatch):
    monkeypatch.setattr(accuracy_prediction, "PERMUTED", 5)
    folders = [BOARDS / "connectivity" / name for name in ("digits", "mnist")]
    report = api.judge_predictors(folders)
    assert len({point.dataset for point in report.points}) == 2
    told = json.loads(report.to_json())
    assert told["connectivity"]["rank"] == report.judged["connectivity"].rank
    assert f"over {len(report.points)} cells" in str(report)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: api.advise(bars(8), "left", goal=1.0), "goal = 1.0 is no accuracy between"),
        (lambda: api.advise(bars(8), "left", labels="none"), "labels = 'none' is not known; there"),
        (lambda: api.advise(bars(8), "left", out="no/a.html"), "there is no folder no"),
        (lambda: api.connectivity(bars(8), estimator="fats"), "did you mean 'fast'"),
        (lambda: api.connectivity(bars(8), steps=0), "steps = 0 should be 1 or more"),
        (lambda: api.connectivity(3), "the dataset is int, and should be a name, DomainData"),
        (lambda: api.connectivity(bars(8), augmentations=[3]), "the augmentation is int, and"),
        (lambda: api.search(bars(8), "left > right", sampler="tpe"), "sampler = 'tpe'"),
        (lambda: api.search(bars(8), "left > right", trials=0), "trials = 0 should be 1"),
        (lambda: api.theory(seeds=0), "seeds = 0 should be 1 or more"),
        (lambda: api.bench("small_cnn@32", steps=1), "steps = 1 should be 2 or more"),
        (lambda: api.bench("small_cnn@32", precision="fp16"), "precision = 'fp16' is not known"),
    ],
)
def test_an_argument_that_cannot_be_is_refused_before_anything_is_written(
    call, sentence, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=re.escape(sentence)):
        call()
    assert [*tmp_path.iterdir()] == []
