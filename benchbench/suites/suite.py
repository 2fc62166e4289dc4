"""What to run: a suite is what the user wrote, its cells are what that means."""

import json
import re
import tomllib
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, time
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from itertools import permutations, product
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from benchbench.extension.constants import Optimizer, Rule
from benchbench.extension.errors import BadInput
from benchbench.extension.grammar import instead, split_chain
from benchbench.training.budget import Budget

SUITES = files("benchbench") / "suites" / "shipped"  # all; a suite's name is its path there
COMMON = "common"  # how names of files end that suites extend, and that nobody runs
MOST = 10**9  # steps, and whatever else is counted in a suite
MOST_DRAWN = 10_000  # settings, snapshots or seeds: each makes cells, or files
MOST_NAMED = 200  # characters of a name, which the store makes a file's

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
    steps: int | None = Field(None, ge=1, le=MOST)
    batch_size: int | None = Field(None, ge=2, le=MOST)
    lr: float | None = Field(None, gt=0)
    weight_decay: float | None = Field(None, ge=0)
    warmup: float | None = Field(None, ge=0, lt=1)
    optimizer: Optimizer | None = None
    parts: int | None = Field(None, ge=1, le=MOST)


def _stage_tables(chain: object) -> object:
    """``"a > b"`` and ``["a", {objective = "b", …}]`` as tables."""
    links = split_chain(chain) if isinstance(chain, str) else chain
    if not isinstance(links, list):
        return links
    return tuple({"objective": link} if isinstance(link, str) else link for link in links)


def _listed(value: object) -> object:
    listed = [value] if isinstance(value, str) else value
    return tuple(listed) if isinstance(listed, list) else listed


Listed = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Seed = Annotated[int, Field(ge=0)]


class TuneTable(Strict):
    """How many settings of every method are tried; which one counts, a rule of selection says."""

    draws: int = Field(ge=1, le=MOST_DRAWN)  # the first is what the suite says
    seed: int = 0  # of the draws, which differ between training seeds


class MethodTable(StageTable):
    """What a suite says of a method; its stage keys hold for all of its stages."""

    objective: None = None  # a method names its objectives in its chain
    name: str | None = Field(None, max_length=MOST_NAMED)
    chain: Annotated[tuple[StageTable, ...], BeforeValidator(_stage_tables)]
    encoder: str | None = None
    readout: Annotated[Listed, Field(min_length=1)] | None = None
    labels: Literal["source", "target"] = "source"


