"""Plans, feeds and extracts a pack of any number of images of 96 pixels: FOLDER ROWS.

Its file is sparse, so that it takes neither room nor time to make. Printed is, in MB, how much
memory each part took at its peak, and the process; and of how many rows features are kept.
"""

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from resident import peak_of, resident
from tiny import SUITE, make_plan

from benchbench.data.pack import Pack
from benchbench.data.preparation import opened
from benchbench.evaluation.features import moments_of
from benchbench.execution.cell import first_encoder
from benchbench.extension.constants import TEST, TRAIN, UNKNOWN, VAL
from benchbench.suites.cost import Calibration, total
from benchbench.suites.shift_features import shift_features, unread

PART = 20_000  # of the rows of which there are moments alone


def pack_of(place: Path, count: int) -> Pack:
    """The pack, half of each domain; of 20,000 rows the label is known, and 10,000 are held out."""
    pixels = np.lib.format.open_memmap(place, "w+", np.uint8, (count, 3, 96, 96))
    pixels[::997, :, 40:50, 40:50] = 200  # here and there something
    del pixels
    index = torch.arange(count)
    domains, order = index % 2, index // 2
    split = torch.where(order < 2_500, VAL, torch.where(order < 5_000, TEST, TRAIN))
    labels = torch.where(order < 15_000, index // 2 % 3, UNKNOWN)
    return Pack(
        opened(place), labels, domains, split, None, ("low", "middle", "high"), ("left", "right"),
        (), "accuracy", "made here", "0" * 64,
    )  # fmt: skip


def main(folder: Path, count: int) -> None:
    torch.set_num_threads(1)
    plan = make_plan(SUITE.replace('"simclr"', '"erm"'), folder / "store", folder)
    plan = replace(plan, pack=pack_of(folder / "pixels.npy", count))
    (cell,) = plan.cells
    (link,) = plan.links(cell)
    start = resident()

    def planned():
        return total(Calibration(plan, timed=False).in_turn(plan.cells))

    def fed():
        feed = plan.feed(cell, link)
        return [feed(step).inputs.shape for step in range(20)]

    def extracted():
        return shift_features(encoder, "e", (("left",), ("right",)), plan)

    def summed():
        rows = unread((("left",), ("right",)), plan.pack)[0].rows[:PART]
        return moments_of(encoder, plan.inputs, rows, plan.machine.device)

    encoder = first_encoder(cell, plan)
    told, most = [], 0
    for work in (planned, fed, extracted, summed):
        peak, result = peak_of(work)
        told.append(f"{work.__name__} {peak / 1e6:.0f}")
        most = max(most, peak)
        if work is extracted:
            told.append(f"rows {sum(len(part.rows) for part in result.parts)}")
    sys.stdout.write(" ".join([*told, f"process {(start + most) / 1e6:.0f}"]))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
