"""A training step whose images do not lie on the device, beside one whose images do."""

import io
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from benchbench.benchmarks.paired_rounds import ratio, side_by_side
from benchbench.benchmarks.training_step import SHAPES, fed, pace, random_data, simclr
from benchbench.data.encoded_images import Encoded, starts_of
from benchbench.data.pack import in_memory
from benchbench.extension.catalog import Catalog
from benchbench.training.budget import Budget
from benchbench.training.device import Machine, keep_freed_memory

QUALITY = 90  # of the JPEG files


def compare_streams(
    catalog: Catalog, machine: Machine, shape: str, batch_size: int, rounds: int, steps: int
) -> dict[str, Any]:
    """SimCLR's step from images that lie on the device, from those in the host's memory, as a pack
    larger than a GPU is, and from JPEG files, as a pack larger than the disk is.

    On the CPU the first two are one.
    """
    keep_freed_memory()
    encoder, objective, views, resident = simclr(catalog, machine, shape, batch_size)
    budget = Budget(steps + 1, batch_size, lr=1e-3, weight_decay=1e-4, warmup=0.1)
    side = SHAPES[shape][1]
    pack = in_memory(random_data(side, rows=2 * batch_size))
    with TemporaryDirectory() as folder:
        encoded = written(smooth(len(pack.labels), side), Path(folder) / "images.bytes", side)
        places: dict[str, Tensor | Encoded] = {"encoded": encoded}
        if machine.device.type != "cpu":
            places["host"] = pack.inputs
        feeds = {name: fed(pack, images, batch_size, machine) for name, images in places.items()}
        steps_of = {
            name: partial(pace, encoder, objective, views, feed, budget, machine)
            for name, feed in {"resident": resident, **feeds}.items()
        }
        steps_of["resident"]()  # warmed up
        told = side_by_side(rounds, steps_of)
    figures: dict[str, Any] = {
        "shape": shape,
        "batch_size": batch_size,
        "device": machine.name,
        "precision": machine.precision,
        "compiled": machine.compiled,
        **{f"{name}_ms": 1e3 * median(spans) for name, spans in told.items()},
    }
    for name in feeds:
        figures |= ratio(f"{name}_to_resident", told[name], told["resident"])
    return figures


def smooth(rows: int, side: int) -> Tensor:
    """Random images that a JPEG file can hold as well as a photograph: uint8 [rows, S, S, 3]."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(rows, 3, max(2, side // 8), max(2, side // 8), generator=generator)
    images = F.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)
    return (255 * images).byte().permute(0, 2, 3, 1)


def written(images: Tensor, place: Path, side: int) -> Encoded:
    """The images as JPEG files in one, as a dataset is kept whose pixels are too many."""
    contents = []
    for image in images:
        buffer = io.BytesIO()
        Image.fromarray(image.numpy()).save(buffer, "JPEG", quality=QUALITY)
        contents.append(buffer.getvalue())
    place.write_bytes(b"".join(contents))
    np.save(starts_of(place), np.cumsum([0, *map(len, contents)]))
    return Encoded(place, side, None)
