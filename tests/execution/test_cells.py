"""What connects the parts of a cell: seeds, stages that are found again, counts, keys of parts."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from audiences import quiet
from scipy import stats
from tiny import SUITE, make_plan

import benchbench.execution.cell as running
from benchbench.data.pack import Pack
from benchbench.data.preparation import listed, shortened
from benchbench.evaluation.features import Moments
from benchbench.evaluation.readouts.interface import Fitted
from benchbench.execution.cell import describe, diagnosed, execute, score, told_to
from benchbench.execution.job import Task, attempt, check_same, failure
from benchbench.execution.process_ranks import alone
from benchbench.extension.contracts import ImageFiles
from benchbench.extension.errors import BadInput
from benchbench.leaderboard.statistics import Results, Stratum, compare, interval
from benchbench.store.records import value_of
from benchbench.suites.hyperparameter_draws import drawn
from benchbench.suites.plan import build_augmentation, build_encoder, stage_seed
from benchbench.suites.shift_features import Kept, ShiftFeatures, stored_features
from benchbench.suites.suite import TuneTable

SHORT = SUITE.replace("steps = 6", "steps = 1").replace("lr = 0.01", "lr = 1e-12")


@pytest.fixture
def ran(plan_of):
    """A plan of one cell, and its record."""
    plan = plan_of(SUITE)
    return plan, execute(plan.cells[0], plan, quiet)


def never(stage):
    pytest.fail(f"{stage.objective} was trained again")


def test_snapshots_are_of_steps_after_the_first(plan_of):
    for steps, wanted in ((2, (1,)), (3, (1, 2)), (6, (1, 3, 4))):
        text = f"snapshots = 4\n{SUITE.replace('steps = 6', f'steps = {steps}')}"
        plan = plan_of(text)
        assert plan.links(plan.cells[0])[0].snapshots == wanted


def test_a_stage_is_trained_when_its_snapshots_are_there_too(plan_of):
    plan = plan_of(f"snapshots = 2\n{SUITE}")
    (cell,) = plan.cells
    first = execute(cell, plan, quiet)
    (link,) = plan.links(cell)
    assert plan.trained(link) and not plan.missing(cell)
    plan.store.remove("snapshots", link.snapshot_key(3))
    assert not plan.trained(link) and plan.missing(cell) == [link]
    again = execute(cell, plan, quiet)
    assert plan.trained(link) and again.snapshots == first.snapshots


def test_every_stage_draws_rows_and_views_of_its_own(plan_of):
    plan = plan_of(SUITE.replace('"simclr"', '"simclr > simclr"'))
    (cell,) = plan.cells
    one, two = plan.links(cell)
    assert stage_seed(cell, 0) != stage_seed(cell, 1)
    first, second = plan.feed(cell, one)(0).inputs, plan.feed(cell, two)(0).inputs
    assert first.shape == second.shape and not torch.equal(first, second)


@pytest.mark.parametrize("days", [(1, 2), (2, 1)])
def test_of_older_records_the_last_is_told(plan_of, days):
    for number, day in enumerate(days):
        older = plan_of(SUITE.replace("steps = 6", f"steps = {1 + number}"))
        (cell,) = older.cells
        record = execute(cell, older, quiet)
        cost = record.cost.model_copy(update={"started": f"2026-01-0{day}T00:00:00+00:00"})
        path = older.store.records("tiny") / record.file_name
        path.write_text(record.model_copy(update={"cost": cost}).text())
    plan = plan_of(SUITE)
    (told,) = plan.older_records().values()
    assert told.started.startswith("2026-01-02")


def test_a_cell_that_diverged_is_done_and_one_that_failed_is_not(plan_of):
    plan = plan_of(SUITE)
    (cell,) = plan.cells
    assert not plan.done(cell)
    for status, done in (("failed", False), ("oom", False), ("diverged", True)):
        plan.store.write_record(describe(cell, plan, status, "a reason"))
        assert plan.done(cell) == done, status


def weights(module):
    return [p.detach() for p in module.parameters() if p.ndim > 1]


def test_every_seed_begins_with_an_encoder_of_its_own(catalog, plan_of):
    task = plan_of(SUITE).pack.task
    choice = catalog.resolve("encoder", "small_cnn(width=4)")
    zero, again, one = (weights(build_encoder(choice, task, seed)) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(zero, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(zero, one, strict=True))


def test_every_seed_begins_with_an_objective_of_its_own(plan_of):
    """Seen after a step so small that nothing moves: two seeds, and two stages of one."""
    text = SHORT.replace('"simclr"', '"simclr > simclr"').replace("seeds = [0]", "seeds = [0, 1]")
    plan = plan_of(text)
    found = []
    for cell in plan.cells:
        execute(cell, plan, quiet)
        for link in plan.links(cell):
            tensors = plan.store.read("stages", link.key).tensors
            found.append(torch.cat([t.flatten() for n, t in tensors.items()
                                    if n.startswith("objective.") and t.ndim > 1]))  # fmt: skip
    assert len(found) == 4 and found[0].numel() > 100
    pairs = [(a, b) for n, a in enumerate(found) for b in found[:n]]
    assert not any(torch.allclose(a, b, atol=1e-3) for a, b in pairs)


def test_steps_of_a_pipeline_are_applied_in_turn(plan_of):
    double = SimpleNamespace(build=lambda task: lambda x: 2 * x)
    more = SimpleNamespace(build=lambda task: lambda x: x + 1)
    one = torch.tensor(3.0)
    assert build_augmentation([double, more], None)(one) == 7
    assert build_augmentation([more, double], None)(one) == 8
    assert build_augmentation([], None)(one) == 3


def test_what_was_trained_before_is_read_off_as_if_it_were_new(ran):
    plan, first = ran
    for kind in ("features", "diagnostics"):
        for path in (plan.store.root / kind).iterdir():
            path.unlink()
    again = execute(plan.cells[0], plan, never)
    assert [stage.reused for stage in (*first.cost.stages, *again.cost.stages)] == [False, True]
    assert (again.scores, again.artifacts) == (first.scores, first.artifacts)
    assert again.diagnostics == first.diagnostics


def test_a_stage_is_trained_in_the_precision_of_its_record(plan_of):
    losses = {}
    for precision in ("fp32", "bf16"):
        plan = plan_of(SHORT.replace('"fp32"', f'"{precision}"'))
        record = execute(plan.cells[0], plan, quiet)
        assert record.spec.precision == precision
        losses[precision] = plan.store.read("stages", record.artifacts.stages[0]).note["losses"]
    assert losses["bf16"] != losses["fp32"]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.05)


def test_a_stage_that_was_stopped_goes_on_where_it_was(plan_of, tmp_path):
    plan = replace(plan_of(SUITE), checkpoint_every=-1.0)
    (cell,) = plan.cells
    (link,) = plan.links(cell)
    steps = []

    def until_the_fourth(done, loss):
        steps.append(done)
        if steps == [1, 2, 3, 4]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(cell, plan, lambda stage: until_the_fourth)
    part = plan.store.read("checkpoints", link.key)
    assert int(part.tensors["done"]) == 3 and 0 < part.note["seconds"] < 100
    plan.store.write("checkpoints", link.key, part.tensors, {"seconds": 1000.0})
    record = execute(cell, plan, lambda stage: until_the_fourth)
    assert steps == [1, 2, 3, 4, 4, 5, 6]
    assert 1000 < record.cost.stages[0].seconds < 1100
    assert not plan.store.has("checkpoints", link.key)
    whole = plan_of(SUITE, tmp_path / "whole")
    assert execute(cell, whole, quiet).artifacts == record.artifacts


def random_features(pack: Pack) -> ShiftFeatures:
    """Three of every row."""
    count = len(pack.labels)
    z = torch.rand(count, 3, generator=torch.Generator().manual_seed(1))
    return ShiftFeatures(pack, (Kept(torch.arange(count), z),), lambda: Moments.of(z))


def test_predictions_that_are_not_finite_are_no_score(plan_of):
    plan = plan_of(SUITE)
    pack = plan.pack
    z = random_features(pack)
    scores, _ = score(plan.cells[0], Fitted(lambda z: z, "last"), z)
    assert len(scores) == 2
    broken = Fitted(lambda z: z.index_fill(1, torch.tensor([1]), torch.inf), "last")
    with pytest.raises(FloatingPointError, match="predictions on domain 'left' are not finite"):
        score(plan.cells[0], broken, z)
    assert failure(FloatingPointError("x")) == "diverged"
    assert failure(ValueError("x")) == "failed"


def test_groups_are_those_of_the_test_rows_whose_label_is_known(plan_of):
    plan = plan_of(SUITE)
    generator = torch.Generator().manual_seed(0)
    groups = torch.randint(-1, 2, plan.pack.labels.shape, generator=generator)
    labels = plan.pack.labels.clone()
    labels[torch.rand(labels.shape, generator=generator) < 0.3] = -1
    pack = replace(
        plan.pack, labels=labels, groups=groups, group_names=("one", "other"), metric="worst_group"
    )
    z = random_features(pack)
    (_, target), predictions = score(plan.cells[0], Fitted(lambda z: z, "last"), z)
    rows = pack.rows("right", 2)
    by_group = {"one": [], "other": []}
    for row, guess in zip(rows.tolist(), predictions["right"].tolist(), strict=True):
        if labels[row] >= 0 and groups[row] >= 0:
            by_group[pack.group_names[groups[row]]].append(guess == labels[row].item())
    assert min(map(len, by_group.values())) > 2 and target.n < len(rows)
    assert {g.group: g.n for g in target.groups} == {n: len(r) for n, r in by_group.items()}
    expected = {name: np.mean(right) for name, right in by_group.items()}
    assert {g.group: g.value for g in target.groups} == pytest.approx(expected)
    assert target.value == pytest.approx(min(expected.values()))
    assert value_of([target], "target") == target.value != target.accuracy


def test_a_probe_is_what_lp_ft_begins_with_also_after_a_head(plan_of):
    """After a stage that leaves a head, too; and the rows of both stages are counted."""
    text = SHORT.replace("lr = 1e-12", "lr = 0.01").replace("steps = 1", "steps = 4")
    methods = """
