"""Whether connectivity predicts accuracy, and the advice that follows from it."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from sklearn.linear_model import LinearRegression
from sklearn.metrics import balanced_accuracy_score, r2_score
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict

from benchbench import BadInput
from benchbench.cli import main
from benchbench.diagnostics import accuracy_prediction as prediction
from benchbench.diagnostics import (
    advice,
    connectivity_report,
    pseudo_labels,
)
from benchbench.diagnostics import (
    advice_page as page,
)
from benchbench.diagnostics.accuracy_prediction import (
    PREDICTORS,
    Fit,
    Point,
    elsewhere,
    judge,
    logit,
    outcomes,
)
from benchbench.diagnostics.advice import advise, labels_to_settle
from benchbench.diagnostics.connectivity import connectivity
from benchbench.diagnostics.connectivity_measurement import Meter
from benchbench.diagnostics.connectivity_report import read_told
from benchbench.diagnostics.graph_nodes import Node
from benchbench.diagnostics.node_classifiers import Effort, Mistakes
from benchbench.extension.contracts import as_read
from benchbench.leaderboard.prediction_points import points_of
from benchbench.store.artifacts import Store
from benchbench.suites.suite import Shift, Suite
from benchbench.training.device import Machine
from benchbench.training.seeds import derive_seed

NAMES = PREDICTORS["connectivity"]
BOARDS = Path(__file__).parents[2] / "leaderboards" / "connectivity"


def points(count=90, noise=0.3, seed=0):
    """Three datasets in which log(α/γ) counts for 1, log(β/γ) for 0.5."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        a, b, other = rng.normal(size=3)
        target = prediction.expit(a + 0.5 * b + noise * rng.normal())
        values = {"log α/γ": a, "log β/γ": b, "noise": other}
        made.append(Point(f"d{i % 3}", f"s{i // 10}", f"a{i % 10}", target, 1, values))
    return made


def test_a_fit_and_its_predictions_elsewhere_are_those_of_scikit_learn():
    some = points()
    x = np.array([[p.values[name] for name in NAMES] for p in some])
    y = outcomes(some)
    model = LinearRegression().fit(x, y)
    fitted = Fit.to(some, NAMES)
    assert np.allclose(fitted.weights, [model.intercept_, *model.coef_])
    groups = [p.dataset for p in some]
    theirs = cross_val_predict(LinearRegression(), x, y, cv=LeaveOneGroupOut(), groups=groups)
    assert np.allclose(elsewhere(some, NAMES), theirs)
    judged = judge(some, NAMES)
    assert judged.inside == pytest.approx(r2_score(y, model.predict(x)))
    assert judged.elsewhere == pytest.approx(r2_score(y, theirs))
    assert judged.chance_within < 0.001 and judged.rank > 0.9 and judged.within > 0.8
    preferred: dict[tuple[str, str], tuple[float, float]] = {}
    for point, told in zip(some, theirs, strict=True):
        place = (point.dataset, point.shift)
        preferred[place] = max(preferred.get(place, (-9.0, 0.0)), (told, point.target))
    assert judged.chosen == pytest.approx(np.mean([target for _, target in preferred.values()]))


def test_one_augmentation_for_all_shifts_and_the_best_of_each():
    told = {"s": {"a": 0.5, "b": 0.3, "c": 0.9}, "t": {"a": 0.1, "b": 0.6}}
    some = [Point("d", s, a, v, 1, {}) for s, found in told.items() for a, v in found.items()]
    fixed, same, best = prediction.fixed_and_best(some)
    assert (fixed, same, best) == ("b", pytest.approx(0.45), pytest.approx(0.75))
    assert prediction.fixed_and_best(some[:1])[0] == "a"
    fixed, same, best = prediction.fixed_and_best([some[0], some[4]])
    assert fixed == "none" and np.isnan(same) and best == pytest.approx(0.55)


def test_what_predicts_nothing_is_told_so():
    judged = judge(points(), ["noise"])
    assert judged.inside < 0.1 and judged.elsewhere < 0.05 and judged.chance_within > 0.05


def test_domains_that_differ_in_level_alone_are_told_by_the_permutation_of_domains():
    """Cells of a pair share a predictor and a level: 84 cells are worth six, not 84."""
    rng, made = np.random.default_rng(0), []
    for pair in range(6):
        level = rng.normal()
        for cell in range(14):
            target = prediction.expit(level + 0.01 * rng.normal())
            made.append(Point("d", f"a{pair} > b{pair}", f"v{cell}", target, 1, {"x": level}))
    other = [replace(p, dataset="e") for p in made]
    judged = judge([*made, *other], ["x"])
    assert judged.chance_domains < 0.01 and judged.chance_within > 0.05
    blocks = prediction.alike(made, [p.shift for p in made])
    assert len(blocks) == 1 and sorted(np.concatenate(blocks[0])) == list(range(84))


