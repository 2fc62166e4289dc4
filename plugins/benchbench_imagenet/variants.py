"""ImageNet's classes as renditions, sketches, and photographs that classifiers misread."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from benchbench import TEST, TRAIN, DomainData, is_hidden, published
from benchbench_imagenet.listing import HOME, LICENCE, Folder, described

Factory = Callable[..., DomainData]


def beside(folder: str, home: str) -> Callable[[Factory], Factory]:
    return published(
        home=f"{HOME} and {home}",
        licence=f"{LICENCE}; {folder}: research",
        files=["imagenet/train", "imagenet/val", folder],
    )


def read(root: Path, folder: str, domain: str, size: int, seed: int) -> DomainData:
    """ImageNet's images of the classes in ``folder``, and those in it, of which a fifth tests."""
    root = Path(root)
    entries = [entry for entry in (root / folder).iterdir() if not is_hidden(entry.name)]
    classes = sorted(entry.name for entry in entries if entry.is_dir())
    folders = [
        place
        for label, wnid in enumerate(classes)
        for place in (
            Folder(f"imagenet/train/{wnid}", label, 0, TRAIN),
            Folder(f"imagenet/val/{wnid}", label, 0, TEST),
            Folder(f"{folder}/{wnid}", label, 1, None),
        )
    ]
    return described(root, folders, classes, ("photographs", domain), LICENCE, size, seed)


@beside("imagenet-r", "https://github.com/hendrycks/imagenet-r")
def imagenet_r(root: Path, *, size: int = 224, seed: int = 0) -> DomainData:
    """ImageNet-R: 200 classes in art, cartoons, toys and more (Hendrycks et al. 2021)."""
    return read(root, "imagenet-r", "renditions", size, seed)


@beside("sketch", "https://github.com/HaohanWang/ImageNet-Sketch")
def imagenet_sketch(root: Path, *, size: int = 224, seed: int = 0) -> DomainData:
    """ImageNet-Sketch: black and white sketches of all classes (Wang et al. 2019)."""
    return read(root, "sketch", "sketches", size, seed)


@beside("imagenet-a", "https://github.com/hendrycks/natural-adv-examples")
def imagenet_a(root: Path, *, size: int = 224, seed: int = 0) -> DomainData:
    """ImageNet-A: photographs of 200 classes that a ResNet-50 misreads (Hendrycks et al. 2021)."""
    return read(root, "imagenet-a", "misread", size, seed)
