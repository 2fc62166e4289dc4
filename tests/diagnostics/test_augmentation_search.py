"""The search for augmentations: what it draws, what it reads, how it goes on, what it finds."""

import json
import sys
from itertools import product

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import SUITE

from benchbench import BadInput, DomainData, Task
from benchbench.cli import main
from benchbench.data.pack import in_memory
from benchbench.diagnostics import connectivity_measurement
from benchbench.diagnostics.augmentation_search import (
    STARTUP,
    USUAL,
    Finalist,
    Search,
    Trial,
    search,
)
from benchbench.diagnostics.augmentation_search_space import (
    STEPS,
    Step,
    drawn,
    random_composition,
    spelled,
    steps_for,
)
from benchbench.diagnostics.connectivity import Connectivity, Estimate
from benchbench.diagnostics.connectivity_measurement import Meter
from benchbench.diagnostics.node_classifiers import Effort
from benchbench.execution.search_finalists import pretrained
from benchbench.extension.conformance.fixtures import TEXTS, sentences, with_noise
from benchbench.extension.grammar import parse, split_pipeline
from benchbench.store.artifacts import Store
from benchbench.suites.suite import Shift
from benchbench.training.device import Machine

TASK = Task((3, 16, 16), 3, 2)
SHIFT = Shift(("left",), ("right",))
AMONG = ("rotation", "invert", "greyscale", "random_resized_crop")


