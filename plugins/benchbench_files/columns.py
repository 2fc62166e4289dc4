"""What is known of every row of a dataset that lies in files: labels, domains, splits, groups.

One place says of every column its kind, range and shape, and what must agree between files. A value
is read as it was written, or refused with a sentence that names its file, column and row.

Files of arrays hold codes and their names (`coded`); tables hold the names themselves (`named`).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from benchbench import NO_CLASS, TEST, TRAIN, UNKNOWN, UNLABELLED, VAL, BadInput

SPLITS = {"train": TRAIN, "val": VAL, "test": TEST}
NAMES = {"labels": "label_names", "domain": "domain_names", "split": "split_names"}
LOWEST = {"labels": UNKNOWN, "domain": 0, "split": 0, "group": -1}  # −1: no class, no group
CODED = (*LOWEST, *NAMES.values())  # the columns of files of arrays
NAMED = ("label", "domain", "split", "group")  # the columns of tables
LARGEST = np.iinfo(np.int64).max
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


@dataclass(frozen=True)
class Columns:
    """Of N rows: int64 [N] each."""

    labels: np.ndarray  # into class_names, or UNKNOWN; float32 of numbers, NaN where unknown
    domains: np.ndarray  # into domain_names
    class_names: tuple[str, ...]  # none where labels are numbers
    domain_names: tuple[str, ...]
    split: np.ndarray | None = None  # of TRAIN, VAL, TEST
    group: np.ndarray | None = None  # −1: in none
    group_names: tuple[str, ...] = ()  # of tables, whose groups are names


def coded(place: Path, arrays: Mapping[str, np.ndarray], rows: int) -> Columns:
    """The columns of one file of arrays, of which each row has one value.

    BadInput names the file, the array and the row of what cannot be read without loss.
    """
    for name in ("labels", "label_names", "domain", "domain_names"):
        if name not in arrays:
            raise BadInput(f"{place} has no array {name!r}; it has {', '.join(sorted(arrays))}")
    if "split_names" in arrays and "split" not in arrays:
        raise BadInput(f"{place} has split_names, but no split that they name; add or remove one")
    if not rows:
        raise BadInput(f"{place} has no rows")
    read: dict[str, np.ndarray | None] = {"split": None, "group": None}
    names: dict[str, tuple[str, ...]] = {}
    for column, lowest in LOWEST.items():
        if column not in arrays:
            continue
        end = LARGEST
        if column in NAMES:
            names[column] = names_in(place, NAMES[column], arrays)
            end = len(names[column])
        read[column] = whole_numbers(place, column, arrays[column], rows, lowest, end)
    labels, domains, split = read["labels"], read["domain"], read["split"]
    assert labels is not None and domains is not None
    if split is not None:
        split = np.array([SPLITS[name] for name in names["split"]], np.int64)[split]
    return Columns(labels, domains, names["labels"], names["domain"], split, read["group"])


def whole_numbers(
    place: Path, column: str, values: np.ndarray, rows: int, lowest: int, end: int
) -> np.ndarray:
    """int64 [rows] in [lowest, end)."""
    if values.dtype.kind not in "iu":
        raise BadInput(
            f"{place}: {column} should be whole numbers, not {kind_of(values)}; save it with a "
            "dtype of integers, such as int64"
        )
    if values.shape != (rows,):
        raise BadInput(f"{place}: {column} has shape {values.shape}, not ({rows},)")
    wrong = ((values < lowest) | (values >= end)).nonzero()[0]
    if len(wrong):
        upper = f" and {end - 1}" if end < LARGEST else " and 2**63 − 2"
        raise BadInput(
            f"{place}: {column} must lie between {lowest}{upper}, but is {values[wrong[0]]} in row "
            f"{wrong[0]}"
        )
    return values.astype(np.int64)


def names_in(place: Path, column: str, arrays: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """The names of an array; BadInput if they are not text, not all different, or of no use."""
    if column not in arrays:
        raise BadInput(f"{place} has no array {column!r}, which should be of train, val and test")
    values = arrays[column]
    if values.dtype.kind != "U" or values.ndim != 1:
        shape = "a single value" if values.ndim == 0 else f"of shape {values.shape}"
        raise BadInput(
            f"{place}: {column} should be a list of texts, not {kind_of(values)}, {shape}; save it "
            f"as np.array([…], dtype=str)"
        )
    names = tuple(map(str, values))
    if not names:
        raise BadInput(f"{place}: {column} holds no name")
    check_names(f"{place}: {column}", names)
    if column == "split_names" and not set(names) <= SPLITS.keys():
        raise BadInput(f"{place}: split_names should be of train, val and test, not {[*names]}")
    if column == "domain_names":
        check_domains(f"{place}: {column}", names)
    if column == "label_names":
        for name in names:
            if no_class(name):
                raise BadInput(
                    f"{place}: label_names holds {name!r}, which is no class; give rows whose "
                    "class nobody knows the label −1, or name the class otherwise"
                )
    return names


def kind_of(values: np.ndarray) -> str:
    words = {"f": "floats", "b": "true and false", "U": "texts", "S": "bytes", "O": "objects"}
    word = words.get(values.dtype.kind, "values")
    return f"{word} ({values.dtype})"


def check_spelling(place: Path, found: Iterable[str], known: Sequence[str], kind: str) -> None:
    """BadInput if a column that is not there seems to be, under a name that is not read."""
    found = [*found]
    for name in found:
        close = get_close_matches(name.strip().lower(), known, 1, 0.88)
        if name not in known and close and close[0] not in found:
            raise BadInput(
                f"{place}: the {kind} {name!r} is not read; call it {close[0]!r}, or otherwise if "
                "it is another"
            )


def check_names(where: str, names: Sequence[str]) -> None:
    """BadInput if a name is empty, no text, or there twice, also if only Unicode's forms differ."""
    seen: dict[str, str] = {}
    for name in names:
        if not name.strip():
            raise BadInput(f"{where}: a name is empty")
        if not is_text(name):
            raise BadInput(
                f"{where}: {shown(name)} is not UTF-8 text, or holds control characters; rename it"
            )
        form = unicodedata.normalize("NFC", name)
        if form in seen:
            how = "twice" if seen[form] == name else "in two forms of Unicode that look the same"
            raise BadInput(f"{where}: {name!r} is there {how}; every name may be there once")
        seen[form] = name


