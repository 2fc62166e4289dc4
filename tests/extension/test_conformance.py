"""Everything that first-party plugins offer passes every check of the conformance kit.

By entry and group of checks. Checks that train are tried of one objective and one encoder of every
plugin, at 24 steps of `healthy`, and of all, at its 60, in slow.
"""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchbench.extension.catalog import Wanted, load
from benchbench.extension.conformance import CHECKS, Check
from benchbench.extension.conformance.fixtures import Subject

CATALOG = load(Wanted(allowed=()))
TRAINING = {
    "objective": {"healthy", "no_target_labels", "resumes", "seeded", "state_is_complete"},
    "encoder": {"resumes", "state_is_complete"},
}
WORDS = {
    *("signature", "plain_defaults", "documented", "source_present", "travels"),
    *("offline", "own_folder", "builds", "options_build", "leaves_the_world_alone"),
}
ENTRIES = [  # of those that are published, tests of their plugins plant files and try the kit
    entry for entry in CATALOG.entries.values() if not entry.published
]
LONG, SHORT = 60, 24  # steps of `healthy`
SLOWLY = {"mae"}  # after 24 steps it has not left the point where it began
SKIPS = {  # by check: what it says, and of which entries it may say so
    "no_undeclared": (
        "it declares that it reads all there is",
        {"cdan", "dann", "vada", "coral", "fishr", "group_dro", "irm", "vrex"},
    ),
    "predicts": (
        "it has no head",
        {
            *("barlow_twins", "byol", "dino", "mae", "moco", "moco_v3", "rotnet", "simclr"),
            *("simsiam", "spectral", "supcon", "swav", "vicreg"),
        },
    ),
    "order_of_rows": ("it draws random numbers", {"mae", "rotnet", "noisy_student"}),
    "channels": (  # colours and stains; texts have none
        "is for images of ",
        {
            *("color_jitter", "greyscale", "randaugment", "stain_jitter", "wilds_strong"),
            *("byol_views", "moco_views", "simclr_views", "swav_views"),
            *("hugging_face", "transformer", "span", "synonyms", "token_dropout"),
        },
    ),
    "units_apart": ("it has no units", {"arrays", "folder", "table"}),
}


def group_of(kind: str, name: str) -> str:
    if name in TRAINING.get(kind, ()):
        return "training"
    if name == "two_processes":  # starting them takes longer than all other checks of an entry
        return "processes"
    return "words" if name in WORDS else "behaviour"


def checks_in(group: str, kind: str):
    return [test for test in CHECKS[kind] if group_of(kind, test.__name__) == group]


FIRST = {(e.plugin, e.kind): e for e in reversed(ENTRIES) if e.kind in TRAINING}.values()


def parametrized(group: str, entries=ENTRIES):
    """Entries that have checks of the group."""
    mine = [entry for entry in entries if checks_in(group, entry.kind)]
    return pytest.mark.parametrize("entry", mine, ids=[f"{e.kind}-{e.name}" for e in mine])


@pytest.fixture(scope="session")
def root(tmp_path_factory) -> Path:
    """Two domains of two classes, as `folder`, `table` and `arrays` find them."""
    folder = tmp_path_factory.mktemp("images")
    lines = ["path,label,domain"]
    for n in range(80):
        place = folder / ("art" if n % 2 else "photo") / ("cat" if n // 2 % 2 else "dog")
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 8), (3 * n, 255 - 3 * n, 90)).save(place / f"{n}.png")
        lines.append(f"{place.relative_to(folder)}/{n}.png,{place.name},{place.parent.name}")
    (folder / "table.csv").write_text("\n".join(lines))
    rng, number = np.random.default_rng(0), np.arange(80)
    np.savez(
        folder / "two.npz",
        images=rng.integers(0, 256, (80, 8, 8, 3), np.uint8),
        labels=number // 2 % 2,
        label_names=["cat", "dog"],
        domain=number % 2,
        domain_names=["art", "photo"],
        split=(number >= 60).astype(int),
        split_names=["train", "test"],
    )
    return folder


def faults(entry, group: str, subject: Subject) -> list[str]:
    """What is wrong, and which checks are skipped that should not be, or are not that should."""
    expected = CATALOG.expected_failures.get(entry.plugin, {}).get(entry.name, {})
    found = []
    for test in checks_in(group, entry.kind):
        name = test.__name__
        outcome = Check(subject, test, expected.get(name)).run()
        reason, excused = SKIPS.get(name, ("", set()))
        skipped = outcome.status == "skipped"
        if outcome.status == "failed":
            found.append(f"{name}: {outcome.message}")
        elif skipped != (entry.name in excused):
            found.append(f"{name}: {outcome.status} {outcome.message}; SKIPS says otherwise")
        elif skipped and reason not in outcome.message:
            found.append(f"{name}: skipped, but because {outcome.message}, and not {reason!r}")
    return found


@parametrized("words")
def test_an_entry_is_spelled_built_and_described(entry, subject_of):
    assert faults(entry, "words", subject_of(entry)) == []


@parametrized("behaviour")
def test_an_entry_does_what_its_kind_must(entry, subject_of):
    assert faults(entry, "behaviour", subject_of(entry)) == []


@parametrized("training", FIRST)
def test_the_first_of_every_plugin_trains_as_it_must(entry, subject_of):
    long = LONG if entry.name in SLOWLY else SHORT
    assert faults(entry, "training", subject_of(entry, long=long)) == []


@pytest.mark.slow
@parametrized("training")
def test_every_entry_trains_as_it_must(entry, subject_of):
    assert faults(entry, "training", subject_of(entry, long=LONG)) == []


@pytest.mark.slow
@parametrized("processes")
def test_two_processes_have_the_losses_of_one(entry, subject_of):
    assert faults(entry, "processes", subject_of(entry)) == []


def test_the_groups_and_what_is_excused_name_what_is_there():
    for kind, names in (*TRAINING.items(), *((kind, WORDS) for kind in CHECKS)):
        assert names <= {test.__name__ for test in CHECKS[kind]}, kind
    assert {entry.kind for entry in FIRST} == {*TRAINING}
    assert len(FIRST) < len(ENTRIES) / 3
    excused = {name for _, entries in SKIPS.values() for name in entries}
    assert excused <= {entry.name for entry in ENTRIES}


@pytest.fixture(scope="session")
def subject_of(root, tmp_path_factory):
    """Subjects share what was built of them."""
    scratch, kept = tmp_path_factory.mktemp("scratch"), {}

    def make(entry, long: int = LONG) -> Subject:
        place = entry.kind, entry.name, long
        return kept.setdefault(place, Subject(entry, root, scratch, long))

    return make


def test_no_plugin_is_set_aside_and_what_is_excused_is_known():
    excused = {
        (entry, check)
        for reasons in CATALOG.expected_failures.values()
        for entry, checks in reasons.items()
        for check in checks
    }
    waiting = {("bnm", "no_waits"), ("hugging_face", "no_waits")}
    assert excused == {("irm", "order_of_rows"), *waiting}
    assert {entry.plugin for entry in CATALOG.entries.values()} == set(CATALOG.plugins)


def test_every_check_has_a_name_of_its_own_and_a_promise():
    for tests in CHECKS.values():
        names = [test.__name__ for test in tests]
        assert len(set(names)) == len(names)
        for test in tests:
            assert (test.__doc__ or "").strip().endswith(".")
