"""A small suite, run while its process is killed again and again: ``python -m tests.faults.soak``.

Every process is a fork of this one, in which all is imported. It is killed at a random moment, its
start included; then the next one goes on, until the suite is done; then it begins anew, until
there were as many kills as asked for. Exits with 1 if a promise is broken.
"""

import argparse
import json
import os
import random
import select
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import checkout  # noqa: F401, before ours are imported
import sklearn.cluster  # a stage and a readout import these: now, and not in every fork
import sklearn.metrics  # noqa: F401
import torch._dynamo  # noqa: F401
from audiences import lasting, quiet
from suites import METHODS
from tiny import make_catalog

from benchbench.execution.local import run_cells
from benchbench.execution.store_cleanup import faults
from benchbench.store.artifacts import Store
from benchbench.store.records import read_records
from benchbench.suites.plan import Plan
from benchbench.suites.suite import Suite

TEXT = METHODS.replace("steps = 6", "steps = 40")
CATALOG = make_catalog()  # before there are forks
EVERY = 0.1  # seconds between checkpoints
MOST = 1.5  # times what a run takes that nothing disturbs


@dataclass
class Attempt:
    """A process, and what it said was done."""

    wall: float  # seconds
    processor: float  # seconds that it computed, whatever ran beside it; its start included
    started: bool  # whether it came as far as to have a plan
    over: bool
    done: list[str]


@dataclass
class Figures:
    """Seconds are those of processors, but where they are of the wall's clock."""

    kills: int = 0
    suites: int = 0
    cells: int = 0  # of all suites
    kills_at_start: int = 0  # before there was a plan
    undisturbed_seconds: list[float] = field(default_factory=list)
    disturbed_seconds: float = 0.0
    wall_seconds: float = 0.0  # of what was disturbed
    ratio: float = 0.0  # of disturbed to undisturbed, with all starts
    partial_files_swept: int = 0
    broken: list[str] = field(default_factory=list)


class Telling:
    """An audience that says over a pipe which record is kept."""

    def __init__(self, pipe: int) -> None:
        self.pipe = pipe

    def cell_starts(self, cell):
        return quiet

    def cell_fails(self, trace):
        sys.stderr.write(trace)

    def cell_ends(self, record):
        os.write(self.pipe, f"{record.file_name}\n".encode())


def work(store: Path, pipe: int) -> None:
    suite = Suite.read(str(store.parent / "suite.toml"))
    made = Plan.make(suite, CATALOG, store, Store(store), "cpu", lambda done, total: None)
    plan = replace(made, checkpoint_every=EVERY)
    os.write(pipe, b"ready\n")
    run_cells(plan, [cell for cell in plan.cells if not plan.done(cell)], Telling(pipe))


def attempt(store: Path, patience: float | None) -> Attempt:
    """One process, killed after so many seconds."""
    began = time.monotonic()
    ours, its = os.pipe()
    if (child := os.fork()) == 0:
        try:
            work(store, its)
            os._exit(0)
        finally:
            os._exit(1)
    os.close(its)
    said = b""
    while True:
        left = None if patience is None else max(0.0, began + patience - time.monotonic())
        if not select.select([ours], [], [], left)[0]:
            os.kill(child, signal.SIGKILL)
            patience = None
        if not (chunk := os.read(ours, 65536)):
            break
        said += chunk
    os.close(ours)
    _, status, used = os.wait4(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -signal.SIGKILL), f"a process ended with status {code}"
    wall, processor = time.monotonic() - began, used.ru_utime + used.ru_stime
    return Attempt(wall, processor, bool(said), code == 0, said.decode().split("\n")[1:-1])


def undisturbed(folder: Path) -> tuple[Attempt, dict]:
    folder.mkdir(parents=True)
    (folder / "suite.toml").write_text(TEXT)
    return attempt(folder / "store", None), kept(folder / "store")


def kept(store: Path) -> dict:
    """Every record without its time and cost, by file name."""
    return {r.file_name: lasting(r) for r in read_records(store / "records" / "tiny")}


def content(store: Path, names: list[str]) -> dict[str, bytes]:
    return {name: (store / "records" / "tiny" / name).read_bytes() for name in names}


def suite_is_killed(folder: Path, whole: dict, told: Figures, mean: float, chance: random.Random):
    """Until it is done; what of the promises does not hold is in the figures then."""
    folder.mkdir(parents=True)
    (folder / "suite.toml").write_text(TEXT)
    store, acknowledged = folder / "store", {}
    while True:
        one = attempt(store, chance.uniform(0, 2 * mean))
        told.disturbed_seconds += one.processor
        told.wall_seconds += one.wall
        twice = sorted(set(one.done) & acknowledged.keys())
        told.broken += [f"{name} was done twice" for name in twice]
        acknowledged |= content(store, one.done)
        if one.over:
            break
        told.kills += 1
        told.kills_at_start += not one.started
    told.suites += 1
    told.cells += len(whole)
    told.broken += [f"{folder.name}: {fault}" for fault in ailing(store, whole, acknowledged, told)]


def ailing(store: Path, whole: dict, acknowledged: dict, told: Figures) -> Iterator[str]:
    """What is not as in a store that nothing disturbed."""
    found = kept(store)
    for name in whole.keys() - found.keys():
        yield f"there is no record {name}"
    for name in found.keys() - whole.keys():
        yield f"record {name} is one too many"
    for name in whole.keys() & found.keys():
        if found[name] != whole[name]:
            yield f"record {name} says something else than that of an undisturbed run"
    for name, said in acknowledged.items():
        if (store / "records" / "tiny" / name).read_bytes() != said:
            yield f"record {name} was replaced"
    yield from faults(Store(store), lambda done, total: None)
    if list((store / "checkpoints").glob("*.safetensors")):
        yield "a checkpoint is left over"
    if any(not sign.lost for sign in Store(store).claims.signs().values()):
        yield "a claim is held by nobody"
    partial = list(store.rglob("*.part"))
    told.partial_files_swept += len(partial)
    for path in partial:
        os.utime(path, (time.time() - 7200,) * 2)
    Store(store).check()
    if list(store.rglob("*.part")):
        yield "a half-written file was not swept"


def soak(kills: int, seed: int, folder: Path) -> Figures:
    told, chance = Figures(), random.Random(seed)
    first, whole = undisturbed(folder / "undisturbed")
    while told.kills < kills:
        place = folder / f"killed-{told.suites}"
        suite_is_killed(place, whole, told, mean=first.processor / 5, chance=chance)
    again, same = undisturbed(folder / "undisturbed-again")
    told.undisturbed_seconds = [first.processor, again.processor]
    if same != whole:
        told.broken.append("two undisturbed runs differ")
    told.ratio = told.disturbed_seconds / (told.suites * sum(told.undisturbed_seconds) / 2)
    if told.ratio > MOST:
        told.broken.append(f"it took {told.ratio:.2f} times as long, more than {MOST}")
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", type=Path, help="an empty folder for the stores, which stay")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        told = soak(asked.kills, asked.seed, (asked.store or Path(scratch)).absolute())
    sys.stdout.write(json.dumps(asdict(told), indent=1) + "\n")
    outcome = (
        f"{len(told.broken)} promises were broken" if told.broken else "every promise was kept"
    )
    sys.stdout.write(
        f"{told.kills} kills in {told.suites} suites, {told.cells} cells together: {outcome}; "
        f"they took {told.ratio:.2f} times as long as undisturbed.\n"
    )
    sys.exit(bool(told.broken))


if __name__ == "__main__":
    main()
