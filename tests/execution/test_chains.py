"""What a stage takes over from the one before, and views of every kind, through whole cells."""

import json
from dataclasses import replace

import pytest
import torch
from tiny import Text

from benchbench.evaluation.features import extract
from benchbench.execution.cell import execute
from benchbench.extension.errors import BadInput
from benchbench.store.keys import features_key
from benchbench.suites.cost import Calibration, total
from benchbench.suites.plan import build_encoder
from benchbench.training.loop import below

HEADER = Text("""
name = "chains"
dataset = "tiny"
shifts = ["left > right"]
seeds = [0]
encoder = "small_cnn(width=4)"
precision = "fp32"
stage = { steps = 4, batch_size = 12, lr = 0.01, augmentation = "noise", small = "shrink" }
""")


def cell_of(plan_of, method, header=HEADER):
    plan = plan_of(header + "[[method]]\n" + method)
    (cell,) = plan.cells
    return plan, cell


def run(plan_of, method, header=HEADER):
    plan, cell = cell_of(plan_of, method, header)
    plan.check(cell)
    return plan, execute(cell, plan, lambda stage: lambda done, loss: None)


def kept(plan, record, number=-1):
    return plan.store.read("stages", record.artifacts.stages[number]).tensors


@pytest.mark.parametrize(
    "chain",
    [
        '"simclr > lp_ft"',
        '"lp_ft"',
        "\"swav(small=2, prototypes=6) > fixmatch(start='head')\"",
        '"simclr > dann"',
        "\"erm > sentry(start='head') > pseudo_label(start='head')\"",
        '"dino(small=2, outputs=16) > finetune"',
        '"erm > noisy_student > noisy_student"',
        '["vada", { objective = "dirt_t", sees = "target" }]',
        '["simclr", { objective = "finetune", sees = "source", augmentation = "noise | invert" }]',
        '["supcon", { objective = "erm", sees = "source" }]',
    ],
)
def test_chains_run_from_start_to_end_and_are_not_run_twice(plan_of, chain):
    plan, record = run(plan_of, f'chain = {chain}\nreadout = "head"\n')
    assert record.status == "scored"
    again, _ = cell_of(plan_of, f'chain = {chain}\nreadout = "head"\n')
    assert again.done(again.cells[0])
    other, cell = cell_of(plan_of, f'chain = {chain}\nname = "again"\nreadout = "head"\n')
    twice = execute(cell, other, lambda stage: pytest.fail("a stage was trained again"))
    assert twice.scores == record.scores
    assert twice.artifacts.predictions_sha256 == record.artifacts.predictions_sha256


def test_before_its_first_step_lp_ft_predicts_as_the_probe_does(plan_of):
    frozen = HEADER.replace("lr = 0.01", "lr = 1e-12").replace("steps = 4", "steps = 1")
    _, probed = run(plan_of, 'chain = "simclr"\nreadout = "linear"\n', frozen)
    plan, tuned = run(plan_of, 'chain = "simclr > lp_ft"\nreadout = "head"\n', frozen)
    assert tuned.artifacts.stages[0] == probed.artifacts.stages[0]
    assert tuned.artifacts.predictions_sha256 == probed.artifacts.predictions_sha256


def test_the_head_of_the_stage_before_goes_on(plan_of):
    frozen = HEADER.replace("steps = 4", "steps = 1")
    method = """chain = ["erm", { objective = "noisy_student", lr = 1e-12 }]\nreadout = "head"\n"""
    plan, record = run(plan_of, method, frozen)
    before, after = kept(plan, record, 0), kept(plan, record, 1)
    assert torch.equal(before["objective.classifier.weight"], after["objective.teacher.1.weight"])
    assert torch.allclose(
        before["objective.classifier.weight"], after["objective.classifier.weight"], atol=1e-9
    )
    encoder = [name for name in before if name.startswith("encoder.") and "weight" in name]
    teacher = [after[name.replace("encoder.", "objective.teacher.0.")] for name in encoder]
    assert all(torch.equal(before[n], t) for n, t in zip(encoder, teacher, strict=True))