def test_the_interval_covers_what_it_says_on_datasets_the_fit_has_not_seen():
    inside = []
    for seed in range(20):
        fitted = Fit.to(points(60, seed=seed), NAMES)
        for p in points(60, seed=100 + seed):
            told, low, high = fitted.accuracy(p.values)
            assert low < told < high
            inside.append(low <= p.target <= high)
    assert np.mean(inside) == pytest.approx(prediction.COVERED, abs=0.04)


def test_a_fit_wants_two_datasets():
    for asked in (Fit.to, judge):
        with pytest.raises(BadInput, match="two datasets"):
            asked([replace(p, dataset="d") for p in points()], NAMES)


def test_the_shipped_points_have_what_advice_predicts_from():
    shipped = prediction.shipped()
    assert len(shipped) >= 60 and len({p.dataset for p in shipped}) >= 3
    assert all(set(NAMES) <= p.values.keys() and 0 <= p.target <= 1 for p in shipped)
    assert json.loads(prediction.as_json(shipped)) == json.loads(prediction.SHIPPED.read_text())


def test_points_join_records_with_connectivity_of_either_direction():
    found = points_of(BOARDS / "digits")
    by_way = {(p.shift, p.augmentation): p.values["log α/γ"] for p in found}
    assert len(by_way) == len(found) == 42
    for (shift, augmentation), value in by_way.items():
        a, b = shift.split(" > ")
        assert by_way[f"{b} > {a}", augmentation] == value


def test_what_is_shipped_and_said_is_what_the_boards_say():
    folders = [str(BOARDS / name) for name in ("digits", "mnist", "aerial")]
    points = [p for folder in folders for p in points_of(Path(folder))]
    assert prediction.as_json(points) == prediction.SHIPPED.read_text(encoding="utf-8")
    told = CliRunner().invoke(main, ["diagnose", "prediction", *folders]).stdout
    page = (BOARDS.parent.parent / "docs" / "why.md").read_text(encoding="utf-8")
    for line in told.partition("\n\n")[0].splitlines():
        assert line in page


@pytest.mark.parametrize("name", ["digits", "mnist", "aerial"])
def test_a_shipped_point_is_what_the_files_of_its_board_say(name):
    """Read as JSON: mean accuracy over seeds, and connectivity of the same shift and views."""
    told = {}
    for path in (BOARDS / name / "records").glob("*.json"):
        record = json.loads(path.read_text())
        stages = record["spec"]["chain"]
        if len(stages) == 1 and not stages[0]["reads"] and record["status"] == "scored":
            (right,) = [s["value"] for s in record["scores"] if s["role"] == "target"]
            place = (record["shift"], stages[0]["augmentation"])
            told.setdefault(place, []).append(right)
    links = {
        (frozenset(each["shift"].split(" > ")), each["augmentation"]): each
        for each in json.loads((BOARDS / name / "connectivity.json").read_text())
    }
    mine = [p for p in prediction.shipped() if p.dataset == f"connectivity-{name}"]
    assert len(mine) == len(told) >= 4
    for point in mine:
        right = told[point.shift, point.augmentation]
        link = links[frozenset(point.shift.split(" > ")), point.augmentation]
        assert (point.target, point.seeds) == (pytest.approx(np.mean(right)), len(right))
        for letter, other in (("α", "alpha"), ("β", "beta")):
            above, below = (  # half a row more on either side: rates may be 0
                (link[n]["value"] * link[n]["rows"] + 0.5) / (link[n]["rows"] + 1)
                for n in (other, "gamma")
            )
            ours = point.values[f"log {letter}/γ"]
            assert ours == pytest.approx(np.log(above / below), abs=1e-6)


@pytest.mark.parametrize(("accuracy", "goal"), [(0.9, 0.7), (0.6, 0.75), (0.5, 0.95)])
def test_so_many_labels_tell_the_accuracy_from_the_goal(accuracy, goal):
    n = labels_to_settle(accuracy, goal)
    seen = np.random.default_rng(0).binomial(n, accuracy, 20_000) / n
    half = 1.96 * np.sqrt(seen * (1 - seen) / n)
    told = np.mean(np.abs(seen - goal) > half)
    assert told >= 0.75
    if n > 30:
        assert told == pytest.approx(0.8, abs=0.06)


