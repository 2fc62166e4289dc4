"""BREEDS (Santurkar et al. 2021, arXiv:2008.04859): the same classes, other subclasses.

breeds.json holds the subclasses of ImageNet that the authors' generator draws from their modified
hierarchy with split "rand" and its seed 2, source then target, as Shen et al. 2022 use them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path

from benchbench import TEST, TRAIN, DomainData, published
from benchbench_imagenet.listing import HOME, LICENCE, Folder, described

SPLITS: Mapping[str, Mapping[str, tuple[str, str]]] = json.loads(
    (files("benchbench_imagenet") / "breeds.json").read_text(encoding="utf-8")
)


def folders_of(name: str) -> list[Folder]:
    return [
        Folder(f"imagenet/{part}/{wnid}", label, domain, split)
        for part, split in (("train", TRAIN), ("val", TEST))
        for label, sides in enumerate(SPLITS[name].values())
        for domain, side in enumerate(sides)
        for wnid in side.split()
    ]


def breeds(factory: Callable[..., DomainData]) -> Callable[..., DomainData]:
    folders = folders_of(factory.__name__)
    mark = published(home=HOME, licence=LICENCE, files=[folder.place for folder in folders])
    return mark(factory)


def read(root: Path, name: str, size: int, seed: int) -> DomainData:
    """Of the images in ``imagenet/train`` a fifth of each subclass, drawn with ``seed``, validates;
    those in ``imagenet/val`` test."""
    domains = ("source", "target")
    return described(Path(root), folders_of(name), list(SPLITS[name]), domains, LICENCE, size, seed)


@breeds
def living17(root: Path, *, size: int = 224, seed: int = 0) -> DomainData:
    """Living-17: seventeen classes of animals, whose subclasses are others in the target."""
    return read(root, "living17", size, seed)


@breeds
def nonliving26(root: Path, *, size: int = 224, seed: int = 0) -> DomainData:
    """Nonliving-26: twenty-six classes of things, whose subclasses are others in the target."""
    return read(root, "nonliving26", size, seed)


@breeds
def entity13(root: Path, *, size: int = 224, seed: int = 0) -> DomainData:
    """Entity-13: thirteen coarse classes, whose subclasses are others in the target."""
    return read(root, "entity13", size, seed)


@breeds
def entity30(root: Path, *, size: int = 224, seed: int = 0) -> DomainData:
    """Entity-30: thirty classes, whose subclasses are others in the target."""
    return read(root, "entity30", size, seed)
