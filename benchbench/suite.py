"""What to run: a suite is what the user wrote, its cells are what that means."""

import json
import re
import tomllib
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib.resources import files
from importlib.resources.abc import Traversable
from itertools import permutations, product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from benchbench.spelling import instead, split_chain
from benchbench.terms import BadInput, Budget, Optimizer, Rule

SHIPPED = files("benchbench") / "suites"

Sees = Literal["source", "target", "source+target", "all"]


class Strict(BaseModel):
    """A table that refuses unknown keys, wrong types and numbers that are none."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class StageTable(Strict):
    """What a suite says of a stage. What it leaves out comes from the level above."""

    objective: str | None = None
    augmentation: str | None = None  # "a | b(key=value)", or "none"
    weak: str | None = None  # the same, for objectives that compare weak with strong views
    small: str | None = None  # the same, for objectives that crop small views, too
    sees: Sees | None = None
    steps: int | None = Field(None, ge=1)
    batch_size: int | None = Field(None, ge=2)
    lr: float | None = Field(None, gt=0)
    weight_decay: float | None = Field(None, ge=0)
    warmup: float | None = Field(None, ge=0, lt=1)
    optimizer: Optimizer | None = None
    parts: int | None = Field(None, ge=1)


def _stage_tables(chain: object) -> object:
    """``"a > b"`` and ``["a", {objective = "b", …}]`` as tables."""
    links = split_chain(chain) if isinstance(chain, str) else chain
    if not isinstance(links, list):
        return links
    return tuple({"objective": link} if isinstance(link, str) else link for link in links)


def _listed(value: object) -> object:
    listed = [value] if isinstance(value, str) else value
    return tuple(listed) if isinstance(listed, list) else listed


class TuneTable(Strict):
    """How many settings of every method are tried; which one counts, a rule of selection says."""

    draws: int = Field(ge=1)  # the first is what the suite says
    seed: int = 0  # of the draws, which differ between training seeds


class MethodTable(StageTable):
    """What a suite says of a method; its stage keys hold for all of its stages."""

    objective: None = None  # a method names its objectives in its chain
    name: str | None = None
    chain: Annotated[tuple[StageTable, ...], BeforeValidator(_stage_tables)]
    encoder: str | None = None
    readout: Annotated[tuple[str, ...], BeforeValidator(_listed)] | None = None
    labels: Literal["source", "target"] = "source"


class Suite(Strict):
    """A benchmark, as its TOML file states it."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")  # a folder of the store
    protocol: Literal["uda/1"] = "uda/1"
    dataset: str
    shifts: Annotated[tuple[str, ...], BeforeValidator(_listed)]  # "a > b", "a + b > c", or "all"
    seeds: tuple[int, ...] = Field((0, 1, 2), min_length=1)
    split_seed: int = 0
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    encoder: str
    readout: Annotated[tuple[str, ...], BeforeValidator(_listed)] = ("linear",)
    baseline: str | None = None  # the method that the board's last columns compare with
    rule: Rule = "source_val"  # that the board ranks by
    snapshots: int = Field(1, ge=1)  # states of a chain's end that rules choose among, the last too
    tune: TuneTable = TuneTable(draws=1)
    leave_one_out: bool = False  # whether each of several sources is a target, too, for the rule
    stage: StageTable = StageTable()
    method: tuple[MethodTable, ...] = Field(min_length=1)

    @classmethod
    def read(cls, name: str) -> "Suite":
        """A shipped suite by name, or a TOML file by path; BadInput if it is not a suite."""
        where, fields = _fields(name)
        try:  # strict JSON takes lists for tuples, and still no "3" for 3
            suite = cls.model_validate_json(json.dumps(fields, default=str))
            suite.methods()
        except ValidationError as error:
            raise BadInput(f"{where}: {_sentence(error)}") from None
        except BadInput as error:
            raise BadInput(f"{where}: {error}") from None
        return suite

    def methods(self) -> tuple["Method", ...]:
        """Every method, one for each of its readouts, with all defaults filled in."""
        methods = [method for table in self.method for method in _methods(table, self)]
        names = [method.name for method in methods]
        if twice := {name for name in names if names.count(name) > 1}:
            raise BadInput(f"two methods are named {min(twice)!r}; give one of them another name")
        if self.rule == "oracle":
            raise BadInput('rule = "oracle" reads target labels, and ranks nothing')
        if self.baseline is not None and self.baseline not in names:
            raise BadInput(f"baseline = {self.baseline!r}: {instead(self.baseline, names)}")
        if len(set(self.seeds)) < len(self.seeds):
            raise BadInput(f"seeds = {list(self.seeds)} names a seed twice")
        return tuple(methods)

    @property
    def named_domains(self) -> tuple[str, ...]:
        """The domains in its shifts; none for "all"."""
        words = [word.strip() for text in self.shifts for word in re.split("[+>]", text)]
        return tuple(dict.fromkeys(words)) if self.shifts != ("all",) else ()

    def cells(self, domain_names: Sequence[str]) -> list["Cell"]:
        """Every combination the suite asks for, ordered so that what shares work is adjacent."""
        every = [f"{a} > {b}" for a, b in permutations(domain_names, 2)]
        texts = every if self.shifts == ("all",) else self.shifts
        shifts = [Shift.parse(text, domain_names) for text in texts]
        if len(set(shifts)) < len(shifts):
            raise BadInput("shifts names a shift twice")
        held_out = [s for shift in shifts for s in shift.held_out()] if self.leave_one_out else []
        within = [*dict.fromkeys(shifts + held_out)]
        combined = product(self.seeds, self.methods(), range(self.tune.draws), within)
        return [
            Cell(method, shift, seed, draw)
            for seed, method, draw, shift in combined
            if shift in shifts or (method.chain and method.labels == "source")
            if draw == 0 or method.chain
        ]

    def ranked_shifts(self, cells: Iterable["Cell"]) -> tuple[str, ...]:
        """The shifts that its board averages over, of those of its cells."""
        every = dict.fromkeys(cell.shift for cell in cells)
        if self.shifts == ("all",):
            return tuple(map(str, every))
        asked = {tuple(split_shift(text)) for text in self.shifts}
        return tuple(str(shift) for shift in every if (shift.sources, shift.targets) in asked)