class Suite(Strict):
    """A benchmark, as its TOML file states it."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=MOST_NAMED)  # a folder
    protocol: Literal["uda/1"] = "uda/1"
    dataset: str
    shifts: Listed = Field(min_length=1)  # "a > b", "a + b > c", or "all"
    seeds: tuple[Seed, ...] = Field((0, 1, 2), min_length=1, max_length=MOST_DRAWN)
    split_seed: int = 0
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    encoder: str
    readout: Listed = Field(("linear",), min_length=1)
    baseline: str | None = None  # the method that the board's last columns compare with
    rule: Rule = "source_val"  # that the board ranks by
    snapshots: int = Field(1, ge=1, le=MOST_DRAWN)  # states of a chain's end, the last too
    tune: TuneTable = TuneTable(draws=1)
    leave_one_out: bool = False  # whether each of several sources is a target, too, for the rule
    stage: StageTable = StageTable()
    method: tuple[MethodTable, ...] = Field(min_length=1)

    @classmethod
    def read(cls, name: str) -> "Suite":
        """A shipped suite by name, or a TOML file by path; BadInput if it is not a suite."""
        where, fields = _fields(name)
        return cls.of(fields, where)

    @classmethod
    def of(cls, fields: Mapping[str, Any], where: str = "suite") -> "Suite":
        """What a TOML file of these keys would mean. BadInput, which begins with ``where``."""
        try:  # strict JSON takes lists for tuples, and still no "3" for 3
            suite = cls.model_validate_json(json.dumps(fields))
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
            again = next(seed for seed in self.seeds if self.seeds.count(seed) > 1)
            raise BadInput(f"seeds names a seed twice, {again}")
        return tuple(methods)

    def toml(self) -> str:
        """A TOML file that means the same."""
        fields = self.model_dump(exclude_defaults=True, mode="json")
        methods = fields.pop("method")
        lines = [f"{key} = {_toml(value)}" for key, value in fields.items()]
        for method in methods:
            lines += [
                "",
                "[[method]]",
                *(f"{key} = {_toml(value)}" for key, value in method.items()),
            ]
        return "\n".join(lines) + "\n"

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
    if other not in shipped():
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
    """BadInput if the text is not TOML, tables lie in tables without end, or it has numbers of
    more than 64 bits, dates or times, which nothing here is."""
    try:
        fields = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{where} is not TOML: {error}") from None
    except ValueError:  # Python reads no number of more than 4,300 digits
        raise BadInput(f"{where} has a number of more than 64 bits") from None
    except RecursionError:
        raise BadInput(f"{where} is not TOML that can be read: it is nested too deeply") from None
    for key, value in _values(fields, ""):
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise BadInput(f"{where}: {key} is a number of more than 64 bits")
        if isinstance(value, date | time):
            raise BadInput(f"{where}: {key} = {value} is a date or a time, which nothing here is")
    return fields


def _toml(value: object) -> str:
    """A value of JSON as TOML has it, in one line."""
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {_toml(told)}' for key, told in value.items())} }}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return json.dumps(value, ensure_ascii=False)


def _values(told: object, place: str) -> Iterator[tuple[str, object]]:
    """Everything in a table that is no table and no list, by its place."""
    if isinstance(told, dict):
        for key, value in told.items():
            yield from _values(value, f"{place}.{key}" if place else key)
    elif isinstance(told, list):
        for index, value in enumerate(told):
            yield from _values(value, f"{place}[{index}]")
    else:
        yield place, told


def text_of(name: str) -> str:
    """The TOML of a shipped suite or a file; BadInput if there is none."""
    return _placed(name)[1]


@cache
def shipped() -> dict[str, Traversable]:
    """Every file of `SUITES` by its name, such as ``u-wilds/camelyon17``, in the order of names."""

    def below(folder: Traversable, prefix: str) -> Iterator[tuple[str, Traversable]]:
        for entry in folder.iterdir():
            if entry.is_dir():
                yield from below(entry, f"{prefix}{entry.name}/")
            elif entry.name.endswith(".toml"):
                yield prefix + entry.name.removesuffix(".toml"), entry

    return dict(sorted(below(SUITES, "")))


def shipped_suites() -> list[str]:
    """The names of those that can be run."""
    return [name for name in shipped() if not name.endswith(COMMON)]


def _placed(name: str) -> tuple[str, str]:
    """Where a suite is, in words, and its text."""
    if name in shipped():
        return f"suite {name}", shipped()[name].read_text(encoding="utf-8")
    if not _is_file(Path(name)):
        raise BadInput(_unknown(name))
    try:
        return name, Path(name).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{name} cannot be read: {error}") from None
    except OSError as error:
        raise BadInput(f"{name} cannot be read: {error.strerror}") from None


def _unknown(name: str) -> str:
    """Why there is no suite of that name, and which one may be meant."""
    known = shipped_suites()
    if inside := [one for one in known if one.startswith(f"{name.rstrip('/')}/")]:
        return f"{name!r} is the name of several suites: {', '.join(inside)}; name one of them"
    if _is_file(Path(name, "suite.toml")):
        return f"{name!r} is a folder; its suite is {Path(name, 'suite.toml')}"
    ends: dict[str, list[str]] = {}
    for one in known:
        ends.setdefault(one.rpartition("/")[2], []).append(one)
    stem = name.removesuffix(".toml")[-MOST_NAMED:]
    end = stem.rpartition("/")[2]
    near = ends.get(end) or get_close_matches(stem, known, n=1)
    near = near or [one for last in get_close_matches(end, ends, n=1) for one in ends[last]]
    meant = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
    tops = dict.fromkeys(one.partition("/")[0] + "/…" * ("/" in one) for one in known)
    short = name if len(name) <= MOST_NAMED else f"{name[:MOST_NAMED]}…"
    return f"no suite or file {short!r}; of shipped suites {meant}there is {', '.join(tops)}"


def _is_file(place: Path) -> bool:
    try:
        return place.is_file()
    except (OSError, ValueError):  # of a name that no file can have
        return False


def _sentence(error: ValidationError) -> str:
    """The first fault of a suite, in words."""
    fault = error.errors()[0]
    place = [str(part) for part in fault["loc"]]
    owner_of = fault["loc"][:-1]
    key = place[-1] if place else "the file"
    if owner_of and isinstance(fault["loc"][-1], int):  # a member of a list
        owner_of, key = owner_of[:-1], f"{owner_of[-1]}[{place[-1]}]"
    at = f" in {_place(owner_of)}" if owner_of else ""
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
    if fault["type"] == "too_short":
        return f"{key} is empty{at}"
    value = json.dumps(fault["input"])
    return f"{key} = {value[:60]}{at}: {fault['msg'][0].lower()}{fault['msg'][1:]}"


def _place(loc: tuple[int | str, ...]) -> str:
    """``method[2].chain[0]``"""
    words = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc]
    return "".join(words).removeprefix(".")