def check_domains(where: str, names: Iterable[str]) -> None:
    """BadInput if a shift, which is written ``a + b > c``, could not name a domain."""
    for name in names:
        if "+" in name or ">" in name or name != name.strip():
            raise BadInput(
                f"{where}: the domain {name!r} could not be named in a shift such as 'a + b > c'; "
                "its name must be without + and >, and without blanks at its ends"
            )


def is_text(name: str) -> bool:
    """Whether a name holds no byte that is not UTF-8, and no control character."""
    return not any(unicodedata.category(character) in ("Cc", "Cs") for character in name)


def shown(name: str) -> str:
    """A name that is no text, as the bytes of which it is."""
    return ascii(name.encode(errors="surrogateescape"))[1:] if not name.isprintable() else name


def is_unlabelled(name: str) -> bool:
    """Whether people write this where nobody knows the class: empty, nan, unlabelled, unlabeled."""
    return name.strip().lower() in UNLABELLED


def no_class(name: str) -> bool:
    """Whether this says that nobody knows the class, or may say so, such as none or unknown."""
    return is_unlabelled(name) or name.strip().lower() in NO_CLASS


def check_class(where: str, name: str) -> None:
    """BadInput if nobody can tell whether a name is that of a class."""
    if no_class(name) and not is_unlabelled(name):
        raise BadInput(
            f"{where} is {name!r}, which may be a class or none; write 'unlabelled' where nobody "
            "knows the class, or call the class otherwise"
        )


@dataclass(frozen=True)
class Row:
    """Of a table: the text in each known column, without blanks at its ends, and the line."""

    text: Mapping[str, str]
    line: int

    def at(self, place: Path) -> str:
        return f"{place}, line {self.line}"


def named(place: Path, rows: Sequence[Row], *, numbers: bool = False) -> Columns:
    """The columns of a table, of which ``label`` and ``domain`` are in every row.

    A label is that of a class, or with ``numbers`` a number; where `is_unlabelled`, it is unknown.
    BadInput names the file, the line and the column of what cannot be read without loss.
    """
    for row in rows:
        for column in NAMED:
            if not is_text(row.text.get(column, "")):
                raise BadInput(
                    f"{row.at(place)}: {column} is {row.text[column]!r}, which holds a line break "
                    "or another control character; is a quotation mark not closed?"
                )
        if not row.text["domain"]:
            raise BadInput(f"{row.at(place)}: domain is empty")
        check_domains(row.at(place), [row.text["domain"]])
        if not numbers:
            check_class(f"{row.at(place)}: label", row.text["label"])
    classes = set() if numbers else {row.text["label"] for row in rows}
    class_names = sorted(name for name in classes if not is_unlabelled(name))
    domain_names = list(dict.fromkeys(row.text["domain"] for row in rows))
    group_names = sorted({row.text.get("group", "") for row in rows} - {""})
    for column, names in (("label", class_names), ("domain", domain_names), ("group", group_names)):
        check_names(f"{place}: {column}", names)
    index = {name: number for number, name in enumerate(class_names)}
    return Columns(
        number_labels(place, rows)
        if numbers
        else np.array([index.get(row.text["label"], UNKNOWN) for row in rows], np.int64),
        codes(rows, "domain", domain_names),
        tuple(class_names),
        tuple(domain_names),
        named_split(place, rows),
        codes(rows, "group", group_names) if group_names else None,
        tuple(group_names),
    )