@dataclass(frozen=True)
class Stage:
    """One objective, what it trains on, and what it may spend."""

    objective: str
    augmentation: str
    weak: str
    small: str | None
    sees: Sees
    budget: Budget


@dataclass(frozen=True)
class Method:
    """An encoder, the chain of stages it goes through, and how predictions are read off."""

    name: str  # of a suite's methods no two have one, so that it is enough for a hash
    encoder: str = field(hash=False)
    chain: tuple[Stage, ...] = field(hash=False)
    readout: str = field(hash=False)
    labels: Literal["source", "target"] = field(hash=False)  # the target's for a ceiling


@dataclass(frozen=True)
class Shift:
    """From the labelled domains to those that are scored."""

    sources: tuple[str, ...]
    targets: tuple[str, ...]

    def __str__(self) -> str:
        return f"{' + '.join(self.sources)} > {' + '.join(self.targets)}"

    @classmethod
    def parse(cls, text: str, domain_names: Sequence[str]) -> "Shift":
        """Read ``a + b > c``; BadInput if a domain is unknown or on both sides."""
        sides = split_shift(text)
        if len(sides) != 2:
            raise BadInput(f"shift {text!r} should read 'source > target'")
        for domain in (*sides[0], *sides[1]):
            if domain not in domain_names:
                raise BadInput(
                    f"shift {text!r}: no domain {domain!r}; {instead(domain, domain_names)}"
                )
            if (sides[0] + sides[1]).count(domain) > 1 and domain not in set(sides[0]) & set(
                sides[1]
            ):
                raise BadInput(f"shift {text!r} names {domain!r} twice")
        if both := set(sides[0]) & set(sides[1]):
            raise BadInput(f"shift {text!r} leads from {min(both)!r} to itself")
        return cls(sides[0], sides[1])

    def held_out(self) -> list["Shift"]:
        """From all sources but one to this one, each in turn; none of a single source."""
        return [
            Shift(tuple(other for other in self.sources if other != source), (source,))
            for source in self.sources
            if len(self.sources) > 1
        ]

    def seen(self, sees: Sees, domain_names: Sequence[str]) -> tuple[str, ...]:
        """The domains whose unlabelled rows a stage gets, in the data's order."""
        named = {
            "source": self.sources,
            "target": self.targets,
            "source+target": self.sources + self.targets,
            "all": tuple(domain_names),
        }[sees]
        return tuple(name for name in domain_names if name in named)


