"""A board as one page of HTML that needs nothing else, and is a function of the board alone."""

import base64
import hashlib
import re
import shlex
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from statistics import fmean
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from benchbench.leaderboard import charts, escaping
from benchbench.leaderboard import table_formats as formats
from benchbench.leaderboard.board_folder import Reported, Source
from benchbench.leaderboard.charts import Chart, Picks
from benchbench.leaderboard.selection import Place, State
from benchbench.leaderboard.table import (
    ALL_DIAGNOSTICS,
    GROUPS,
    Board,
    Group,
    Row,
    diagnosed,
    percents,
    seconds_of,
    state_of,
)
from benchbench.leaderboard.true_labels import Truth
from benchbench.store.records import Diagnostics, Record, prediction_name
from benchbench.suites.suite import conditions_of

TEMPLATE = files("benchbench") / "leaderboard" / "page.html"
MOST_CLASSES = 12  # that a table has room for
TONES = (1, 5, 15)  # points from which a difference has a colour, and a stronger one
HEADINGS: Mapping[Group, str] = {
    "method": "Methods",
    "reference": "References: nothing is trained, and they are not ranked",
    "ceiling": "Ceilings: they read target labels, and are not ranked",
    "reported": "From papers: not measured here, and not ranked",
}
MARKED = re.compile(r"\\(.)|\*((?:\\.|[^*\\])+)\*|`([^`]+)`|&(amp|lt|#47);", re.DOTALL)
ENTITIES = {"amp": "&", "lt": "<", "#47": "/"}


@dataclass(frozen=True)
class Cell:
    text: str
    value: float | None = None  # to sort by
    best: bool = False
    tone: str = ""  # a class of the style
    title: str = ""


@dataclass(frozen=True)
class Column:
    """Of the main table."""

    name: str
    cell: Callable[[Row], Cell]
    numeric: bool = True
    first: str = "descending"  # how one click sorts


@dataclass(frozen=True)
class Table:
    """Any other table: its first column names the rows, ``words`` columns are text."""

    caption: str
    head: Sequence[str]
    body: Sequence[Sequence[Cell]]
    words: int = 1


@dataclass(frozen=True)
class Section:
    """All that is known of one method."""

    row: Row
    anchor: str
    standing: str
    record: Record | None = None  # of one cell, for what all have in common
    command: str = ""
    scores: Table | None = None
    classes: Table | None = None
    curves: Sequence[Chart] = ()
    diagnostics: Table | None = None
    cost: Table | None = None
    facts: Sequence[tuple[str, str]] = ()
    plugins: Table | None = None
    papers: Sequence[tuple[Reported, Table]] = ()


@dataclass(frozen=True)
class Evidence:
    """The records of a board by method, and what counts of them."""

    board: Board
    places: Mapping[Place, list[Record]]
    records: Mapping[str, list[Record]]
    picked: Mapping[str, Picks]
    anchors: Mapping[tuple[Group, str], str]

    @classmethod
    def of(cls, board: Board) -> "Evidence":
        records: dict[str, list[Record]] = defaultdict(list)
        for place in sorted(board.places):
            records[place[0]] += board.places[place]
        return cls(board, board.places, records, board.picked, anchors(board.rows))

    @property
    def source(self) -> Source:
        return self.board.source

    def anchor(self, row: Row) -> str:
        return self.anchors[row.group, row.method]

    def states(self, method: str, shift: str) -> list[State]:
        return charts.states_on(self.board, self.picked, method, shift)


def page(board: Board) -> str:
    """HTML: styles, scripts and pictures are inside, and nothing is fetched."""
    evidence = Evidence.of(board)
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=harmless,
    )
    environment.filters |= {"digest": digest, "emphasised": emphasised}
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        board=board,
        lead=lead(board),
        facts=facts(board),
        columns=columns_of(board),
        groups=grouped(board.rows),
        choices=choices(board.rows),
        anchor=evidence.anchor,
        links={row.method: evidence.anchor(row) for row in board.rows if row.group != "reported"},
        pictures=charts.pictures(board, evidence.picked, evidence.anchor),
        chart_style=charts.STYLE,
        ranks=rank_table(board),
        rules=rule_table(board),
        unscored=unscored(evidence),
        meanings=formats.meanings(board),
        provenance=formats.provenance(board) if board.source.records else "",
        columns_explained=[(name, described(name)) for name in board.columns],
        sections=list(sections(evidence)),
        linkable=escaping.linkable,
    )


