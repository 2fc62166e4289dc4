"""The one decoder: from a file, its bytes, or an array, to pixels of one size."""

import io
import os
import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from benchbench.extension.contracts import ImageFiles, checked_size
from benchbench.extension.errors import BadInput

LIMIT = "BENCHBENCH_MAX_PIXELS"  # the environment variable that raises Pillow's own limit
PNG, CRITICAL = b"\x89PNG\r\n\x1a\n", (b"IHDR", b"PLTE", b"IDAT")
JPEG, SCAN = b"\xff\xd8", 0xDA  # how a file begins, and the marker after which pixels come
METADATA = (*range(0xE0, 0xEE), 0xEF, 0xFE)  # JPEG's markers APP0 to APP15, and COM, but Adobe's
TWELVE_BITS, BITS_PER_SAMPLE = 4096, 258  # the end of what 12 bits can say; a tag of TIFF


def pixels_of(files: ImageFiles, path: Path, deep: list[int] | None = None) -> np.ndarray:
    """[channels, size, size] of one of the files; of ``deep`` see `read_image`.

    BadInput if it cannot be decoded.
    """
    if files.reader is None:
        return read_image(path, files.size, files.crop, deep)
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


def decode_images(
    images: Sequence[Path | bytes | memoryview | np.ndarray], size: int, where: str = "images"
) -> np.ndarray:
    """uint8 [N, 3, size, size] of files, of the bytes of files, or of arrays of pixels.

    Arrays are uint8 [H, W] or [H, W, 1 or 3]. Files are decoded as `read_image` does, so that the
    same bytes give the same pixels for every dataset. BadInput names the image that cannot be
    decoded, by its path, or by ``where`` and its number.
    """
    try:
        pixels = np.empty((len(images), 3, checked_size(size), size), np.uint8)
    except (MemoryError, ValueError):
        needed = len(images) * 3 * size**2 / 1e9
        raise BadInput(
            f"{len(images):,} images of size = {size} take {needed:,.0f} GB of memory, more than "
            "there is; choose a smaller size"
        ) from None
    deep: list[int] = []
    with quiet():
        for row, image in enumerate(images):
            name = f"image {image}" if isinstance(image, Path) else f"{where}: image {row}"
            if isinstance(image, np.ndarray):
                pixels[row] = _of_array(image, size, name)
            else:
                file = image if isinstance(image, Path) else io.BytesIO(image)
                pixels[row] = read_image(file, size, None, deep, name)
    tell_of_twelve_bits(deep)
    return pixels


def _of_array(array: np.ndarray, size: int, name: str) -> np.ndarray:
    planes = array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array
    three = planes.ndim == 2 or (planes.ndim == 3 and planes.shape[2] == 3)
    if array.dtype != np.uint8 or not three or not array.size:
        raise BadInput(
            f"{name} is {array.dtype} {list(array.shape)}, not uint8 [H, W] or [H, W, 1 or 3] with "
            "at least one pixel"
        )
    image = Image.fromarray(np.ascontiguousarray(planes)).convert("RGB")
    return np.asarray(resized(image, size, None)).transpose(2, 0, 1)


def read_image(
    file: Path | BinaryIO,
    size: int | tuple[int, int],
    crop: float | None = None,
    deep: list[int] | None = None,
    name: str = "",
) -> np.ndarray:
    """uint8 [3, size, size]: RGB, resized (bilinear) as `ImageFiles` says.

    Of a ``size`` (height, width), without ``crop``, it is [3, height, width].

    An image of 8 bits is `PIL.Image.open(file).convert("RGB")`, as the loaders of torchvision and
    timm read it: the orientation in EXIF is not applied, transparency is dropped, of several pages
    the first is read. Values of 16 bits are divided by 256, which Pillow would clip at 255, and
    the largest of each image is added to ``deep``. Metadata that Pillow cannot read do not matter.

    BadInput says of ``name``, or else of the file, why it cannot be decoded.
    """
    try:
        return _read(file, size, crop, deep)
    except Exception as error:  # Pillow raises a dozen types on a broken file
        reason = _why(error)
        with suppress(Exception):  # what is broken may be metadata alone, such as a text of a PNG
            plain = _without_metadata(_bytes_of(file))
            return _read(io.BytesIO(plain), size, crop, deep)
        raise BadInput(f"{name or f'image {file}'} cannot be decoded: {reason}") from None