def test_the_verdict_is_of_the_whole_interval_and_of_agreement():
    def verdict(low, high, agreement):
        said = SimpleNamespace(log_ratios=(1.0, 1.0))
        return advice.verdict_of(
            advice.Option(said, (low + high) / 2, low, high), agreement, goal=0.8
        )

    assert verdict(0.8, 0.9, 0.5) == "transfers"
    assert verdict(0.6, 0.79, 0.5) == "label this domain"
    assert verdict(0.6, 0.8, 0.5) == "borderline"
    assert verdict(0.7, 0.95, 0.9) == "transfers", "predicted and agreed on"
    assert verdict(0.6, 0.9, 0.9) == "borderline", "what is predicted is below the goal"
    assert verdict(0.1, 0.4, 0.95) == "borderline", "the two contradict each other"


@pytest.mark.parametrize("goal", [0.3, 0.5, 0.8, 0.9])
def test_no_agreement_says_that_it_transfers_against_what_is_predicted(goal):
    said, seen = SimpleNamespace(log_ratios=(1.0, 1.0)), set()
    for predicted in np.linspace(0.02, 0.98, 49):
        ends = [prediction.expit(logit(predicted) + side * 1.2) for side in (-1, 1)]
        for agreement in (0.0, 0.9, 1.0):
            got = advice.verdict_of(advice.Option(said, predicted, *ends), agreement, goal)
            if got == "transfers":
                assert predicted >= goal
            if got == "label this domain":
                assert max(ends[1], agreement) < goal
            seen.add(got)
    assert {"transfers", "label this domain"} <= seen


@pytest.mark.parametrize("away", [-0.1, 0.1, 0.3, -0.4])
def test_so_many_labels_tell_any_accuracy_from_a_goal_ten_points_away(away):
    n = labels_to_settle(None, 0.5)
    assert n == 196  # 2.8² · 0.25 / 0.1²
    seen = np.random.default_rng(0).binomial(n, 0.5 + away, 20_000) / n
    half = 1.96 * np.sqrt(seen * (1 - seen) / n)
    assert np.mean(np.abs(seen - 0.5) > half) >= 0.78


def told_on_boards():
    """Every cell of the boards, with what is measured of its connectivity."""
    found = []
    for name in ("digits", "mnist", "aerial"):
        folder = BOARDS / name
        said = {(prediction.domains_of(t.shift), t.augmentation): t
                for t in read_told(folder / "connectivity.json")}  # fmt: skip
        found += [
            (p, said[prediction.domains_of(p.shift), p.augmentation]) for p in points_of(folder)
        ]
    return found


@pytest.fixture(scope="module")
def foretold():
    """Of every cell, what was measured and what a fit to the two other datasets says."""
    cells = told_on_boards()
    fits = {name: advice.Fitted.to([p for p, _ in cells if p.dataset != name])
            for name in {p.dataset for p, _ in cells}}  # fmt: skip
    return [(p, fits[p.dataset].option(said)) for p, said in cells]


def share(cells):
    inside = sum(option.low <= point.target <= option.high for point, option in cells)
    return f"{inside} of {len(cells)}" if cells else "–"


def test_the_interval_covers_on_every_shift_of_the_boards_what_the_documentation_says(foretold):
    """Each dataset by a fit, and a width, of the two others: nothing of it decides its interval."""
    rows = ["| dataset | in the interval | cannot tell | in it, of these | in it, of the others |",
            "|---|--:|--:|--:|--:|"]  # fmt: skip
    for name in ("aerial", "digits", "mnist", ""):
        mine = [cell for cell in foretold if cell[0].dataset.endswith(name)]
        doubted = [cell for cell in mine if cell[1].doubts]
        clear = [cell for cell in mine if not cell[1].doubts]
        rows.append(f"| {name or 'all'} | {share(mine)} | {len(doubted)} | {share(doubted)} | "
                    f"{share(clear)} |")  # fmt: skip
    page = (BOARDS.parent.parent / "docs" / "why.md").read_text(encoding="utf-8")
    assert "\n".join(rows) in page
    covered = np.mean([option.low <= point.target <= option.high for point, option in foretold])
    assert covered == pytest.approx(advice.covered_elsewhere(prediction.shipped()))
    assert covered >= prediction.COVERED, "the page of advise says so"
    assert f"to cover {100 * prediction.COVERED:.0f} %, and covers {100 * covered:.0f};" in page
    within = abs(elsewhere(prediction.shipped(), NAMES) - outcomes(prediction.shipped()))
    width = Fit.to(prediction.shipped(), NAMES).error
    each = [100 * np.mean([w <= width for w, p in zip(within, prediction.shipped(), strict=True)
                           if p.dataset.endswith(name)])
            for name in ("aerial", "mnist", "digits")]  # fmt: skip
    assert (
        "({:.0f} % of aerial, {:.0f} of mnist and {:.0f} of digits lie in it)".format(*each) in page
    )
    clear = [(p, o) for p, o in foretold if not o.doubts]
    assert np.mean([o.low <= p.target <= o.high for p, o in clear]) >= prediction.COVERED