def picture_files(board: Board) -> dict[str, str]:
    """The pictures of the whole board as SVG that stands alone, by the name of its file."""
    drawn = charts.pictures(board, Evidence.of(board).picked)
    return {f"{chart.name}.svg": charts.as_file(chart) for chart in drawn}


def described(diagnostic: str) -> str:
    return str(Diagnostics.model_fields[diagnostic].description)


def harmless(value: Any) -> Any:
    """What strangers wrote cannot reorder or hide what is around it; the template escapes it."""
    return value if type(value) is not str or value.isprintable() else escaping.visible(value)


def digest(content: str) -> str:
    """Of a style or a script, for the policy that allows no other."""
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()


def emphasised(marked: str) -> Markup:
    """The Markdown that `text` writes for legends: emphasis, code, escapes, and no more."""
    found, last = Markup(), 0
    for match in MARKED.finditer(marked):
        escaped, strong, code, entity = match.groups()
        found += escaping.visible(marked[last : match.start()])
        if strong is not None:
            found += Markup("<em>{}</em>").format(emphasised(strong))
        elif code is not None:
            found += Markup("<code>{}</code>").format(escaping.visible(code))
        else:
            found += ENTITIES[entity] if entity else escaped
        last = match.end()
    return found + escaping.visible(marked[last:])


def anchors(rows: Iterable[Row]) -> dict[tuple[Group, str], str]:
    """An id for every row, of safe letters; no two are the same, whatever their names."""
    given: dict[tuple[Group, str], str] = {}
    for group, name in sorted({(row.group, row.method) for row in rows}):
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:60] or "unnamed"
        stem = ("paper-" if group == "reported" else "method-") + slug
        taken, number = {*given.values()}, 2
        given[group, name] = stem
        while given[group, name] in taken:
            given[group, name] = f"{stem}-{number}"
            number += 1
    return given


def grouped(rows: Sequence[Row]) -> list[tuple[Group, str, list[Row]]]:
    found = [(group, [row for row in rows if row.group == group]) for group in GROUPS]
    return [(group, HEADINGS[group], mine) for group, mine in found if mine]


def choices(rows: Sequence[Row]) -> list[tuple[str, list[str]]]:
    """What the table can be filtered by, where there is a choice."""
    found = [(name, sorted({getattr(row, name) for row in rows})) for name in ("reads", "sees")]
    found.insert(0, ("group", [group for group in GROUPS if any(r.group == group for r in rows)]))
    return [(name, values) for name, values in found if len(values) > 1]


def lead(board: Board) -> str:
    """What the board asks, in plain words."""
    wanted = board.source.expected
    methods = sum(row.group == "method" for row in board.rows)
    return (
        "Which method carries over from a labelled domain, the source, to another, the target, "
        f"whose labels it does not see? {counted(methods, 'method')} "
        f"{'is' if methods == 1 else 'are'} compared on {counted(len(board.shifts), 'shift')} from "
        f"source to target, with {counted(len(wanted.seeds), 'seed')} each, from the same data and "
        f"under one protocol; the score is {board.metric.replace('_', ' ')} on test rows of the "
        "target."
    )


def counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def facts(board: Board) -> list[tuple[str, str]]:
    """What all records have in common."""
    records, source = board.source.records, board.source
    rule = formats.rule_name(source.expected.rule)
    draws = f", of {source.expected.draws} draws" if source.expected.draws > 1 else ""
    stale = f", {len(source.stale)} stale" if source.stale else ""
    return [
        ("Data", several(r.data.dataset for r in records)),
        ("Protocol", several(r.protocol for r in records)),
        ("Encoder", several(r.spec.encoder for r in records)),
        ("Chosen by", rule + draws if board.rules else "nothing to choose"),
        ("Baseline", board.compares or "none"),
        ("Records", f"{len(records):,}{stale}"),
    ]


