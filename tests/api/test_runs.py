"""Python calls: they do what the command does, also with objects in the places of names."""

import ast
import os
import subprocess
import sys
import tomllib
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from audiences import lasting
from click.testing import CliRunner
from safetensors.numpy import load_file
from tiny import SUITE
from torch import nn

import benchbench
from benchbench import BadInput, Objective, Suite, api
from benchbench.cli import main
from benchbench.extension.conformance.fixtures import bars
from benchbench.store.records import read_records

ROOT = Path(__file__).parents[2]
DATA = bars(40)
STAGE = {"steps": 4, "batch_size": 12, "lr": 0.01, "augmentation": "noise"}


class Pull(Objective):
    """Views of an image close, in a space of its own."""

    def __init__(self, encoder, task, *, width=8):
        super().__init__()
        self.head = nn.Linear(encoder.num_features, width)

    def forward(self, encoder, batch):
        one, other = (F.normalize(self.head(encoder(view)).float()) for view in batch.views)
        return F.cross_entropy(one @ other.T / 0.2, torch.arange(len(one)))


class Pool(nn.Module):
    def __init__(self, task):
        super().__init__()
        self.num_features = 8
        self.body = nn.Sequential(nn.Conv2d(task.input_shape[0], 8, 3), nn.ReLU())

    def forward(self, x):
        return self.body(x).mean((2, 3))


@pytest.fixture
def suite():
    return {
        "name": "mine",
        "dataset": DATA,
        "shifts": ["left > right"],
        "seeds": [0],
        "encoder": Pool,
        "precision": "fp32",
        "stage": STAGE,
        "method": [{"chain": [Pull]}],
    }


@pytest.fixture
def run(tmp_path):
    return partial(benchbench.run, store=tmp_path / "store", device="cpu", progress=False)


PLUGIN = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from test_runs import DATA, Pool, Pull
from benchbench import hookimpl

@hookimpl
def benchbench_datasets():
    return {{"data": lambda root: DATA}}

@hookimpl
def benchbench_encoders():
    return {{"pool": Pool}}

@hookimpl
def benchbench_objectives():
    return {{"pull": Pull}}
