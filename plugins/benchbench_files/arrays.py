"""The dataset ``arrays``: images in npz files, as arrays or as encoded bytes."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchbench import TRAIN, UNKNOWN, VAL, BadInput, DomainData
from benchbench_files.tree import SPLITS, contents


def arrays(
    root: Path,
    *,
    files: str | tuple[str, ...] = (),
    path: str = "",
    size: int = 32,
    seed: int = 0,
    licence: str = "that of the files' owners",
) -> DomainData:
    """Images in npz ``files`` below ``root/path``, all of them if none is named.

    A file holds ``images``, uint8 [N, H, W, 1 or 3], or ``packed``, the bytes of encoded images one
    after the other, with ``offsets`` int64 [N + 1]; ``labels`` int64 [N], −1 where unknown, into
    ``label_names``; ``domain`` int64 [N] into ``domain_names``. It may hold ``split`` [N] into
    ``split_names`` (train, val, test), and ``group`` int64 [N], −1 where there is none.

    Files are joined by the names of their domains and must agree in their classes. Images become
    RGB of ``size`` × ``size``, bilinear. A domain without ``val`` gets a fifth of its ``train`` as
    such, drawn with ``seed`` within each class, or in whole units where there are groups.
    """
    if size < 1:
        raise BadInput(f"arrays(size={size}) leaves no pixels: size must be at least 1")
    top = Path(root) / path
    if not top.is_dir():
        raise BadInput(f"there is no folder {top}")
    wanted = (files,) if isinstance(files, str) else files
    places = [top / name for name in wanted] or sorted(top.glob("*.npz"))
    if not places:
        raise BadInput(f"there is no npz file in {top}: {contents(top)}")
    parts = [read(place, size) for place in places]
    class_names = parts[0]["label_names"]
    for place, part in zip(places, parts, strict=True):
        if part["label_names"] != class_names:
            mine, theirs = (", ".join(names[:4]) for names in (part["label_names"], class_names))
            raise BadInput(
                f"{place.name} has the classes {mine} …, {places[0].name} has {theirs} …; "
                "name files of the same classes with files=(…)"
            )
    domain_names = tuple(dict.fromkeys(name for part in parts for name in part["domain_names"]))
    labels = np.concatenate([part["labels"] for part in parts])
    domains = np.concatenate(
        [
            np.array([domain_names.index(name) for name in part["domain_names"]])[part["domain"]]
            for part in parts
        ]
    )
    units = joined_units([p["group"] for p in parts], [len(p["labels"]) for p in parts])
    split = None
    if all(part["split"] is not None for part in parts):
        split = np.concatenate([part["split"] for part in parts])
        for number, name in enumerate(domain_names):
            if not (split[domains == number] == VAL).any():
                train = ((domains == number) & (split == TRAIN)).nonzero()[0]
                split[drawn_val(train, labels, units, f"{seed}/{name}")] = VAL
        split = torch.from_numpy(split)
    return DomainData(
        inputs=torch.from_numpy(np.concatenate([part["images"] for part in parts])),
        labels=torch.from_numpy(labels),
        domains=torch.from_numpy(domains),
        class_names=class_names,
        domain_names=domain_names,
        split=split,
        units=None if units is None else torch.from_numpy(units),
        licence=licence,
        sources=tuple(places),
    )


def drawn_val(
    train: np.ndarray, labels: np.ndarray, units: np.ndarray | None, seed: str
) -> np.ndarray:
    """A fifth of the rows ``train`` of each class, or of their units."""
    rng = np.random.Generator(np.random.PCG64(list(seed.encode())))
    if units is not None:
        members = np.unique(units[train])
        return train[np.isin(units[train], rng.permutation(members)[: (len(members) + 2) // 5])]
    drawn = []
    for label in np.unique(labels[train]):
        rows = train[labels[train] == label]
        drawn.append(rng.permutation(rows)[: (len(rows) + 2) // 5])
    return np.concatenate(drawn)


def joined_units(parts: list[np.ndarray | None], sizes: list[int]) -> np.ndarray | None:
    """Groups of different files are different; a row without one is a unit of its own."""
    if all(part is None or (part < 0).all() for part in parts):
        return None
    joined, start = [], 0
    for part, size in zip(parts, sizes, strict=True):
        group = np.full(size, -1) if part is None else part
        there = int(group.max(initial=-1)) + 1
        alone = there + np.arange(size)
        joined.append(start + np.where(group < 0, alone, group))
        start += there + size
    return np.concatenate(joined).astype(np.int64)


def read(place: Path, size: int) -> dict[str, Any]:
    """The columns of one file, its images as uint8 [N, 3, size, size]; BadInput says what fails."""
    try:
        with np.load(place, allow_pickle=False) as file:
            columns: dict[str, Any] = {name: file[name] for name in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        if not place.is_file():
            raise BadInput(f"there is no file {place}: {contents(place.parent)}") from None
        raise BadInput(f"{place} cannot be read as npz: {error}") from None
    for name in ("labels", "label_names", "domain", "domain_names"):
        if name not in columns:
            raise BadInput(f"{place} has no array {name!r}; it has {', '.join(sorted(columns))}")
    images = decoded(place, columns, size)
    for name in ("labels", "domain", "split", "group"):
        if name in columns and columns[name].shape != (len(images),):
            raise BadInput(f"{place}: {name} has shape {columns[name].shape}, not ({len(images)},)")
    names = {n: tuple(map(str, columns[n])) for n in ("label_names", "domain_names")}
    for name, low, end in (
        ("labels", UNKNOWN, len(names["label_names"])),
        ("domain", 0, len(names["domain_names"])),
    ):
        if not ((columns[name] >= low) & (columns[name] < end)).all():
            raise BadInput(f"{place}: {name} must lie in [{low}, {end - 1}]")
    return {
        **names,
        "images": images,
        "labels": columns["labels"].astype(np.int64),
        "domain": columns["domain"].astype(np.int64),
        "split": known_split(place, columns),
        "group": columns.get("group"),
    }


def known_split(place: Path, columns: Mapping[str, np.ndarray]) -> np.ndarray | None:
    if "split" not in columns:
        return None
    names = [str(name) for name in columns.get("split_names", ())]
    if not names or not set(names) <= SPLITS.keys():
        raise BadInput(f"{place}: split_names should be of train, val and test, not {names}")
    return np.array([SPLITS[name] for name in names], np.int64)[columns["split"]]


def decoded(place: Path, columns: Mapping[str, np.ndarray], size: int) -> np.ndarray:
    """uint8 [N, 3, size, size]"""
    from PIL import Image

    if "images" in columns:
        pixels = columns["images"]
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] not in (1, 3):
            raise BadInput(
                f"{place}: images should be uint8 [N, H, W, 1 or 3], not {pixels.dtype} "
                f"{list(pixels.shape)}"
            )
        pictures = (Image.fromarray(row[:, :, 0] if row.shape[2] == 1 else row) for row in pixels)
        count = len(pixels)
    elif {"packed", "offsets"} <= columns.keys():
        data, offsets = columns["packed"].tobytes(), columns["offsets"]
        spans = pairwise(offsets)
        pictures = (Image.open(io.BytesIO(data[start:end])) for start, end in spans)
        count = len(offsets) - 1
    else:
        raise BadInput(f"{place} has neither images nor packed and offsets")
    images = np.empty((count, 3, size, size), np.uint8)
    row = -1
    try:
        for row, picture in enumerate(pictures):
            image = picture.convert("RGB")
            if image.size != (size, size):
                image = image.resize((size, size), Image.Resampling.BILINEAR)
            images[row] = np.asarray(image).transpose(2, 0, 1)
    except Exception as error:  # Pillow raises a dozen types on broken bytes
        raise BadInput(f"{place}: image {row + 1} cannot be decoded: {error}") from None
    return images