def several(values: Iterable[str], most: int = 3) -> str:
    found = sorted({*values})
    more = f" and {len(found) - most} more" if len(found) > most else ""
    return "; ".join(found[:most]) + more or "–"


def columns_of(board: Board) -> list[Column]:
    """Of the main table, after the method's name."""
    best = formats.best_of(board)
    columns = [Column("rank", rank_cell, first="ascending")] if board.ranked else []
    columns += [
        Column("mean", lambda r: Cell(formats.spread(r.average), known(r.average), first_of(r))),
        Column("95 %", lambda r: Cell(formats.between(r.interval), known(r.interval or ()))),
    ]
    if board.compares:
        columns.append(Column(f"vs {board.compares}", against_cell))
    columns += [Column(shift, shift_cell(shift, best)) for shift in board.shifts]
    columns += [
        Column("source", lambda r: Cell(formats.spread(r.source), known(r.source))),
        Column("images", lambda r: Cell(formats.counted(r.images_seen), r.images_seen)),
        Column("s", seconds_cell),
    ]
    columns += [Column(name, diagnostic_cell(name)) for name in board.columns]
    if any(row.level for row in board.rows):
        columns.append(worded("checked", lambda r: r.level.level if r.level else "–"))
    return [
        *columns,
        worded("reads", lambda r: r.reads),
        worded("sees", lambda r: r.sees),
        worded("readout", lambda r: r.readout),
    ]


def worded(name: str, said: Callable[[Row], str]) -> Column:
    return Column(name, lambda row: Cell(said(row)), numeric=False, first="ascending")


def rank_cell(row: Row) -> Cell:
    return Cell(formats.rank(row), row.ranks.place if row.ranks else None, title=row.unranked)


def against_cell(row: Row) -> Cell:
    said = formats.difference(row).replace("-", "−")
    return Cell(said, known((row.against.difference,) if row.against else ()))


def seconds_cell(row: Row) -> Cell:
    if row.seconds is None:
        return Cell("–")
    return Cell(f"{row.seconds:.0f}", round(row.seconds, 4))


def shift_cell(shift: str, best: Mapping[str, Sequence[object]]) -> Callable[[Row], Cell]:
    def cell(row: Row) -> Cell:
        entry = row.entries[shift]
        leads = any(entry is other for other in best[shift])
        return Cell(formats.said(entry), known(entry.values), leads, "lacks" if entry.lacks else "")

    return cell


def diagnostic_cell(name: str) -> Callable[[Row], Cell]:
    return lambda r: Cell(
        formats.figure(r.diagnostics.get(name, ())), known(r.diagnostics.get(name))
    )


def first_of(row: Row) -> bool:
    return bool(row.ranks and row.ranks.tie == 1)


def known(values: Sequence[float] | None) -> float | None:
    return round(fmean(values), 4) if values else None


def rank_table(board: Board) -> Table | None:
    lines = formats.rank_table(board)
    return as_table(lines, "More ways to order the methods that can be ranked.")


def rule_table(board: Board) -> Table | None:
    return as_table(formats.rule_table(board), "The mean over shifts by every rule of selection.")


def as_table(lines: formats.Lines | None, caption: str) -> Table | None:
    """As `text` has it, with the method's name in front."""
    if lines is None:
        return None
    head, body, words = lines
    order = [head.index("method"), *(n for n in range(len(head)) if n != head.index("method"))]
    cells = [[Cell(line[n][0], best=line[n][1]) for n in order] for line in body]
    return Table(caption, [head[n] for n in order], cells, words)


