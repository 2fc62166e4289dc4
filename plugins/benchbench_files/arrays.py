"""The dataset ``arrays``: images in npz files, as arrays or as encoded bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from benchbench import (
    TRAIN,
    UNKNOWN,
    VAL,
    BadInput,
    DomainData,
    checked_size,
    decode_images,
    is_hidden,
)
from benchbench_files.columns import CODED, Columns, check_spelling, coded, joined, kind_of
from benchbench_files.tree import contents

IMAGES = ("images", "packed", "offsets")


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

    A file holds ``images``, uint8 [N, H, W, 1 or 3], or ``packed``, uint8, the bytes of encoded
    images one after the other, with ``offsets`` of integers [N + 1], from 0 to the end; ``labels``
    of integers [N], −1 where unknown, into ``label_names``; ``domain`` of integers [N] into
    ``domain_names``. It may hold ``split`` [N] into ``split_names`` (train, val, test), and
    ``group`` of integers [N], −1 where there is none. Names are texts. Other arrays are passed
    over.

    Files are joined by the names of their domains, and must agree in their classes and in whether
    they have a split. Images become RGB of ``size`` × ``size``, bilinear. A domain without ``val``
    gets a fifth of its ``train`` as such, drawn with ``seed`` within each class, or in whole units
    where there are groups. Rows without a label are trained on.
    """
    checked_size(size)
    top = Path(root) / path
    if not top.is_dir():
        raise BadInput(f"there is no folder {top}")
    wanted = (files,) if isinstance(files, str) else files
    places = [top / name for name in wanted]
    places = places or sorted(p for p in top.glob("*.npz") if not is_hidden(p.name))
    if not places:
        raise BadInput(f"there is no npz file in {top}: {contents(top)}")
    for number, place in enumerate(places):
        if place.resolve() in [other.resolve() for other in places[:number]]:
            raise BadInput(f"arrays(files={wanted!r}) names {place} twice")
    images, parts = [], {}
    for place in places:
        columns = read(place)
        pixels = decode_images(pictures(place, columns), size, f"{place}")
        parts[place] = coded(place, columns, len(pixels))
        images.append(pixels)
    whole = joined(parts)
    split = None if whole.split is None else torch.from_numpy(with_val(whole, seed))
    return DomainData(
        inputs=torch.from_numpy(np.concatenate(images)),
        labels=torch.from_numpy(whole.labels),
        domains=torch.from_numpy(whole.domains),
        class_names=whole.class_names,
        domain_names=whole.domain_names,
        split=split,
        units=None if whole.group is None else torch.from_numpy(whole.group),
        licence=licence,
        sources=tuple(places),
    )


def with_val(rows: Columns, seed: int) -> np.ndarray:
    """The split, with a fifth of ``train`` as ``val`` in domains that have none."""
    assert rows.split is not None
    split = rows.split.copy()
    for number, name in enumerate(rows.domain_names):
        here = rows.domains == number
        if not (split[here] == VAL).any():
            train = (here & (split == TRAIN)).nonzero()[0]
            split[drawn_val(train, rows.labels, rows.group, f"{seed}/{name}")] = VAL
    return split


def drawn_val(
    train: np.ndarray, labels: np.ndarray, units: np.ndarray | None, seed: str
) -> np.ndarray:
    """A fifth of the rows ``train`` of each class, or of the units in which a row has a label."""
    rng = np.random.Generator(np.random.PCG64(list(seed.encode())))
    known = train[labels[train] != UNKNOWN]
    if units is not None:
        members = np.unique(units[known])
        return train[np.isin(units[train], rng.permutation(members)[: (len(members) + 2) // 5])]
    drawn = [train[:0]]
    for label in np.unique(labels[train]):
        rows = rng.permutation(train[labels[train] == label])
        if label != UNKNOWN:  # whose rows are permuted all the same: other classes draw as ever
            drawn.append(rows[: (len(rows) + 2) // 5])
    return np.concatenate(drawn)


def read(place: Path) -> dict[str, np.ndarray]:
    """The arrays of one file that have a meaning here; BadInput says what cannot be read."""
    if not place.is_file():
        raise BadInput(f"there is no file {place}: {contents(place.parent)}")
    columns: dict[str, np.ndarray] = {}
    try:
        with place.open("rb") as raw:
            file = np.load(raw, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("it is a single array; write named ones with np.savez")
            check_spelling(place, file.files, (*IMAGES, *CODED), "array")
            for name in file.files:
                if name in columns:
                    raise BadInput(f"{place} has two arrays {name!r}")
                if name in (*IMAGES, *CODED):
                    columns[name] = array_of(place, file, name)
    except BadInput:
        raise
    except Exception as error:  # numpy and zipfile raise half a dozen types on what is no npz
        reason = "it is empty" if not place.stat().st_size else f"{error}".partition("\n")[0]
        if "pickle" in reason:
            reason = "it is no zip file, as np.savez writes it"
        raise BadInput(f"{place} cannot be read as npz: {reason}") from None
    return columns


def array_of(place: Path, file: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    try:
        return file[name]
    except Exception as error:  # zipfile, zlib and numpy each raise their own
        reason = f"{error}".partition("\n")[0]
        if "pickle" in reason:
            reason = "it holds Python objects; save numbers, or texts with dtype=str"
        raise BadInput(f"{place}: {name} cannot be read: {reason}") from None


def pictures(
    place: Path, columns: Mapping[str, np.ndarray]
) -> Sequence[np.ndarray] | Sequence[memoryview]:
    """One array of pixels, or the bytes of one encoded image, for each row."""
    if "images" in columns and ("packed" in columns or "offsets" in columns):
        raise BadInput(f"{place} has both images and packed or offsets; remove one of the two")
    if "images" in columns:
        pixels = columns["images"]
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] not in (1, 3):
            raise BadInput(
                f"{place}: images should be uint8 [N, H, W, 1 or 3], not {pixels.dtype} "
                f"{list(pixels.shape)}"
            )
        if 0 in pixels.shape[1:]:
            raise BadInput(f"{place}: images of shape {list(pixels.shape)} have no pixels")
        return [*pixels]
    if not {"packed", "offsets"} <= columns.keys():
        raise BadInput(f"{place} has neither images nor packed and offsets")
    packed, offsets = columns["packed"], columns["offsets"]
    if packed.dtype != np.uint8 or packed.ndim != 1:
        raise BadInput(
            f"{place}: packed should be uint8 of one dimension, not {packed.dtype} "
            f"{list(packed.shape)}"
        )
    if offsets.dtype.kind not in "iu" or offsets.ndim != 1 or not len(offsets):
        raise BadInput(
            f"{place}: offsets should be whole numbers of one dimension, not {kind_of(offsets)} "
            f"{list(offsets.shape)}"
        )
    starts = offsets.tolist()
    if starts[0] != 0 or starts[-1] != len(packed):
        raise BadInput(
            f"{place}: offsets go from {starts[0]} to {starts[-1]}, not from 0 to the "
            f"{len(packed)} bytes of packed"
        )
    for row, (start, end) in enumerate(pairwise(starts)):
        if end <= start:
            raise BadInput(f"{place}: offsets must rise, but image {row} ends at {end}, its start "
                           f"is {start}")  # fmt: skip
    content = memoryview(np.ascontiguousarray(packed))
    return [content[start:end] for start, end in pairwise(starts)]
