"""Cells from start to end."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from audiences import lasting, quiet, run_all
from safetensors.torch import load_file
from suites import METHODS
from tiny import SUITE, make_plan

from benchbench.diagnostics.geometry import diagnose
from benchbench.evaluation.criteria import in_common
from benchbench.execution.cell import diagnosed, execute
from benchbench.extension.errors import BadInput
from benchbench.store.records import Diagnostics, read_record, read_records
from benchbench.suites.cost import Calibration, total
from benchbench.suites.shift_features import stored_features


def test_no_stage_is_trained_twice(plan_of):
    plan = plan_of(METHODS)
    audience = run_all(plan)
    assert len(audience.records) == 6 * 3
    assert {record.status for record in audience.records} == {"scored"}
    # simclr reads no labels, so left > right and right > left share it; erm sees the source only
    assert sorted(audience.stages) == sorted(
        ["simclr"] * 2 + ["finetune"] * 3 + ["erm"] * (2 + 1) + ["dann"] * 3
    )  # the ceilings of right and left are erm on right and left: only odd is new
    again = run_all(plan_of(METHODS))
    assert again.stages == again.records == []


def test_adding_a_readout_or_a_fine_tune_trains_only_that(plan_of):
    run_all(plan_of(SUITE))
    more = SUITE + 'readout = ["linear", "knn"]\n[[method]]\nchain = "simclr > finetune"\n'
    audience = run_all(plan_of(more))
    assert audience.stages == ["finetune"]
    assert len(audience.records) == 3


def test_a_record_says_what_was_done(plan_of):
    plan = plan_of(METHODS)
    audience = run_all(plan)
    record = next(r for r in audience.records if r.method == "dann" and r.shift == "left > odd")
    (stage,) = record.spec.chain
    assert (stage.reads, stage.domains) == (("domains", "labels"), ("left", "odd"))
    assert stage.objective == "dann(weight=1.0, width=1024)"
    assert record.data.fingerprint == plan.pack.fingerprint
    assert (record.data.n_labelled, record.data.n_unlabelled) == (72, 72)
    assert record.seeds.model_dump() == {"split": 0, "hparams": 0, "train": 0}
    assert record.cost.images_seen == 72 and record.cost.stages[0].seconds > 0
    used = {plugin.name: plugin.used for plugin in record.plugins}
    assert {name: names for name, names in used.items() if names} == {
        "benchbench_adversarial": ("objective dann",),
        "benchbench_augmentations": ("augmentation noise",),
        "benchbench_encoders": ("encoder small_cnn",),
        "tiny": ("dataset tiny",),
    }
    assert used.keys() == {plugin.name for plugin in plan.catalog.plugins}
    assert all(p.distribution and p.version and p.digest for p in record.plugins)
    path = plan.store.records("tiny") / record.file_name
    assert read_record(path) == record
    predictions = load_file(path.with_suffix(".safetensors"))
    for score in record.scores:
        labels = plan.pack.labels[plan.pack.rows(score.domain, 2)]
        right = predictions[score.domain] == labels
        assert score.n == len(labels) == 24
        assert score.accuracy == pytest.approx(right.double().mean().item())
        classes = [right[labels == c].double().mean().item() for c in range(3)]
        assert score.per_class_mean == pytest.approx(sum(classes) / 3)
    ceiling = next(r for r in audience.records if r.method == "ceiling" and r.shift == record.shift)
    assert ceiling.spec.labels == "target" and ceiling.spec.chain[0].domains == ("odd",)


def test_target_labels_change_nothing_but_the_scores(plan_of, tmp_path):
    honest, poisoned = plan_of(METHODS), plan_of(METHODS, tmp_path / "other")
    target = poisoned.pack.domains == poisoned.pack.domain_names.index("right")
    poisoned.pack.labels[target] = (poisoned.pack.labels[target] + 1) % 3
    for method in ("simclr", "dann", "simclr > finetune"):
        (cell,) = (c for c in honest.cells if str(c).startswith(f"{method} · left > right"))
        files = []
        for plan in (honest, poisoned):
            record = execute(cell, plan, quiet)
            path = plan.store.records("tiny") / record.file_name
            files.append(
                (record.artifacts.encoder_sha256, load_file(path.with_suffix(".safetensors")))
            )
        assert files[0][0] == files[1][0]
        assert torch.equal(files[0][1]["right"], files[1][1]["right"])


@pytest.mark.parametrize(
    ("objective", "status", "reason"),
    [
        ("unstable", "diverged", "Diverged: the loss became nan at step 4"),
        ("unstable(error='memory')", "oom", "no memory left"),
        ("unstable(error='broken')", "failed", "RuntimeError: broken"),
    ],
)
def test_a_cell_that_fails_is_recorded_as_such_and_the_others_go_on(
    plan_of, objective, status, reason
):
    text = SUITE + f'[[method]]\nname = "bad"\nchain = "{objective}"\n'
    plan = plan_of(text.replace('chain = "simclr"', 'chain = "simclr"\nname = "good"'))
    audience = run_all(plan)
    assert {r.method: r.status for r in audience.records} == {"good": "scored", "bad": status}
    bad = next(r for r in audience.records if r.method == "bad")
    assert reason in bad.reason
    assert bad.scores == () and bad.selection is None
    again = run_all(plan)  # a loss that is no number stays so; the others are tried again
    assert len(again.records) == (status != "diverged")


def test_every_field_of_a_stage_is_in_its_key(plan_of):
    changes = {
        "steps = 6": "steps = 7",
        "batch_size = 12": "batch_size = 14",
        "lr = 0.01": "lr = 0.02",
        'augmentation = "noise"': 'augmentation = "noise(std=(0.0, 0.2))"',
        "seeds = [0]": "seeds = [1]",
        '"fp32"': '"bf16"',
        "width=4": "width=8",
        'chain = "simclr"': 'chain = "simclr(temperature=0.3)"',
        'dataset = "tiny"': 'dataset = "tiny(seed=1)"',
        'shifts = ["left > right"]': 'shifts = ["left > odd"]',
        "stage = {": "stage = { warmup = 0.2, ",
        "stage =  {": "stage = { weight_decay = 0.2, ",
        "stage = { ": 'stage = { sees = "all", ',
    }
    keys = set()
    for old, new in [("name", "name"), *changes.items()]:
        plan = plan_of(SUITE.replace(old.replace("=  {", "= {"), new, 1))
        keys.add(plan.links(plan.cells[0])[0].key)
    assert len(keys) == len(changes) + 1
    same = SUITE.replace('name = "tiny"', 'name = "other"').replace("left > right", "right > left")
    plan = plan_of(same)
    assert plan.links(plan.cells[0])[0].key in keys  # neither suite nor labelled domain matter here


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ('"simclr"', '"simcl"', "no objective is named 'simcl'; did you mean 'simclr'"),
        ('"noise"', '"nois"', "did you mean 'noise'"),
        ("width=4", "wdth=4", "encoder small_cnn has no option 'wdth'; did you mean 'width'"),
        ("small_cnn(width=4)", "timm(model='resnet1')", "timm has no model 'resnet1'"),
        ('dataset = "tiny"', 'dataset = "digitz"', "no dataset is named 'digitz'; did you mean"),
        ("left > right", "left > rigth", "no domain 'rigth'; did you mean 'right'"),
        ("left > right", "left > left", "leads from 'left' to itself"),
        ("batch_size = 12", "batch_size = 400", "takes 200 rows of domain 'left' per step"),
        ('chain = "simclr"', 'chain = "simclr"\nreadout = "liner"', "no readout is named 'liner'"),
        ('chain = "simclr"', 'chain = "simclr"\nreadout = "head"', "simclr has no head"),
        ('chain = "simclr"', 'chain = "erm"\nsees = "target"', "erm reads labels, but sees target"),
        ('chain = "simclr"', 'chain = "simclr(width=-1)"', "objective simclr.* cannot be built"),
        ('chain = "simclr"', 'chain = ""\nreadout = "head"', "an untrained encoder has no head"),
    ],
)
def test_what_cannot_run_is_refused_before_training(plan_of, old, new, sentence):
    with pytest.raises(BadInput, match=sentence):
        plan = plan_of(SUITE.replace(old, new, 1))
        for cell in plan.cells:
            plan.check(cell)


def test_a_cuda_device_that_is_not_there_is_refused(plan_of, tmp_path):

    with pytest.raises(BadInput, match="device 'cuda:99' was asked for"):
        make_plan(SUITE, tmp_path / "store", tmp_path, device="cuda:99")
    with pytest.raises(BadInput, match="no device is named 'gpu'; there is auto, cpu, cuda"):
        make_plan(SUITE, tmp_path / "store", tmp_path, device="gpu")


def test_an_estimate_counts_each_stage_once(plan_of):
    plan = plan_of(METHODS)
    told = Calibration(plan)
    assert told.stages(plan.cells) == 11
    assert total(told.in_turn(plan.cells)).seconds > 0
    run_all(plan)
    assert told.stages(plan.cells) == 0
    assert total(Calibration(plan).in_turn(plan.cells)).seconds == 0


CHILD = """
import sys
from pathlib import Path
from tiny import make_plan
from audiences import Count
from benchbench.execution.local import run_cells
from dataclasses import replace
plan = make_plan(Path(sys.argv[1]).read_text(), Path(sys.argv[2]), Path(sys.argv[2]).parent)
plan = replace(plan, checkpoint_every=-1.0)  # leave the state after every step
audience = Count()
audience.cell_starts = lambda cell: lambda stage: lambda done, loss: print(done, flush=True)
run_cells(plan, [cell for cell in plan.cells if not plan.done(cell)], audience)
"""


@pytest.mark.slow
def test_killed_at_any_point_and_run_again_the_records_are_the_same(plan_of, tmp_path):
    text = METHODS.replace("steps = 6", "steps = 10")
    run_all(plan_of(text, tmp_path / "whole"))
    suite = tmp_path / "killed.toml"
    suite.write_text(text)
    store = tmp_path / "killed" / "store"
    store.parent.mkdir()
    command = [sys.executable, "-c", CHILD, str(suite), str(store)]
    steps = 0
    for kill_after, delay in (
        (1, 0),
        (4, 0.01),
        (16, 0),
        (13, 0.1),
        (10, 0.02),
        (9, 0.3),
        (None, 0),
    ):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
            for _ in range(kill_after or 0):
                child.stdout.readline()
            if kill_after:
                time.sleep(delay)
                child.send_signal(signal.SIGKILL)
            steps += (kill_after or 0) + len(child.stdout.read().splitlines())
        assert child.returncode in ((-signal.SIGKILL, 0) if kill_after else (0,))
    assert 110 <= steps <= 110 + 6, "a killed stage goes on at the step where it was"
    whole, killed = (
        {r.file_name: lasting(r) for r in read_records(folder / "records" / "tiny")}
        for folder in (tmp_path / "whole", store)
    )
    assert killed == whole and len(whole) == 18
    assert not list((store / "checkpoints").glob("*.safetensors"))


def test_a_record_refuses_what_a_record_cannot_say(plan_of):
    plan = plan_of(SUITE)
    run_all(plan)
    (path,) = plan.store.records("tiny").glob("*.json")
    text = path.read_text()
    fields = json.loads(text)
    assert (
        fields.pop("sha256") == hashlib.sha256(("{" + text.partition('",')[2]).encode()).hexdigest()
    )
    for change in (
        {"unknown": 1},
        {"status": "fine"},
        {"scores": [{**fields["scores"][0], "accuracy": float("nan")}]},
        {"scores": [{**fields["scores"][0], "accuracy": "0.5"}]},
        {"schema_version": 2},
    ):
        path.write_text(json.dumps(fields | change))
        with pytest.raises(BadInput, match="is not a record"):
            read_record(path)
    path.write_text(json.dumps(fields)[:-5])
    with pytest.raises(BadInput, match="is not a record"):
        read_record(path)
    path.write_text(json.dumps(fields))  # as it was before records had a sha256
    assert read_record(path).text() == text
    path.write_text(text.replace('"train": 0', '"train": 1'))
    with pytest.raises(BadInput, match="is not a record: it was changed after it was written"):
        read_record(path)
    path.write_text(json.dumps(json.loads(text)))
    with pytest.raises(BadInput, match="is not a record: it was written anew by something else"):
        read_record(path)


def test_what_features_tell_is_computed_once_for_all_readouts(plan_of, monkeypatch):
    calls = []

    def counted(function):
        def also(*of):
            calls.append(function)
            return function(*of)

        return also

    monkeypatch.setattr("benchbench.execution.cell.diagnose", counted(diagnose))
    monkeypatch.setattr("benchbench.execution.cell.in_common", counted(in_common))
    text = SUITE.replace('["left > right"]', '["left > right", "left > odd", "left > right + odd"]')
    plan = plan_of(text + 'readout = ["linear", "ridge", "knn", "prototype", "pfa"]\n')
    records = run_all(plan).records
    assert len(records) == 15 and calls.count(diagnose) == calls.count(in_common) == 3
    assert len(list((plan.store.root / "diagnostics").glob("*.safetensors"))) == 6
    for shift in {record.shift for record in records}:
        (told,) = {r.diagnostics.model_dump_json() for r in records if r.shift == shift}
        assert None not in Diagnostics.model_validate_json(told).model_dump().values()
    assert all(record.cost.diagnose_seconds > 0 for record in records)


def test_a_record_is_read_with_diagnostics_and_as_older_ones_without(plan_of):
    plan = plan_of(SUITE)
    (record,) = run_all(plan).records
    path = plan.store.records("tiny") / record.file_name
    assert read_record(path).diagnostics == record.diagnostics != Diagnostics()
    fields = json.loads(path.read_text())
    del fields["diagnostics"], fields["cost"]["diagnose_seconds"], fields["sha256"]
    path.write_text(json.dumps(fields))
    old = read_record(path)
    assert old.diagnostics is None and old.schema_version == record.schema_version
    assert old.scores == record.scores
    path.write_text(json.dumps(fields | {"diagnostics": {"domain_accuracy": float("inf")}}))
    with pytest.raises(BadInput, match="is not a record: diagnostics.domain_accuracy"):
        read_record(path)


def test_a_record_of_the_first_dev_is_read_without_it_and_with_all_else(plan_of):
    """Where domains are separable that was 0, the best, of every readout."""
    plan = plan_of(SUITE.replace('precision = "fp32"', 'precision = "fp32"\nsnapshots = 2'))
    (record,) = run_all(plan).records
    told = record.validators.model_copy(update={"dev": -0.25})
    states = [s.model_copy(update={"validators": told}) for s in record.snapshots]
    record = record.model_copy(update={"validators": told, "snapshots": tuple(states)})
    path = plan.store.records("tiny") / record.file_name
    path.write_text(record.text())
    assert read_record(path) == record == read_records(path.parent)[0]
    lines = [line for line in record.text().splitlines(True) if '"dev_version": 2' not in line]
    fields = json.loads("".join(lines))
    del fields["sha256"]
    path.write_text(json.dumps(fields, indent=1, sort_keys=True) + "\n")
    for old in (read_record(path), *read_records(path.parent)):
        without = told.model_copy(update={"dev": None})
        assert old.validators == without and len(old.snapshots) == 1
        assert all(state.validators == without for state in old.snapshots)
        assert old.model_dump(exclude={"validators", "snapshots"}) == record.model_dump(
            exclude={"validators", "snapshots"}
        )
        assert read_record(path).cell_id == record.cell_id  # so that nothing becomes stale
    path.write_text(json.dumps(fields | {"dev_version": 3}))
    with pytest.raises(BadInput, match="is not a record: dev_version"):
        read_record(path)


def test_a_diagnosis_that_fails_costs_no_cell_its_score(plan_of, monkeypatch):
    def fails(*of):
        raise torch.linalg.LinAlgError("no eigenvalues")

    monkeypatch.setattr("benchbench.execution.cell.diagnose", fails)
    plan = plan_of(SUITE)
    with pytest.warns(match="simclr · left > right · seed 0: no diagnostics: .*no eigenvalues"):
        record = execute(plan.cells[0], plan, quiet)
    assert record.status == "scored" and record.scores and record.diagnostics is None
    assert plan.store.claims.signs() == {}


def test_features_that_are_not_finite_are_not_diagnosed(plan_of):
    plan = plan_of(SUITE)
    (cell,) = plan.cells
    execute(cell, plan, quiet)
    z = stored_features(plan.encoder_key(cell), (("left",), ("right",)), plan)
    assert diagnosed(cell, z, plan) == plan.record(cell).diagnostics
    for path in (plan.store.root / "diagnostics").iterdir():
        path.unlink()
    left, right = z.parts
    z = replace(z, parts=(left, replace(right, z=right.z * torch.inf)))
    assert diagnosed(cell, z, plan) == Diagnostics()


def test_numbers_are_diagnosed_without_classes(plan_of):
    text = SUITE.replace('dataset = "tiny"', 'dataset = "heights"')
    (record,) = run_all(plan_of(text)).records
    told = record.diagnostics
    assert told.domain_accuracy > 0.4 and told.effective_rank > 1
    assert told.class_cosine is None and told.alignment is None


def test_a_stage_that_diverged_is_not_tried_again_for_another_cell(plan_of):
    text = SUITE + '[[method]]\nname = "bad"\nchain = "unstable"\n'
    text += '[[method]]\nname = "bad, then fine-tuned"\nchain = "unstable > finetune"\n'
    audience = run_all(plan_of(text))
    told = {r.method: (r.status, r.reason) for r in audience.records}
    assert told["bad"] == told["bad, then fine-tuned"]
    assert told["bad"][0] == "diverged" and "at step 4" in told["bad"][1]
    plan = plan_of(text)
    assert len(list((plan.store.root / "diverged").glob("*"))) == 1
    assert plan.store.claims.signs() == {}


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
def test_a_record_says_whether_its_stages_were_compiled(plan_of):
    plan = plan_of(SUITE)
    (cell,) = plan.cells
    compiled = replace(plan, machine=replace(plan.machine, compiled=True))
    assert execute(cell, compiled, quiet).cost.stages[0].compiled
    plan.store.records("tiny").joinpath(plan.record(cell).file_name).unlink()
    again = execute(cell, plan, quiet).cost.stages[0]  # the stage is found, as it was trained
    assert again.reused and again.compiled
