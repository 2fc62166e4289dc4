"""ImageNet's classes as renditions, sketches, and photographs that classifiers misread."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchbench import TEST, TRAIN, DomainData, published
from benchbench_imagenet.listing import HOME, LICENCE, Folder, described

SETS = {  # the other domain's name, its folder, its home, and what it is
    "imagenet_r": (
        "renditions",
        "imagenet-r",
        "https://github.com/hendrycks/imagenet-r",
        "ImageNet-R: 200 classes in art, cartoons, toys and more (Hendrycks et al. 2021)",
    ),
    "imagenet_sketch": (
        "sketches",
        "sketch",
        "https://github.com/HaohanWang/ImageNet-Sketch",
        "ImageNet-Sketch: black and white sketches of all classes (Wang et al. 2019)",
    ),
    "imagenet_a": (
        "misread",
        "imagenet-a",
        "https://github.com/hendrycks/natural-adv-examples",
        "ImageNet-A: photographs of 200 classes that a ResNet-50 misreads (Hendrycks et al. 2021)",
    ),
}


def factory(name: str) -> Callable[..., DomainData]:
    domain, folder, home, summary = SETS[name]

    @published(
        home=f"{HOME} and {home}",
        licence=f"{LICENCE}; of {folder}: research",
        files=["imagenet/train", "imagenet/val", folder],
    )
    def load(root: Path, *, size: int = 224, seed: int = 0) -> DomainData:
        root = Path(root)
        classes = sorted(entry.name for entry in (root / folder).iterdir() if entry.is_dir())
        folders = [
            place
            for label, wnid in enumerate(classes)
            for place in (
                Folder(f"imagenet/train/{wnid}", label, 0, TRAIN),
                Folder(f"imagenet/val/{wnid}", label, 0, TEST),
                Folder(f"{folder}/{wnid}", label, 1, None),
            )
        ]
        names = ("photographs", domain)
        return described(root, folders, classes, names, LICENCE, size, seed)

    load.__doc__ = (
        f"{summary}, against ImageNet's own.\n\n"
        f"The domains are ``photographs``, in ``imagenet/train`` and ``imagenet/val``, and\n"
        f"``{domain}``, in ``{folder}``, of which a fifth of each class tests."
    )
    return load


VARIANTS = {name: factory(name) for name in SETS}
