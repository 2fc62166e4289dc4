"""Records in, a table out. A pure function of the records and of what the suite expected."""

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Literal

from tabulate import tabulate

from benchbench.record import Diagnostics, Record, read_records
from benchbench.spelling import instead
from benchbench.suite import Cell, Suite
from benchbench.terms import BadInput

ALL_DIAGNOSTICS = tuple(Diagnostics.model_fields)
HANDFUL = ("class_cosine", "domain_cosine", "domain_accuracy", "effective_rank")


@dataclass(frozen=True)
class Expected:
    """What a suite asks for, by name: the rows, the columns, and what each is averaged over."""

    methods: tuple[str, ...]
    shifts: tuple[str, ...]
    seeds: tuple[int, ...]
    baseline: str | None = None


@dataclass(frozen=True)
class Entry:
    """One method on one shift. Percents, one per seed; none if a seed lacks one."""

    values: tuple[float, ...]
    lacks: dict[str, int]  # how many seeds are missing, failed, diverged or oom

    def __str__(self) -> str:
        if self.lacks:
            return ", ".join(f"{count} {status}" for status, count in self.lacks.items())
        return spread(self.values)


@dataclass(frozen=True)
class Row:
    """One method on every shift."""

    method: str
    group: str  # "method", "reference" where nothing is trained, "ceiling" on target labels
    reads: str
    sees: str
    readout: str
    entries: dict[str, Entry]
    source: tuple[float, ...]  # on the source domain's test rows, if there are, per seed
    average: tuple[float, ...]  # over shifts, per seed; empty unless every cell is scored
    difference: float | None  # of the average to the baseline's, paired by shift and seed
    images_seen: int | None
    seconds: float | None  # training, features and readout of one cell, all stages counted
    diagnostics: dict[str, tuple[float, ...]]  # by name, as the average; those asked for

    @property
    def complete(self) -> bool:
        return bool(self.average)


def rows(
    records: Sequence[Record], expected: Expected | None = None, columns: Sequence[str] = ()
) -> list[Row]:
    """One row per method: complete ones first, best first; references and ceilings last.

    ``columns`` are names of diagnostics.
    """
    by_cell: dict[tuple[str, str, int], Record] = {}
    for record in records:
        place = (record.method, record.shift, record.seeds.train)
        if place in by_cell:
            ids = f"{by_cell[place].cell_id[:12]} and {record.cell_id[:12]}"
            raise BadInput(f"two records, {ids}, are of {' · '.join(map(str, place))}")
        by_cell[place] = record
    wanted = expected or expected_of(records)
    drafts = {method: _row(method, by_cell, wanted, columns) for method in wanted.methods}
    baseline = drafts.get(wanted.baseline or "")
    finished = [_compared(row, baseline) for row in drafts.values()]
    groups = ("method", "reference", "ceiling")
    order = {row.method: place for place, row in enumerate(finished)}

    def rank(row: Row) -> tuple[int, bool, float, int]:
        best_first = -mean(row.average) if row.complete else 0.0
        return groups.index(row.group), not row.complete, best_first, order[row.method]

    return sorted(finished, key=rank)


def expected_of(records: Sequence[Record]) -> Expected:
    """What records alone let one expect: every method on every shift with every seed."""
    return Expected(
        tuple(sorted({record.method for record in records})),
        tuple(sorted({record.shift for record in records})),
        tuple(sorted({record.seeds.train for record in records})),
    )


def _row(
    method: str,
    by_cell: dict[tuple[str, str, int], Record],
    wanted: Expected,
    columns: Sequence[str],
) -> Row:
    entries, averages, sources = {}, [], []
    diagnostics: dict[str, tuple[float, ...]] = dict.fromkeys(columns, ())
    mine = [r for (name, _, _), r in sorted(by_cell.items()) if name == method]
    for shift in wanted.shifts:
        found = [by_cell.get((method, shift, seed)) for seed in wanted.seeds]
        states = Counter("missing" if r is None else r.status for r in found)
        lacks = {status: states[status] for status in sorted(states) if status != "scored"}
        values = percents([r for r in found if r is not None and r.scores], "target")
        entries[shift] = Entry(() if lacks else tuple(values), lacks)
    if wanted.shifts and not any(entry.lacks for entry in entries.values()):
        for seed in wanted.seeds:
            scored = [by_cell[method, shift, seed] for shift in wanted.shifts]
            averages.append(mean(percents(scored, "target")))
            if known := percents(scored, "source"):
                sources.append(mean(known))
        every = [[by_cell[method, shift, s] for shift in wanted.shifts] for s in wanted.seeds]
        diagnostics = {name: _diagnosed(every, name) for name in columns}
    costs = [record.cost for record in mine if record.cost]
    seconds = [
        sum(s.seconds for s in c.stages) + c.features_seconds + c.readout_seconds for c in costs
    ]
    spec = mine[0].spec if mine else None
    chain = spec.chain if spec else ()
    group = "method" if chain else "reference"
    return Row(
        method=method,
        group="ceiling" if spec and spec.labels == "target" else group,
        reads=joined(" + ".join(stage.reads) or "images" for stage in chain),
        sees=joined(stage.sees for stage in chain),
        readout=spec.readout.partition("(")[0] if spec else "–",
        entries=entries,
        source=tuple(sources),
        average=tuple(averages),
        difference=None,
        images_seen=max((c.images_seen for c in costs), default=None),
        seconds=mean(seconds) if seconds else None,
        diagnostics=diagnostics,
    )