def test_verdicts_on_every_shift_of_the_boards_are_as_often_right_as_the_documentation_says(
    foretold,
):
    """Of the augmentation that is preferred; agreement is not on the boards: by interval alone."""
    best = {}
    for point, option in foretold:
        before = best.get((point.dataset, point.shift))
        if before is None or option.accuracy > before[1].accuracy:
            best[point.dataset, point.shift] = point, option
    assert len(best) == 28
    rows = ["| goal | transfers | right | label this domain | right | borderline | cannot tell |",
            "|--:|--:|--:|--:|--:|--:|--:|"]  # fmt: skip
    for goal in (0.2, 0.5, 0.8):
        given = [(p.target, "cannot tell" if o.doubts else advice.verdict_of(o, 0.0, goal))
                 for p, o in best.values()]  # fmt: skip
        reached = [target >= goal for target, verdict in given if verdict == "transfers"]
        missed = [target < goal for target, verdict in given if verdict == "label this domain"]
        said = [verdict for _, verdict in given]
        counts = (len(reached), sum(reached), len(missed), sum(missed),
                  said.count("borderline"), said.count("cannot tell"))  # fmt: skip
        rows.append(f"| {100 * goal:.0f} % | {' | '.join(map(str, counts))} |")
        assert sum(reached) >= prediction.COVERED * len(reached)
    page = (BOARDS.parent.parent / "docs" / "why.md").read_text(encoding="utf-8")
    assert "\n".join(rows) in page


def test_noise_and_blur_of_scans_and_photos_cannot_be_predicted_from_a_row():
    """The README's shift, with true labels: 36 % measured, 70 % predicted by the shipped fit."""
    (cell,) = (
        (p, said) for p, said in told_on_boards()
        if p.shift == "scans > photos" and p.augmentation.startswith("noise")
    )  # fmt: skip
    option = advice.Fitted.to(prediction.shipped()).option(cell[1])
    assert cell[0].target == pytest.approx(0.361, abs=0.001)
    assert option.accuracy == pytest.approx(0.697, abs=0.001) and option.low > cell[0].target
    assert any("γ is 0.0004" in doubt and "test rows" in doubt for doubt in option.doubts)


def test_what_lies_outside_the_cells_of_the_fit_is_said(foretold):
    cells = told_on_boards()
    fitted = advice.Fitted.to([p for p, _ in cells])
    assert not any(fitted.outside(said, p.target) for p, said in cells), "its own cells"
    said = cells[0][1]
    for number, name in enumerate(NAMES):
        known = [p.values[name] for p, _ in cells]
        for beyond in (max(known) + 0.01, min(known) - 0.01):
            ratios = [*said.log_ratios]
            ratios[number] = beyond
            (doubt,) = fitted.outside(said.model_copy(update={"log_ratios": tuple(ratios)}), 0.5)
            assert doubt.startswith(name) and said.augmentation in doubt
    assert len(fitted.outside(said, 0.01)) == 1
    (doubt,) = fitted.outside(said, 0.95)
    assert "outside the accuracies" in doubt and "88%" in doubt
    assert all("95" not in doubt for doubt in fitted.outside(said, 0.95))


