"""Records for other programs: tables, and runs of trackers, as these programs read them back."""

import csv
import io
import json
import re
from pathlib import Path

import pytest
from audiences import run_all
from click.testing import CliRunner
from tiny import SUITE, make_plan

from benchbench.cli import main
from benchbench.extension.errors import BadInput
from benchbench.leaderboard.experiment_trackers import (
    MLflow,
    TensorBoard,
    WandB,
    name_of,
    params_of,
    track,
)
from benchbench.leaderboard.export import (
    FIXED,
    OF_STAGE,
    TABLES,
    as_csv,
    as_jsonl,
    columns_of,
    rows_of,
)
from benchbench.store.records import Diagnostics, Validators

METHODS = (
    SUITE.replace("seeds = [0]", "seeds = [0]\nsnapshots = 2")
    + """
[[method]]
name = "=cmd|' /C calc'!A0"
chain = ["simclr", { objective = "finetune", sees = "source" }]
readout = "head"
[[method]]
name = "falls"
chain = "unstable(error='bad')"
"""
)


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    plan = make_plan(METHODS, folder / "store", folder)
    statuses = [record.status for record in run_all(plan).records]
    assert statuses == ["scored", "scored", "failed"]
    return plan


@pytest.fixture(scope="module")
def records(plan):
    return [plan.record(cell) for cell in plan.cells]


@pytest.fixture(scope="module")
def losses(plan):
    return lambda key: plan.store.read("stages", key).note["losses"]