[[method]]
chain = "erm"
readout = ["head", "linear"]
[[method]]
chain = ["erm", { objective = "lp_ft", steps = 1, lr = 1e-12 }]
readout = "head"
"""
    plan = plan_of(text.partition("[[method]]")[0] + methods)
    head, linear, tuned = (execute(cell, plan, quiet) for cell in plan.cells)
    told = [record.artifacts.predictions_sha256 for record in (head, linear, tuned)]
    assert told[2] == told[1] != told[0]
    assert [r.cost.images_seen for r in (head, tuned)] == [4 * 12, 4 * 12 + 12]


def test_diagnostics_of_an_untrained_encoder_are_of_its_data(plan_of, monkeypatch):
    """No stage is in its key, which would be another with other data."""
    plan = plan_of(SUITE.replace('"simclr"', '""'))
    (cell,) = plan.cells
    execute(cell, plan, quiet)
    z = stored_features(plan.encoder_key(cell), (("left",), ("right",)), plan)
    asked, real = [], running.diagnose
    monkeypatch.setattr(running, "diagnose", lambda *of: asked.append(of) or real(*of))
    diagnosed(cell, z, plan)
    assert not asked, "they are kept"
    diagnosed(cell, z, replace(plan, pack=replace(plan.pack, fingerprint="0" * 64)))
    assert len(asked) == 1


def test_diagnostics_are_of_source_and_target_in_this_order(ran, monkeypatch):
    plan, record = ran
    (cell,) = plan.cells
    z = stored_features(plan.encoder_key(cell), (("left",), ("right",)), plan)
    asked = []
    real = running.diagnose

    def spy(source, target, classes):
        asked.append((source, target))
        return real(source, target, classes)

    monkeypatch.setattr(running, "diagnose", spy)
    assert diagnosed(cell, z, plan) == record.diagnostics and not asked, "they are kept"
    pack = plan.pack
    other = replace(plan, pack=replace(pack, fingerprint="0" * 64))
    for path in (plan.store.root / "diagnostics").iterdir():
        assert path.name != diagnostics_path(cell, other)
    diagnosed(cell, z, other)
    ((source, target),) = asked
    for side, domain in ((source, "left"), (target, "right")):
        rows = pack.domains == pack.domain_names.index(domain)
        split = pack.split[rows]
        every = z.of(rows.nonzero().flatten()).z
        assert torch.equal(side.train.z, every[split == 0])
        assert torch.equal(side.held_out.z, torch.cat([every[split == s] for s in (1, 2)]))


def diagnostics_path(cell, plan):
    key = running.diagnostics_key(
        plan.encoder_key(cell), plan.pack.fingerprint, cell.shift.sources, cell.shift.targets
    )
    return f"{key}.safetensors"


def test_rows_are_counted_that_a_readout_alone_sees(plan_of):
    plan = plan_of(SUITE.replace('"simclr"', '""'))
    data = describe(plan.cells[0], plan).data
    assert (data.n_labelled, data.n_unlabelled) == (72, 0)


def test_a_shift_that_cannot_be_scored_is_refused_before_training(plan_of):
    plan = plan_of(SUITE)
    plan.check(plan.cells[0])
    right = plan.pack.domains == plan.pack.domain_names.index("right")
    pack = replace(plan.pack, split=plan.pack.split.where(~right, 0))
    with pytest.raises(BadInput, match="domain 'right' has no labelled test rows"):
        replace(plan, pack=pack).check(plan.cells[0])


@pytest.mark.parametrize("number", [2**31 - 1, 1 - 2**31, 2**31, -(2**31), 2**40])
def test_a_column_is_shortened_where_32_bits_hold_it(number):
    short = shortened(torch.tensor([0, number]))
    assert short.tolist() == [0, number]
    assert (short.dtype == torch.int32) == (abs(number) < 2**31)


def test_pixels_of_another_size_or_crop_lie_elsewhere(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    files = ImageFiles(tmp_path, ("a.png",), size=8)
    others = [files, replace(files, size=9), replace(files, crop=12), replace(files, crop=13)]
    assert len({listed(other, tmp_path) for other in others}) == 4
    assert listed(replace(files), tmp_path) == listed(files, tmp_path)


def test_a_claim_says_how_far_its_stage_is():
    told = []
    claim = SimpleNamespace(tell=lambda step, steps: told.append((step, steps)))
    watch = told_to(claim, lambda done, loss: told.append(done), 9)
    watch(4, torch.tensor(0.0))
    assert told == [(4, 9), 4]


def test_a_cell_that_another_process_has_scored_is_not_run_again(ran):
    plan, first = ran

    def together(cell, links, plan):
        pytest.fail("its stages were asked for")

    record, trace = attempt(plan.cells[0], plan, never, together)
    assert record == first and trace is None


def test_a_worker_that_would_do_something_else_stops(plan_of):
    plan = plan_of(SUITE)
    (cell,) = plan.cells
    (link,) = plan.links(cell)
    check_same(plan, Task(cell, None, plan.cell_id(cell)))
    check_same(plan, Task(cell, 0, link.key))
    for task in (Task(cell, None, link.key), Task(cell, 0, plan.cell_id(cell))):
        with pytest.raises(BadInput, match="has another key for it"):
            check_same(plan, task)
    assert alone(cell, [link], plan) is None


def test_draws_keep_what_is_spelled_and_differ_between_seeds(catalog, tmp_path):
    text = SUITE.replace('"simclr"', '"simclr(temperature=0.123)"')
    (cell,) = make_plan(text, tmp_path / "store", tmp_path).cells
    method, tune = cell.method, TuneTable(draws=40)
    lr = method.chain[0].budget.lr
    assert drawn(method, catalog, tune, 0, 0) == method
    draws = [drawn(method, catalog, tune, 0, draw).chain[0] for draw in range(1, 40)]
    assert all("temperature=0.123" in stage.objective for stage in draws)
    rates = np.array([stage.budget.lr for stage in draws])
    assert lr / 5 <= rates.min() < lr / 2 and 2 * lr < rates.max() <= 5 * lr
    assert 0.3 < (rates < lr).mean() < 0.7, "drawn log-uniformly about what the suite says"
    others = [drawn(method, catalog, tune, 1, draw).chain[0].budget.lr for draw in range(1, 40)]
    assert (rates == others).sum() < 3, "to three digits, two may be the same by chance"


def test_degrees_of_freedom_are_at_most_those_of_all_seeds():
    """Two shifts of one training whose seeds cancel would seem to have more of them."""
    values = 0.5 + np.array([[0.1, -0.1], [-0.09, 0.09]])
    joined = np.ones((2, 2), dtype=bool)
    a = Results(values, (), joined)
    b = Results(np.full((2, 2), 0.4), (), joined)
    told = compare(a, b)
    assert told.df == pytest.approx(2)  # 2 shifts × (2 − 1)
    error = np.sqrt(0.1**2 + 0.09**2) / 2  # of each shift's seeds, as if they did not cancel
    half = stats.t.ppf(0.975, 2) * error
    assert (told.low, told.high) == pytest.approx((0.1 - half, 0.1 + half))


def test_rows_are_drawn_with_an_unbiased_variance():
    """Of five rows, where a factor of √(5 / 4) shows."""
    right = np.array([[True, True, True, False, False]])
    told = interval(Results(np.array([[0.6]]), (Stratum(1.0, right, "d"),)), draws=20_000)
    drawn_ones = stats.binom(5, 0.6).ppf([0.025, 0.975]) / 5 - 0.6
    stretch = stats.t.ppf(0.975, 4) / stats.norm.ppf(0.975) * np.sqrt(5 / 4)
    assert told == pytest.approx(0.6 + stretch * drawn_ones, abs=1e-9)