@pytest.mark.parametrize("mistaken", range(8))
def test_one_more_mistaken_row_changes_a_ratio_as_is_said(mistaken):
    """Rows of real nodes, of which one more is taken for every other node it is compared with."""
    nodes = [Node(label, domain, *([torch.arange(20)] * 3))
             for label in range(3) for domain in range(2)]  # fmt: skip

    def gamma(count):
        taken = [torch.zeros(20, 6) for _ in nodes]
        for i, part in enumerate(taken):
            part[:, i] = torch.nan
        for j, node in enumerate(nodes):
            if node.label != 0 and node.domain == 1:
                taken[0][:count, j] = 1.0
        rows = tuple(torch.arange(20) for _ in nodes)
        mistakes = Mistakes(rows, tuple(taken), tuple(torch.zeros(20) for _ in nodes))
        return connectivity(nodes, mistakes, {0}, {1}).gamma

    before, after = gamma(mistaken), gamma(mistaken + 1)
    fine = connectivity_report.EstimateTold(value=0.2, low=0, high=0.5, pairs=1, rows=120)
    said = connectivity_report.EstimateTold(**vars(before))
    doubts = advice.decided_by_a_row(
        SimpleNamespace(alpha=fine, beta=fine, gamma=said, augmentation="noise")
    )
    assert bool(doubts) == (mistaken < advice.FEW)
    for doubt in doubts:
        factor = after.smoothed / before.smoothed
        assert f"by a factor of {factor:.1f}" in doubt and f"{mistaken}.0 of 120 test rows" in doubt


def test_classifiers_that_know_nothing_are_reasons(meter):
    shift = Shift.parse("left > right", meter.pack.domain_names)

    def doubts(labels="source", **changed):
        well = pseudo_labels.Pseudo(torch.zeros(1), 0.95, (0.9, 0.85), 0.1, 10)
        return advice.doubts_of_classifiers(replace(well, **changed), shift, labels)

    assert doubts() == doubts(agreement=0.9) == doubts(source=(0.9, 0.55)) == []
    (agree,) = doubts(agreement=0.56)
    assert "agree on 56% of right" in agree and doubts("given", agreement=0.56) == []
    (learnt,) = doubts(source=(0.9, 0.54))
    assert "54% of its own held-out rows" in learnt and "55% is needed" in learnt
    assert doubts("given", source=(0.9, 0.54)) == [learnt]
    (one,) = doubts(classes=1)
    assert "of one class" in one


def test_held_out_accuracy_is_scikit_learn_s_balanced_accuracy_of_rows_not_trained_on(meter):
    seed = derive_seed(meter.seed, "pseudo", 0)
    nodes = pseudo_labels.classes_of(meter.pack, ["left"], seed)
    nodes[0] = replace(nodes[0], test=nodes[0].test[:3])  # else a plain mean would do as well
    subject = meter.subject(nodes, meter.steps("noise"), seed)
    network = pseudo_labels.tells_all(
        replace(subject, effort=replace(meter.effort, steps=4))
    ).eval()
    rows = torch.cat([node.test for node in nodes])
    assert not set(rows.tolist()) & {r for node in nodes for r in node.train.tolist()}
    with torch.no_grad():
        read = network(as_read(meter.pack.inputs[rows])).argmax(1)
    truth = [number for number, node in enumerate(nodes) for _ in node.test]
    assert pseudo_labels.held_out_accuracy(network, subject) == pytest.approx(
        balanced_accuracy_score(truth, read)
    )


def test_where_the_source_was_not_learnt_it_cannot_tell(meter):
    """Networks of one step at next to no learning rate: whatever they agree on is chance."""
    idle = replace(meter, effort=replace(meter.effort, steps=1, lr=1e-9))
    (item,) = advise(idle, "tiny", ["left"], ["right"], ["noise"], goal=0.01,
                     labels="given").targets  # fmt: skip
    assert item.verdict == "cannot tell" and any("have not learnt" in r for r in item.reasons)
    shift = Shift.parse("left > right", meter.pack.domain_names)
    learnt, not_learnt = (pseudo_labels.pseudo_labels(m, "noise", shift) for m in (meter, idle))
    assert max(not_learnt.source) < 2 / 3 < min(learnt.source)
    assert learnt.chance == not_learnt.chance == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("measured", "labels", "there"),
    [(2, "source", 3), (3, "source", None), (3, "given", 4), (4, "given", None)],
)
def test_too_few_measured_classes_are_a_reason(meter, measured, labels, there):
    """Of the source's three, or, given labels, of the target's four."""
    right = meter.pack.domains == meter.pack.domain_names.index("right")
    given = meter.pack.labels.clone()
    given[right.nonzero().flatten()[:3]] = 3
    shift = Shift.parse("left > right", meter.pack.domain_names)
    pack = replace(meter.pack, labels=given, class_names=(*meter.pack.class_names, "rare"))
    doubts = advice.doubts_of_classes(pack, shift, labels, measured)
    assert len(doubts) == (there is not None)
    assert all(f"{measured} of {there} classes" in doubt for doubt in doubts)