"""


def test_objects_give_the_records_of_the_command_with_names(suite, run, tmp_path):
    results = run(suite)
    (mine,) = results.records
    file = tmp_path / "named.py"
    file.write_text(PLUGIN)
    named = {**suite, "dataset": "data", "encoder": "pool", "method": [{"chain": ["pull"]}]}
    (tmp_path / "suite.toml").write_text(Suite.of(named).toml())
    words = ["run", str(tmp_path / "suite.toml"), "--store", str(tmp_path / "other")]
    done = CliRunner().invoke(main, [*words, "--device", "cpu", "--plugin", str(file)])
    assert done.exit_code == 0, done.output
    (its,) = read_records(tmp_path / "other" / "records" / "mine")
    assert mine.scores == its.scores and mine.validators == its.validators
    assert mine.diagnostics == its.diagnostics and mine.data.fingerprint == its.data.fingerprint
    assert mine.artifacts.predictions_sha256 == its.artifacts.predictions_sha256
    assert mine.artifacts.encoder_sha256 == its.artifacts.encoder_sha256
    assert {p.distribution for p in mine.plugins if p.used} >= {"object"}


def test_a_suite_by_its_path_gives_the_records_of_the_command(run, tmp_path):
    text = SUITE.replace('"tiny"\nshifts', '"data"\nshifts')
    (tmp_path / "suite.toml").write_text(text)
    file = tmp_path / "named.py"
    file.write_text(PLUGIN)
    results = run(tmp_path / "suite.toml", plugins=[file])
    words = ["run", str(tmp_path / "suite.toml"), "--store", str(tmp_path / "other")]
    done = CliRunner().invoke(main, [*words, "--device", "cpu", "--plugin", str(file)])
    assert done.exit_code == 0, done.output
    theirs = read_records(tmp_path / "other" / "records" / "tiny")
    assert [*map(lasting, results.records)] == [*map(lasting, theirs)]
    assert results.render() == done.stdout


def test_what_is_unchanged_is_not_trained_again_and_what_changed_is(suite, run):
    first = run(suite)
    started = first.records[0].cost.started
    assert run(suite).records[0].cost.started == started and len(run(suite).records) == 1
    other = {**suite, "method": [{"chain": [partial(Pull, width=4)]}]}
    again = run(other)
    fresh = [r for r in again.records if r.cell_id != first.records[0].cell_id]
    assert len(fresh) == 1 and not fresh[0].cost.stages[0].reused


def test_objects_of_every_kind_train_in_one_suite(suite, run):
    def spread(encoder, batch):
        z = encoder(batch.views[0]).float()
        return F.relu(1 - z.std(0)).mean()

    frozen = nn.Sequential(nn.Conv2d(DATA.inputs.shape[1], 4, 3), nn.Flatten())
    before = {name: value.clone() for name, value in frozen.state_dict().items()}
    methods = [
        {"chain": [spread, Pull], "augmentation": [lambda x: x.flip(3), "noise"]},
        {"chain": [{"objective": "erm", "steps": 2}], "encoder": frozen, "readout": "head"},
    ]
    results = run({**suite, "method": methods})
    assert results.complete and set(results.methods) == {"spread > pull", "erm"}
    assert all(torch.equal(v, before[n]) for n, v in frozen.state_dict().items())
    assert [len(losses) for losses in results.curves()["spread > pull"]] == [4, 4]


def test_a_function_that_cannot_be_told_runs_is_kept_nowhere_and_not_published(
    suite, run, tmp_path
):
    noises = (noise for noise in torch.rand(1000))
    views = {**STAGE, "augmentation": lambda x: (x + next(noises) / 9).clamp(0, 1)}
    odd = {**suite, "stage": views}
    results = run(odd)
    assert results.complete and any("is unregistered, as" in note for note in results.notes)
    predicted = results.predictions("pull", "left > right", 0)
    assert len(predicted["right"]) == int(((DATA.domains == 1) & (DATA.split == 2)).sum())
    assert {p.distribution for p in results.records[0].plugins} > {"unregistered object"}
    with pytest.raises(BadInput, match="cannot be published: augmentation lambda_"):
        results.publish(tmp_path / "board")
    left = [p.name for p in (tmp_path / "store").iterdir()]
    assert left == ["packs"] and not (tmp_path / "board").exists()


def test_with_debug_what_a_loss_raises_is_raised_and_leaves_no_record(suite, run, tmp_path):
    def broken(encoder, batch):
        raise ZeroDivisionError("mine")

    wrong = {**suite, "method": [{"chain": [broken]}]}
    with pytest.raises(ZeroDivisionError, match="mine"):
        run(wrong, debug=True)
    assert not [*(tmp_path / "store" / "records").rglob("*.json")]
    results = run(wrong)
    assert results.statuses == {"broken · left > right · seed 0": "failed"} and not results.complete
    assert results.records[0].reason == "ZeroDivisionError: mine"
    with pytest.raises(BadInput, match="debug keeps everything in this process"):
        run(suite, debug=True, launch="local:2")


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
import test_runs as t
import benchbench

def loss(encoder, batch):
    breakpoint()
    return encoder(batch.views[0]).float().square().mean()

suite = {"name": "mine", "dataset": t.DATA, "shifts": "left > right", "seeds": [0],
         "encoder": t.Pool, "precision": "fp32", "stage": t.STAGE, "method": [{"chain": [loss]}]}
try:
    benchbench.run(suite, store=sys.argv[2], device="cpu", progress=False)
except KeyboardInterrupt as stop:
    print("stopped:", stop)
"""


