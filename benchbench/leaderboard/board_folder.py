"""What a board is made of: records, and what is known beside them."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import safetensors.numpy
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from benchbench.extension.constants import Rule
from benchbench.extension.errors import BadInput
from benchbench.extension.grammar import instead
from benchbench.leaderboard.true_labels import NAME, Truth
from benchbench.store.records import Part, Record, read_records, read_strictly
from benchbench.suites.suite import Cell, Suite, toml_of

LEVELS, REPORTED, STALE, CURVES = "levels.json", "reported.toml", "stale.json", "curves.json"
CONNECTIVITY = "connectivity.json"
Told = TypeVar("Told")
Predictions = Mapping[str, np.ndarray]
Checked = Literal["claimed", "consistent", "re-probed", "reproduced"]


@dataclass(frozen=True)
class Expected:
    """What a suite asks for, by name: the rows, the columns, and what each is averaged over."""

    methods: tuple[str, ...]
    shifts: tuple[str, ...]
    seeds: tuple[int, ...]
    baseline: str | None = None
    rule: Rule = "source_val"
    draws: int = 1  # of every method that trains something


class Level(Part):
    """How far somebody else's records of a method were checked, and whose they are."""

    level: Checked
    flags: tuple[str, ...] = ()  # what looked unlikely
    submitter: str = ""
    paper: str = ""
    code: str = ""
    benchbench: str = ""  # the version that checked


class Reported(Part):
    """What a paper says of a method: shown beside what was measured here, and never ranked."""

    method: str
    source: str  # paper, table
    url: str = ""
    note: str = ""  # what was different there
    values: dict[str, float]  # percent, by shift


class Connected(BaseModel):
    """How an augmentation connects a shift's domains: a part of what `diagnose` tells as JSON."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True, allow_inf_nan=False)

    fingerprint: str  # of the data
    shift: str
    augmentation: str
    log_ratios: tuple[float, float]  # log(α/γ), log(β/γ)


REPORTS = TypeAdapter(dict[Literal["reported"], tuple[Reported, ...]])
LEVEL_OF: TypeAdapter[dict[str, Level]] = TypeAdapter(dict[str, Level])  # by method
WHY_STALE: TypeAdapter[dict[str, str]] = TypeAdapter(dict[str, str])  # by cell
LOSSES: TypeAdapter[dict[str, list[float]]] = TypeAdapter(dict[str, list[float]])  # by stage
EVERY_CONNECTED: TypeAdapter[tuple[Connected, ...]] = TypeAdapter(tuple[Connected, ...])


@dataclass(frozen=True)
class Source:
    """All that a board is a function of."""

    name: str
    expected: Expected
    records: tuple[Record, ...]
    stale: Mapping[str, str] = field(default_factory=dict)  # by cell, why
    truth: Truth | None = None
    predictions: Callable[[Record], Predictions] = lambda record: {}
    levels: Mapping[str, Level] = field(default_factory=dict)  # by method
    reported: tuple[Reported, ...] = ()
    curves: Mapping[str, list[float]] = field(default_factory=dict)  # losses, by stage
    connectivity: tuple[Connected, ...] = ()


def expected_by(suite: Suite, shifts: tuple[str, ...]) -> Expected:
    names = tuple(method.name for method in suite.methods())
    return Expected(names, shifts, suite.seeds, suite.baseline, suite.rule, suite.tune.draws)


def expected_of(records: Iterable[Record]) -> Expected:
    """What records alone let one expect: every method on every shift with every seed."""
    every = [*records]
    return Expected(
        tuple(sorted({record.method for record in every})),
        tuple(sorted({record.shift for record in every})),
        tuple(sorted({record.seeds.train for record in every})),
        draws=1 + max((record.draw for record in every), default=0),
    )


def read_folder(folder: Path) -> tuple[Suite, list[Record], list[Cell]]:
    """What a folder with ``suite.toml`` and ``records/`` holds, and what its suite asks for."""
    for name, there in (("suite.toml", Path.is_file), ("records", Path.is_dir)):
        if not there(folder / name):
            raise BadInput(f"{folder} is no published board: it has no {name}")
    suite, records = Suite.read(str(folder / "suite.toml")), read_records(folder / "records")
    data = [record.data for record in records]
    found = sorted({domain for d in data for domain in (*d.sources, *d.targets)})
    return suite, records, suite.cells(suite.named_domains or found)


def of_folder(folder: Path) -> Source:
    """Of a published board. BadInput if a file of it is not what it should be."""
    suite, records, cells = read_folder(folder)
    levels = read_if_there(folder / LEVELS, LEVEL_OF)
    expected = expected_by(suite, suite.ranked_shifts(cells))
    more = sorted({*levels} - {*expected.methods})
    return Source(
        suite.name,
        Expected(**{**vars(expected), "methods": (*expected.methods, *more)}),
        tuple(records),
        read_if_there(folder / STALE, WHY_STALE),
        Truth.read(folder / NAME) if (folder / NAME).exists() else None,
        lambda record: read_predictions(folder / "records" / record.file_name, record),
        levels,
        read_reported(folder / REPORTED, expected.shifts),
        read_if_there(folder / CURVES, LOSSES),
        read_connectivity(folder / CONNECTIVITY),
    )


def read_predictions(place: Path, record: Record) -> Predictions:
    """Of the file beside a record; nothing if there is none. BadInput if the record names others.

    That is told by their sha256, whatever the damage.
    """
    if record.artifacts is None:
        return {}
    path = place.with_suffix(".safetensors")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None
    if hashlib.sha256(content).hexdigest() != record.artifacts.predictions_sha256:
        raise BadInput(f"{path} holds other predictions than its record says")
    try:
        return safetensors.numpy.load(content)
    except Exception as error:  # a broken file raises half a dozen types
        raise BadInput(f"{path} does not hold predictions: {error}") from None


def read_reported(path: Path, shifts: Sequence[str]) -> tuple[Reported, ...]:
    """What papers say of a board's shifts, of a TOML file; nothing if there is none."""
    if not path.exists():
        return ()
    try:
        fields = toml_of(path.read_text(encoding="utf-8"), str(path))
        every = REPORTS.validate_json(json.dumps(fields), strict=True).get("reported", ())
    except UnicodeDecodeError as error:
        raise BadInput(f"{path} is not TOML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise BadInput(f"{path}: {place}: {first['msg']}") from None
    for told in every:
        for shift, value in told.values.items():
            if shift not in shifts:
                raise BadInput(
                    f"{path}: the board has no shift {shift!r}; {instead(shift, shifts)}"
                )
            if not 0 <= value <= 100:
                raise BadInput(
                    f"{path}: {told.method} has {value} on {shift}, which is no percentage"
                )
    return every


def read_connectivity(path: Path) -> tuple[Connected, ...]:
    if not path.exists():
        return ()
    return read_strictly(path, EVERY_CONNECTED.validate_json, "does not hold connectivity")


def read_if_there(path: Path, kind: TypeAdapter[dict[str, Told]]) -> dict[str, Told]:
    return read_strictly(path, kind.validate_json, "is not of a board") if path.exists() else {}