@pytest.mark.parametrize(("classes", "told"), [(2, True), (6, True), (7, False), (10, False),
                         (11, True)])  # fmt: skip
def test_data_unlike_those_of_the_fit_are_a_reason(meter, classes, told):
    names = tuple(map(str, range(classes)))
    doubts = advice.doubts_of_data(replace(meter.pack, class_names=names))
    assert bool(doubts) == told
    texts = advice.doubts_of_data(replace(meter.pack, class_names=names, vocabulary=("a",)))
    assert len(texts) == len(doubts) + 1


@pytest.fixture
def meter(plan_of):
    """Of the tiny data: bars in three domains, of which left and right are alike but for place."""
    from tiny import SUITE

    plan = plan_of(SUITE)
    effort = Effort(steps=40, rows=16, lr=1e-2, test_rows=20, views=2)
    machine = Machine.choose("cpu", "fp32")
    return Meter(plan.catalog, plan.pack, plan.store, machine, "small_cnn(width=4)", effort=effort)


def spoiled(meter, domain):
    """The same data with other labels in a domain, and nothing measured yet."""
    labels = meter.pack.labels.clone()
    here = meter.pack.domains == meter.pack.domain_names.index(domain)
    labels[here] = (labels[here] + 1) % len(meter.pack.class_names)
    store = Store(meter.store.root / "other")
    return replace(meter, pack=replace(meter.pack, labels=labels), store=store)


def without_seconds(text):
    return re.sub(r'"seconds": [0-9.]+', "", text)


def test_pseudo_labels_and_advice_by_them_read_no_target_label(meter):
    shift = Shift.parse("left > right", meter.pack.domain_names)
    honest, other = (
        pseudo_labels.pseudo_labels(m, "noise", shift) for m in (meter, spoiled(meter, "right"))
    )
    right = meter.pack.domains == meter.pack.domain_names.index("right")
    assert torch.equal(honest.labels, other.labels) and honest.agreement == other.agreement
    assert torch.equal(honest.labels[~right], meter.pack.labels[~right])
    mine, theirs = (
        advise(m, "tiny", ["left"], ["right"], ["noise", "none"], goal=0.8, labels="source")
        for m in (meter, spoiled(meter, "right"))
    )
    assert without_seconds(page.as_json(mine)) == without_seconds(page.as_json(theirs))
    given = [
        advise(m, "tiny", ["left"], ["right"], ["noise"], goal=0.8, labels="given").targets[0]
        for m in (meter, spoiled(meter, "right"))
    ]
    rows = [{(one.name, pair.target) for one in g.classes for pair in one.connects} for g in given]
    assert rows[0] and not rows[0] & rows[1]


def test_rows_on_which_the_classifiers_disagree_get_no_label(meter, monkeypatch):
    told = iter([torch.tensor([0, 1]), torch.tensor([0, 0])])
    rows = (meter.pack.domains == meter.pack.domain_names.index("right")).sum()

    def predictions(network, subject, index):
        return next(told).repeat(rows)[:rows]

    monkeypatch.setattr(pseudo_labels, "predictions", predictions)
    monkeypatch.setattr(pseudo_labels, "tells_all", lambda subject: None)
    monkeypatch.setattr(pseudo_labels, "held_out_accuracy", lambda network, subject: 1.0)
    shift = Shift.parse("left > right", meter.pack.domain_names)
    made = pseudo_labels.pseudo_labels(meter, "noise", shift)
    here = made.labels[meter.pack.domains == meter.pack.domain_names.index("right")]
    assert (here[::2] == 0).all() and (here[1::2] == -1).all()
    assert made.agreement == pytest.approx(0.5, abs=0.01)


