"""Everything that first-party plugins offer passes every check of the conformance kit."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchbench.catalog import Wanted, load
from benchbench.checks import CHECKS, Check, checks_of
from benchbench.checks.subject import Subject

CATALOG = load(Wanted(allowed=()))
SKIPS = {
    "devices": "it reads values back",  # transformers does, of a mask
    # of what is not a dataset without its files: why a check does not apply
    "channels": "is for images of ",
    "predicts": "it has no head",
    "no_undeclared": "it declares that it reads all there is",
    "order_of_rows": "it draws random numbers",
}


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


@pytest.mark.parametrize(
    "check",
    [
        pytest.param(
            check,
            id=f"{check.entry.kind}-{check.entry.name}-{check.name}",
            # Starting two processes takes longer than all other checks of an entry.
            marks=[pytest.mark.slow] if check.name == "two_processes" else [],
        )
        for check in checks_of(CATALOG, CATALOG.plugins, Path(), Path())
        if not check.entry.published  # tests of those datasets plant their files and try the kit
    ],
)
def test_every_first_party_entry_passes_every_check(check, root, scratch, kept):
    place = check.entry.kind, check.entry.name
    subject = kept.setdefault(place, Subject(check.entry, root, scratch))
    outcome = Check(subject, check.test, check.expected).run()
    assert outcome.status in ("passed", "skipped", "expected"), outcome.message
    if outcome.status == "skipped":
        assert SKIPS.get(check.name, "it has no units") in outcome.message or (
            check.entry.name in ("folder", "table")
            and "the core draws its split" in outcome.message
        )


@pytest.fixture(scope="session")
def scratch(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("scratch")


@pytest.fixture(scope="session")
def kept() -> dict[tuple[str, str], Subject]:
    """Subjects share what was built of them."""
    return {}


def test_no_plugin_is_set_aside_and_what_is_excused_is_known():
    excused = {
        (entry, check)
        for reasons in CATALOG.expected_failures.values()
        for entry, checks in reasons.items()
        for check in checks
    }
    assert excused == {("irm", "order_of_rows")}
    assert {entry.plugin for entry in CATALOG.entries.values()} == set(CATALOG.plugins)


def test_every_check_has_a_name_of_its_own_and_a_promise():
    for tests in CHECKS.values():
        names = [test.__name__ for test in tests]
        assert len(set(names)) == len(names)
        for test in tests:
            assert (test.__doc__ or "").strip().endswith(".")