def export(folder: Path, *words: str):
    result = CliRunner().invoke(main, ["export", str(folder), *words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_there_is_a_row_for_each_domain_of_each_state(records):
    rows = rows_of(records)
    places = [(row["method"][:6], row["state"], row["step"], row.get("domain")) for row in rows]
    assert places == [
        *(("simclr", *state, domain) for state in (("end", 6), ("snapshot", 3))
          for domain in ("left", "right")),
        *(("=cmd|'", *state, domain) for state in (("end", 6), ("snapshot", 3))
          for domain in ("left", "right")),
        ("falls", "end", 6, None),
    ]  # fmt: skip
    end, snapshot, (record, chain, _) = rows[1], rows[3], records
    assert end["value"] == end["accuracy"] == record.scores[1].accuracy
    assert snapshot["accuracy"] == record.snapshots[0].scores[1].accuracy
    assert snapshot["validator_source_val"] == record.snapshots[0].validators.source_val
    assert end["diagnostic_class_cosine"] == record.diagnostics.class_cosine
    assert "diagnostic_class_cosine" not in snapshot
    assert rows[4]["stage2_objective"] == chain.spec.chain[1].objective
    assert rows[4]["stage1_key"] == record.artifacts.stages[0] == end["stage1_key"]
    assert (rows[8]["status"], rows[8]["reason"]) == ("failed", "RuntimeError: bad")


def test_columns_are_those_that_the_page_says_and_always_the_same(records):
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text()
    told = [
        n for line in re.findall(r"^\| (`.*?) \|", page, re.M) for n in re.findall("`(.*?)`", line)
    ]
    plain = [n for n in FIXED if not n.startswith(("validator_", "diagnostic_"))]
    patterns = ["validator_NAME", "diagnostic_NAME", "version_PACKAGE"]
    assert sorted(told) == sorted([*plain, *(f"stageN_{name}" for name in OF_STAGE), *patterns])
    columns = columns_of(records)
    assert {name for row in rows_of(records) for name in row} <= columns.keys()
    assert [*columns_of([])] == [*FIXED] == [*columns][: len(FIXED)]
    for kind, fields in (("validator", Validators), ("diagnostic", Diagnostics)):
        assert all(f"{kind}_{name}" in FIXED for name in fields.model_fields)


def test_csv_holds_every_number_and_no_formula(records):
    rows = [*csv.DictReader(as_csv(records).decode().splitlines())]
    method = {row["method"] for row in rows} - {"simclr", "falls"}
    assert method == {"'=cmd|' /C calc'!A0"}
    for row, meant in zip(rows, rows_of(records), strict=True):
        assert row.keys() == columns_of(records).keys()
        assert float(row["stage1_lr"]) == 0.01
        for name, value in meant.items():
            if isinstance(value, float | int) and not isinstance(value, bool):
                assert float(row[name]) == value, "as negative numbers are"
            assert not row[name].startswith(("=", "+", "@", "\t", "\r"))
    assert any(row["validator_entropy"].startswith("-") for row in rows), "numbers are numbers"
    assert rows[-1]["accuracy"] == ""


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_no_text_starts_a_formula(records, start):
    evil = records[0].model_copy(update={"method": f"{start}cmd"})
    (row, *_) = csv.DictReader(io.StringIO(as_csv([evil]).decode(), newline=""))
    assert row["method"] == f"'{start}cmd"


def test_json_lines_are_the_rows_with_every_column(records):
    lines = [json.loads(line) for line in as_jsonl(records).splitlines()]
    columns = columns_of(records)
    assert lines == [dict.fromkeys(columns) | row for row in rows_of(records)]
    assert lines[4]["method"] == "=cmd|' /C calc'!A0"


def test_parquet_is_read_back_by_pandas(records):
    pandas = pytest.importorskip("pandas", reason="pandas and pyarrow write parquet")
    pytest.importorskip("pyarrow", reason="pandas and pyarrow write parquet")
    table = pandas.read_parquet(io.BytesIO(TABLES[".parquet"](records)))
    assert [*table.columns] == [*columns_of(records)]
    assert table["method"].tolist() == [row["method"] for row in rows_of(records)]
    assert table["accuracy"].iloc[1] == records[0].scores[1].accuracy
    assert table["accuracy"].isna().tolist() == [False] * 8 + [True]
    kinds = {name: str(kind) for name, kind in table.dtypes.items()}
    assert (kinds["seed"], kinds["value"], kinds["stage2_reused"]) == (
        "Int64",
        "Float64",
        "boolean",
    )
    few = pandas.read_parquet(io.BytesIO(TABLES[".parquet"](records[2:])))
    assert {name: str(kind) for name, kind in few.dtypes.items()}.items() <= kinds.items()


def test_a_table_is_written_complete_or_not_at_all(plan, tmp_path, monkeypatch):
    folder = tmp_path / "board"
    folder.mkdir()
    (folder / "records").symlink_to(plan.store.records("tiny"))
    status, told, _ = export(folder, "--to", str(tmp_path / "x.csv"))
    assert (status, told) == (0, f"{tmp_path / 'x.csv'}: 3 records, 9 rows\n")
    before = (tmp_path / "x.csv").read_bytes()
    monkeypatch.setattr(
        Path, "replace", lambda path, to: (_ for _ in ()).throw(OSError(28, "full"))
    )
    status, _, err = export(folder, "--to", str(tmp_path / "x.csv"))
    assert status == 2 and "x.csv cannot be written: full" in err
    assert (tmp_path / "x.csv").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["board", "x.csv"]


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("x.xlsx", "there is FILE.csv, FILE.jsonl, FILE.parquet, tensorboard:PLACE, mlflow:PLACE"),
        ("tensorboard", "there is FILE.csv"),
        ("tensorboard:", "write tensorboard:PLACE"),
        ("file/x.csv", "x.csv cannot be written: File exists"),
    ],
)
def test_a_place_that_cannot_be_is_told(plan, tmp_path, monkeypatch, target, words):
    (tmp_path / "records").symlink_to(plan.store.records("tiny"))
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    status, out, err = export(tmp_path, "--to", target)
    assert (status, out) == (2, "") and words in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("module", "target", "extra"),
    [
        ("pyarrow", "x.parquet", "export"),
        ("torch.utils.tensorboard", "tensorboard:runs", "tensorboard"),
        ("mlflow", "mlflow:sqlite:///x.db", "mlflow"),
        ("wandb", "wandb:project", "wandb"),
    ],
)
def test_what_is_not_installed_is_told_with_its_extra(plan, tmp_path, monkeypatch, module, target,
                                                      extra):  # fmt: skip
    import sys
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert extra in project["project"]["optional-dependencies"]
    (tmp_path / "records").symlink_to(plan.store.records("tiny"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, module, None)
    status, out, err = export(tmp_path, "--to", target)
    assert (status, out) == (2, "") and f'pip install "benchbench-shift[{extra}]"' in err
    assert [p.name for p in tmp_path.iterdir()] == ["records"]


def test_tensorboard_reads_curves_and_scores_and_nothing_twice(records, losses, tmp_path):
    pytest.importorskip("tensorboard", reason="the package tensorboard writes events")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for _ in range(2):
        assert track(records, TensorBoard(tmp_path), losses) == (3, 0)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(map(name_of, records))
    chain = records[1]
    events = EventAccumulator(str(tmp_path / name_of(chain)))
    events.Reload()
    curves = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in
              events.Tags()["scalars"]}  # fmt: skip
    for number, key in enumerate(chain.artifacts.stages, 1):
        wanted = [*enumerate(losses(key), 1)]
        assert curves[f"loss/stage{number}"] == [(s, pytest.approx(v)) for s, v in wanted]
    early, end = (scores[1].accuracy for scores in (chain.snapshots[0].scores, chain.scores))
    assert curves["target/right"] == [(3, pytest.approx(early)), (6, pytest.approx(end))]
    assert curves["diagnostic/class_cosine"][0][0] == 6
    assert len(curves["validator/entropy"]) == 2
    assert "_hparams_/session_start_info" in events.summary_metadata
    failed = EventAccumulator(str(tmp_path / name_of(records[2])))
    failed.Reload()
    assert failed.Tags()["scalars"] == []


