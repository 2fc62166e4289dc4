"""Rules of selection: what they prefer, and that none but the oracle sees a target label."""

from dataclasses import replace
from statistics import mean

import pytest
import torch
from audiences import Silent
from tiny import SUITE, make_plan

from benchbench.data.pack import Pack
from benchbench.execution.cell import execute
from benchbench.execution.local import run_cells
from benchbench.extension.constants import HONEST
from benchbench.extension.errors import BadInput
from benchbench.leaderboard.publishing import of_plan
from benchbench.leaderboard.selection import RULES, chosen, held_out_of, states_of
from benchbench.leaderboard.table import LEAST_SEEDS, board, by_place
from benchbench.leaderboard.table_formats import render
from benchbench.store.artifacts import Store
from benchbench.store.records import Snapshot, Validators, prediction_name
from benchbench.suites.suite import Suite


def test_every_draw_meets_the_cells_of_its_shift_and_of_each_source_left_out(tuned):
    plan, records = tuned
    shifts = ["left > right", "left + odd > right", "odd > left", "left > odd"]
    for method in ("simclr", "erm"):
        for draw in (0, 1):
            mine = [r for r in records if (r.method, r.draw) == (method, draw)]
            assert sorted(r.shift for r in mine) == sorted(shifts)
            assert all([s.step for s in r.snapshots] == [3] for r in mine)
    nothing = [r for r in records if r.method == "random encoder"]
    assert sorted(r.shift for r in nothing) == sorted(shifts[:2]), "nothing to draw or to leave out"
    assert of_plan(plan).expected.shifts == tuple(shifts[:2]), "the board has the suite's shifts"


def test_draws_differ_in_what_the_suite_left_open_and_agree_where_chains_do(tuned):
    plan, records = tuned
    first, second = (
        next(r for r in records if (r.method, r.draw, r.shift) == ("simclr", d, "left > right"))
        for d in (0, 1)
    )
    assert first.spec.chain[0].lr == 0.01
    assert second.spec.chain[0].lr != 0.01 and 0.002 <= second.spec.chain[0].lr <= 0.05
    assert "temperature=0.2" in first.spec.chain[0].objective
    assert first.spec.chain[0].objective != second.spec.chain[0].objective
    longer = [replace(c.method, chain=(*c.method.chain, c.method.chain[0])) for c in plan.cells[:1]]
    drawn, alone = (plan._drawn(m, 0, 1) for m in (longer[0], plan.cells[0].method))
    assert drawn.chain[0] == alone.chain[0] and drawn.chain[1] != drawn.chain[0]
    assert plan._drawn(alone, 0, 1).chain[0].objective == alone.chain[0].objective, "spelled, kept"
    assert plan._drawn(plan.cells[0].method, 1, 1) != plan._drawn(plan.cells[0].method, 0, 1)


def test_a_snapshot_is_the_state_of_a_run_that_was_cut_there(tuned, tmp_path):
    """As the checkpoint of a run without snapshots, which was stopped after as many steps."""
    plan, _ = tuned
    cell = plan.cells[0]
    link = plan.links(cell)[0]
    end = plan.store.read("stages", link.key)
    half = plan.store.read("snapshots", link.snapshot_key(3))
    assert half.tensors.keys() == end.tensors.keys()
    weights = [name for name, t in end.tensors.items() if t.is_floating_point() and t.ndim > 1]
    assert all(not torch.equal(half.tensors[name], end.tensors[name]) for name in weights)
    place = Store(tmp_path / "again")
    cut = replace(make_plan(SUITE, tmp_path / "again", tmp_path), checkpoint_every=-1.0)
    assert cut.store.root == place.root and cut.pack.fingerprint == plan.pack.fingerprint
    (same,) = cut.links(cut.cells[0])
    assert same.key == link.key and not same.snapshots

    def stopped(stage):
        def watch(done, loss):
            if done == 4:  # the state after three steps is kept
                raise KeyboardInterrupt

        return watch

    with pytest.raises(KeyboardInterrupt):
        execute(cut.cells[0], cut, stopped)
    other = place.read("checkpoints", same.key)
    assert int(other.tensors["done"]) == 3
    assert all(torch.equal(half.tensors[name], other.tensors[name]) for name in half.tensors)


def test_predictions_of_every_state_are_kept(tuned):
    plan, records = tuned
    source = of_plan(plan)
    record = next(r for r in records if r.snapshots)
    kept = source.predictions(record)
    states = states_of([record])
    assert [len(state.scores) for state in states] == [2, 2]
    for state in states:
        for score in state.scores:
            predicted = kept[prediction_name(score.domain, state.step)]
            right = (predicted == source.truth.labels[score.domain]).mean()
            assert right == pytest.approx(score.accuracy, abs=1e-12)


def poisoned(pack: Pack, domain: str) -> Pack:
    """With the labels of a domain's rows turned over, in every split."""
    labels = pack.labels.clone()
    rows = pack.domains == pack.domain_names.index(domain)
    labels[rows] = (labels[rows] + 1) % len(pack.class_names)
    return replace(pack, labels=labels)