def _diagnosed(every: Sequence[Sequence[Record]], name: str) -> tuple[float, ...]:
    """One number for the records of every seed, their mean; none if one of them lacks it."""
    told = [[diagnostic(record, name) for record in records] for records in every]
    whole = [[value for value in values if value is not None] for values in told]
    return tuple(map(mean, whole)) if whole == told else ()


def diagnostic(record: Record, name: str) -> float | None:
    return getattr(record.diagnostics, name, None)


def _compared(row: Row, baseline: Row | None) -> Row:
    if baseline is None or baseline.method == row.method:
        return row
    if not (row.complete and baseline.complete):
        return row
    return Row(**{**vars(row), "difference": mean(row.average) - mean(baseline.average)})


def percents(records: Iterable[Record], role: Literal["source", "target"]) -> list[float]:
    values = [record.value(role) for record in records]
    return [100 * value for value in values if value is not None]


def joined(parts: Iterable[str]) -> str:
    return " > ".join(parts) or "–"


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation (n − 1)."""
    if not values:
        return "–"
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def figure(values: Sequence[float]) -> str:
    """Mean ± standard deviation (n − 1) of a diagnostic, to three digits and to two."""
    if not values:
        return "–"
    return f"{mean(values):.3g}" + (f" ± {stdev(values):.2g}" if len(values) > 1 else "")


def diagnostics_named(text: str) -> tuple[str, ...]:
    """The columns of ``domain_accuracy,effective_rank``; ``diagnostics`` means a handful.

    BadInput if there is none of a name.
    """
    named = [name for name in map(str.strip, text.split(",")) if name]
    for name in named:
        if name not in (*ALL_DIAGNOSTICS, "diagnostics"):
            near = instead(name, [*ALL_DIAGNOSTICS, "diagnostics"])
            raise BadInput(f"no column is named {name!r}; {near}")
    wanted = [HANDFUL if name == "diagnostics" else (name,) for name in named]
    return tuple(dict.fromkeys(name for names in wanted for name in names))


def explained(columns: Sequence[str]) -> str:
    """A sentence for each of the diagnostics."""
    return "\n".join(
        f"* *{name}*: {Diagnostics.model_fields[name].description}." for name in columns
    )


def render(
    records: Sequence[Record],
    expected: Expected | None = None,
    form: str = "markdown",
    columns: Sequence[str] = (),
) -> str:
    """The board as text: ``form`` is markdown, csv, latex or json, ``columns`` are diagnostics.

    BadInput if the records differ in what they were measured on: the data, protocol or precision.
    """
    for what, values in (
        ("data", {record.data.fingerprint[:12] for record in records}),
        ("protocols", {record.protocol for record in records}),
        ("precisions", {record.spec.precision for record in records}),
    ):
        if len(values) > 1:
            raise BadInput(f"the records are of several {what}: {', '.join(sorted(values))}")
    table = rows(records, expected, columns)
    baseline = expected.baseline if expected else None
    if form == "json":
        shown = [
            {k: v for k, v in asdict(row).items() if k != "diagnostics" or columns} for row in table
        ]
        return json.dumps(shown, indent=1, allow_nan=False) + "\n"
    if form == "csv":
        return _csv(table, columns)
    shifts = list(table[0].entries) if table else []
    head = ["method", "reads", "sees", "readout", *shifts, "mean"]
    head += ([f"vs {baseline}"] if baseline else []) + ["source", "images", "s", *columns]
    body = [_line(row, baseline is not None) for row in table]
    if form == "latex":
        return tabulate(body, head, tablefmt="latex_booktabs", disable_numparse=True) + "\n"
    body = [[cell.replace("|", "\\|") for cell in line] for line in body]
    align = ["left"] * 4 + ["right"] * (len(head) - 4)
    text = tabulate(body, head, tablefmt="github", disable_numparse=True, colalign=align)
    return f"{text}\n\n{_legend(records, table, columns)}"


def _line(row: Row, compares: bool) -> list[str]:
    mark = {"method": "", "reference": " (reference)", "ceiling": " (ceiling)"}[row.group]
    difference = "–" if row.difference is None else f"{row.difference:+.1f}"
    return [
        row.method + mark,
        row.reads,
        row.sees,
        row.readout,
        *map(str, row.entries.values()),
        spread(row.average),
        *([difference] if compares else []),
        spread(row.source),
        "–" if row.images_seen is None else f"{row.images_seen:,}",
        "–" if row.seconds is None else f"{row.seconds:.0f}",
        *map(figure, row.diagnostics.values()),
    ]


def _csv(table: Sequence[Row], extra: Sequence[str]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    shifts = list(table[0].entries) if table else []
    columns = [f"{shift} {what}" for shift in shifts for what in ("mean", "sd", "seeds", "lacks")]
    start = ["method", "group", "reads", "sees", "readout"]
    end = ["mean", "sd", "difference", "source", "images_seen", "seconds"]
    end += [f"{name}{what}" for name in extra for what in ("", " sd")]
    writer.writerow([*start, *columns, *end])
    for row in table:
        cells: list[object] = []
        for entry in row.entries.values():
            lacks = " ".join(f"{status}={count}" for status, count in entry.lacks.items())
            cells += [_mean(entry.values), _sd(entry.values), len(entry.values), lacks]
        summary = [_mean(row.average), _sd(row.average), row.difference, _mean(row.source)]
        described = [row.method, row.group, row.reads, row.sees, row.readout]
        told = [of(values) for values in row.diagnostics.values() for of in (_mean, _sd)]
        writer.writerow([*described, *cells, *summary, row.images_seen, row.seconds, *told])
    return out.getvalue()


def _mean(values: Sequence[float]) -> float | None:
    return mean(values) if values else None


def _sd(values: Sequence[float]) -> float | None:
    return stdev(values) if len(values) > 1 else None


def _legend(records: Sequence[Record], table: Sequence[Row], columns: Sequence[str]) -> str:
    """What the columns mean, where the numbers come from, and every method in full."""
    said: Callable[[Callable[[Record], str]], str] = lambda field: "; ".join(  # noqa: E731
        sorted({field(record) for record in records})
    )
    lines = [
        f"{said(lambda r: r.data.metric.replace('_', ' ')).capitalize()} in percent on test rows "
        "of the target domain, mean ± sd over training seeds "
        f"({len({r.seeds.train for r in records})}); *source*: on test rows of the source domain; "
        "*images*: rows drawn in training; *s*: seconds of one cell with all of its stages.",
        "",
        f"Protocol {said(lambda r: r.protocol)}; data {said(lambda r: r.data.dataset)}, "
        f"fingerprint {said(lambda r: r.data.fingerprint[:12])}; selection "
        f"{said(lambda r: r.selection.rule if r.selection else 'none')}; "
        f"precision {said(lambda r: r.spec.precision)}; "
        f"{said(lambda r: r.environment.device)}, {said(lambda r: str(r.environment.threads))} "
        f"threads, torch {said(lambda r: r.environment.packages['torch'])}.",
        "",
    ]
    if columns:
        lines += [
            "Of frozen features, mean over shifts ± sd over seeds; – where a cell lacks them:",
            "",
            explained(columns),
            "",
        ]
    first = {record.method: record for record in reversed(records)}
    for row in table:
        if record := first.get(row.method):
            spec = record.spec
            stages = [
                f"`{s.objective}` on `{s.augmentation}`, sees {s.sees}, "
                f"{s.steps} × {s.batch_size} rows, lr {s.lr:g}"
                for s in spec.chain
            ]
            chain = "; then ".join(stages) or "untrained"
            lines.append(f"* **{row.method}**: `{spec.encoder}`; {chain}; read by `{spec.readout}`")
    return "\n".join(lines) + "\n"


def expected_by(suite: Suite, shifts: tuple[str, ...]) -> Expected:
    names = tuple(method.name for method in suite.methods())
    return Expected(names, shifts, suite.seeds, suite.baseline)


def published(folder: Path, form: str = "markdown", columns: Sequence[str] = ()) -> str:
    """The board of a folder that holds ``suite.toml`` and ``records/``."""
    suite, records, cells = read_folder(folder)
    shifts = tuple(dict.fromkeys(str(cell.shift) for cell in cells))
    return render(records, expected_by(suite, shifts), form, columns)


def read_folder(folder: Path) -> tuple[Suite, list[Record], list[Cell]]:
    """What a folder with ``suite.toml`` and ``records/`` holds, and what its suite asks for."""
    suite, records = Suite.read(str(folder / "suite.toml")), read_records(folder / "records")
    data = [record.data for record in records]
    found = sorted({domain for d in data for domain in (*d.sources, *d.targets)})
    return suite, records, suite.cells(suite.named_domains or found)