def unscored(evidence: Evidence) -> Table | None:
    """What is missing, failed or stale, by method and reason."""
    found: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    source = evidence.source
    for record in source.records:
        where = f"{record.shift} · seed {record.seeds.train}"
        if record.status != "scored":
            why = " ".join((record.reason or "no reason was recorded").split())
            found[record.method, record.status, why].add(where)
        if record.cell_id in source.stale:
            found[record.method, "stale", source.stale[record.cell_id]].add(where)
    for row in board_rows(evidence):
        for shift, entry in row.entries.items():
            for status in {*entry.lacks} & {"missing", "undecided"}:
                found[row.method, status, NO_RECORD[status]].add(
                    f"{shift} · {counted(entry.lacks[status], 'seed')}"
                )
    body = [
        [Cell(method), Cell(status), Cell(why, tone="long"), Cell(several(where, 4), tone="long")]
        for (method, status, why), where in sorted(found.items())
    ]
    caption = "What is not scored, or not as it would be today. Nothing of it counts as zero."
    return Table(caption, ("method", "what", "why", "where"), body, 4) if body else None


NO_RECORD = {
    "missing": "no record yet",
    "undecided": "the rule of selection has nothing to go by",
}


def board_rows(evidence: Evidence) -> Iterator[Row]:
    return (row for row in evidence.board.rows if row.group != "reported")


def sections(evidence: Evidence) -> Iterator[Section]:
    """One for every row, in the order of the board."""
    base = class_accuracies(evidence, evidence.board.compares or "")
    for row in evidence.board.rows:
        if row.reported:
            told = [(row.reported, paper_table(row.reported, None, evidence.board.shifts))]
            yield Section(row, evidence.anchor(row), "Not measured here.", papers=told)
        else:
            yield section(evidence, row, base)


def section(evidence: Evidence, row: Row, base: Mapping[str, np.ndarray]) -> Section:
    records, source = evidence.records.get(row.method, []), evidence.source
    papers = [told for told in source.reported if told.method == row.method]
    return Section(
        row,
        evidence.anchor(row),
        standing(evidence.board, row),
        record=records[0] if records else None,
        command=command(source.name, row.method),
        scores=score_table(evidence, row),
        classes=class_table(evidence, row, base),
        curves=curves(evidence, row, records),
        diagnostics=diagnostic_table(evidence, row),
        cost=cost_table(records),
        facts=hardware(records),
        plugins=plugin_table(records),
        papers=[(told, paper_table(told, row, evidence.board.shifts)) for told in papers],
    )


def command(suite: str, method: str) -> str:
    """What runs one method again, as a shell reads it."""
    only = "method=" + re.sub(r"([*?\[])", r"[\1]", method)
    if conditions_of(only) != [only]:  # what follows a comma looks like another condition
        only = only.replace(",", "[,]")
    return shlex.join(["benchbench", "run", suite, "--only", only])


def standing(board: Board, row: Row) -> str:
    """Where a method is on the board, in a sentence or two."""
    if row.ranks is None:
        said = f"Not ranked: {row.unranked or 'incomplete'}."
    else:
        low, high = row.ranks.low, row.ranks.high
        place = f"rank {low}" if low == high else f"a rank from {low} to {high}"
        said = f"Seeds and test rows allow {place} of {len(board.ranked)}."
    if row.complete:
        said += f" Mean over shifts {formats.spread(row.average)}"
        if row.interval:
            said += f", 95 % interval from {row.interval[0]:.1f} to {row.interval[1]:.1f}"
        said += "."
    if told := row.against:
        said += f" {signed(told.difference)} points against {board.compares}"
        if told.low is not None and told.high is not None and told.p is not None:
            said += f", 95 % interval from {signed(told.low)} to {signed(told.high)}"
            said += f", p = {told.p:.2g}"
        said += "."
    return said


def signed(value: float, digits: int = 1) -> str:
    """With a plus or a true minus; zero has neither."""
    said = f"{value:+.{digits}f}"
    return said.replace("-", "−") if float(said) else said[1:]


def score_table(evidence: Evidence, row: Row) -> Table:
    wanted = evidence.source.expected
    body = []
    for shift, entry in row.entries.items():
        line = [Cell(shift), *(seed_cell(evidence, row, shift, seed) for seed in wanted.seeds)]
        body.append([*line, Cell(formats.said(entry), tone="lacks" if entry.lacks else "")])
    line = [Cell("mean"), *(Cell(f"{value:.1f}") for value in row.average)]
    if row.complete:
        body.append([*line, Cell(formats.spread(row.average))])
    head = ("shift", *(f"seed {seed}" for seed in wanted.seeds), "mean ± sd")
    return Table(f"{evidence.board.metric.replace('_', ' ').capitalize()}, %", head, body)