@dataclass(frozen=True)
class Cell:
    """The smallest thing with a score: one method, one shift, one seed, one draw of settings."""

    method: Method
    shift: Shift
    seed: int
    draw: int = 0

    @property
    def labelled(self) -> tuple[str, ...]:
        return self.shift.sources if self.method.labels == "source" else self.shift.targets

    def __str__(self) -> str:
        drawn = f" · draw {self.draw}" if self.draw else ""
        return f"{self.method.name} · {self.shift} · seed {self.seed}{drawn}"


STALE = "stale"


def chosen(
    cells: Sequence[Cell], only: str, stale: Callable[[], Container[Cell]] = tuple
) -> list[Cell]:
    """The cells that ``only`` means; BadInput if there is none.

    Where it says ``stale``, those of them that ``stale`` returns.
    """
    conditions = conditions_of(only)
    named = [condition for condition in conditions if condition != STALE]
    meant = [cell for cell in cells if matches(cell, named)] if named else [*cells]
    if STALE in conditions:
        old = stale()
        return [cell for cell in meant if cell in old]
    if cells and not meant:
        raise BadInput(f"--only {only!r} leaves none of the {len(cells)} cells")
    return meant


def conditions_of(only: str) -> list[str]:
    """Of ``method=erm*,shift=scans > *,seed=0``, or a part of a cell's name."""
    return [*filter(None, map(str.strip, re.split(r",(?=\s*(?:\w+\s*=|stale\s*$))", only)))]


def matches(cell: Cell, conditions: Sequence[str]) -> bool:
    """Whether all of the conditions hold of a cell; BadInput if one names no such thing."""
    fields = {
        "method": cell.method.name,
        "shift": str(cell.shift),
        "seed": str(cell.seed),
        "draw": str(cell.draw),
    }
    for condition in conditions:
        key, equals, pattern = condition.partition("=")
        if equals and key.strip() not in fields:
            raise BadInput(f"--only {condition!r}: {key!r} is not known; {instead(key, fields)}")
        held = fnmatchcase(fields[key.strip()], pattern.strip()) if equals else key in str(cell)
        if not held:
            return False
    return True


def split_shift(text: str) -> list[tuple[str, ...]]:
    """The names on each side of ``a + b > c``."""
    return [tuple(name.strip() for name in side.split("+")) for side in text.split(">")]


def _methods(table: MethodTable, suite: Suite) -> list[Method]:
    chain = tuple(_stage(link, table, suite.stage) for link in table.chain)
    encoder = table.encoder or suite.encoder
    readouts = table.readout or suite.readout
    spelled = " > ".join(stage.objective for stage in chain) or "random encoder"
    name = table.name or spelled
    names = [name] if len(readouts) == 1 else [f"{name} + {readout}" for readout in readouts]
    return [
        Method(name, encoder, chain, readout, table.labels)
        for name, readout in zip(names, readouts, strict=True)
    ]


def _stage(link: StageTable, method: MethodTable, suite: StageTable) -> Stage:
    levels = [level.model_dump(exclude_none=True) for level in (suite, method, link)]
    merged: dict[str, Any] = {}
    for level in levels:
        merged |= {key: value for key, value in level.items() if key in StageTable.model_fields}
    if missing := sorted({"objective", "steps", "batch_size", "lr"} - merged.keys()):
        raise BadInput(f"a stage has no {missing[0]}; set it under [stage] or in its method")
    budget = Budget(
        merged["steps"],
        merged["batch_size"],
        float(merged["lr"]),
        float(merged.get("weight_decay", 1e-4)),
        float(merged.get("warmup", 0.1)),
        merged.get("optimizer", "adamw"),
        merged.get("parts", 1),
    )
    return Stage(
        merged["objective"],
        merged.get("augmentation", "none"),
        merged.get("weak", "none"),
        merged.get("small"),
        merged.get("sees", "source+target"),
        budget,
    )


