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
TITLES = {
    "living17": "Living-17: seventeen classes of animals",
    "nonliving26": "Nonliving-26: twenty-six classes of things",
    "entity13": "Entity-13: thirteen coarse classes of animals and things",
    "entity30": "Entity-30: thirty classes of animals and things",
}


def factory(name: str, classes: Mapping[str, tuple[str, str]]) -> Callable[..., DomainData]:
    folders = [
        Folder(f"imagenet/{part}/{wnid}", label, domain, split)
        for part, split in (("train", TRAIN), ("val", TEST))
        for label, sides in enumerate(classes.values())
        for domain, side in enumerate(sides)
        for wnid in side.split()
    ]

    @published(home=HOME, licence=LICENCE, files=[folder.place for folder in folders])
    def load(root: Path, *, size: int = 224, seed: int = 0) -> DomainData:
        return described(
            Path(root), folders, list(classes), ("source", "target"), LICENCE, size, seed
        )

    load.__doc__ = (
        f"{TITLES[name]}, whose subclasses are others in the target.\n\n"
        "Of ImageNet's images in ``imagenet/train`` a fifth of each class, drawn with ``seed``,\n"
        "validates; those in ``imagenet/val`` test. The shorter side becomes size / 0.875 pixels,\n"
        "and the centre is cut out."
    )
    return load


BREEDS = {name: factory(name, classes) for name, classes in SPLITS.items()}