def codes(rows: Sequence[Row], column: str, names: Sequence[str]) -> np.ndarray:
    """int64 [N]: an index into ``names``, −1 where the field is empty."""
    index = {name: number for number, name in enumerate(names)} | {"": -1}
    return np.array([index[row.text.get(column, "")] for row in rows], np.int64)


def number_labels(place: Path, rows: Sequence[Row]) -> np.ndarray:
    """float32 [N] of labels that are numbers in decimals, such as -2.5e3; NaN where unknown."""
    found = []
    for row in rows:
        text = row.text["label"]
        if is_unlabelled(text):
            found.append(np.nan)
            continue
        if not NUMBER.fullmatch(text):
            raise BadInput(
                f"{row.at(place)}: label {text!r} is no number; write it in decimals, or leave it "
                "empty where nobody knows it"
            )
        with np.errstate(over="ignore", under="ignore"):
            number = np.float32(float(text))
        if np.isinf(number) or (number == 0) != (float(text) == 0):
            raise BadInput(
                f"{row.at(place)}: label {text!r} is outside what float32 can hold; give labels "
                "another unit"
            )
        found.append(number)
    return np.array(found, np.float32)


def named_split(place: Path, rows: Sequence[Row]) -> np.ndarray | None:
    """int64 [N] of TRAIN, VAL, TEST; None if the column is empty throughout, or not there."""
    if not any(row.text.get("split") for row in rows):
        return None
    for row in rows:
        if row.text["split"] not in SPLITS:
            raise BadInput(
                f"{row.at(place)}: split is {row.text['split']!r}, not train, val or test"
            )
    return np.array([SPLITS[row.text["split"]] for row in rows], np.int64)


def joined(parts: Mapping[Path, Columns]) -> Columns:
    """The rows of several files, whose domains are those of one name.

    BadInput if they differ in their classes, or if some have a split and others have none. Groups
    of different files are different.
    """
    (first, one), *others = parts.items()
    for place, part in others:
        if part.class_names != one.class_names:
            mine, theirs = (", ".join(names[:4]) for names in (part.class_names, one.class_names))
            raise BadInput(
                f"{place.name} has the classes {mine} …, {first.name} has {theirs} …; name files "
                "of the same classes with files=(…)"
            )
        if (part.split is None) != (one.split is None):
            has, lacks = (first, place) if part.split is None else (place, first)
            raise BadInput(
                f"{has.name} has a split and {lacks.name} has none; give both one, or neither"
            )
    every = [*parts.values()]
    domain_names = tuple(dict.fromkeys(name for part in every for name in part.domain_names))
    check_names("domain_names of all files", domain_names)
    places = [np.array([domain_names.index(n) for n in part.domain_names]) for part in every]
    splits = [part.split for part in every if part.split is not None]
    return replace(
        one,
        labels=np.concatenate([part.labels for part in every]),
        domains=np.concatenate([p[part.domains] for p, part in zip(places, every, strict=True)]),
        domain_names=domain_names,
        split=np.concatenate(splits) if splits else None,
        group=joined_groups(parts),
    )


def joined_groups(parts: Mapping[Path, Columns]) -> np.ndarray | None:
    """Groups of different files are different; a row without one is a group of its own."""
    if all(part.group is None or (part.group < 0).all() for part in parts.values()):
        return None
    found, start = [], 0
    for place, part in parts.items():
        size = len(part.labels)
        group = np.full(size, -1) if part.group is None else part.group
        there = int(group.max(initial=-1)) + 1
        if start + there + size > LARGEST:
            raise BadInput(f"{place}: group holds {there - 1}; number groups from 0")
        found.append(start + np.where(group < 0, there + np.arange(size), group))
        start += there + size
    return np.concatenate(found)
