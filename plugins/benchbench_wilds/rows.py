"""Rows of a dataset, put together from its labelled and its unlabelled part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchbench import TRAIN, UNKNOWN, VAL, DomainData, ImageFiles


@dataclass(frozen=True)
class Rows:
    """Some images, with what is known of each."""

    paths: Sequence[str]  # below the data folder
    domains: np.ndarray  # [N], into the dataset's domain names
    split: np.ndarray  # [N] of TRAIN, VAL, TEST; a row with −1 is left out
    labels: np.ndarray | None = None  # None: there are none, whatever the files say
    groups: np.ndarray | None = None


def described(
    root: Path,
    size: int,
    parts: Sequence[Rows],
    *,
    class_names: Sequence[str],
    domain_names: Sequence[str],
    licence: str,
    sources: Sequence[Path],
    group_names: Sequence[str] = (),
    metric: str = "accuracy",
) -> DomainData:
    keep = [part.split >= 0 for part in parts]
    paths = [path for part, kept in zip(parts, keep, strict=True) for path in chosen(part, kept)]

    def column(name: str, absent: int) -> torch.Tensor:
        columns = []
        for part, kept in zip(parts, keep, strict=True):
            values = getattr(part, name)
            whole = np.full(len(part.paths), absent) if values is None else np.asarray(values)
            columns.append(whole[kept])
        return torch.from_numpy(np.concatenate(columns).astype(np.int64))

    has_groups = any(part.groups is not None for part in parts)
    return DomainData(
        ImageFiles(root, paths, size),
        labels=column("labels", UNKNOWN),
        domains=column("domains", 0),
        class_names=tuple(class_names),
        domain_names=tuple(domain_names),
        split=column("split", TRAIN),
        groups=column("groups", -1) if has_groups else None,
        group_names=tuple(group_names),
        metric=metric,
        licence=licence,
        sources=tuple(sources),
    )


def chosen(part: Rows, kept: np.ndarray) -> Sequence[str]:
    if kept.all():
        return part.paths
    return [part.paths[row] for row in kept.nonzero()[0]]


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
