"""What connectivity is to predict: the points that a board's records and connectivity.json make."""

from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from benchbench.diagnostics.accuracy_prediction import Point, domains_of, logit, values_of
from benchbench.diagnostics.connectivity_report import ConnectivityTold, read_told
from benchbench.extension.errors import BadInput
from benchbench.leaderboard.board_folder import read_folder
from benchbench.store.records import Record


def points_of(folder: Path) -> list[Point]:
    """Of a folder with suite.toml, records/ and connectivity.json.

    A method counts whose chain is one stage that reads no labels, read off linearly; connectivity
    is that of the same data, shift and augmentation, of either direction.
    """
    suite, records, _ = read_folder(folder)
    found = {(told.fingerprint, domains_of(told.shift), told.augmentation): told
             for told in read_told(folder / "connectivity.json")}  # fmt: skip
    cells: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        stages = record.spec.chain
        linear = record.spec.readout.partition("(")[0] == "linear"
        if record.status == "scored" and linear and len(stages) == 1 and not stages[0].reads:
            cells.setdefault((record.shift, stages[0].augmentation), []).append(record)
    points = []
    for (shift, augmentation), mine in cells.items():
        key = (mine[0].data.fingerprint, domains_of(shift), augmentation)
        if told := found.get(key):
            points.append(point_of(suite.name, told, shift, mine))
    if not points:
        raise BadInput(f"{folder}: no record is of a shift and augmentation in connectivity.json")
    return points


def point_of(dataset: str, told: ConnectivityTold, shift: str, records: Sequence[Record]) -> Point:
    target, source = (mean(v for r in records if (v := r.value(role)) is not None)
                      for role in ("target", "source"))  # fmt: skip
    values = values_of(told) | {"logit source": logit(source)}
    for name in ("a_distance", "domain_accuracy_within", "mmd_squared", "coral_distance"):
        known = [getattr(r.diagnostics, name) for r in records if r.diagnostics]
        if known and None not in known:
            values[name] = mean(known)
    return Point(dataset, shift, told.augmentation, target, len(records), values)
