"""The store beside plain files of the same bytes."""

import os
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch

from benchbench.benchmarks.data_reading import timed
from benchbench.benchmarks.paired_rounds import ratio, side_by_side
from benchbench.benchmarks.training_step import simclr
from benchbench.extension.catalog import Catalog
from benchbench.store.artifacts import Store, packed
from benchbench.store.records import read_records
from benchbench.training.device import Machine

RECORDS = 1000
CHECKOUT = Path(__file__).parents[2]  # if this package is not installed, but lies there


def compare_store(
    catalog: Catalog, rounds: int, shape: str = "resnet18@32", records: int = RECORDS
) -> dict[str, float]:
    """Writing and reading what a stage leaves, and reading many records.

    Plain files are written, flushed to disk and read; the store also hashes what it writes, makes
    tensors of what it reads and hashes them. Records are copies of one from the leaderboards.
    """
    encoder, objective, _, _ = simclr(catalog, Machine(torch.device("cpu"), "fp32"), shape, 2)
    tensors = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    tensors |= {f"objective.{name}": value for name, value in objective.state_dict().items()}
    content = packed(tensors)
    with TemporaryDirectory() as place:
        folder = Path(place)
        store, plain = Store(folder / "store"), folder / "plain"
        told = side_by_side(
            rounds,
            {
                "write": lambda: timed(lambda: store.write("stages", "key", tensors)),
                "plain_write": lambda: timed(lambda: written(plain, content)),
                "read": lambda: timed(lambda: store.read("stages", "key")),
                "plain_read": lambda: timed(plain.read_bytes),
            },
        )
        figures = {
            "mb": len(content) / 1e6,
            **{f"{name}_ms": 1e3 * median(spans) for name, spans in told.items()},
            **ratio("write_to_plain", told["write"], told["plain_write"]),
            **ratio("read_to_plain", told["read"], told["plain_read"]),
        }
        template = next(iter(sorted(CHECKOUT.glob("leaderboards/*/records/*.json"))), None)
        if template:
            many = folder / "records"
            many.mkdir()
            for number in range(records):
                (many / f"{number}.json").write_bytes(template.read_bytes())
            spans = [timed(lambda: read_records(many)) for _ in range(rounds)]
            figures |= {"records": records, "record_ms": 1e3 * median(spans) / records}
    return figures


def written(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
