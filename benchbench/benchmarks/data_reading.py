"""Preparing, fetching and opening data."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchbench.benchmarks.paired_rounds import ratio, side_by_side
from benchbench.benchmarks.training_step import random_data
from benchbench.data.batches import Feed
from benchbench.data.decoding import resized
from benchbench.data.gathering import Streamed
from benchbench.data.preparation import decoded, prepared
from benchbench.extension.catalog import Catalog
from benchbench.extension.constants import TRAIN
from benchbench.extension.contracts import DomainData, ImageFiles
from benchbench.store.artifacts import Store
from benchbench.suites.plan import build_encoder
from benchbench.training.device import Machine, autocast

PHOTOGRAPH = (500, 375)  # pixels: what most images of ImageNet have
STEP_ROWS = 16  # a step of a batch is told from one of so many
SOURCE = {"dataset": "blank"}
OPENS = """
import json, re, resource, sys, time
from pathlib import Path
from benchbench.benchmarks.data_reading import SOURCE, blank
from benchbench.data.preparation import prepared
from benchbench.store.artifacts import Store

def peak():
    status = Path("/proc/self/status")
    if status.exists():  # getrusage tells the peak of whoever started this process, too
        return int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read_text())[1]) / 1e3
    kib = 1 if sys.platform == "darwin" else 1024
    return kib * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6

before, start = peak(), time.perf_counter()
pack = prepared(SOURCE, lambda: blank(0), Store(Path(sys.argv[1])), 0, lambda done, total: None)
seconds = time.perf_counter() - start
assert len(pack.labels)
grown = peak() - before
print(json.dumps({"open_seconds": seconds, "open_peak_mb": peak(), "open_peak_growth_mb": grown}))
"""  # in a process of its own, whose peak is that of opening


def compare_data(
    catalog: Catalog,
    machine: Machine,
    photographs: int = 600,
    rounds: int = 5,
    batch_size: int = 256,
    rows: int = 3_000_000,
) -> dict[str, float]:
    """Seconds and ratios: preparing against a loop of Pillow over the same files, fetching random
    batches from a memory-mapped pack against a step of a ResNet-18, and opening a set of many rows.
    """
    figures: dict[str, float] = {}
    with TemporaryDirectory() as place:
        folder = Path(place)
        files = ImageFiles(folder, plant(folder, photographs), 224)
        loop, ours = [], []
        for number in range(rounds):  # one after the other, so that both meet the same machine
            loop.append(timed(lambda: pillow_loop(files)))
            pixels = folder / str(number) / "packs" / "pixels"
            ours.append(timed(lambda: decoded(files, pixels, lambda done, total: None)))  # noqa: B023
        figures |= {
            "photographs": photographs,
            "pillow_loop_seconds": median(loop),
            "prepare_seconds": median(ours),
            "pillow_loop_to_prepare": median(a / b for a, b in zip(loop, ours, strict=True)),
        }
    for side in (32, 224):
        fetch, step = fetching(catalog, machine, side, batch_size, rounds)
        gathered = gathering(side, batch_size, rounds)
        figures |= {
            f"gather_{side}_images_per_second": batch_size / median(gathered["gather"]),
            **ratio(f"plain_indexing_to_gather_{side}", gathered["plain"], gathered["gather"]),
            f"fetch_{side}_seconds": fetch,
            f"resnet18_{side}_step_seconds": step,
            f"fetch_{side}_to_step": fetch / step,
        }
    with TemporaryDirectory() as place:
        prepared(SOURCE, lambda: blank(rows), Store(Path(place)), 0, lambda done, total: None)
        words = [sys.executable, "-c", OPENS, place]
        told = subprocess.run(words, capture_output=True, text=True, check=True)  # noqa: S603
        figures |= {"rows": rows, **json.loads(told.stdout)}
    return figures


def timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def plant(folder: Path, count: int) -> list[str]:
    """JPEGs of smooth noise, about as large as photographs of that size are."""
    rng = np.random.default_rng(0)
    names = [f"{row}.jpg" for row in range(count)]
    for name in names:
        coarse = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize(PHOTOGRAPH, Image.Resampling.BICUBIC)
        grain = rng.normal(0, 8, (PHOTOGRAPH[1], PHOTOGRAPH[0], 1))
        pixels = np.clip(np.asarray(image) + grain, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / name, quality=90)
    return names


def pillow_loop(files: ImageFiles) -> None:
    """What a script of ten lines does: open, convert, resize, keep."""
    pixels = np.empty((len(files), 3, files.size, files.size), np.uint8)
    for row, path in enumerate(files.paths):
        with Image.open(files.root / path) as image:
            pixels[row] = np.asarray(resized(image.convert("RGB"), files.size, None)).transpose(
                2, 0, 1
            )


def fetching(
    catalog: Catalog, machine: Machine, side: int, batch_size: int, rounds: int
) -> tuple[float, float]:
    """Median seconds to fetch a batch onto the device, and to train a ResNet-18 on it."""
    with TemporaryDirectory() as place:
        data = random_data(side, rows=4 * batch_size)
        pack = prepared(
            {"dataset": "random"}, lambda: data, Store(Path(place)), 0, lambda done, total: None
        )
        feed = Feed(pack, pack.inputs, pack.domain_names, (), batch_size, 0, machine.device)
        fetch = median(timed(lambda: feed(number)) for number in range(rounds))  # noqa: B023
        text = f"timm(model='resnet18', small_stem={side < 64})"
        encoder = build_encoder(catalog.resolve("encoder", text), pack.task, seed=0)
        encoder = encoder.to(machine.device).to(memory_format=torch.channels_last).train()
        optimizer = torch.optim.AdamW(encoder.parameters(), fused=True)
        images = torch.rand(STEP_ROWS, 3, side, side, device=machine.device)
        images = images.to(memory_format=torch.channels_last)

        def step() -> None:
            with autocast(machine.device, machine.precision):
                loss = encoder(images).float().square().mean()
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            loss.item()  # wait for the device

        step()
        seconds = median(timed(step) for _ in range(rounds))
    return fetch, seconds * batch_size / STEP_ROWS


def gathering(side: int, batch_size: int, rounds: int) -> dict[str, list[float]]:
    """Seconds to gather random batches in the host's memory, as they are and by plain indexing."""
    with TemporaryDirectory() as folder:
        pixels = random_data(side, rows=4 * batch_size).inputs
        assert isinstance(pixels, Tensor), "they are made in memory"
        np.save(Path(folder) / "pixels.npy", pixels.numpy())
        mapped = torch.from_numpy(
            np.load(Path(folder) / "pixels.npy", mmap_mode="c", allow_pickle=False)
        )
        streamed, generator = (
            Streamed(mapped, torch.device("cpu")),
            torch.Generator().manual_seed(0),
        )

        def drawn() -> Tensor:
            return torch.randint(len(mapped), (batch_size,), generator=generator)

        ways = {"plain": lambda: mapped[drawn()], "gather": lambda: streamed[drawn()]}
        actions = {name: partial(timed, way) for name, way in ways.items()}
        for action in actions.values():
            action()  # the file is read, threads are there
        return side_by_side(5 * rounds, actions)


def blank(rows: int) -> DomainData:
    """Many rows of one pixel."""
    index = torch.arange(rows)
    return DomainData(
        torch.zeros(rows, 1, 1, 1, dtype=torch.uint8),
        index % 10,
        index % 5,
        tuple(map(str, range(10))),
        tuple(map(str, range(5))),
        torch.full_like(index, TRAIN),
    )