def _read(
    file: Path | BinaryIO,
    size: int | tuple[int, int],
    crop: float | None,
    deep: list[int] | None,
) -> np.ndarray:
    if limit := os.environ.get(LIMIT):
        Image.MAX_IMAGE_PIXELS = _limit(limit)
    with Image.open(file) as opened:
        image: Image.Image = opened
        # "I" is 32 bits, but where Pillow gives 16 bits so: of PGM, and before version 11 of PNG
        if opened.mode.startswith("I;16") or (
            opened.mode == "I" and opened.format in ("PNG", "PPM")
        ):
            values, bits = np.asarray(opened), 16
            if getattr(opened, "tag_v2", {}).get(BITS_PER_SAMPLE) == (12,):  # of a TIFF
                bits = 12
            elif deep is not None:
                deep.append(int(values.max()))
            image = Image.fromarray((values >> (bits - 8)).astype(np.uint8))
        elif opened.mode in ("I", "F"):
            kind = "floats" if opened.mode == "F" else "signed or 32-bit integers"
            raise ValueError(f"its pixels are {kind}; save it with 8 or 16 bits, unsigned")
        return np.asarray(resized(image.convert("RGB"), size, crop)).transpose(2, 0, 1)


def _limit(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 2**62):
        raise ValueError(f"{LIMIT} is {text!r}, not a number of pixels such as 500000000")
    return -(-int(text) // 2)  # Pillow refuses what has more than twice its limit


def _why(error: Exception) -> str:
    """The reason, without names that only the library's authors know."""
    if isinstance(error, Image.DecompressionBombError):
        most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        return (
            f"it has more than {most:,} pixels; make it smaller, or set the environment variable "
            f"{LIMIT} to the most pixels that an image may have"
        )
    if isinstance(error, UnidentifiedImageError):
        return "it is of no format that is known, or broken"
    return f"{error}" or type(error).__name__


def _bytes_of(file: Path | BinaryIO) -> bytes:
    if isinstance(file, Path):
        return file.read_bytes()
    file.seek(0)
    return file.read()


def _without_metadata(content: bytes) -> bytes:
    """A PNG or JPEG with nothing but what its pixels need; other content as it is."""
    if content.startswith(PNG):
        kept, start = [PNG], len(PNG)
        while start + 8 <= len(content):
            length, kind = struct.unpack_from(">I4s", content, start)
            if kind in CRITICAL:
                kept.append(content[start : start + 12 + length])
            start += 12 + length
        return b"".join([*kept, b"\0\0\0\0IEND\xae\x42\x60\x82"])
    if content.startswith(JPEG):
        kept, start = [JPEG], len(JPEG)
        while start + 4 <= len(content) and content[start] == 0xFF:
            marker, length = content[start + 1], int.from_bytes(content[start + 2 : start + 4])
            if marker == SCAN:
                return b"".join([*kept, content[start:]])
            adobe = marker == 0xEE and length >= 14  # it says how colours are coded
            if adobe or marker not in (*METADATA, 0xEE):
                kept.append(content[start : start + 2 + length])
            start += 2 + length
    return content


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings of Pillow, of large images and odd metadata, which do no harm."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def tell_of_twelve_bits(deep: Sequence[int]) -> None:
    """A warning where all images of 16 bits, whose largest values are given, look like 12 bits."""
    if deep and 0 < max(deep) < TWELVE_BITS:
        warnings.warn(
            f"the {len(deep):,} images of 16 bits hold no value above {max(deep):,}, as if they "
            "had 12 bits, and are nearly black when divided by 256; multiply them by 16 and save "
            "them again",
            stacklevel=2,
        )


def resized(image: Image.Image, size: int | tuple[int, int], crop: float | None) -> Image.Image:
    if isinstance(size, tuple) or crop is None:
        sides = size[::-1] if isinstance(size, tuple) else (size, size)
        return image if image.size == sides else image.resize(sides, Image.Resampling.BILINEAR)
    shorter = round(size / crop)
    width, height = (shorter * side // min(image.size) for side in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    image = image.resize((width, height), Image.Resampling.BILINEAR)
    return image.crop((left, top, left + size, top + size))