class Seen(HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags, self.addresses, self.words = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [v for k, v in attrs if k in ("src", "href")]

    def handle_data(self, data):
        self.words.append(data)


def words_of(found, pack):
    seen = Seen()
    seen.feed(page.page(found, pack))
    return seen, " ".join(" ".join(seen.words).split())


def test_the_page_needs_nothing_else_explains_its_numbers_and_is_safe(meter):
    found = advise(meter, "tiny(x='<script>')", ["left"], ["right"], ["noise", "none"], goal=0.8,
                   labels="source")  # fmt: skip
    (item,) = found.targets
    believed = replace(item.options[0], accuracy=0.6, low=0.3, high=0.87, doubts=())
    doubted = replace(item.options[1], accuracy=0.59, low=0.31, high=0.86, doubts=("no",))
    item = replace(item, verdict="borderline", reasons=(), next_steps=(),
                   options=(believed, doubted))  # fmt: skip
    seen, words = words_of(replace(found, targets=(item,)), meter.pack)
    assert "script" not in seen.tags and "link" not in seen.tags and "iframe" not in seen.tags
    assert all(address.startswith("data:image/png;base64,") for address in seen.addresses)
    for sign in ("α", "β", "γ", "α/γ", "β/γ", "60 %", "30 to 87"):
        assert sign in words
    for sentence in (
        "How to read it",
        "predicted accuracy",
        "would settle it",
        "No label of right",
        f"it covers {100 * found.trust['covered_elsewhere']:.0f} %",
    ):
        assert sentence in words
    assert "59 %" not in words and "31–86" not in words
    assert page.in_words(item).startswith("right: borderline; 60 % predicted (30 to 87) with noise")


def test_what_it_cannot_tell_is_no_number_anywhere(meter, monkeypatch):
    """Three classes, where the fit has seen seven to ten: a reason in itself. So are others."""
    monkeypatch.setattr(advice, "doubts_of_classes", lambda *of: ["too few classes"])
    found = advise(meter, "tiny", ["left"], ["right"], ["noise", "none"], goal=0.8,
                   labels="source")  # fmt: skip
    (item,) = found.targets
    assert item.verdict == "cannot tell" and "the data have 3 classes" in item.reasons[0]
    doubts = max(item.options, key=lambda option: option.accuracy).doubts
    assert doubts and item.reasons[-len(doubts) - 1 :] == ("too few classes", *doubts)
    strange = tuple(replace(o, accuracy=0.4321, low=0.1234, high=0.8765) for o in item.options)
    item = replace(item, options=strange)
    found = replace(found, targets=(item,))
    _, words = words_of(found, meter.pack)
    told = json.loads(page.as_json(found))["targets"][0]
    said = page.in_words(item)
    assert told["verdict"] == "cannot tell" and said.startswith("right: cannot tell\n")
    assert told["reasons"] == list(item.reasons) and told["next_steps"] == list(item.next_steps)
    for sentence in (*item.reasons, *item.next_steps):
        assert sentence in words and sentence in said
    assert "196 rows" in said and "--labels given" in said and 'name = "transfer"' in words
    for text in (words, said, page.as_json(found)):
        for number in ("43 %", "0.4321", "12 to 88", "12–88", "0.8765"):
            assert number not in text
    for option, left in zip(told["options"], item.options, strict=True):
        assert option["accuracy"] is None and option["interval"] is None
        assert option["gamma"]["value"] == left.connectivity.gamma.value
        assert f"γ {left.connectivity.gamma.value:.4f}" in said
    assert [o["augmentation"] for o in told["options"]][1] == "none", "as they were asked for"
    assert told["poor"] == [] and "Poorly connected" not in words


def test_the_suite_on_the_page_is_one(meter, tmp_path):
    found = advise(meter, "tiny", ["left"], ["right"], ["noise"], goal=0.8, labels="source")
    path = tmp_path / "transfer.toml"
    path.write_text(page.suite(found, found.targets[0]))
    suite = Suite.read(str(path))
    (cell, *_) = suite.cells(meter.pack.domain_names)
    assert cell.shift == Shift(("left",), ("right",))
    assert cell.method.chain[0].augmentation == found.targets[0].best.augmentation
    meter.catalog.resolve("encoder", cell.method.encoder)


@pytest.mark.parametrize(("source", "target"), [("left", "right"), ("right", "left")])
def test_pairs_are_of_the_class_and_of_source_and_target(meter, source, target):
    found = advise(meter, "tiny", [source], [target], ["noise"], goal=0.8, labels="given")
    pack, names = meter.pack, meter.pack.domain_names
    pairs = [(one.name, pair) for one in found.targets[0].classes
             for pair in (*one.connects, *one.separates)]  # fmt: skip
    assert pairs
    for name, pair in pairs:
        assert names[pack.domains[pair.source]] == source
        assert names[pack.domains[pair.target]] == target
        assert {pack.class_names[pack.labels[row]] for row in (pair.source, pair.target)} == {name}


def test_what_comes_close_and_what_stays_apart_differ_where_no_view_is_taken(meter):
    measured, result = meter.of("noise", Shift.parse("left > right", meter.pack.domain_names))
    nothing = replace(measured.mistakes, taken=tuple(t * 0 for t in measured.mistakes.taken))
    measured = replace(measured, mistakes=nothing)
    target = meter.pack.domain_names.index("right")
    for one in advice.classes_of(meter, target, measured, result):
        near, far = (
            {(pair.source, pair.target) for pair in pairs}
            for pairs in (one.connects, one.separates)
        )
        assert near and far and not near & far
        for pair in one.connects:  # else all views of all rows stay in memory
            assert pair.source_view.untyped_storage().nbytes() == pair.source_view.nbytes


def test_what_cannot_be_measured_is_refused_before_anything_is(meter, monkeypatch):
    monkeypatch.setattr(advice, "pseudo_labels", lambda *given: pytest.fail("it was measured"))
    for targets, augmentations, message in (
        (["right"], ["noise", "nois"], "nois"),
        (["right", "nowhere"], ["noise"], "no domain 'nowhere'"),
    ):
        with pytest.raises(BadInput, match=message) as told:
            advise(meter, "tiny", ["left"], targets, augmentations, goal=0.8, labels="source")
        assert "classifiers" not in str(told.value)


def test_a_target_named_twice_is_measured_once_and_names_are_no_markup(meter):
    names = tuple(f"<b>{name}é & 'co'</b>" for name in meter.pack.class_names)
    named = replace(meter, pack=replace(meter.pack, class_names=names))
    found = advise(named, "tiny", ["left"], ["right", "right"], ["none", "none"], goal=0.8,
                   labels="given")  # fmt: skip
    (target,) = found.targets
    assert len(target.options) == 1
    assert f"<b>{meter.pack.class_names[0]}" not in page.page(found, named.pack)
    assert names[0] in {
        one["name"] for one in json.loads(page.as_json(found))["targets"][0]["classes"]
    }


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_usual_augmentations_are_those_that_can_be_built(meter, channels):
    inputs = torch.zeros(len(meter.pack.labels), channels, 16, 16, dtype=torch.float16)
    found = advice.usual(replace(meter, pack=replace(meter.pack, inputs=inputs)))
    assert found and (channels == 5) == (len(found) < len(advice.TRIED))


def test_a_prediction_of_one_dataset_is_refused_in_a_sentence():
    done = CliRunner().invoke(main, ["diagnose", "prediction", str(BOARDS / "digits")])
    assert done.exit_code == 2 and "two datasets" in done.stderr


def test_the_command_writes_the_page_and_says_the_same_as_json(tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from benchbench import hookimpl\n"
        "from benchbench.extension.conformance.fixtures import bars\n\n"
        "def mine(root): return bars(40)\n\n"
        "@hookimpl\ndef benchbench_datasets(): return {'mine': mine}\n"
    )
    shared = ["--plugin", str(plugin), "--store", str(tmp_path / "store"), "--steps", "60",
              "--augmentation", "noise", "--encoder", "small_cnn(width=4)"]  # fmt: skip
    out = tmp_path / "advice.html"
    runner = CliRunner()
    done = runner.invoke(main, ["advise", "mine", "--source", "left", "--target", "right",
                                "--out", str(out), "--json", *shared])  # fmt: skip
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    (target,) = told["targets"]
    assert target["target"] == "right" and told["sources"] == ["left"]
    assert target["verdict"] == "cannot tell" and "the data have" in target["reasons"][0]
    assert (
        "up to 3 small networks, 60 steps each" in done.stderr and "cannot tell" in out.read_text()
    )
    for words, message in (
        (["--source", "nowhere"], "no domain 'nowhere'"),
        (["--source", "left", "--target", "left"], "leads from 'left' to itself"),
        (["--source", "left", "--augmentation", "nois"], "noise"),
        (["--source", "left", "--out", str(tmp_path / "no" / "a.html")], "there is no folder"),
    ):
        fails = runner.invoke(main, ["advise", "mine", *shared, *words])
        assert fails.exit_code == 2 and message in fails.stderr, fails.output
        told = [line for line in fails.stderr.splitlines() if "decoding" not in line]
        assert len(told) == 1, fails.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["advice.html", "mine.py", "store"]


def test_prediction_says_what_predicts_and_draws_it(tmp_path):
    done = CliRunner().invoke(main, ["diagnose", "prediction", "--json", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["connectivity"]["rank"] == pytest.approx(judge(prediction.shipped(), NAMES).rank)
    assert (tmp_path / "prediction.svg").read_text().startswith("<?xml")
    assert prediction.shipped() == [
        Point(**p) for p in json.loads((tmp_path / "fit.json").read_text())
    ]
    assert logit(0.5) == 0
