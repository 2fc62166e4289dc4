"""Data prepared once: decoded, split, checked and fingerprinted."""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchbench.contracts import DomainData, ImageFiles, Task
from benchbench.data.splits import draw_split
from benchbench.terms import TEST, TRAIN, UNKNOWN, VAL, BadInput

Report = Callable[[int, int], None]  # rows decoded, rows in all


@dataclass(frozen=True)
class Pack:
    """A dataset as the core uses it."""

    images: Tensor  # uint8 [N, C, H, W]; memory-mapped where it was decoded from files
    labels: Tensor  # int64 [N]
    domains: Tensor  # int64 [N]
    split: Tensor  # int64 [N]
    class_names: tuple[str, ...]
    domain_names: tuple[str, ...]
    licence: str
    fingerprint: str  # sha256 over everything above but the licence

    @property
    def task(self) -> Task:
        c, h, w = self.images.shape[1:]
        return Task((c, h, w), len(self.class_names), len(self.domain_names))

    def rows(self, domain: str, split: int) -> Tensor:
        """int64 indices of a domain's rows in one split, ascending."""
        number = self.domain_names.index(domain)
        return ((self.domains == number) & (self.split == split)).nonzero().flatten()


def prepare(data: DomainData, folder: Path, split_seed: int, report: Report) -> Pack:
    """Decode into ``folder`` what is not there yet, draw a split where there is none, fingerprint.

    BadInput names an image that cannot be decoded, or what breaks the contract of DomainData.
    """
    count, names = len(data.images), data.domain_names
    for column in ("labels", "domains", "split", "groups"):
        values = getattr(data, column)
        if values is not None and (values.dtype != torch.int64 or values.shape != (count,)):
            raise BadInput(f"the dataset's {column} must be int64 of shape [{count}]")
    _check_range("labels", data.labels, UNKNOWN, len(data.class_names))
    _check_range("domains", data.domains, 0, len(names))
    split = data.split
    if split is None:
        split = draw_split(data.labels, data.domains, data.groups, names, split_seed)
    _check_range("split", split, TRAIN, TEST + 1)
    if isinstance(data.images, ImageFiles):
        images, digest = decoded(data.images, folder, report)
    else:
        images = data.images
        if images.dtype != torch.uint8 or images.ndim != 4:
            raise BadInput("the dataset's images must be uint8 of shape [N, C, H, W]")
        digest = hashlib.sha256(images.contiguous().numpy().data).hexdigest()
    fingerprint = hashlib.sha256(digest.encode())
    fingerprint.update(json.dumps([images.shape, data.class_names, names]).encode())
    for values in (data.labels, data.domains, split):
        fingerprint.update(values.contiguous().numpy().data)
    return Pack(
        images,
        data.labels,
        data.domains,
        split,
        data.class_names,
        names,
        data.licence,
        fingerprint.hexdigest(),
    )


def _check_range(column: str, values: Tensor, low: int, end: int) -> None:
    if len(values) and not (low <= int(values.min()) and int(values.max()) < end):
        raise BadInput(f"the dataset's {column} must lie in [{low}, {end - 1}]")


def decoded(files: ImageFiles, folder: Path, report: Report) -> tuple[Tensor, str]:
    """Pixels [N, 3, size, size], memory-mapped, and their sha256.

    They are decoded again only if a file's place, name, size or time of change is another.
    """
    listing = hashlib.sha256(f"{files.size}\0{files.root.resolve()}\n".encode())
    for path in files.paths:
        try:
            status = (files.root / path).stat()
        except OSError as error:
            raise BadInput(f"image {files.root / path} cannot be read: {error.strerror}") from None
        listing.update(os.fsencode(path) + f"\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    target = folder / f"{listing.hexdigest()[:32]}.npy"
    note = target.with_suffix(".json")
    if not (note.exists() and target.exists()):
        _decode(files, target, note, report)
    pixels = np.load(target, mmap_mode="c")  # copy on write: torch wants no read-only memory
    return torch.from_numpy(pixels), json.loads(note.read_text())["sha256"]


def _decode(files: ImageFiles, target: Path, note: Path, report: Report) -> None:
    """The pixels, then the note, each under its name only when it is complete."""
    partial = target.with_suffix(f".{os.getpid()}.part")
    shape = (len(files), 3, files.size, files.size)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.lib.format.open_memmap(partial, "w+", np.uint8, shape)
        if hasattr(os, "posix_fallocate"):  # a mapped file that outgrows the disk ends in SIGBUS
            with partial.open("r+b") as file:
                os.posix_fallocate(file.fileno(), 0, partial.stat().st_size)
        with ThreadPoolExecutor() as pool:
            read = pool.map(lambda path: read_image(files.root / path, files.size), files.paths)
            for row, image in enumerate(read):
                pixels[row] = image
                report(row + 1, len(files))
        pixels.flush()
        digest = hashlib.sha256(pixels.data).hexdigest()
        partial.replace(target)
        partial.write_text(json.dumps({"sha256": digest}))
        partial.replace(note)
    except OSError as error:
        raise BadInput(f"store {target.parents[1]} cannot be written: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)


def read_image(path: Path, size: int) -> np.ndarray:
    """uint8 [3, size, size]: any mode to RGB, both sides resized (bilinear), as DomainBed does."""
    from PIL import Image

    try:
        with Image.open(path) as file:
            image: Image.Image = file
            if file.mode.startswith("I;16"):  # PIL would clip 16 bits at 255, not scale them
                image = Image.fromarray((np.asarray(file) >> 8).astype(np.uint8))
            image = image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
            return np.asarray(image).transpose(2, 0, 1)
    except Exception as error:  # Pillow raises a dozen types on a broken file
        raise BadInput(f"image {path} cannot be decoded: {error}") from None


def check_shift(pack: Pack, labelled: Sequence[str], targets: Sequence[str], shift: str) -> None:
    """BadInput if the shift cannot be learned or scored at all."""
    known = {name: set(pack.labels[pack.rows(name, TRAIN)].tolist()) for name in labelled}
    classes = set().union(*known.values()) - {UNKNOWN}
    for name in labelled:
        for split, word in ((TRAIN, "training"), (VAL, "validation"), (TEST, "test")):
            if not (pack.labels[pack.rows(name, split)] != UNKNOWN).any():
                raise BadInput(f"shift {shift}: domain {name!r} has no labelled {word} rows")
    for name in targets:
        wanted = set(pack.labels[pack.rows(name, TEST)].tolist()) - {UNKNOWN}
        if not wanted & classes:
            mine = ", ".join(pack.class_names[label] for label in sorted(wanted)) or "none"
            theirs = ", ".join(pack.class_names[label] for label in sorted(classes))
            raise BadInput(
                f"shift {shift}: domain {name!r} has no class in common with the labelled "
                f"domains; it has {mine}, they have {theirs}"
            )
