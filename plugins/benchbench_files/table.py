"""The dataset ``table``: images that a csv file lists, wherever they lie, or texts in it."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import torch

from benchbench import TRAIN, BadInput, DomainData, ImageFiles, check_links, checked_size, tokenized
from benchbench_files.columns import NAMED, Row, check_spelling, is_text, named
from benchbench_files.tree import around

NEEDED, KNOWN = ("label", "domain"), ("path", "text", *NAMED)
OF_GROUPS = ("worst_group", "worst_group_pearson", "tenth_percentile")


def table(
    root: Path,
    *,
    file: str = "table.csv",
    size: int = 224,
    numbers: bool = False,
    metric: str = "",
    length: int = 128,
    words: int = 20_000,
    tokenizer: str = "",
    licence: str = "that of the table's owner",
) -> DomainData:
    """Images or texts in the rows of a csv ``file`` below ``root``, UTF-8, with a header.

    Its columns are ``path`` (from the csv file's folder, or absolute but below it) or ``text``,
    ``label`` (empty, nan, unlabelled or unlabeled where unknown), ``domain``, and perhaps ``split``
    (train, val or test in every row, else it is drawn) and ``group`` (a patient, a camera; may be
    empty): rows of a group stay together in a drawn split, and with ``metric='worst_group'`` the
    score is that of the worst group. Other columns are passed over. With ``numbers`` labels are
    numbers, kept as float32, and the metric is by default Pearson's r. Of texts the first
    ``length`` tokens are kept, of the ``words`` most frequent words, or by the file ``tokenizer``
    below the root, a tokenizer.json of Hugging Face's.
    """
    metric = metric or ("pearson" if numbers else "accuracy")
    checked_size(size)
    place = Path(root) / file
    rows = read(place)
    columns = named(place, rows, numbers=numbers)
    sources, vocabulary = (place,), ()
    inputs: ImageFiles | torch.Tensor
    if "path" in rows[0].text:
        inputs = images(place, rows, size)
    else:
        model = Path(root) / tokenizer if tokenizer else None
        sources = (place, model) if model else sources
        train = [True] * len(rows) if columns.split is None else (columns.split == TRAIN).tolist()
        if model is None and not any(train):
            raise BadInput(f"{place}: no row's split is train, of which a vocabulary is learned")
        inputs, vocabulary = tokenized(
            [row.text["text"] for row in rows],
            length=length,
            words=words,
            tokenizer=model,
            learned_from=[r.text["text"] for r, learn in zip(rows, train, strict=True) if learn],
        )
    groups = None if columns.group is None else torch.from_numpy(columns.group)
    told_apart = metric in OF_GROUPS
    if told_apart and groups is None:
        raise BadInput(f"{place} has no groups, which metric={metric!r} needs")
    return DomainData(
        inputs=inputs,
        labels=torch.from_numpy(columns.labels),
        domains=torch.from_numpy(columns.domains),
        class_names=columns.class_names,
        domain_names=columns.domain_names,
        split=None if columns.split is None else torch.from_numpy(columns.split),
        units=groups,
        groups=groups if told_apart else None,
        group_names=columns.group_names if told_apart else (),
        metric=metric,
        licence=licence,
        sources=sources,
        vocabulary=vocabulary,
    )


def images(place: Path, rows: Sequence[Row], size: int) -> ImageFiles:
    """The images that the rows list. BadInput if one is not there, not below, or there twice."""
    top, seen, real = place.parent.resolve(), dict[str, Row](), dict[str, str]()
    for row in rows:
        path = below(place, row)
        if path in seen:
            raise BadInput(
                f"{row.at(place)}: path {row.text['path']!r} is in line {seen[path].line} too"
            )
        if not (top / path).is_file():
            raise BadInput(f"{row.at(place)}: there is no image {top / path}")
        seen[path], real[path] = row, os.path.realpath(top / path)
    check_links(top, real)
    return ImageFiles(top, tuple(seen), size)


def below(place: Path, row: Row) -> str:
    """The path of a row's image from the folder of the csv file, without . and .. in it."""
    path, top = row.text["path"], place.parent.resolve()
    if not path:
        raise BadInput(f"{row.at(place)}: path is empty")
    if not is_text(path):
        raise BadInput(
            f"{row.at(place)}: path is {path!r}, which holds a line break or another control "
            "character; is a quotation mark not closed?"
        )
    for start in (place.parent.absolute(), top):
        inside = os.path.relpath(os.path.normpath(start / path), os.path.normpath(start))
        if inside != os.pardir and not inside.startswith(f"{os.pardir}{os.sep}"):
            return Path(inside).as_posix()
    raise BadInput(
        f"{row.at(place)}: path {path!r} lies outside {top}; put the csv file into a folder that "
        "all of its images are below, or link their folder there"
    )


def read(place: Path) -> list[Row]:
    """The rows, each with the known columns; BadInput says what is wrong, and in which line."""
    try:
        with place.open(newline="", encoding="utf-8-sig") as file, fields_of_any_length():
            return [*rows_of(place, file)]
    except FileNotFoundError:
        raise BadInput(f"there is no file {place}: {around(place)}") from None
    except UnicodeDecodeError as error:
        raise BadInput(
            f"{place} cannot be read as csv: byte {error.start} is not UTF-8; save it as UTF-8"
        ) from None
    except OSError as error:
        raise BadInput(f"{place} cannot be read as csv: {error.strerror}") from None


@contextmanager
def fields_of_any_length() -> Iterator[None]:
    """Python's csv refuses fields of more than 131,072 characters, in the whole process."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def rows_of(place: Path, file: TextIO) -> Iterator[Row]:
    """The rows of a csv file, every one of which has as many fields as the first."""
    reader, line = csv.reader(file, strict=True), 1
    try:
        columns = [name.strip() for name in next(reader, [])]
        check_header(place, columns)
        line, count = reader.line_num + 1, 0
        for fields in reader:
            if fields:
                if len(fields) != len(columns):
                    more = "more" if len(fields) > len(columns) else "fewer"
                    raise BadInput(
                        f"{place}, line {line} has {more} fields than the first line, "
                        f"{len(fields)} and not {len(columns)}; put fields with a comma into "
                        "quotation marks"
                    )
                named = zip(columns, fields, strict=True)
                yield Row({name: text.strip() for name, text in named if name in KNOWN}, line)
                count += 1
            line = reader.line_num + 1
    except csv.Error as error:
        unclosed = "unexpected end of data" in str(error)
        reason = "a quotation mark is not closed" if unclosed else f"{error}"
        raise BadInput(
            f"{place} cannot be read as csv: in what begins in line {line}, {reason}; a quotation "
            "mark inside a quoted field is written twice"
        ) from None
    if not count:
        raise BadInput(f"{place} has no rows")


def check_header(place: Path, columns: Sequence[str]) -> None:
    for name in KNOWN:
        if columns.count(name) > 1:
            raise BadInput(f"{place} has {columns.count(name)} columns {name!r}; keep one")
    inputs = [name for name in ("path", "text") if name in columns]
    check_spelling(place, columns, [*NAMED, *(() if inputs else ("path", "text"))], "column")
    listed = ", ".join(columns) or "nothing"
    if missing := [name for name in NEEDED if name not in columns]:
        raise BadInput(f"{place} has no column {missing[0]!r}; it has {listed}")
    if len(inputs) != 1:
        found = "both 'path' and 'text'" if inputs else "no column 'path' or 'text'"
        raise BadInput(f"{place} has {found}; it has {listed}")
