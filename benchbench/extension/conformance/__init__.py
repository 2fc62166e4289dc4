"""The conformance kit: what every plugin must do, tried in seconds, on the CPU, without data.

Each check is a function of a `Subject`, named for what holds when it passes; its docstring is the
promise. ``benchbench check`` runs them, and so does one line in a plugin's own tests:

    from benchbench import parametrize_with_checks

    @parametrize_with_checks(my_plugin)
    def test_conformance(check):
        check()
"""

import atexit
import inspect
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from benchbench.extension.catalog import EXPECTED, Catalog, Entry, Loader, Plugin, source_digest
from benchbench.extension.conformance import (
    all_kinds,
    augmentations,
    datasets,
    encoders,
    objectives,
)
from benchbench.extension.conformance.fixtures import (
    Broken,
    CannotBuild,
    Probe,
    Reader,
    Skip,
    Subject,
    short_run,
    told,
)
from benchbench.extension.conformance.side_effects import guarded, settings, tampered
from benchbench.extension.errors import BadInput

Test = Callable[[Subject], None]
Status = Literal["passed", "failed", "skipped", "expected"]

CHECKS: dict[str, tuple[Test, ...]] = {
    "dataset": all_kinds.CHECKS + datasets.CHECKS,
    "encoder": all_kinds.CHECKS + encoders.CHECKS,
    "augmentation": all_kinds.CHECKS + augmentations.CHECKS,
    "objective": all_kinds.CHECKS + objectives.CHECKS,
}


@dataclass(frozen=True)
class Outcome:
    """What came of one check."""

    status: Status
    message: str = ""


@dataclass(frozen=True)
class Check:
    """One check of one entry, and why it is expected to fail, if it is."""

    subject: Subject
    test: Test
    expected: str | None = None

    @property
    def name(self) -> str:
        return self.test.__name__

    @property
    def promise(self) -> str:
        return (inspect.getdoc(self.test) or "").partition("\n")[0]

    @property
    def entry(self) -> Entry:
        return self.subject.entry

    def run(self) -> Outcome:
        """An expected failure that does not happen is a failure.

        So is a check after which a setting of the process, or a function that judges, is another.
        """
        warm_up()
        before = settings()
        outcome = self._tried()
        if name := tampered():
            return Outcome(
                "failed",
                f"{name} is not what its source says: a plugin that was loaded has replaced it; "
                "leave the core, torch and the standard library as they are",
            )
        changed = [what for what, value in settings().items() if before[what] != value]
        if changed and self.test is not all_kinds.leaves_the_world_alone:  # which says more
            return Outcome("failed", f"it changes {changed[0]}; leave settings to the user")
        if self.expected is None or outcome.status == "skipped":
            return outcome
        if outcome.status == "failed":
            return Outcome("expected", self.expected)
        return Outcome("failed", f"it was expected to fail ({self.expected}), but passes")

    def _tried(self) -> Outcome:
        own = self.subject.root if self.entry.kind == "dataset" else None
        with guarded(own) as watch, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                self.test(self.subject)
                outcome = Outcome("passed")
            except Skip as reason:
                outcome = Outcome("skipped", str(reason))
            except Broken as sentence:
                outcome = Outcome("failed", str(sentence))
            except CannotBuild:
                outcome = Outcome("skipped", "it cannot be built; see check builds")
            except (Exception, SystemExit) as error:
                outcome = Outcome("failed", f"it raises {told(error)}")
        if self.test is all_kinds.options_build:
            return outcome  # an option may ask for a download
        for what, owner in (
            (watch.network, all_kinds.offline),
            (watch.outside, all_kinds.own_folder),
        ):
            if what and self.test is owner:
                remedy = "say in BadInput which files are wanted, and where to get them"
                if owner is all_kinds.own_folder:
                    remedy = "keep to memory, or for a dataset to its root"
                return Outcome("failed", f"{what[0]}; {remedy}")
            if what:
                return Outcome("skipped", f"it was stopped; see check {owner.__name__}")
        return outcome


@cache
def warm_up() -> None:
    """What torch writes at its first step, and timm beside wandb, is no plugin's doing."""
    import timm  # noqa: F401

    short_run(Probe, Reader, steps=1)


def checks_of(
    catalog: Catalog, plugins: Sequence[Plugin], root: Path, scratch: Path
) -> Iterator[Check]:
    """Every check of everything that the plugins offer. BadInput if one expects what is not.

    Datasets find their files in ``root``; ``scratch`` is for what is decoded.
    """
    for plugin in plugins:
        entries = catalog.offered_by(plugin)
        expected = catalog.expected_failures.get(plugin, {})
        known = {e.name: {test.__name__ for test in CHECKS[e.kind]} for e in entries}
        for name, reasons in expected.items():
            for check in reasons:
                if check not in known.get(name, ()):
                    raise BadInput(
                        f"plugin {plugin}: {EXPECTED} names {name!r} {check!r}, which is no "
                        f"entry and check of it"
                    )
        for entry in entries:
            subject = Subject(entry, root, scratch)
            reasons = expected.get(entry.name, {})
            for test in CHECKS[entry.kind]:
                yield Check(subject, test, reasons.get(test.__name__))


def parametrize_with_checks(plugin: object, root: str | Path | None = None) -> Any:
    """A decorator that runs a test once per check of what ``plugin`` offers.

    ``plugin`` is the module, or the object, that has the hooks; ``root`` is where its datasets
    find their files. The test calls its argument ``check``. Needs pytest.
    """
    import pytest

    name = getattr(plugin, "__name__", type(plugin).__name__)
    loader = Loader(strict=True)
    found = Plugin(name, "under test", "none", name, source_digest(name))
    loader.add(found, lambda: plugin)
    scratch = Path(tempfile.mkdtemp(prefix="benchbench-"))
    atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    (empty := scratch / "root").mkdir()

    def runner(check: Check) -> Callable[[], None]:
        def run() -> None:
            outcome = check.run()
            if outcome.status == "skipped":
                pytest.skip(outcome.message)
            if outcome.status == "expected":
                pytest.xfail(outcome.message)
            if outcome.status == "failed":
                pytest.fail(f"{check.entry.name}: {outcome.message}", pytrace=False)

        return run

    return pytest.mark.parametrize(
        "check",
        [
            pytest.param(runner(check), id=f"{check.entry.kind}-{check.entry.name}-{check.name}")
            for check in checks_of(loader.catalog(), [found], Path(root or empty), scratch)
        ],
    )
