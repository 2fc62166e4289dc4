"""Records are written for programs that analyse or show them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchbench.extension.errors import BadInput

if TYPE_CHECKING:
    from benchbench.extension.catalog import Wanted
    from benchbench.leaderboard.experiment_trackers import Losses, Tracker
    from benchbench.store.records import Record

from benchbench.api.boards import is_board
from benchbench.api.opening import Where, opened, wanted_of

TRACKERS = ("tensorboard", "mlflow", "wandb")


@dataclass(frozen=True)
class RecordsExported:
    """Records that other programs can read."""

    target: str
    records: int
    rows: int | None  # of a table; None of runs
    known: int = 0  # records whose runs were there

    def __str__(self) -> str:
        if self.rows is None:
            new = self.records - self.known
            return f"{self.target}: {new:,} runs written, {self.known:,} were there"
        return f"{self.target}: {self.records:,} records, {self.rows:,} rows"

    __repr__ = __str__


def export_records(
    suite: Any,
    to: str | Path,
    *,
    store: Where = None,
    data: Where = None,
    device: str = "auto",
    plugins: Sequence[str | Path] = (),
    without_plugins: Sequence[str] = (),
    strict_plugins: bool = False,
    progress: bool = True,
) -> RecordsExported:
    """Write records of a suite from the store, or of a folder with records/, as a table or runs.

    ``to`` is a file that ends in .parquet, .csv or .jsonl, ``"tensorboard:FOLDER"``,
    ``"mlflow:URI"`` or ``"wandb:PROJECT"``. What is there of earlier exports is not there twice;
    docs/export.md says what columns mean. Losses are known of what comes from the store.

    BadInput if the place is none of these or cannot be written, a package is not installed, or
    there are no records yet.
    """
    from benchbench.store.atomic_files import place, writing

    target = str(to)
    kind, _, where = target.partition(":")
    _check_target(target)
    wanted = wanted_of(plugins, without_plugins, strict_plugins)
    with _records_of(suite, store, data, device, wanted, progress) as (records, losses):
        if not records:
            named = suite if isinstance(suite, str | Path) else "the suite"
            raise BadInput(f"{named} has no records yet")
        if kind in TRACKERS:
            from benchbench.leaderboard.experiment_trackers import track

            with writing(target):
                _, there = track(records, _tracker_of(kind, where), losses)
            return RecordsExported(target, len(records), None, there)
    from benchbench.leaderboard.export import TABLES, rows_of

    content = TABLES[Path(target).suffix](records)
    with writing(target):
        place(Path(target), content)
    return RecordsExported(target, len(records), len(rows_of(records)))


def _check_target(target: str) -> None:
    """BadInput if it is none of what there is."""
    from benchbench.leaderboard.export import TABLES

    kind, colon, where = target.partition(":")
    if "\0" in target:
        raise BadInput(f"--to {target!r} is no place that a system has")
    if kind in TRACKERS and colon:
        if not where:
            raise BadInput(f"--to {target} says no place; write {kind}:PLACE")
    elif Path(target).suffix not in TABLES:
        files, runs = (f"FILE{end}" for end in TABLES), (f"{name}:PLACE" for name in TRACKERS)
        raise BadInput(f"--to {target!r} is not known; there is {', '.join([*files, *runs])}")


@contextmanager
def _records_of(
    suite: Any, store: Where, data: Where, device: str, wanted: Wanted, progress: bool
) -> Iterator[tuple[list[Record], Losses]]:
    """Of a folder, or of what a store has of a suite; and what tells the losses of a stage."""
    from benchbench.store.records import read_records

    if is_board(suite, "records"):
        yield read_records(Path(suite) / "records"), lambda key: ()
        return
    with opened(suite, store, data, device, wanted=wanted, progress=progress) as made:
        plan = made.plan

        @cache
        def losses(key: str) -> tuple[float, ...]:
            kept = plan.store.read("stages", key)
            return tuple(kept.note["losses"]) if kept else ()

        yield [record for cell in plan.cells if (record := plan.record(cell))], losses


def _tracker_of(kind: str, where: str) -> Tracker:
    from benchbench.leaderboard.experiment_trackers import MLflow, TensorBoard, WandB

    if kind == "tensorboard":
        return TensorBoard(Path(where))
    return MLflow(where) if kind == "mlflow" else WandB(where, Path())
