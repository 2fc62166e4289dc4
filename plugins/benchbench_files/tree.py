"""The dataset ``folder``: images in folders that are named after their domains and classes."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch

from benchbench import (
    UNKNOWN,
    VAL,
    BadInput,
    DomainData,
    ImageFiles,
    check_links,
    checked_size,
    is_hidden,
    tell_skipped,
)
from benchbench_files.columns import (
    SPLITS,
    check_class,
    check_domains,
    check_names,
    is_unlabelled,
)

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Found:
    """What lies below a folder, as sorted paths from there."""

    folders: list[str]
    images: dict[str, str]  # of each, where it really lies
    skipped: list[str]  # files that are neither images nor hidden


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

    Images below a folder ``unlabelled``, ``unlabeled`` or ``nan`` in the place of a class, in any
    case, are of a class that nobody knows.

    Links are followed, but not to a folder that they lie in. Files are read whose names end as
    torchvision's ImageFolder wants it; hidden files, and what systems leave behind, are passed
    over, and others counted in a warning. A folder of a class without an image is an error, as is
    an image at any other depth. Every record repeats ``licence``.
    """
    checked_size(size)
    top = Path(root) / path
    if not top.is_dir():
        raise BadInput(f"there is no folder {top}: {around(top)}")
    found = walk(top)
    folders, images = found.folders, [*found.images]
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
    homes = [name for name in folders if name.count("/") == place.count("/") - 1]
    check_homes(top, homes, found)
    check_names(f"the domains below {top}", domain_names)
    check_domains(f"{top}", domain_names)

    parts = [image.split("/") for image in images]
    class_names = classes_of(top, {part[-2] for part in parts})
    if not class_names:
        raise BadInput(f"all images below {top} are unlabelled; some domain needs its classes")
    check_links(top, found.images)
    tell_skipped(found.skipped, top)
    index = {name: number for number, name in enumerate(class_names)}
    split = None
    if has_splits:
        split = torch.tensor([SPLITS[part[1]] for part in parts])
        split[drawn_val(parts, seed)] = VAL
    return DomainData(
        inputs=ImageFiles(top, tuple(images), size),
        labels=torch.tensor([index.get(part[-2], UNKNOWN) for part in parts]),
        domains=torch.tensor([domain_names.index(part[0]) for part in parts]),
        class_names=tuple(class_names),
        domain_names=tuple(domain_names),
        split=split,
        licence=licence,
        sources=(top, *(top / name for name in folders)),  # a file more or less changes its folder
    )


def check_homes(top: Path, homes: Iterable[str], found: Found) -> None:
    """BadInput if one of the folders of classes, ``homes`` below top, has no image."""
    with_images = {image.rpartition("/")[0] for image in found.images}
    for home in homes:
        if home not in with_images:
            skipped = [path for path in found.skipped if path.startswith(f"{home}/")]
            listed = ", ".join(SUFFIXES)
            why = f"; it holds {len(skipped):,} other files" if skipped else ""
            raise BadInput(
                f"the folder {top / home} of a class has no image whose name ends in {listed}{why}"
                "; convert its files, or remove the folder"
            )


def classes_of(top: Path, folders: Iterable[str]) -> list[str]:
    """The names of classes among those of folders; BadInput if one may be none."""
    names = sorted(name for name in folders if not is_unlabelled(name))
    for name in names:
        check_class(f"the name of a folder of images below {top}", name)
    check_names(f"the classes below {top}", names)
    return names


def drawn_val(parts: list[list[str]], seed: int) -> list[int]:
    """A fifth of the rows of each class in ``train``, in the domains that have no ``val``.

    Rows without a label stay in ``train``.
    """
    with_val = {domain for domain, split, _, _ in parts if split == "val"}
    classes = defaultdict(list)
    for row, (domain, split, name, _) in enumerate(parts):
        if split == "train" and domain not in with_val and not is_unlabelled(name):
            classes[domain, name].append(row)
    drawn = []
    for (domain, name), rows in classes.items():
        rng = np.random.Generator(np.random.PCG64(list(os.fsencode(f"{seed}/{domain}/{name}"))))
        drawn += rng.permutation(rows)[: (len(rows) + 2) // 5].tolist()
    return drawn


def walk(top: Path) -> Found:
    """Everything below top that is not hidden; links are followed."""
    folders: list[str] = []
    images: dict[str, str] = {}
    skipped: list[str] = []
    for place, below, files in os.walk(top, onerror=unreadable, followlinks=True):
        here = Path(place)
        below[:] = [n for n in below if not is_hidden(n) and not climbs(here / n)]
        prefix = "" if here == top else f"{here.relative_to(top).as_posix()}/"
        folders += [prefix + n for n in below]
        real = os.path.realpath(here)
        for name in files:
            file = here / name
            if is_hidden(name):
                continue
            if name.lower().endswith(SUFFIXES):
                whole = os.path.realpath(file) if file.is_symlink() else f"{real}{os.sep}{name}"
                images[prefix + name] = whole
            elif file.is_file():  # and no link that leads nowhere
                skipped.append(prefix + name)
    return Found(sorted(folders), dict(sorted(images.items())), sorted(skipped))


def climbs(path: Path) -> bool:
    """Is this a link to a folder it lies in, so that following it would never end?"""
    return path.is_symlink() and path.resolve() in [p.resolve() for p in path.absolute().parents]


def unreadable(error: OSError) -> NoReturn:
    raise BadInput(f"the folder {error.filename} cannot be read: {error.strerror}") from error


def around(path: Path) -> str:
    """What the nearest folder holds in which a missing path would lie."""
    return contents(next(parent for parent in path.absolute().parents if parent.is_dir()))


def contents(folder: Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir() if not is_hidden(entry.name))
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f"{folder} holds {', '.join(names[:10]) or 'nothing'}{more}"