def seed_cell(evidence: Evidence, row: Row, shift: str, seed: int) -> Cell:
    status = state_of(evidence.source, evidence.places, row.method, shift, seed)
    picked = evidence.picked.get(row.method, {}).get((shift, seed))
    reached = percents([picked] if picked else [], "target")
    if not picked or not reached or status not in ("scored", "stale"):
        return Cell("undecided" if status == "scored" else status, tone="lacks")
    said = f"{reached[0]:.1f}" + (", stale" if status == "stale" else "")
    if row.draws:
        step = "the end" if picked.step is None else f"step {picked.step}"
        return Cell(said, title=f"draw {picked.record.draw}, {step}")
    return Cell(said)


def class_accuracies(evidence: Evidence, method: str) -> dict[str, np.ndarray]:
    """Of a method, by shift: float64 [C], percent, mean over seeds; NaN where there are no rows."""
    truth = evidence.source.truth
    if truth is None or not truth.class_names or method not in evidence.records:
        return {}
    found = {}
    for shift in evidence.board.shifts:
        states = evidence.states(method, shift)
        each = [right_by_class(evidence.source, truth, state) for state in states]
        whole = [values for values in each if values is not None]
        if whole and len(whole) == len(each):
            found[shift] = 100 * np.mean(whole, axis=0)
    return found


def right_by_class(source: Source, truth: Truth, state: State) -> np.ndarray | None:
    """float64 [C]: of one state, over the target's domains; None where it is not known."""
    predictions = source.predictions(state.record)
    count = len(truth.class_names)
    right, rows = np.zeros(count), np.zeros(count)
    for domain in state.record.data.targets:
        predicted = predictions.get(prediction_name(domain, state.step))
        labels = truth.labels.get(domain)
        if predicted is None or labels is None or len(predicted) != len(labels):
            return None
        there = labels >= 0
        rows += np.bincount(labels[there], minlength=count)
        right += np.bincount(labels[there & (predicted == labels)], minlength=count)
    return np.divide(right, rows, out=np.full(count, np.nan), where=rows > 0)


def class_table(evidence: Evidence, row: Row, base: Mapping[str, np.ndarray]) -> Table | None:
    """Class by class, less the baseline; of the baseline itself, and without one, as it is."""
    truth, compares = evidence.source.truth, evidence.board.compares
    mine = base if row.method == compares else class_accuracies(evidence, row.method)
    itself = row.method == compares or not base
    if not itself:
        mine = {shift: mine[shift] - base[shift] for shift in mine if shift in base}
    if truth is None or not mine:
        return None
    far = np.abs(np.nan_to_num(np.stack([*mine.values()]))).max(axis=0)
    shown = sorted(np.argsort(-far, kind="stable")[:MOST_CLASSES].tolist())
    caption = "Accuracy on every class"
    if len(shown) < len(far):
        caption = f"Accuracy on those {len(shown)} of {len(far)} classes that differ most"
    caption += ", %" if itself else f", points more or less than {compares}"
    body = [
        [Cell(shift), *(class_cell(values[n], itself) for n in shown)]
        for shift, values in mine.items()
    ]
    return Table(caption, ("shift", *(truth.class_names[n] for n in shown)), body)


def class_cell(value: float, itself: bool) -> Cell:
    if np.isnan(value):
        return Cell("–")
    if itself:
        return Cell(f"{value:.0f}")
    strength = sum(abs(value) >= limit for limit in TONES)
    tone = f"{'up' if value > 0 else 'down'}{strength}" if strength else ""
    return Cell(signed(value, 0), tone=tone)


