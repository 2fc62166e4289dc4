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
from sklearn.metrics import r2_score
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict

from benchbench import BadInput
from benchbench.cli import main
from benchbench.diagnose import advice, fit, page, pseudo
from benchbench.diagnose.advice import advise, labels_to_settle
from benchbench.diagnose.fit import PREDICTORS, Fit, Point, elsewhere, judge, logit, outcomes
from benchbench.diagnose.measure import Meter
from benchbench.diagnose.mistakes import Effort
from benchbench.machine import Machine
from benchbench.store import Store
from benchbench.suite import Shift, Suite

NAMES = PREDICTORS["connectivity"]
BOARDS = Path(__file__).parent.parent / "leaderboards" / "connectivity"


def points(count=90, noise=0.3, seed=0):
    """Three datasets in which log(α/γ) counts for 1, log(β/γ) for 0.5."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        a, b, other = rng.normal(size=3)
        target = fit.expit(a + 0.5 * b + noise * rng.normal())
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
    for point, prediction in zip(some, theirs, strict=True):
        place = (point.dataset, point.shift)
        preferred[place] = max(preferred.get(place, (-9.0, 0.0)), (prediction, point.target))
    assert judged.chosen == pytest.approx(np.mean([target for _, target in preferred.values()]))


def test_one_augmentation_for_all_shifts_and_the_best_of_each():
    told = {"s": {"a": 0.5, "b": 0.3, "c": 0.9}, "t": {"a": 0.1, "b": 0.6}}
    some = [Point("d", s, a, v, 1, {}) for s, found in told.items() for a, v in found.items()]
    fixed, same, best = fit.fixed_and_best(some)
    assert (fixed, same, best) == ("b", pytest.approx(0.45), pytest.approx(0.75))
    assert fit.fixed_and_best(some[:1])[0] == "a"
    fixed, same, best = fit.fixed_and_best([some[0], some[4]])
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
            target = fit.expit(level + 0.01 * rng.normal())
            made.append(Point("d", f"a{pair} > b{pair}", f"v{cell}", target, 1, {"x": level}))
    other = [replace(p, dataset="e") for p in made]
    judged = judge([*made, *other], ["x"])
    assert judged.chance_domains < 0.01 and judged.chance_within > 0.05
    blocks = fit.alike(made, [p.shift for p in made])
    assert len(blocks) == 1 and sorted(np.concatenate(blocks[0])) == list(range(84))


def test_the_interval_covers_what_it_says_on_datasets_the_fit_has_not_seen():
    inside = []
    for seed in range(20):
        fitted = Fit.to(points(60, seed=seed), NAMES)
        for p in points(60, seed=100 + seed):
            told, low, high = fitted.accuracy(p.values)
            assert low < told < high
            inside.append(low <= p.target <= high)
    assert np.mean(inside) == pytest.approx(fit.COVERED, abs=0.04)


def test_a_fit_wants_two_datasets():
    for asked in (Fit.to, judge):
        with pytest.raises(BadInput, match="two datasets"):
            asked([replace(p, dataset="d") for p in points()], NAMES)


def test_the_shipped_points_have_what_advice_predicts_from():
    shipped = fit.shipped()
    assert len(shipped) >= 60 and len({p.dataset for p in shipped}) >= 3
    assert all(set(NAMES) <= p.values.keys() and 0 <= p.target <= 1 for p in shipped)
    assert json.loads(fit.as_json(shipped)) == json.loads(fit.SHIPPED.read_text())


def test_points_join_records_with_connectivity_of_either_direction():
    found = fit.points_of(BOARDS / "digits")
    by_way = {(p.shift, p.augmentation): p.values["log α/γ"] for p in found}
    assert len(by_way) == len(found) == 42
    for (shift, augmentation), value in by_way.items():
        a, b = shift.split(" > ")
        assert by_way[f"{b} > {a}", augmentation] == value


def test_what_is_shipped_and_said_is_what_the_boards_say():
    folders = [str(BOARDS / name) for name in ("digits", "mnist", "aerial")]
    points = [p for folder in folders for p in fit.points_of(Path(folder))]
    assert fit.as_json(points) == fit.SHIPPED.read_text(encoding="utf-8")
    told = CliRunner().invoke(main, ["diagnose", "prediction", *folders]).stdout
    page = (BOARDS.parent.parent / "docs" / "why.md").read_text(encoding="utf-8")
    for line in told.partition("\n\n")[0].splitlines():
        assert line in page


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
    assert verdict(0.3, 0.6, 0.9) == "transfers", "a plain classifier is enough"


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
        pseudo.pseudo_labels(m, "noise", shift) for m in (meter, spoiled(meter, "right"))
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

    monkeypatch.setattr(pseudo, "predictions", predictions)
    monkeypatch.setattr(pseudo, "tells_all", lambda subject: None)
    shift = Shift.parse("left > right", meter.pack.domain_names)
    made = pseudo.pseudo_labels(meter, "noise", shift)
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


def test_the_page_needs_nothing_else_explains_its_numbers_and_is_safe(meter):
    found = advise(meter, "tiny(x='<script>')", ["left"], ["right"], ["noise"], goal=0.8,
                   labels="source")  # fmt: skip
    seen = Seen()
    seen.feed(page.page(found, meter.pack))
    words = " ".join(" ".join(seen.words).split())
    assert "script" not in seen.tags and "link" not in seen.tags and "iframe" not in seen.tags
    assert all(address.startswith("data:image/png;base64,") for address in seen.addresses)
    for sign in ("α", "β", "γ", "α/γ", "β/γ"):
        assert sign in words
    for sentence in (
        "How to read it",
        "predicted accuracy",
        "would settle it",
        "No label of right",
    ):
        assert sentence in words
    best = found.targets[0].best
    assert f"{100 * best.accuracy:.0f} %" in words


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
    from benchbench.cli.advise import TRIED, usual

    inputs = torch.zeros(len(meter.pack.labels), channels, 16, 16, dtype=torch.float16)
    found = usual(replace(meter, pack=replace(meter.pack, inputs=inputs)))
    assert found and (channels == 5) == (len(found) < len(TRIED))


def test_a_prediction_of_one_dataset_is_refused_in_a_sentence():
    done = CliRunner().invoke(main, ["diagnose", "prediction", str(BOARDS / "digits")])
    assert done.exit_code == 2 and "two datasets" in done.stderr


def test_the_command_writes_the_page_and_says_the_same_as_json(tmp_path):
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from benchbench import hookimpl\n"
        "from benchbench.checks.subject import bars\n\n"
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
    assert re.search(rf"{100 * target['options'][0]['accuracy']:.0f} %", out.read_text())
    for words, message in (
        (["--source", "nowhere"], "no domain 'nowhere'"),
        (["--source", "left", "--target", "left"], "leads from 'left' to itself"),
        (["--source", "left", "--augmentation", "nois"], "noise"),
        (["--source", "left", "--out", str(tmp_path / "no" / "a.html")], "there is no folder"),
    ):
        fails = runner.invoke(main, ["advise", "mine", *shared, *words])
        assert fails.exit_code == 2 and message in fails.stderr, fails.output
        assert fails.stderr.count("\n") == 1 or "decoding" in fails.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["advice.html", "mine.py", "store"]


def test_prediction_says_what_predicts_and_draws_it(tmp_path):
    done = CliRunner().invoke(main, ["diagnose", "prediction", "--json", "--out", str(tmp_path)])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["connectivity"]["rank"] == pytest.approx(judge(fit.shipped(), NAMES).rank)
    assert (tmp_path / "prediction.svg").read_text().startswith("<?xml")
    assert fit.shipped() == [Point(**p) for p in json.loads((tmp_path / "fit.json").read_text())]
    assert logit(0.5) == 0