def test_dino_is_read_off_its_teacher_and_trains_its_student(plan_of, tmp_path):
    """At its end and at a snapshot, fresh or from the store, and after a kill."""
    header = HEADER.replace('precision = "fp32"', 'precision = "fp32"\nsnapshots = 2')
    method = 'chain = "dino(small=2, outputs=16, momentum=0.5)"\n'
    plan, record = run(plan_of, method, header)
    (cell,) = plan.cells
    (link,) = plan.links(cell)
    half = plan.store.read("snapshots", link.snapshot_key(link.snapshots[0])).tensors
    for state in (kept(plan, record), half):
        names = [name for name in state if name.startswith("encoder.")]
        teacher = [state[name.replace("encoder.", "objective.average.0.")] for name in names]
        assert all(torch.equal(state[n], t) for n, t in zip(names, teacher, strict=True))

    end = kept(plan, record)
    encoder = build_encoder(plan.catalog.resolve("encoder", cell.method.encoder), plan.pack.task, 0)
    encoder.load_state_dict(below("encoder", end))
    rows = (plan.pack.domains == 0).nonzero().flatten()
    z = extract(encoder, plan.inputs, rows, plan.machine.device)
    key = features_key(plan.encoder_key(cell), plan.pack.domain_names[0], plan.pack.fingerprint)
    assert torch.allclose(plan.store.read("features", key).tensors["z"], z, atol=1e-6)

    killed, cell = cell_of(lambda text: plan_of(text, tmp_path / "other"), method, header)
    killed = replace(killed, checkpoint_every=-1.0)

    def killer(stage):
        def watch(done, loss):
            if done == 3:
                raise KeyboardInterrupt

        return watch

    with pytest.raises(KeyboardInterrupt):
        execute(cell, killed, killer)
    part = killed.store.read("checkpoints", link.key).tensors
    weights = [n for n in part if n.startswith("encoder.") and part[n].ndim > 1]
    assert not any(
        torch.equal(part[n], part[n.replace("encoder.", "objective.average.0.")]) for n in weights
    )
    again = execute(cell, killed, lambda stage: lambda done, loss: None)
    assert again.artifacts.encoder_sha256 == record.artifacts.encoder_sha256
    assert again.artifacts.predictions_sha256 == record.artifacts.predictions_sha256


def test_a_killed_stage_goes_on_with_the_head_it_had_begun_with(plan_of, tmp_path):
    """The checkpoint, not a probe fitted again to what training has moved since."""
    method = 'chain = "simclr > lp_ft"\nreadout = "head"\n'
    _, whole = run(plan_of, method)
    plan, cell = cell_of(lambda text: plan_of(text, tmp_path / "other"), method)
    plan = replace(plan, checkpoint_every=-1.0)

    def killer(stage):
        def watch(done, loss):
            if stage.objective == "lp_ft" and done == 3:
                raise KeyboardInterrupt

        return watch

    with pytest.raises(KeyboardInterrupt):
        execute(cell, plan, killer)
    record = execute(cell, plan, lambda stage: lambda done, loss: None)
    assert record.artifacts.encoder_sha256 == whole.artifacts.encoder_sha256
    assert record.artifacts.predictions_sha256 == whole.artifacts.predictions_sha256


def test_a_record_names_the_views_an_objective_asked_for_and_no_others(plan_of):
    weak = HEADER.replace('small = "shrink"', 'small = "shrink", weak = "invert(p=0.2)"')
    _, record = run(plan_of, 'chain = "erm > fixmatch > swav(small=1, prototypes=6)"\n', weak)
    plain, weakly, small = record.spec.chain
    assert (plain.weak, plain.small) == (None, None)
    assert (weakly.weak, weakly.small) == ("invert(p=0.2)", None)
    assert (small.weak, small.small) == (None, "shrink")
    names = {name for plugin in record.plugins for name in plugin.used}
    assert {"augmentation invert", "augmentation shrink"} <= names


@pytest.mark.parametrize(
    ("method", "changes"),
    [("erm", False), ("fixmatch", True), ("swav(small=0, prototypes=6)", False)],
)
def test_a_view_that_an_objective_does_not_ask_for_changes_no_key(plan_of, method, changes):
    def key(header):
        plan, cell = cell_of(plan_of, f'chain = "{method}"\n', header)
        return plan.links(cell)[0].key

    other = HEADER.replace('small = "shrink"', 'small = "shrink | invert", weak = "invert"')
    assert (key(HEADER) != key(other)) == changes


@pytest.mark.parametrize(
    ("method", "header", "words"),
    [
        (
            'chain = "dirt_t"',
            HEADER,
            "dirt_t goes on from the head of the stage before, and an untrained encoder has none",
        ),
        ('chain = "simclr > dirt_t"', HEADER, "and simclr has none that it can take"),
        ('chain = "mcd > dirt_t"', HEADER, "and mcd has none that it can take"),
        (
            'chain = "swav"',
            HEADER.replace(', small = "shrink"', ""),
            "swav makes small views, but the stage does not say how; set small = ",
        ),
        (
            'chain = "dino"\nencoder = "timm(model=\'resnet18\')"\nsmall = "vanish"',
            HEADER,
            "cannot read 3 × 0 × 0",
        ),
        ('chain = "mae"', HEADER, "mae is for timm's vision transformers"),
        ('chain = "erm"\nweak = "nvert"', HEADER, "no augmentation is named 'nvert'"),
    ],
)
def test_what_cannot_begin_is_refused_before_training(plan_of, method, header, words):
    with pytest.raises(BadInput, match=words):
        plan, cell = cell_of(plan_of, method + "\n", header)
        plan.check(cell)


def test_the_time_of_a_stage_with_a_head_to_begin_with_can_be_estimated(plan_of):
    plan, cell = cell_of(plan_of, 'chain = "simclr > lp_ft"\n')
    told = Calibration(plan)
    assert told.stages([cell]) == 2 and total(told.in_turn([cell])).seconds > 0


def test_old_records_have_no_views_of_other_kinds(plan_of):
    _, record = run(plan_of, 'chain = "erm"\n')
    stage = json.loads(record.model_dump_json())["spec"]["chain"][0]
    del stage["weak"], stage["small"]
    assert type(record.spec.chain[0]).model_validate_json(json.dumps(stage)) == record.spec.chain[0]