def curves(evidence: Evidence, row: Row, records: Sequence[Record]) -> list[Chart]:
    """Learning curves of every stage, over all of a method's cells."""
    depth = max((len(record.spec.chain) for record in records), default=0)
    drawn = []
    for stage in range(depth):
        keys = {
            record.artifacts.stages[stage]: record.spec.chain[stage].objective
            for record in records
            if record.artifacts and stage < len(record.artifacts.stages)
        }
        losses = [evidence.source.curves[key] for key in keys if key in evidence.source.curves]
        name = f"{evidence.anchor(row)}-stage-{stage + 1}"
        title = f"Stage {stage + 1}, {next(iter(keys.values()), '').partition('(')[0]}"
        drawn.append(charts.learning(name, title, losses))
    return [chart for chart in drawn if chart]


def diagnostic_table(evidence: Evidence, row: Row) -> Table | None:
    """What the features tell; mean over shifts ± sd over seeds."""
    if not row.complete:
        return None
    wanted = evidence.source.expected
    picked = evidence.picked[row.method]
    every = [[s for shift in wanted.shifts if (s := picked[shift, seed])] for seed in wanted.seeds]
    told = [(name, diagnosed(every, name)) for name in ALL_DIAGNOSTICS]
    body = [
        [
            Cell(name.replace("_", " ")),
            Cell(described(name), tone="long"),
            Cell(formats.figure(values)),
        ]
        for name, values in told
        if values
    ]
    caption = "Of frozen features: mean over shifts ± sd over seeds"
    return Table(caption, ("diagnostic", "what it is", "value"), body, 2) if body else None


def cost_table(records: Sequence[Record]) -> Table | None:
    """Of one cell, its mean and the most."""
    costs = [record.cost for record in records if record.cost]
    if not costs:
        return None
    told = [
        ("training, all stages, s", [sum(stage.seconds for stage in c.stages) for c in costs]),
        ("features, s", [c.features_seconds for c in costs]),
        ("readout, s", [c.readout_seconds for c in costs]),
        ("these together, s", [*map(seconds_of, costs)]),
        ("images seen", [float(c.images_seen) for c in costs]),
        ("peak memory, GB", [c.peak_memory_gb for c in costs]),
    ]
    body = [[Cell(name), Cell(amount(fmean(v))), Cell(amount(max(v)))] for name, v in told]
    return Table(f"Of one cell, over {len(costs):,}", ("cost", "mean", "most"), body)


def amount(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def hardware(records: Sequence[Record]) -> list[tuple[str, str]]:
    """What the cells ran on."""
    if not records:
        return []
    environments = [record.environment for record in records]
    devices = {stage.device for r in records if r.cost for stage in r.cost.stages}
    packages = {f"{n} {v}" for e in environments for n, v in e.packages.items()}
    return [
        ("Device", several({*devices, *(e.device for e in environments)})),
        ("Threads", several(str(e.threads) for e in environments)),
        ("Platform", several(f"{e.platform}, Python {e.python}" for e in environments)),
        ("benchbench", several(e.benchbench for e in environments)),
        ("Packages", several(packages, 20)),
    ]


def plugin_table(records: Sequence[Record]) -> Table | None:
    """The plugins that a method used, each with all versions that there were."""
    found: dict[tuple[str, str, str, str], set[str]] = defaultdict(set)
    for record in records:
        for plugin in record.plugins:
            if plugin.used:
                key = (plugin.name, plugin.distribution, plugin.version, plugin.digest[:12])
                found[key] |= {*plugin.used}
    body = [
        [*map(Cell, key), Cell(several(used, 8), tone="long")]
        for key, used in sorted(found.items())
    ]
    head = ("plugin", "distribution", "version", "source digest", "used")
    return Table("Plugins that were used", head, body, 5) if body else None


def paper_table(told: Reported, row: Row | None, shifts: Sequence[str]) -> Table:
    """What a paper says, beside what was measured here where there is a row of its name."""
    head = ("shift", "paper", "here") if row else ("shift", "paper")
    body = []
    for shift in dict.fromkeys([*shifts, *told.values]):
        value = told.values.get(shift)
        line = [Cell(shift), Cell("–" if value is None else f"{value:.1f}")]
        if row:
            line.append(Cell(formats.said(row.entries[shift]) if shift in row.entries else "–"))
        body.append(line)
    return Table(f"{told.source}, %", head, body)
