"""The scored records of a suite, with what their features tell."""

from collections.abc import Callable, Sequence
from pathlib import Path

from benchbench.execution.cell import diagnosed
from benchbench.leaderboard.board_folder import read_folder
from benchbench.store.records import Diagnostics, Record
from benchbench.suites.plan import Plan
from benchbench.suites.shift_features import stored_features
from benchbench.suites.suite import Cell, chosen

Tell = Callable[[str], None]  # is told, in a sentence, which records lack something


def published_records(folder: Path, only: str, tell: Tell) -> list[Record]:
    """The scored ones, in the order of the suite's cells."""
    _, records, cells = read_folder(folder)
    known = {(r.method, r.shift, r.seeds.train): r for r in records if r.status == "scored"}
    places = [(cell.method.name, str(cell.shift), cell.seed) for cell in chosen(cells, only)]
    found = [known[place] for place in places if place in known]
    if bare := sum(record.diagnostics is None for record in found):
        tell(f"{bare} of {len(found)} records have no diagnostics")
    return found


def diagnosed_records(plan: Plan, cells: Sequence[Cell], tell: Tell) -> list[Record]:
    """The scored ones; those that are older than diagnostics with what their features tell now."""
    records, filled = [], 0
    for cell in cells:
        record = plan.record(cell)
        if record is None or record.status != "scored":
            continue
        if record.diagnostics is None and (told := from_store(cell, plan)):
            record, filled = record.model_copy(update={"diagnostics": told}), filled + 1
        if record.diagnostics is None:
            tell(f"{cell}: neither diagnostics nor features are in the store")
        records.append(record)
    if filled:
        tell(
            f"{filled} of {len(records)} records have no diagnostics; they were computed from "
            "stored features, and the records stay as they are"
        )
    return records


def from_store(cell: Cell, plan: Plan) -> Diagnostics | None:
    """What the cell's features tell; None if the store has them no longer."""
    sides = (cell.shift.sources, cell.shift.targets)
    z = stored_features(plan.encoder_key(cell), sides, plan)
    return diagnosed(cell, z, plan) if z else None
