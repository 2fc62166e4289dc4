"""CIFAR-10 with corruptions as domains (Hendrycks and Dietterich 2019, arXiv:1903.12261)."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from benchbench import TEST, TRAIN, BadInput, DomainData, published
from benchbench_vision.pairs import CIFAR_FILES, cifar_downloads
from benchbench_vision.reading import Part, joined, read

Corrupt = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]  # floats in [0, 1]


def gaussian_noise(image: np.ndarray, scale: float, rng: np.random.Generator) -> np.ndarray:
    return image + rng.normal(0, scale, image.shape)


def shot_noise(image: np.ndarray, photons: float, rng: np.random.Generator) -> np.ndarray:
    return rng.poisson(image * photons) / photons


def impulse_noise(image: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Salt and pepper, each value on its own."""
    hit, salt = rng.random(image.shape) < share, rng.random(image.shape) < 0.5
    return np.where(hit, salt, image)


def contrast(image: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    mean = image.mean((0, 1), keepdims=True)
    return (image - mean) * share + mean


def brightness(image: np.ndarray, more: float, rng: np.random.Generator) -> np.ndarray:
    """More of the value of hue, saturation and value: the largest channel rises by ``more``."""
    value = image.max(2, keepdims=True)
    raised = np.clip(value + more, 0, 1)
    return np.where(value > 0, image * raised / np.maximum(value, 1e-9), raised)


def pixelate(image: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Down to ``share`` of the sides and up again, by a box filter."""
    picture = Image.fromarray(np.uint8(image * 255))
    small = (int(picture.width * share), int(picture.height * share))
    coarse = picture.resize(small, Image.Resampling.BOX)
    return np.asarray(coarse.resize(picture.size, Image.Resampling.BOX)) / 255


def jpeg_compression(image: np.ndarray, quality: float, rng: np.random.Generator) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(np.uint8(image * 255)).save(buffer, "JPEG", quality=int(quality))
    with Image.open(buffer) as coarse:
        return np.asarray(coarse.convert("RGB")) / 255


CORRUPTIONS: Mapping[str, tuple[Corrupt, tuple[float, ...]]] = {  # with CIFAR-10-C's severities
    "gaussian_noise": (gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot_noise": (shot_noise, (500, 250, 100, 75, 50)),
    "impulse_noise": (impulse_noise, (0.01, 0.02, 0.03, 0.05, 0.07)),
    "contrast": (contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "brightness": (brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "pixelate": (pixelate, (0.95, 0.9, 0.85, 0.75, 0.65)),
    "jpeg_compression": (jpeg_compression, (80, 65, 58, 50, 40)),
}


@published(
    home="https://www.cs.toronto.edu/~kriz/cifar.html",
    licence="none stated; research",
    files=CIFAR_FILES,
    downloads=lambda **_: cifar_downloads(),
)
def cifar10_c(
    root: Path, *, kinds: tuple[str, ...] = tuple(CORRUPTIONS), severity: int = 5, seed: int = 0
) -> DomainData:
    """CIFAR-10, ``clean`` and with each kind of corruption, computed, of severity 1 to 5.

    Every image is in one domain only, drawn with ``seed`` as is the corruption, so that no method
    meets a test image's twin. A fifth of each class of the training rows validates.
    """
    from torchvision.datasets import CIFAR10

    if unknown := [kind for kind in kinds if kind not in CORRUPTIONS]:
        raise BadInput(f"no corruption {unknown[0]!r}; there is {', '.join(CORRUPTIONS)}")
    if severity not in range(1, 6) or not kinds or len(set(kinds)) < len(kinds):
        raise BadInput(f"cifar10_c(kinds={kinds!r}, severity={severity}): kinds once, severity 1–5")
    parts, names = [], ("clean", *kinds)
    for split, train in ((TRAIN, True), (TEST, False)):
        data = read(CIFAR10, Path(root), train=train)
        labels = np.array(data.targets)
        rng = np.random.Generator(np.random.PCG64([seed, split]))
        home = rng.permutation(len(labels)) % len(names)
        for number, name in enumerate(names):
            images = data.data[home == number]
            if name != "clean":
                corrupt, levels = CORRUPTIONS[name]
                images = np.stack([damaged(i, corrupt, levels[severity - 1], rng) for i in images])
            parts.append(Part(images, labels[home == number], number, split))
    files = [Path(root) / path for path in CIFAR_FILES]
    licence = "CIFAR-10: none stated; research"
    return joined(parts, 32, data.classes, names, licence, files, seed)


def damaged(
    image: np.ndarray, corrupt: Corrupt, level: float, rng: np.random.Generator
) -> np.ndarray:
    """uint8 [H, W, 3] of uint8 [H, W, 3]"""
    return np.uint8(np.clip(corrupt(image / 255, level, rng), 0, 1) * 255)