@pytest.mark.filterwarnings("ignore")
def test_mlflow_reads_runs_and_complete_ones_are_left(records, losses, tmp_path):
    pytest.importorskip("mlflow", reason="mlflow-skinny is an extra")
    from mlflow import MlflowClient

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    assert track(records, MLflow(uri), losses) == (3, 0)
    assert track(records, MLflow(uri), losses) == (0, 3)
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("tiny").experiment_id
    runs = {run.info.run_name: run for run in client.search_runs([experiment])}
    assert sorted(runs) == sorted(map(name_of, records))
    chain = records[1]
    run = runs[name_of(chain)]
    assert run.data.params == {n: f"{v}" for n, v in params_of(chain).items()}
    assert run.data.tags["benchbench.cell_id"] == chain.cell_id
    curve = client.get_metric_history(run.info.run_id, "loss/stage2")
    assert [(m.step, m.value) for m in curve] == [*enumerate(losses(chain.artifacts.stages[1]), 1)]
    assert run.data.metrics["target/right"] == chain.scores[1].accuracy

    client.update_run(run.info.run_id, status="RUNNING")  # as one that was killed leaves it
    again = records[2].model_copy(update={"reason": "another"})
    assert track([*records[:2], again], MLflow(uri), losses) == (2, 1)
    assert len(client.search_runs([experiment])) == 3
    with pytest.raises(BadInput, match="mlflow cannot keep runs at file:.*; try mlflow:sqlite:///"):
        MLflow(f"file:{tmp_path}/runs")


def test_wandb_keeps_an_offline_run_of_each_record_once(records, losses, tmp_path):
    pytest.importorskip("wandb", reason="wandb is an extra")
    few = records[1:]
    assert track(few, WandB("tiny", tmp_path), losses) == (2, 0)
    assert track(few, WandB("tiny", tmp_path), losses) == (0, 2)
    runs = sorted((tmp_path / "wandb").iterdir())
    assert len(runs) == 2 and all(run.name.startswith("offline-run-") for run in runs)
    content = b"".join(path.read_bytes() for run in runs for path in run.glob("*.wandb"))
    for words in (name_of(few[0]), "loss/stage2", "target/right", "stage2_objective"):
        assert words.encode() in content
