"""Tests fail when the program is wrong: it is changed in one place, and they are run.

Each mutant of `mutants.toml` is put into a copy of the checkout, in which the tests that it names
must fail. One that survives needs a reason there. ``-k loop.py`` chooses by file.

As a program: a line of standard input is where to say what happens, and tests; in a fork of this
process, in which all that is not ours is imported, they are run; its number and then its status
are answered.
"""

import compileall
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tomllib
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from py_compile import PycInvalidationMode

import pytest

ROOT = Path(__file__).parent.parent
COPIED = ("benchbench", "plugins", "tests", "leaderboards", "docs", "pyproject.toml", "README.md")
PATIENCE = 300  # seconds, of tests that take some; a mutant that never ends is killed
FAILED = 1  # what pytest ends with where tests failed; other numbers say that none were run


@dataclass(frozen=True)
class Mutant:
    file: str
    old: str  # there once
    new: str
    tests: tuple[str, ...]  # files, or functions, of the default suite
    reason: str = ""  # why it may survive

    def applied(self, root: Path) -> str:
        """The file's text with the change. AssertionError if it must be renewed."""
        text = (root / self.file).read_text()
        assert text.count(self.old) == 1, (
            f"{self.file}: {self.old!r} is there {text.count(self.old)} times, not once; renew the "
            "mutant in tests/mutants.toml"
        )
        return text.replace(self.old, self.new)


def read(path: Path) -> list[Mutant]:
    tables = tomllib.loads(path.read_text())["mutant"]
    return [Mutant(**{**table, "tests": tuple(table["tests"])}) for table in tables]


MUTANTS = read(Path(__file__).with_name("mutants.toml"))


def named(mutants: list[Mutant]) -> list[str]:
    """The file, and which of its mutants."""
    so_far: Counter[str] = Counter()
    names = []
    for mutant in mutants:
        so_far[mutant.file] += 1
        names.append(f"{mutant.file}:{so_far[mutant.file]}")
    return names


@dataclass(frozen=True)
class Checkout:
    """A copy of the checkout, and its tests."""

    root: Path
    warm: subprocess.Popen

    @classmethod
    def copied(cls, root: Path) -> "Checkout":
        unwanted = shutil.ignore_patterns("__pycache__", ".*_cache", ".hypothesis")
        for name in COPIED:
            whole = ROOT / name
            if whole.is_dir():
                shutil.copytree(whole, root / name, ignore=unwanted)
            elif whole.exists():
                shutil.copy(whole, root / name)
        for name in ("benchbench", "plugins"):  # by content: a mutant may be as large, and as old
            compileall.compile_dir(
                root / name, quiet=1, invalidation_mode=PycInvalidationMode.CHECKED_HASH
            )
        outside = {n: v for n, v in os.environ.items() if not n.startswith(("PYTEST_", "COV_"))}
        paths = os.pathsep.join(map(str, (root, root / "plugins")))
        warm = subprocess.Popen(
            [sys.executable, root / "tests" / "test_mutants.py"],
            cwd=root,
            env={**outside, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        return cls(root, warm)

    def tested(self, tests: tuple[str, ...], patience: float) -> tuple[int | None, str]:
        """What pytest ended with, None if it did not, and what it said."""
        shutil.rmtree(self.root / ".hypothesis", ignore_errors=True)
        log = self.root / "said.txt"
        self.warm.stdin.write(json.dumps([str(log), tests]) + "\n")
        self.warm.stdin.flush()
        child = int(self.warm.stdout.readline())
        ended, _, _ = select.select([self.warm.stdout], [], [], patience)
        with suppress(ProcessLookupError):  # with whatever it has started
            os.killpg(child, signal.SIGKILL)
        status = int(self.warm.stdout.readline())
        return status if ended else None, log.read_text(errors="replace")


@pytest.fixture(scope="session")
def checkout(tmp_path_factory, request) -> Iterator[Checkout]:
    """A copy that is what is tested there, and whose tests pass as long as nothing is changed."""
    made = Checkout.copied(tmp_path_factory.mktemp("checkout"))
    mine = [i.callspec.params["mutant"] for i in request.session.items if hasattr(i, "callspec")]
    tests = {test: None for m in mine if isinstance(m, Mutant) for test in m.tests}
    status, said = made.tested(tuple(tests), PATIENCE * len(tests))
    assert status == 0, f"without a mutant the tests do not pass:\n{said[-3000:]}"
    yield made
    made.warm.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=named(MUTANTS))
def test_a_mutant_is_killed(mutant, checkout):
    path = checkout.root / mutant.file
    before, after = path.read_text(), mutant.applied(checkout.root)
    path.write_text(after)
    try:
        status, said = checkout.tested(mutant.tests, PATIENCE)
    finally:
        path.write_text(before)
    change = f"{mutant.old!r} changed to {mutant.new!r}"
    if mutant.reason:
        assert status == 0, f"{mutant.file}: {change} is noticed; remove its reason"
        return
    assert status != 0, f"{mutant.file}: {change} is not noticed by {' '.join(mutant.tests)}"
    killed = status is None or status < 0 or status == FAILED
    assert killed, f"{mutant.file}: {change} lets no test run:\n{said[-3000:]}"


def test_every_mutant_is_another_program_and_names_tests_that_are_there():
    changed = set()
    for mutant in MUTANTS:
        after = mutant.file, mutant.applied(ROOT)
        assert mutant.old != mutant.new, mutant
        assert after not in changed, f"{mutant} is there twice"
        changed.add(after)
        assert mutant.tests, mutant
        for test in mutant.tests:
            path, _, name = test.partition("::")
            there = (ROOT / path).read_text()
            assert not name or f"\ndef {name.partition('[')[0]}(" in there, test


OTHERS = (
    *("matplotlib.pyplot", "numpy", "pydantic", "safetensors.torch", "scipy.stats", "scipy.io"),
    *("sklearn.cluster", "sklearn.linear_model", "sklearn.metrics", "tabulate", "timm", "torch"),
    *("torch.distributed", "torchvision.transforms.v2", "PIL.Image", "jinja2", "filelock"),
    *("hypothesis.strategies", "hypothesis.extra.numpy", "xdist.plugin", "click.testing"),
)
HOW = ("-x", "-q", "-p", "no:cacheprovider", "--assert=plain")  # to rewrite asserts takes seconds


def forked(log: str, tests: list[str]) -> int:
    """The number of a process that runs the tests, and says there what happens."""
    child = os.fork()
    if child:
        return child
    os.setsid()
    with Path(log).open("w") as file:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        status = 70
        try:
            ours = [import_module(name).__file__ for name in ("benchbench", "benchbench_digits")]
            if all(Path(path).is_relative_to(ROOT) for path in ours):
                status = pytest.main([*HOW, *tests])
            else:
                sys.stdout.write(f"what is tested is elsewhere: {ours}")
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)


def told(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def serve() -> None:
    for name in OTHERS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import_module(name)
    for line in sys.stdin:
        child = forked(*json.loads(line))
        told(child)
        _, status = os.waitpid(child, 0)
        told(os.waitstatus_to_exitcode(status))


if __name__ == "__main__":
    serve()
