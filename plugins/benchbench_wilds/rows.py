"""Rows of a dataset, put together from its labelled and its unlabelled part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchbench import TRAIN, UNKNOWN, VAL, DomainData, ImageFiles


@dataclass(frozen=True)
class Rows:
    """Some images or texts, with what is known of each."""

    items: Sequence[str]  # paths below the data folder, or the texts themselves
    domains: np.ndarray  # [N], into the dataset's domain names
    split: np.ndarray  # [N] of TRAIN, VAL, TEST; a row with −1 is left out
    labels: np.ndarray | None = None  # None: there are none, whatever the files say
    groups: np.ndarray | None = None  # int [N], or bool [N, G]


def described(
    root: Path,
    size: int,
    parts: Sequence[Rows],
    *,
    class_names: Sequence[str],
    domain_names: Sequence[str],
    group_names: Sequence[str] = (),
    reader: Callable[[Path], np.ndarray] | None = None,
    channels: int = 3,
    sources: Sequence[Path],
    **said: Any,
) -> DomainData:
    """Images, as `DomainData` and `ImageFiles` want them said."""
    paths, columns = joined(parts, numbers=not class_names)
    return DomainData(
        ImageFiles(root, paths, size, reader=reader, channels=channels),
        class_names=tuple(class_names),
        domain_names=tuple(domain_names),
        group_names=tuple(group_names),
        sources=tuple(sources),
        **columns,
        **said,
    )


def joined(
    parts: Sequence[Rows], *, numbers: bool = False
) -> tuple[list[str], dict[str, torch.Tensor]]:
    """All items, and their columns; ``numbers``: whether labels are."""
    keep = [part.split >= 0 for part in parts]
    items = [item for part, kept in zip(parts, keep, strict=True) for item in chosen(part, kept)]
    absent = {"labels": np.nan if numbers else UNKNOWN, "domains": 0, "split": TRAIN}
    groups = [part.groups for part in parts if part.groups is not None]
    if groups:
        absent["groups"] = -1 if groups[0].ndim == 1 else False
    columns = {}
    for name, value in absent.items():
        given = [getattr(part, name) for part in parts]
        wide = groups[0].shape[1:] if name == "groups" else ()
        whole = [
            np.full((len(part.items), *wide), value) if column is None else np.asarray(column)
            for part, column in zip(parts, given, strict=True)
        ]
        column = np.concatenate([rows[kept] for rows, kept in zip(whole, keep, strict=True)])
        kind = np.float32 if numbers and name == "labels" else np.int64
        columns[name] = torch.from_numpy(column if column.dtype == bool else column.astype(kind))
    return items, columns


def chosen(part: Rows, kept: np.ndarray) -> Sequence[str]:
    if kept.all():
        return part.items
    return [part.items[row] for row in kept.nonzero()[0]]


def coded(codes: np.ndarray, meaning: Mapping[int, int], otherwise: int = -1) -> np.ndarray:
    """Every code as what it means."""
    result = np.full(len(codes), otherwise, np.int64)
    for code, value in meaning.items():
        result[np.asarray(codes) == code] = value
    return result


def with_val(split: np.ndarray, labels: np.ndarray, domains: np.ndarray, seed: int) -> np.ndarray:
    """The split with a fifth of the training rows of each class and domain as validation."""
    drawn = split.copy()
    for domain in np.unique(domains):
        rng = np.random.Generator(np.random.PCG64([seed, int(domain)]))
        for label in np.unique(labels):
            rows = ((split == TRAIN) & (labels == label) & (domains == domain)).nonzero()[0]
            drawn[rng.permutation(rows)[: (len(rows) + 2) // 5]] = VAL
    return drawn