def test_no_rule_but_the_oracle_touches_target_labels(tuned, tmp_path):
    """All is run again with wrong target labels: scores change, and what is chosen does not."""
    plan, records = tuned
    wrong = replace(plan, pack=poisoned(plan.pack, "right"), store=Store(tmp_path / "wrong"))
    cells = [cell for cell in wrong.cells if cell.method.labels == "source"]
    others = run_cells(wrong, cells, Silent())
    here, there = by_place(records), by_place(others)
    assert here.keys() == there.keys()
    moved = 0
    for place in here:
        mine, theirs = states_of(here[place]), states_of(there[place])
        for a, b in zip(mine, theirs, strict=True):
            blind = {"target_val"}
            assert a.validators.model_dump(exclude=blind) == b.validators.model_dump(exclude=blind)
            moved += "right" in place[1] and a.scores != b.scores
        for rule in HONEST:
            picked = chosen(mine, rule, held_out_of(here, place))
            other = chosen(theirs, rule, held_out_of(there, place))
            assert (picked is None) == (other is None)
            if picked is not None:
                assert (picked.record.draw, picked.step) == (other.record.draw, other.step), rule
    assert moved, "the poison reached the scores"


def state_with(template, draw, step, **values):
    told = Validators(**values)
    score = template.scores
    if step is None:
        return template.model_copy(update={"draw": draw, "validators": told, "snapshots": ()})
    return Snapshot(step=step, selection=template.selection, scores=score, validators=told)


@pytest.mark.parametrize("rule", [r for r in RULES if r not in ("last", "leave_one_out")])
def test_a_rule_chooses_the_highest_and_of_equals_the_first(tuned, rule):
    template = tuned[1][0]
    field = "target_val" if rule == "oracle" else rule
    ends = [state_with(template, draw, None, **{field: v}) for draw, v in enumerate((0.2, 0.7))]
    better = state_with(template, 1, 3, **{field: 0.9})
    both = [ends[0], ends[1].model_copy(update={"snapshots": (better,)})]
    pick = chosen(states_of(both), rule, lambda draw, step: None)
    assert (pick.record.draw, pick.step) == (1, 3)
    same = [state_with(template, draw, None, **{field: 0.5}) for draw in (1, 0)]
    assert chosen(states_of(same), rule, lambda draw, step: None).record.draw == 0
    unknown = [state_with(template, draw, None) for draw in (0, 1)]
    assert chosen(states_of(unknown), rule, lambda draw, step: None) is None
    assert chosen(states_of(unknown[:1]), rule, lambda draw, step: None) is not None
    last = chosen(states_of(both), "last", lambda draw, step: None)
    assert (last.record.draw, last.step) == (0, None)


def test_leave_one_out_is_the_mean_accuracy_on_each_source_left_out(tuned):
    _, records = tuned
    places = by_place(records)
    value = held_out_of(places, ("simclr", "left + odd > right", 0))
    for draw, step in ((0, None), (1, 3)):
        found = []
        for shift in ("odd > left", "left > odd"):
            (state,) = (
                s
                for s in states_of(places["simclr", shift, 0])
                if (s.record.draw, s.step) == (draw, step)
            )
            found.append(state.validators.target_val)
        assert value(draw, step) == pytest.approx(mean(found))
    assert held_out_of(places, ("simclr", "left > right", 0))(0, None) is None


def test_the_board_shows_every_rule_and_ranks_by_none_that_reads_target_labels(tuned):
    plan, records = tuned
    made = board(of_plan(plan))
    row = next(row for row in made.rows if row.method == "erm")
    assert row.by_rule["source_val"] == pytest.approx(mean(row.average))
    worth = {rule: [] for rule in ("oracle", "last")}
    for shift in ("left > right", "left + odd > right"):  # by hand, of all states of both draws
        states = states_of(by_place(records)["erm", shift, 0])
        assert len(states) == 4
        best = max(states, key=lambda s: s.validators.target_val)
        for rule, state in (("oracle", best), ("last", states[0])):
            worth[rule] += [100 * s.accuracy for s in state.scores if s.role == "target"]
    for rule, values in worth.items():
        assert row.by_rule[rule] == pytest.approx(mean(values)), rule
    assert row.oracle_gap == pytest.approx(row.by_rule["oracle"] - mean(row.average))
    assert row.by_rule["leave_one_out"] is None, "one of the shifts has a single source"
    assert row.unranked == f"1 of {LEAST_SEEDS} seeds"
    text = render(made)
    assert "oracle gap" in text and "leave one out" not in text.partition("Settings and")[0]
    with pytest.raises(BadInput, match="oracle"):
        Suite.model_validate({**plan.suite.model_dump(), "rule": "oracle"}).methods()


def test_a_draw_that_is_missing_or_failed_is_not_chosen_away(tuned):
    plan, records = tuned
    source = of_plan(plan)
    gone = next(r for r in records if (r.method, r.shift, r.draw) == ("erm", "left > right", 1))
    left = replace(source, records=tuple(r for r in source.records if r.cell_id != gone.cell_id))
    (row,) = (row for row in board(left).rows if row.method == "erm")
    assert row.entries["left > right"].lacks == {"missing": 1} and not row.complete
    diverged = gone.model_copy(update={"status": "diverged", "scores": (), "snapshots": ()})
    with_it = replace(left, records=(*left.records, diverged))
    (row,) = (row for row in board(with_it).rows if row.method == "erm")
    assert row.complete, "a draw that diverged is a draw, and none that is chosen"
