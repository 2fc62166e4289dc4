"""What a cell costs more where a suite is launched than in one process."""

import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from benchbench.execution.cell import Watcher, silent
from benchbench.execution.job import Job
from benchbench.execution.launchers import engine_of, run_on
from benchbench.extension.catalog import Wanted
from benchbench.store.records import Record
from benchbench.suites.suite import Cell, Suite

# Cells that train nothing: what they take is mostly what it takes to have them done.
SUITE = """
name = "launch"
dataset = "digits"
shifts = "all"
seeds = [0, 1, 2, 3]
encoder = "small_cnn(width=4)"
precision = "fp32"
[[method]]
chain = ""
readout = "knn"
"""
PLACES = {
    "local": None,
    "local:1": None,
    "local:2": None,
    "ray": "ray",
    "slurm:local": "submitit",
}


class Clock:
    """An audience that notes when cells end."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def cell_starts(self, cell: Cell) -> Watcher:
        return silent

    def cell_fails(self, trace: str) -> None:
        raise RuntimeError(trace)

    def cell_ends(self, record: Record) -> None:
        self.ends.append(time.perf_counter())


def compare_launch(wanted: Wanted, places: Sequence[str] = tuple(PLACES)) -> dict[str, Any]:
    """Seconds until the first of 24 cells is done, and milliseconds for each of the others.

    A place whose package is not installed is left out.
    """
    figures: dict[str, Any] = {}
    per_cell: dict[str, float] = {}
    threads = torch.get_num_threads()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "launch.toml"
        path.write_text(SUITE)
        for place in places:
            package = PLACES[place]
            if package and not find_spec(package):
                continue
            store = Path(folder) / place.replace(":", "-")
            job = Job(Suite.read(str(path)), wanted, Path(folder), store, "cpu", threads=1)
            plan = job.plan(lambda done, total: None)
            torch.set_num_threads(1)
            clock, start = Clock(), time.perf_counter()
            run_on(engine_of(place, (), job), job, plan, plan.cells, clock)
            first, *_, last = clock.ends
            per_cell[place] = (last - first) / (len(clock.ends) - 1)
            figures[f"{place}_first_s"] = first - start
            figures[f"{place}_cell_ms"] = 1e3 * per_cell[place]
            figures[f"{place}_over_local_ms"] = 1e3 * (per_cell[place] - per_cell["local"])
    torch.set_num_threads(threads)
    return figures
