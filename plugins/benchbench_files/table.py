"""The dataset ``table``: images that a csv file lists, wherever they lie, or texts in it."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import torch

from benchbench import TRAIN, UNKNOWN, BadInput, DomainData, ImageFiles, tokenized
from benchbench_files.tree import SPLITS, around

NEEDED, KNOWN = ("label", "domain"), ("path", "text", "label", "domain", "split", "group")
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
    """Images or texts in the rows of a csv ``file`` below ``root``.

    Its columns are ``path`` (from the csv file's folder) or ``text``, ``label`` (empty where
    unknown), ``domain``, and perhaps ``split`` (train, val or test in every row, else it is drawn)
    and ``group`` (a patient, a camera; may be empty): rows of a group stay together in a drawn
    split, and with ``metric='worst_group'`` the score is that of the worst group. Other columns are
    passed over. With ``numbers`` labels are numbers, and the metric is by default Pearson's r. Of
    texts the first ``length`` tokens are kept, of the ``words`` most frequent words, or by the file
    ``tokenizer`` below the root, a tokenizer.json of Hugging Face's.
    """
    metric = metric or ("pearson" if numbers else "accuracy")
    if size < 1:
        raise BadInput(f"table(size={size}) leaves no pixels: size must be at least 1")
    place = Path(root) / file
    rows = read(place)
    split, sources, vocabulary = splits(place, rows), (place,), ()
    inputs: ImageFiles | torch.Tensor
    if "path" in rows[0]:
        inputs = images(place, rows, size)
    else:
        model = Path(root) / tokenizer if tokenizer else None
        sources = (place, model) if model else sources
        train = [True] * len(rows) if split is None else (split == TRAIN).tolist()
        inputs, vocabulary = tokenized(
            [row["text"] for row in rows],
            length=length,
            words=words,
            tokenizer=model,
            learned_from=[r["text"] for r, learn in zip(rows, train, strict=True) if learn],
        )
    class_names = [] if numbers else sorted({row["label"] for row in rows} - {""})
    domain_names = list(dict.fromkeys(row["domain"] for row in rows))
    group_names = sorted({row.get("group", "") for row in rows} - {""})
    groups = codes(rows, "group", group_names) if group_names else None
    told_apart = metric in OF_GROUPS
    if told_apart and groups is None:
        raise BadInput(f"{place} has no groups, which metric={metric!r} needs")
    return DomainData(
        inputs=inputs,
        labels=values(place, rows) if numbers else codes(rows, "label", class_names),
        domains=codes(rows, "domain", domain_names),
        class_names=tuple(class_names),
        domain_names=tuple(domain_names),
        split=split,
        units=groups,
        groups=groups if told_apart else None,
        group_names=tuple(group_names) if told_apart else (),
        metric=metric,
        licence=licence,
        sources=sources,
        vocabulary=vocabulary,
    )


def images(place: Path, rows: Sequence[dict[str, str]], size: int) -> ImageFiles:
    """The images that the rows list. BadInput if one is not there, not below, or there twice."""
    top = place.parent.resolve()
    seen: dict[str, str] = {}
    for row in rows:
        path = row["path"]
        where = (top / path).resolve()
        if not where.is_relative_to(top):
            raise BadInput(f"{place}, line {row['line']}: {path!r} lies outside {top}")
        if not where.is_file():
            raise BadInput(f"{place}, line {row['line']}: there is no image {where}")
        if path in seen:
            raise BadInput(f"{place}, line {row['line']}: {path!r} is in line {seen[path]} too")
        seen[path] = row["line"]
    return ImageFiles(top, tuple(seen), size)


def values(place: Path, rows: Sequence[dict[str, str]]) -> torch.Tensor:
    """float32 [N] of labels that are numbers, NaN where the field is empty."""
    found = []
    for row in rows:
        try:
            found.append(float(row["label"] or "nan"))
        except ValueError:
            found.append(math.inf)
        if math.isinf(found[-1]):
            raise BadInput(f"{place}, line {row['line']}: label {row['label']!r} is no number")
    return torch.tensor(found)


def read(place: Path) -> list[dict[str, str]]:
    """The rows, each with the known columns; BadInput says what is wrong, and in which line."""
    try:
        with place.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = columns
            rows = [
                {name: row[name] for name in KNOWN if name in row} | {"line": f"{reader.line_num}"}
                for row in reader
            ]
    except FileNotFoundError:
        raise BadInput(f"there is no file {place}: {around(place)}") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{place} cannot be read as csv: {error}") from None
    if missing := [name for name in NEEDED if name not in columns]:
        raise BadInput(
            f"{place} has no column {missing[0]!r}; it has {', '.join(columns) or 'nothing'}"
        )
    if ("path" in columns) == ("text" in columns):
        found = "both 'path' and 'text'" if "path" in columns else "no column 'path' or 'text'"
        raise BadInput(f"{place} has {found}; it has {', '.join(columns) or 'nothing'}")
    if not rows:
        raise BadInput(f"{place} has no rows")
    for row in rows:
        if None in row.values():
            raise BadInput(f"{place}, line {row['line']} has fewer fields than the first line")
        for name in ("path", "domain"):
            if not row.get(name, "text").strip():
                raise BadInput(f"{place}, line {row['line']}: {name} is empty")
        row.update({name: text.strip() for name, text in row.items()})
    return rows


def codes(rows: Sequence[dict[str, str]], column: str, names: Sequence[str]) -> torch.Tensor:
    """int64 [N]: an index into ``names``, −1 where the field is empty."""
    index = {name: number for number, name in enumerate(names)} | {"": UNKNOWN}
    return torch.tensor([index[row.get(column, "")] for row in rows])


def splits(place: Path, rows: Sequence[dict[str, str]]) -> torch.Tensor | None:
    if not any(row.get("split") for row in rows):
        return None
    for row in rows:
        if row["split"] not in SPLITS:
            raise BadInput(
                f"{place}, line {row['line']}: split is {row['split']!r}, not train, val or test"
            )
    return torch.tensor([SPLITS[row["split"]] for row in rows])
