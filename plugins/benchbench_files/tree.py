"""The dataset ``folder``: images in folders that are named after their domains and classes."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch

from benchbench import TEST, TRAIN, UNKNOWN, VAL, BadInput, DomainData, ImageFiles

SPLITS = {"train": TRAIN, "val": VAL, "test": TEST}
UNLABELLED = "unlabelled"  # the folder of images whose class nobody knows
SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def folder(
    root: Path,
    *,
    path: str = "",
    size: int = 224,
    seed: int = 0,
    licence: str = "that of the folder's owner",
) -> DomainData:
    """Images at ``domain/class/image`` below ``root/path``, as PACS or VLCS lie for DomainBed.

    If every domain holds a folder ``train``, a folder ``test``, perhaps ``val`` and no others,
    images lie at ``domain/split/class/image`` and this split is kept. A domain without images in
    ``val`` gets a fifth of each class of its ``train`` as such, drawn with ``seed``.

    Images below a folder ``unlabelled`` in the place of a class are of a class that nobody knows.

    Links are followed, but not to a folder that they lie in. Hidden files and those whose name
    does not end like an image's are passed over; an image at any other depth is an error. Every
    record repeats ``licence``.
    """
    if size < 1:
        raise BadInput(f"folder(size={size}) leaves no pixels: size must be at least 1")
    top = Path(root) / path
    if not top.is_dir():
        raise BadInput(f"there is no folder {top}: {around(top)}")
    folders, images = walk(top)
    domain_names = [name for name in folders if "/" not in name]
    if len(domain_names) < 2:
        raise BadInput(f"{top} must hold two or more folders, one for each domain: {contents(top)}")

    inner = {d: {f.split("/")[1] for f in folders if f.startswith(f"{d}/")} for d in domain_names}
    has_splits = all({"train", "test"} <= names <= set(SPLITS) for names in inner.values())
    place = "domain/split/class/image" if has_splits else "domain/class/image"
    for image in images:
        if image.count("/") != place.count("/"):
            raise BadInput(f"images below {top} must lie at {place}, but there is {image}")
    for domain in domain_names:
        for home in (f"{domain}/train", f"{domain}/test") if has_splits else (domain,):
            if not any(image.startswith(f"{home}/") for image in images):
                raise BadInput(f"there are no images in {top / home}: {contents(top / home)}")

    parts = [image.split("/") for image in images]
    class_names = sorted({part[-2] for part in parts} - {UNLABELLED})
    if not class_names:
        raise BadInput(f"all images below {top} are {UNLABELLED}; some domain needs its classes")
    class_index = {name: index for index, name in enumerate(class_names)} | {UNLABELLED: UNKNOWN}
    split = None
    if has_splits:
        split = torch.tensor([SPLITS[part[1]] for part in parts])
        split[drawn_val(parts, seed)] = VAL
    return DomainData(
        inputs=ImageFiles(top, tuple(images), size),
        labels=torch.tensor([class_index[part[-2]] for part in parts]),
        domains=torch.tensor([domain_names.index(part[0]) for part in parts]),
        class_names=tuple(class_names),
        domain_names=tuple(domain_names),
        split=split,
        licence=licence,
        sources=(top, *(top / name for name in folders)),  # a file more or less changes its folder
    )


def drawn_val(parts: list[list[str]], seed: int) -> list[int]:
    """A fifth of the rows of each class in ``train``, in the domains that have no ``val``."""
    with_val = {domain for domain, split, _, _ in parts if split == "val"}
    classes = defaultdict(list)
    for row, (domain, split, name, _) in enumerate(parts):
        if split == "train" and domain not in with_val:
            classes[domain, name].append(row)
    drawn = []
    for (domain, name), rows in classes.items():
        rng = np.random.Generator(np.random.PCG64(list(os.fsencode(f"{seed}/{domain}/{name}"))))
        drawn += rng.permutation(rows)[: (len(rows) + 2) // 5].tolist()
    return drawn


def walk(top: Path) -> tuple[list[str], list[str]]:
    """The folders and the images below top, each sorted, as paths from there."""
    folders: list[str] = []
    images: list[str] = []
    for place, below, files in os.walk(top, onerror=unreadable, followlinks=True):
        here = Path(place)
        below[:] = [n for n in below if not n.startswith(".") and not climbs(here / n)]
        prefix = "" if here == top else f"{here.relative_to(top).as_posix()}/"
        folders += [prefix + n for n in below]
        images += [
            prefix + n for n in files if not n.startswith(".") and n.lower().endswith(SUFFIXES)
        ]
    return sorted(folders), sorted(images)


def climbs(path: Path) -> bool:
    """Is this a link to a folder it lies in, so that following it would never end?"""
    return path.is_symlink() and path.resolve() in [p.resolve() for p in path.absolute().parents]


def unreadable(error: OSError) -> NoReturn:
    raise BadInput(f"the folder {error.filename} cannot be read: {error.strerror}") from error


def around(path: Path) -> str:
    """What the nearest folder holds in which a missing path would lie."""
    return contents(next(parent for parent in path.absolute().parents if parent.is_dir()))


def contents(folder: Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f"{folder} holds {', '.join(names[:10]) or 'nothing'}{more}"
