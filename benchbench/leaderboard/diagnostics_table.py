"""What features tell of every method and shift: records in, a table out."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import mean, stdev

from tabulate import tabulate

from benchbench.leaderboard.table import ALL_DIAGNOSTICS, diagnostic, percents
from benchbench.leaderboard.table_formats import explained, figure, spread
from benchbench.store.records import Record


@dataclass(frozen=True)
class Line:
    """One method on one shift."""

    method: str
    shift: str
    seeds: tuple[int, ...]
    target: tuple[float, ...]  # of the dataset's own metric, in percent, by seed
    diagnostics: dict[str, tuple[float, ...]]  # of the seeds that have one


def features_table(records: Sequence[Record], form: str = "markdown") -> str:
    """A line for every method and shift of scored records: ``form`` is markdown, csv or json."""
    cells: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        cells.setdefault((record.method, record.shift), []).append(record)
    lines = [_line(*place, mine) for place, mine in cells.items()]
    if form == "json":
        return json.dumps([asdict(line) for line in lines], indent=1, allow_nan=False) + "\n"
    if form == "csv":
        return _csv(lines)
    body = [
        [
            line.method.replace("|", "\\|"),
            line.shift,
            spread(line.target),
            *map(figure, line.diagnostics.values()),
        ]
        for line in lines
    ]
    head = ["method", "shift", "target", *ALL_DIAGNOSTICS]
    align = ["left"] * 2 + ["right"] * (len(head) - 2)
    text = tabulate(body, head, tablefmt="github", disable_numparse=True, colalign=align)
    return f"{text}\n\n{_legend(records)}"


def _line(method: str, shift: str, records: Sequence[Record]) -> Line:
    told = {name: [diagnostic(record, name) for record in records] for name in ALL_DIAGNOSTICS}
    return Line(
        method,
        shift,
        tuple(record.seeds.train for record in records),
        tuple(percents(records, "target")),
        {name: tuple(v for v in values if v is not None) for name, values in told.items()},
    )


def _csv(lines: Sequence[Line]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    columns = [f"{name}{what}" for name in ("target", *ALL_DIAGNOSTICS) for what in ("", " sd")]
    writer.writerow(["method", "shift", "seeds", *columns])
    for line in lines:
        cells: list[object] = []
        for values in (line.target, *line.diagnostics.values()):
            cells += [mean(values) if values else None, stdev(values) if values[1:] else None]
        writer.writerow([line.method, line.shift, len(line.seeds), *cells])
    return out.getvalue()


def _legend(records: Sequence[Record]) -> str:
    metric = " and ".join(sorted({record.data.metric.replace("_", " ") for record in records}))
    return (
        f"*target*: {metric} in percent on the target's test rows. The rest is of frozen, "
        "unaugmented features, mean ± sd over seeds, – where it is not known. Heads and probes are "
        "fitted on training rows, of which the rank is, too; all else is of validation and test "
        "rows, which no stage has seen. Target labels are read, and nothing is chosen by them.\n\n"
        f"{explained(ALL_DIAGNOSTICS)}\n"
    )
