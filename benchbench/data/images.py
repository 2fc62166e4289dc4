"""One file to one array of pixels."""

from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from benchbench.contracts import ImageFiles
from benchbench.terms import BadInput


def pixels_of(files: ImageFiles, path: Path) -> np.ndarray:
    """[channels, size, size] of one of the files. BadInput if it cannot be decoded."""
    if files.reader is None:
        return read_image(path, files.size, files.crop)
    try:
        values = np.asarray(files.reader(path))
        if values.ndim != 3 or len(values) != files.channels:
            raise ValueError(f"it holds {values.shape}, not [{files.channels}, H, W]")
        side = (files.size, files.size)
        if values.shape[1:] != side:
            planes = [Image.fromarray(plane.astype(np.float32)) for plane in values]
            values = np.stack(
                [np.asarray(p.resize(side, Image.Resampling.BILINEAR)) for p in planes]
            )
        if not (np.abs(values) <= np.finfo(np.float16).max).all():  # nor NaN
            raise ValueError("it holds numbers that float16 cannot")
        return values.astype(np.float16)
    except Exception as error:  # as many types as there are readers
        raise BadInput(f"image {path} cannot be decoded: {error}") from None


def read_image(path: Path | BinaryIO, size: int, crop: float | None = None) -> np.ndarray:
    """uint8 [3, size, size]: any mode to RGB, resized (bilinear) as `ImageFiles` says.

    BadInput if it cannot be decoded.
    """
    try:
        with Image.open(path) as file:
            image: Image.Image = file
            if file.mode.startswith("I;16"):  # PIL would clip 16 bits at 255, not scale them
                image = Image.fromarray((np.asarray(file) >> 8).astype(np.uint8))
            if file.mode in ("I", "F"):
                raise ValueError(f"its pixels are 32-bit ({file.mode}); save it with 8 or 16 bits")
            image = image.convert("RGB")
            return np.asarray(resized(image, size, crop)).transpose(2, 0, 1)
    except Exception as error:  # Pillow raises a dozen types on a broken file
        raise BadInput(f"image {path} cannot be decoded: {error}") from None


def resized(image: Image.Image, size: int, crop: float | None) -> Image.Image:
    if crop is None:
        sides = (size, size)
        return image if image.size == sides else image.resize(sides, Image.Resampling.BILINEAR)
    shorter = round(size / crop)
    width, height = (shorter * side // min(image.size) for side in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    return image.crop((left, top, left + size, top + size))
