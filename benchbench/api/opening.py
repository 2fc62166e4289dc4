"""What every call does first: plugins, a suite, its data and its store."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchbench.extension.errors import BadInput

if TYPE_CHECKING:
    from benchbench.data.preparation import Report
    from benchbench.execution.job import Job
    from benchbench.execution.task_queue import Engine
    from benchbench.extension.catalog import Wanted
    from benchbench.extension.constants import Rule
    from benchbench.extension.objects import Objects
    from benchbench.leaderboard.results import Results
    from benchbench.suites.plan import Plan
    from benchbench.suites.suite import Cell, Suite

Where = str | Path | None


@dataclass
class Opened:
    """A suite with its plan, and what was given as objects."""

    plan: Plan
    job: Job
    objects: Objects
    suite_text: str
    shown_store: Path
    tell: Callable[[str], None]
    engine: Engine | None = None  # where cells run, if not here
    kept: bool = field(default=True)  # False: in a store of this call alone

    def results(
        self,
        cells: Sequence[Cell],
        notes: Sequence[str],
        *,
        columns: Sequence[str] = (),
        rule: Rule | None = None,
    ) -> Results:
        from benchbench.leaderboard.results import Made, Results

        unregistered = tuple(one.sentence for one in self.objects.unregistered)
        made = Made(self.plan, tuple(cells), self.suite_text, unregistered, tuple(notes))
        results = Results(made, columns, rule)
        if not self.kept:
            results.read()  # before its store goes
        return results


@contextmanager
def opened(
    suite: Any,
    store: Where,
    data: Where,
    device: str,
    *,
    wanted: Wanted,
    progress: bool,
    launch: str = "local",
    resources: Sequence[str] = (),
    writes: bool = False,
    beside: bool = False,
    **how: Any,
) -> Iterator[Opened]:
    """The plan of a suite, its data prepared. BadInput if it cannot be made.

    Before the data are read, ``launch`` and, if the call ``writes``, the store are checked. Where
    other processes are started ``beside`` this one, it cannot be made of objects.
    """
    from benchbench.execution.job import Job
    from benchbench.execution.launchers import engine_of
    from benchbench.extension.catalog import load
    from benchbench.extension.objects import Objects
    from benchbench.store.artifacts import Store

    home = store_place(store)
    told = _written(suite)
    objects = Objects(load(wanted))
    read, text = told or _read(suite, objects)
    job = Job(read, wanted, data_place(data).absolute(), home.absolute(),
              device, **how)  # fmt: skip
    if objects.given and (beside or launch != "local" or job.ranks > 1):
        first = objects.given[0]
        remedy = "start one process" if beside else "leave out launch and ranks"
        raise BadInput(
            f"{first.kind} {first.name} is an object of this process, and other processes have "
            f'none of it: {remedy}, or give it as a plugin ("my_file.py")'
        )
    engine = engine_of(launch, resources, job)
    if writes:
        Store(home).check()
    with store_for(home.absolute(), objects) as root:
        job = replace(job, store=root)
        report = counting("decoding", "image", progress)
        plan = job.plan_with(objects.whole, Store(root), report)
        yield Opened(
            plan, job, objects, text, home, teller(progress), engine, not objects.unregistered
        )


@contextmanager
def _store_of_one_call(home: Path) -> Iterator[Path]:
    """A store beside that of ``home``, with the same prepared data, which goes at the end."""
    from tempfile import TemporaryDirectory

    home.mkdir(parents=True, exist_ok=True)
    (home / "packs").mkdir(exist_ok=True)
    with TemporaryDirectory(prefix=".unregistered-", dir=home) as folder:
        (Path(folder) / "packs").symlink_to((home / "packs").absolute(), target_is_directory=True)
        yield Path(folder).absolute()


@contextmanager
def store_for(home: Path, objects: Objects) -> Iterator[Path]:
    """That at ``home``; where an object has no digest, one that goes at the end."""
    with _store_of_one_call(home) if objects.unregistered else nullcontext(home) as root:
        yield root


def _written(suite: Any) -> tuple[Suite, str] | None:
    """A suite by name or path, and its TOML; None of another. It is read before any plugin is."""
    from benchbench.suites.suite import Suite, text_of

    return (Suite.read(str(suite)), text_of(str(suite))) if isinstance(suite, str | Path) else None


def _read(suite: Any, objects: Objects) -> tuple[Suite, str]:
    """A suite that is no file, and the TOML that means it."""
    from benchbench.suites.suite import Suite

    if isinstance(suite, Mapping):
        suite = Suite.of(_named(suite, objects))
    if not isinstance(suite, Suite):
        raise BadInput(
            f"the suite is {type(suite).__name__}, and should be a name, a path, a dict or a Suite"
        )
    return suite, suite.toml()


KINDS_OF_KEYS = {
    "dataset": "dataset",
    "encoder": "encoder",
    "objective": "objective",
    "augmentation": "augmentation",
    "weak": "augmentation",
    "small": "augmentation",
}


def _named(fields: Mapping[str, Any], objects: Objects) -> dict[str, Any]:
    """The keys of a suite, with names in the places of objects."""
    named: dict[str, Any] = {}
    for key, value in fields.items():
        if key in KINDS_OF_KEYS and value is not None:
            named[key] = spelled(KINDS_OF_KEYS[key], value, objects)
        elif key == "chain":
            links = value if isinstance(value, list | tuple) else [value]
            chain = [
                _named(link, objects)
                if isinstance(link, Mapping)
                else {"objective": objects.named("objective", link)}
                for link in links
            ]
            named[key] = value if isinstance(value, str) else chain
        elif key == "stage" and isinstance(value, Mapping):
            named[key] = _named(value, objects)
        elif key == "method" and isinstance(value, list | tuple):
            named[key] = [_named(m, objects) if isinstance(m, Mapping) else m for m in value]
        else:
            named[key] = list(value) if isinstance(value, tuple) else value
    return named


def spelled(kind: str, value: Any, objects: Objects) -> str:
    """A name; of a list of augmentations all of them, in turn."""
    if kind == "augmentation" and isinstance(value, list | tuple):
        steps = [objects.named(kind, step) for step in value]
        return " | ".join(step for step in steps if step != "none") or "none"
    return objects.named(kind, value)


def wanted_of(files: Sequence[str | Path], without: Sequence[str], strict: bool) -> Wanted:
    """Which plugins a call asks for, with what the environment says."""
    from benchbench.extension.catalog import Wanted

    listed = [files] if isinstance(files, str | Path) else files
    return Wanted.here([str(Path(file).absolute()) for file in listed], tuple(without), strict)


def place_of(said: Where, variable: str, usual: str) -> Path:
    """A folder as it is said, else as the environment says, else the usual one."""
    return Path(said if said is not None else os.environ.get(variable) or usual)


def store_place(said: Where) -> Path:
    """The folder of the store."""
    return place_of(said, "BENCHBENCH_STORE", ".benchbench")


def data_place(said: Where) -> Path:
    """The folder in which datasets find their files."""
    return place_of(said, "BENCHBENCH_DATA", "data")


def chosen_cells(plan: Plan, only: str) -> list[Cell]:
    """Those that ``only`` means; BadInput if there is none."""
    from benchbench.suites.suite import chosen

    return chosen(plan.cells, only, plan.older_records)


def teller(progress: bool) -> Callable[[str], None]:
    """Says a sentence on standard error, as progress is."""

    def tell(sentence: str) -> None:
        if progress:
            sys.stderr.write(f"{sentence}\n")
            sys.stderr.flush()

    return tell


def counting(what: str, unit: str, progress: bool) -> Report:
    """A bar on standard error of what is done, such as images; nothing without ``progress``."""
    from benchbench.execution.progress import Counting

    return Counting(what, unit) if progress else lambda done, total: None


def check_at_least(name: str, number: int, least: int) -> None:
    """BadInput if an argument is less than it may be."""
    if number < least:
        raise BadInput(f"{name} = {number} should be {least} or more")


def check_one_of(name: str, given: str, known: Sequence[str]) -> None:
    """BadInput if an argument is none of the texts that it may be."""
    from benchbench.extension.grammar import instead

    if given not in known:
        raise BadInput(f"{name} = {given!r} is not known; {instead(given, known)}")