def _fields(name: str, below: tuple[str, ...] = ()) -> tuple[str, dict[str, Any]]:
    """Where a suite is, in words, and what it says, with what it takes from one it extends.

    Its own keys come before those of the other suite, key by key in [stage]; its methods after.
    """
    where, text = _placed(name)
    fields = toml_of(text, where)
    if (other := fields.pop("extends", None)) is None:
        return where, fields
    if not isinstance(other, str) or "name" not in fields:
        raise BadInput(f"{where}: extends is the name of a suite, and needs a name beside it")
    if not _is_file(SHIPPED / f"{other}.toml"):
        other = str((Path(name).parent / other).resolve())
    if other in below:
        raise BadInput(f"{where} extends itself")
    try:
        _, base = _fields(other, (*below, other))
    except BadInput as error:
        raise BadInput(f"{where} extends {other}: {error}") from None
    both = {**base, **fields}
    theirs, mine = base.get("stage"), fields.get("stage")
    if isinstance(theirs, dict) and isinstance(mine, dict):
        both["stage"] = theirs | mine
    theirs, mine = base.get("method"), fields.get("method")
    if isinstance(theirs, list) and isinstance(mine, list):
        both["method"] = theirs + mine
    return where, both


def toml_of(text: str, where: str) -> dict[str, Any]:
    """BadInput if the text is not TOML, or tables lie in tables without end."""
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{where} is not TOML: {error}") from None
    except RecursionError:
        raise BadInput(f"{where} is not TOML that can be read: it is nested too deeply") from None


def text_of(name: str) -> str:
    """The TOML of a shipped suite or a file; BadInput if there is none."""
    return _placed(name)[1]


def _placed(name: str) -> tuple[str, str]:
    """Where a suite is, in words, and its text."""
    path = Path(name)
    if _is_file(shipped := SHIPPED / f"{name}.toml"):
        return f"suite {name}", shipped.read_text(encoding="utf-8")
    if not _is_file(path):
        known = (path.name.removesuffix(".toml") for path in map(Path, _shipped_files()))
        raise BadInput(f"no suite or file {name!r}; of shipped suites {instead(path.stem, known)}")
    try:
        return name, path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{name} cannot be read: {error}") from None


def _is_file(place: Path | Traversable) -> bool:
    try:
        return place.is_file()
    except (OSError, ValueError):  # of a name that no file can have
        return False


def _shipped_files() -> list[str]:
    return [entry.name for entry in SHIPPED.iterdir() if entry.name.endswith(".toml")]


def _sentence(error: ValidationError) -> str:
    """The first fault of a suite, in words."""
    fault = error.errors()[0]
    place = [str(part) for part in fault["loc"]]
    key = place[-1] if place else "the file"
    at = f" in {_place(fault['loc'][:-1])}" if len(place) > 1 else ""
    tables: dict[str, type[Strict]] = {
        "stage": StageTable,
        "chain": StageTable,
        "tune": TuneTable,
    }
    if fault["type"] == "extra_forbidden":
        owner = next((part for part in reversed(place[:-1]) if not part.isdigit()), "")
        table = MethodTable if owner == "method" else tables.get(owner, Suite)
        return f"unknown key {key!r}{at}; {instead(key, table.model_fields)}"
    if fault["type"] == "missing":
        return f"{key!r} is missing{at}"
    value = json.dumps(fault["input"], default=str)
    return f"{key} = {value[:60]}{at}: {fault['msg'][0].lower()}{fault['msg'][1:]}"


def _place(loc: tuple[int | str, ...]) -> str:
    """``method[2].chain[0]``"""
    words = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc]
    return "".join(words).removeprefix(".")