def test_a_breakpoint_in_a_loss_is_reached_and_leaving_it_leaves_no_record(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    words = [sys.executable, tmp_path / "script.py", Path(__file__).parent, tmp_path / "store"]
    clean = {n: v for n, v in os.environ.items() if n != "PYTHONBREAKPOINT"}
    done = subprocess.run(
        words, input="len(batch.views)\nq\n", env=clean, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert "stopped: a debugger was left" in done.stdout and "(Pdb)" in done.stdout
    assert not [*(tmp_path / "store" / "records").rglob("*.json")]
    assert not [*(tmp_path / "store" / "stages").glob("*")]


def test_other_processes_have_no_objects_of_this_one(suite, run):
    for how in ({"launch": "local:2"}, {"ranks": 2}):
        with pytest.raises(BadInput, match="is an object of this process"):
            run(suite, **how)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"shifts": ["left > up"]}, "no domain 'up'"),
        ({"encoder": "small_cn"}, "did you mean 'small_cnn'"),
        ({"method": []}, "method is empty"),
        ({"methods": []}, "unknown key 'methods'"),
        ({"dataset": 3}, "the dataset is int, and should be a name, DomainData"),
        ({"method": [{"chain": [Pull, nn.Linear]}]}, "Linear is no objective"),
    ],
)
def test_a_dict_that_is_no_suite_is_told(suite, run, change, sentence):
    with pytest.raises(BadInput, match=sentence):
        run({**suite, **change})


def test_an_encoder_is_evaluated_as_it_is(tmp_path):
    torch.manual_seed(0)
    module = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten())
    made = benchbench.evaluate(
        module, DATA, shifts=["left > right", "right > left"], readouts=("prototype",),
        store=tmp_path, device="cpu", progress=False,
    )  # fmt: skip
    assert made.complete and made.methods == ("Sequential",)
    z = module(DATA.inputs / 255).double()
    right = []
    for source, target in ((0, 1), (1, 0)):  # the nearest class mean, by hand
        train = (DATA.domains == source) & (DATA.split == 0)
        means = torch.stack(
            [z[train & (DATA.labels == k)].mean(0) for k in range(len(DATA.class_names))]
        )
        test = (DATA.domains == target) & (DATA.split == 2)
        near = torch.cdist(z[test], means).argmin(1)
        right.append(100 * (near == DATA.labels[test]).double().mean().item())
    assert [row["mean"] for row in made.rows()] == pytest.approx(right)
    again = benchbench.evaluate(
        lambda x: F.adaptive_avg_pool2d(x, 4), DATA, shifts=["left > right", "right > left"],
        readouts=("prototype",), store=tmp_path, device="cpu", progress=False,
    )  # fmt: skip
    assert [row["mean"] for row in again.rows()] == pytest.approx(right)