def flicker(root=None, *, rows=60):
    """Class: the one channel that flickers, in grey as much whichever; domain: the negative.

    Views of the two domains are alike only where one of them is inverted.
    """
    generator = torch.Generator().manual_seed(0)
    n = rows * 3 * 2
    index = torch.arange(n)
    labels, domains = index % 3, index // 3 % 2
    images = 95.0 + torch.randint(-8, 9, (n, 3, 16, 16), generator=generator)
    sign = 2 * torch.randint(2, (n, 8, 8), generator=generator) - 1
    swing = torch.tensor([30, 15, 80])[labels]
    images[index, labels] += swing[:, None, None] * sign.repeat_interleave(2, 1).repeat_interleave(
        2, 2
    )
    images += 80 * (torch.rand(n, 1, 16, 16, generator=generator) < 0.12)
    images = torch.where(domains[:, None, None, None] == 1, 255 - images, images)
    split = torch.tensor([0, 0, 0, 1, 2])[index // 6 % 5]
    return DomainData(
        images.clamp(0, 255).to(torch.uint8), labels, domains, ("red", "green", "blue"),
        ("left", "right"), split, licence="made by a formula",
    )  # fmt: skip


@pytest.fixture(scope="module")
def pack():
    return in_memory(flicker())


@pytest.fixture
def meter_of(catalog, tmp_path):
    """Makes a meter of a pack, cheap and on one CPU."""

    def make(pack, store="store", *, seed=0, encoder="small_cnn(width=4)", steps=30):
        machine, place = Machine.choose("cpu", "fp32"), Store(tmp_path / store)
        return Meter(catalog, pack, place, machine, encoder, effort=Effort(steps), seed=seed)

    return make


def searched(meter, trials, sampler="random", watch=lambda which, trial: None) -> Search:
    steps = steps_for(meter.catalog, meter.pack.task, AMONG)
    return search(meter, SHIFT, steps, trials, sampler, watch)


def told(result: Search) -> list[tuple[str, float]]:
    return [(trial.augmentation, trial.score) for trial in (*result.usual, *result.trials)]


# What is drawn


@given(st.integers(0, 2**62))
@settings(max_examples=50, deadline=None)
def test_a_random_composition_is_built_from_the_catalog_and_makes_views(catalog, seed):
    text = random_composition(steps_for(catalog, TASK), seed)
    assert text == random_composition(steps_for(catalog, TASK), seed)
    for step in split_pipeline(text):
        name, options = parse(step)
        assert set(options) <= set(catalog.entries["augmentation", name].options)
    images = torch.rand(4, 3, 16, 16)
    for choice in catalog.pipeline(text):
        images = choice.build(TASK)(images)
    assert images.shape == (4, 3, 16, 16) and images.isfinite().all()
    assert images.min() >= 0 and images.max() <= 1


@pytest.mark.parametrize("end", ["low", "high"])
def test_both_ends_of_every_range_are_accepted(catalog, end):
    for task in (TASK, TEXTS):
        steps = steps_for(catalog, task)
        values = {step.name: 1 for step in steps}
        values |= {step.place(r): getattr(r, end) for step in steps for r in step.ranges}
        for choice in catalog.pipeline(spelled(steps, values)):
            choice.build(task)


def test_steps_have_one_order_values_two_digits_and_something_is_always_in(catalog):
    steps = steps_for(catalog, TASK)
    order = [step.name for step in STEPS]
    sizes = []
    for seed in range(200):
        names = [parse(step)[0] for step in split_pipeline(random_composition(steps, seed))]
        assert names == sorted(set(names), key=order.index)
        assert {"random_resized_crop", "color_jitter"} <= set(names)
        sizes.append(len(names))
        for value in drawn(steps, seed).values():
            assert value == round(value, 2)
    assert 3 < sum(sizes) / 200 < 5 and min(sizes) >= 1
    nothing = {**drawn(steps, 0)} | {step.name: 0 for step in steps}
    assert spelled(steps, nothing).startswith("random_resized_crop(scale=(")
    assert "|" not in spelled(steps, nothing)


def test_only_what_is_for_the_data_is_drawn(catalog):
    words = {step.name for step in steps_for(catalog, TEXTS)}
    grey = {step.name for step in steps_for(catalog, Task((1, 16, 16), 3, 2))}
    assert words == {"token_dropout", "span", "synonyms"}
    assert "stain_jitter" not in grey and "invert" in grey
    assert steps_for(catalog, TASK, ["simclr_views", "invert"])[-1] == Step("simclr_views")
    with pytest.raises(BadInput, match="did you mean 'invert'"):
        steps_for(catalog, TASK, ["inverted"])
    with pytest.raises(BadInput, match="is for texts"):
        steps_for(catalog, TASK, ["span"])


def test_every_suite_accepts_what_is_drawn(catalog, plan_of):
    steps = steps_for(catalog, TASK)
    methods = [
        f'[[method]]\nname = "m{seed}"\nchain = "simclr"\n'
        f"augmentation = {json.dumps(random_composition(steps, seed))}\n"
        for seed in range(12)
    ]
    plan = plan_of(SUITE + "".join(methods))
    assert len(plan.cells) == 13
    for cell in plan.cells:
        plan.check(cell)


# What a trial is worth


def trial(alpha, beta, gamma, source_error, name="x") -> Trial:
    errors = (Estimate(value, value, value, 10, 500) for value in (alpha, beta, gamma))
    return Trial(name, Connectivity(*errors, None, None, {}), source_error, 1.0)


def test_what_connects_scores_more_than_what_keeps_or_destroys_everything():
    connecting = trial(0.1, 0.15, 0.02, 0.1).score
    assert connecting > trial(0.0005, 0.004, 0.0005, 0.004).score, "nothing is changed"
    assert connecting > trial(0.02, 0.15, 0.02, 0.1).score, "classes meet each other as often"
    assert connecting > trial(0.1, 0.15, 0.02, 0.2).score, "source classes are less apart"
    assert trial(0.5, 0.5, 0.5, 0.5).score == -0.5


def test_a_trial_that_hides_the_class_ranks_behind_all_others():
    hidden, poor = trial(0.5, 0.5, 0.1, 0.3, "hidden"), trial(0.001, 0.1, 0.1, 0.1, "poor")
    assert hidden.score < 0
    result = Search(SHIFT, "random", 1.0, (), (hidden, poor, poor))
    assert [found.augmentation for found in result.ranked] == ["poor", "hidden"]


def test_the_usual_ones_and_the_best_that_show_the_classes_enter_the_final():
    found = (trial(0.1, 0.1, 0.05, 0.1, "b"), trial(0.1, 0.1, 0.01, 0.1, "a"))
    hidden = trial(0.5, 0.5, 0.1, 0.3, "hidden")
    usual = (trial(0.1, 0.1, 0.1, 0.1, "u"), trial(0.1, 0.1, 0.01, 0.1, "a"))
    result = Search(SHIFT, "random", 1.0, usual, (hidden, *found))
    assert result.entrants(3) == ["u", "a", "b"] and result.entrants(1) == ["u", "a"]
    assert result.best == "a"


def test_a_final_takes_what_reads_the_source_best_and_of_equals_the_first():
    def best(*finalists):
        trials = (trial(0.1, 0.1, 0.01, 0.1, "t"),)
        return Search(SHIFT, "random", 1.0, (), trials, finalists).best

    usual, found = Finalist("u", 0.9), Finalist("t", 0.9)
    failed = Finalist("f", None, "Diverged: the loss is nan")
    assert best(usual, found) == "u" and best(usual, Finalist("x", 0.91), found) == "x"
    assert best(failed, Finalist("z", 0.0)) == "z" and best(failed) == "t"


# What is read, and how it goes on


@pytest.fixture
def trained(monkeypatch):
    """The augmented subjects that networks were trained on, as they come."""
    calls, really = [], connectivity_measurement.shared
    monkeypatch.setattr(
        connectivity_measurement, "shared", lambda subject: calls.append(1) or really(subject)
    )
    return calls


class Stopped(Exception):
    """The process dies here."""


@pytest.mark.parametrize("sampler", [pytest.param("random", marks=pytest.mark.slow), "optuna"])
def test_a_search_that_was_stopped_goes_on_and_trains_only_the_rest(
    pack, meter_of, trained, sampler
):
    trials = STARTUP + 3
    whole = searched(meter_of(pack, "whole"), trials, sampler)
    everything = len(trained)
    assert everything == len({name for name, _ in told(whole)})

    seen = []

    def watch(which, trial):
        if which == f"trial {STARTUP + 2}":
            raise Stopped
        seen.append(trial.augmentation)

    with pytest.raises(Stopped):
        searched(meter_of(pack, "halved"), trials, sampler, watch)
    del trained[:]
    assert told(searched(meter_of(pack, "halved"), trials, sampler)) == told(whole)
    assert len(trained) <= 1, "what was measured when it was stopped is kept, too"
    del trained[:]
    again = searched(meter_of(pack, "halved"), STARTUP + 1, sampler)
    assert told(again) == told(whole)[:-2] and not trained
    assert seen == [name for name, _ in told(again)]


@pytest.mark.slow
def test_the_samplers_begin_alike_and_a_seed_decides(pack, meter_of):
    first = searched(meter_of(pack), 1, "random")
    assert told(first) == told(searched(meter_of(pack), 1, "optuna"))
    other = searched(meter_of(pack, seed=1), 1, "random")
    assert other.trials[0].augmentation != first.trials[0].augmentation


def test_no_label_of_the_target_is_read(pack, meter_of):
    torch.manual_seed(0)
    noise = with_noise(pack, "right")
    assert (noise.labels != pack.labels).sum() == (pack.domains == 1).sum()
    results = [searched(meter_of(p, str(n)), 2) for n, p in enumerate((pack, noise))]
    assert told(results[0]) == told(results[1])
    assert results[0].agreement == results[1].agreement
    source = searched(meter_of(with_noise(pack, "left"), "source"), 2)
    assert told(source) != told(results[0]), "the source's are"


def test_a_final_reads_no_label_of_the_target_and_trains_nothing_twice(pack, meter_of, catalog):
    torch.manual_seed(0)
    dataset = catalog.resolve("dataset", "digits")  # named in records, and no more

    def final(pack, store, *augmentations):
        told, meter = [], meter_of(pack, store)
        finalists = pretrained(meter, dataset, SHIFT, augmentations, 20, told.append)
        assert list(finalists) == told
        return finalists

    first = final(pack, "0", USUAL[0], "invert")
    assert final(with_noise(pack, "right"), "1", USUAL[0], "invert") == first
    assert final(with_noise(pack, "left"), "2", USUAL[0], "invert") != first, "the source's are"
    stages = meter_of(pack, "0").store.root / "stages"
    before = {path: path.stat().st_mtime_ns for path in stages.iterdir()}
    assert final(pack, "0", USUAL[0], "invert", "noise")[:2] == first
    after = {path: path.stat().st_mtime_ns for path in stages.iterdir()}
    assert before.items() <= after.items() and len(after) == len(before) + 1


def test_texts_are_searched(meter_of):
    meter = meter_of(in_memory(sentences(60)), encoder="transformer(width=16, depth=1)", steps=20)
    steps = steps_for(meter.catalog, meter.pack.task)
    result = search(meter, SHIFT, steps, 2, "random", lambda which, trial: None)
    assert [trial.augmentation for trial in result.usual] == ["token_dropout"]
    dataset, entrants = meter.catalog.resolve("dataset", "digits"), result.entrants(1)
    final = pretrained(meter, dataset, SHIFT, entrants, 5, lambda finalist: None)
    assert [finalist.augmentation for finalist in final] == entrants
    assert all(finalist.source is not None for finalist in final)


def test_without_optuna_one_sentence_says_how_to_get_it(pack, meter_of, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(BadInput, match=r"pip install 'benchbench-shift\[search\]'"):
        searched(meter_of(pack), 1, "optuna")
    assert searched(meter_of(pack), 1, "random").trials


# What is found


UNSEEN = pytest.mark.xfail(strict=True, reason="the score does not look at β/γ, the smaller here")
KNOWN = {("random", 1): (UNSEEN,), ("random", 3): (UNSEEN,)}


@pytest.mark.parametrize(
    ("sampler", "seed"),
    [
        pytest.param(sampler, seed, marks=[pytest.mark.slow, *KNOWN.get((sampler, seed), ())])
        for sampler, seed in [("optuna", 0), *product(("optuna", "random"), (1, 2, 3))]
    ],
)
def test_the_augmentation_that_connects_is_found_and_beats_the_usual(pack, meter_of, sampler, seed):
    meter = meter_of(pack, seed=seed, steps=60)
    best = searched(meter, 14, sampler).ranked[0]
    assert best.visible and "invert(" in best.augmentation
    truly = {text: meter.of(text, SHIFT)[1] for text in (best.augmentation, "simclr_views")}
    found, usual = (min(result.log_ratios) for result in truly.values())
    assert found > usual + 0.2


def test_the_command_prints_every_trial_and_a_line_for_a_suite(tmp_path, catalog):
    plugin = tmp_path / "flickering.py"
    plugin.write_text(
        "from test_augmentation_search import flicker\nfrom benchbench import hookimpl\n"
        "@hookimpl\ndef benchbench_datasets():\n    return {'flicker': flicker}\n"
    )
    words = ["search", "flicker", "--plugin", str(plugin), "--shift", "left > right", "--trials"]
    words += ["2", "--steps", "60", "--encoder", "small_cnn(width=4)", "--among", "invert, cutout"]
    words += ["--device", "cpu", "--store", str(tmp_path / "store"), "--pretrain-steps", "5"]

    def run(*more):
        result = CliRunner().invoke(main, [*words, *more])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    result = run()
    assert result.exit_code == 0, result.stderr
    lines = result.stderr.splitlines()
    parts = [line.partition(":")[0] for line in lines]
    assert parts[:4] == ["usual"] * 2 + ["trial 1", "trial 2"]
    assert len(parts) > 6 and set(parts[4:]) == {"final"}
    assert USUAL[0] in lines[0] and "randaugment" in lines[1] and USUAL[0] in lines[4]
    line = result.stdout.splitlines()[-1]
    best = json.loads(line.removeprefix("augmentation = "))
    assert catalog.pipeline(best) and "source β" in result.stdout

    fields = json.loads(run("--format", "json", "--sampler", "random").stdout)
    assert fields["best"] == best and len(fields["trials"]) == 2
    assert fields["usual"][0]["alpha"]["rows"] and 0 <= fields["agreement"] <= 1
    read = {each["augmentation"]: each["source"] for each in fields["finalists"]}
    assert best == max(read, key=read.__getitem__) and len(read) == len(parts) - 4
    without = json.loads(run("--format", "json", "--finalists", "0").stdout)
    assert not without["finalists"] and without["trials"] == fields["trials"]
    wrong = run("--among", "invert, cutot")
    assert wrong.exit_code == 2 and "did you mean 'cutout'" in wrong.stderr
