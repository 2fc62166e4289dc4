"""ImageNet as it lies on disks: a folder for each WordNet id, below ``train`` and ``val``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from benchbench import (
    TEST,
    TRAIN,
    VAL,
    BadInput,
    DomainData,
    ImageFiles,
    checked_size,
    is_hidden,
    tell_skipped,
)

HOME = "https://www.image-net.org/download.php"
LICENCE = "ImageNet: for non-commercial research and education"
SUFFIXES = (".jpeg", ".jpg", ".png")


@dataclass(frozen=True)
class Folder:
    """Images that are all of one class and one domain."""

    place: str  # below the root
    label: int
    domain: int
    split: int | None  # None: a fifth of them, drawn, is for testing


def described(
    root: Path,
    folders: Sequence[Folder],
    class_names: Sequence[str],
    domain_names: Sequence[str],
    licence: str,
    size: int,
    seed: int,
) -> DomainData:
    """A fifth of each folder that is for training, drawn with ``seed``, validates."""
    checked_size(size)
    paths: list[str] = []
    skipped: list[str] = []
    columns: list[tuple[int, int, int]] = []
    for folder in folders:
        found, others = images_in(root / folder.place)
        skipped += [f"{folder.place}/{name}" for name in others]
        paths += [f"{folder.place}/{name}" for name in found]
        split = np.full(len(found), TRAIN if folder.split is None else folder.split)
        rng = np.random.Generator(np.random.PCG64([seed, *os.fsencode(folder.place)]))
        order = rng.permutation(len(found))
        fifth = (len(found) + 2) // 5
        if folder.split is None:
            split[order[:fifth]], order = TEST, order[fifth:]
        if folder.split in (None, TRAIN):
            split[order[: (len(order) + 2) // 5]] = VAL
        columns += [(folder.label, folder.domain, int(number)) for number in split]
    tell_skipped(skipped, root)
    labels, domains, splits = torch.tensor(columns).T.contiguous()
    return DomainData(
        ImageFiles(root, paths, size, crop=0.875),
        labels=labels,
        domains=domains,
        class_names=tuple(class_names),
        domain_names=tuple(domain_names),
        split=splits,
        licence=licence,
        sources=tuple(root / folder.place for folder in folders),
    )


def images_in(folder: Path) -> tuple[list[str], list[str]]:
    """The names of a folder's images, and of its other files that are not hidden, each sorted.

    BadInput if it has no image.
    """
    try:
        found = sorted(entry.name for entry in os.scandir(folder) if entry.is_file())
    except OSError as error:
        raise BadInput(f"the folder {folder} cannot be read: {error.strerror}") from None
    names = [name for name in found if not is_hidden(name)]
    images = [name for name in names if name.lower().endswith(SUFFIXES)]
    if not images:
        why = f"; it holds {len(names):,} other files" if names else ""
        raise BadInput(f"there are no images in {folder}{why}")
    return images, sorted({*names} - {*images})