def test_results_show_compare_and_give_back_what_the_records_hold(suite, run, tmp_path):
    methods = [{"chain": [Pull], "name": "<b>pull"}, {"chain": ["erm"], "readout": "head"}]
    results = run({**suite, "seeds": [0, 1], "method": methods})
    rows = {(row["method"], row["shift"]): row for row in results.rows()}
    values = [100 * r.value("target") for r in results.records if r.method == "erm"]
    assert rows["erm", "left > right"]["values"] == pytest.approx(values)
    assert results.to_frame()["mean"].tolist() == [row["mean"] for row in results.rows()]
    assert "&lt;b&gt;pull" in results._repr_html_() and "<b>pull" not in results._repr_html_()
    assert str(results) == results._repr_markdown_() and repr(results).startswith("<board mine: 4")
    record = results.record("erm", "left > right", 1)
    beside = tmp_path / "store" / "records" / "mine" / record.file_name
    kept = load_file(beside.with_suffix(".safetensors"))
    predicted = results.predictions("erm", "left > right", 1)
    assert predicted.keys() == kept.keys()
    assert all(np.array_equal(predicted[name], kept[name]) for name in kept)
    assert results.plot()._repr_png_().startswith(b"\x89PNG"), "a notebook shows it"
    panels = results.plot().axes
    assert [panel.get_title() for panel in panels] == ["left > right"]
    told = results.compare("erm", "<b>pull")
    means = [rows[m, "left > right"]["mean"] for m in ("erm", "<b>pull")]
    assert told.difference == pytest.approx(means[0] - means[1]) and "Paired over" in str(told)
    assert repr(told) == str(told), "the interpreter shows the text, and no records"
    for ask, sentence in (
        (lambda: results.record("erm", "left > right", 7), "seed 7; there is left > right, seed 0"),
        (lambda: results.record("irm", "left > right", 0), "did you mean 'erm'"),
        (lambda: results.compare("erm", "erm"), "compared with itself"),
        (lambda: results.render("html"), "there is csv, json, latex, markdown"),
    ):
        with pytest.raises(BadInput, match=sentence):
            ask()
    board = results.publish(tmp_path / "board")
    assert board.render() == results.render() and board.curves() == results.curves()
    loaded = benchbench.load_board(tmp_path / "board")
    assert loaded.render("csv") == board.render("csv")
    beside = benchbench.evaluate(Pool, DATA, shifts="left > right", readouts=["knn"],
                                 store=tmp_path / "store", device="cpu", progress=False,
                                 compare_with=tmp_path / "board")  # fmt: skip
    assert set(beside.methods) == {"Pool", "<b>pull", "erm"}
    assert next(r for r in beside.rows() if r["method"] == "Pool")["n_seeds"] == 2  # the board's
    assert next(r for r in beside.rows() if r["method"] == "erm")["values"] == pytest.approx(values)
    other = benchbench.evaluate(
        Pool, DATA, shifts="right > left", readouts=["knn"], store=tmp_path / "store",
        device="cpu", progress=False, compare_with=tmp_path / "board",
    )  # fmt: skip
    with pytest.raises(BadInput, match="has none of the shifts right > left"):
        other.rows()


def test_a_board_is_loaded_by_its_name():
    board = benchbench.load_board("digits")
    assert "simclr" in board.methods and len(board.records) == 144
    with pytest.raises(BadInput, match="did you mean 'digits'"):
        benchbench.load_board("digit")


@pytest.mark.parametrize("name", benchbench.shipped_suites())
def test_a_suite_is_written_as_toml_that_means_the_same(name):
    suite = Suite.read(name)
    assert Suite.of(tomllib.loads(suite.toml())) == suite


def test_what_is_public_is_shown_and_nothing_else():
    assert dir(benchbench) == sorted(set(dir(benchbench)))
    assert {"run", "evaluate", "load_board", "Objective", "hookimpl"} < {*dir(benchbench)}
    assert not [name for name in dir(benchbench) if name.startswith("_") and name != "__version__"]
    for name in dir(benchbench):
        assert getattr(benchbench, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'runn'"):
        benchbench.runn  # noqa: B018


def test_what_prints_itself_is_shown_by_the_interpreter_as_it_is_printed():
    members = [getattr(api, name) for name in api.__all__]
    printed = {m for m in members if isinstance(m, type) and m.__str__ is not object.__str__}
    assert {api.Status, api.AdviceReport, api.StoreSizes} < printed
    assert [one.__name__ for one in printed if one.__repr__ is not one.__str__] == []


def test_the_door_opens_without_torch():
    script = "import benchbench, benchbench.api, sys; dir(benchbench); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert not {"torch", "numpy", "pandas", "matplotlib"} & {*done.stdout.split()}


def test_status_counts_what_is_there(suite, run, tmp_path):
    ask = partial(benchbench.status, store=tmp_path / "store", device="cpu", progress=False)
    assert str(ask(suite)) == "mine: 1 cells: 1 to run"
    run(suite)
    assert str(ask(suite)) == "mine: 1 cells: 1 scored"
    stale = replace(DATA, labels=DATA.labels.roll(1))
    assert str(ask({**suite, "dataset": stale})) == "mine: 1 cells: 1 stale, to run again"


def test_every_public_function_says_what_it_raises():
    tree = {p: ast.parse(p.read_text()) for p in (ROOT / "benchbench" / "api").glob("*.py")}
    found = [
        (path.name, node.name)
        for path, nodes in tree.items()
        for node in nodes.body
        if isinstance(node, ast.FunctionDef)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]
    assert found == []
