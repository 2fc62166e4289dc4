"""Records in, a table out. A pure function of the records and of what is known beside them."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from statistics import mean
from typing import Literal

import numpy as np

from benchbench.extension.constants import Rule
from benchbench.extension.errors import BadInput
from benchbench.extension.grammar import instead
from benchbench.leaderboard import statistics
from benchbench.leaderboard.board_folder import Expected, Level, Predictions, Reported, Source
from benchbench.leaderboard.selection import RULES, Place, State, chosen, held_out_of, states_of
from benchbench.leaderboard.statistics import Comparison, Results, Stratum
from benchbench.leaderboard.true_labels import Truth
from benchbench.store.records import Cost, Diagnostics, Record, prediction_name, value_of

ALL_DIAGNOSTICS = tuple(Diagnostics.model_fields)
HANDFUL = ("class_cosine", "domain_cosine", "domain_accuracy", "effective_rank")
LEAST_SEEDS = 3  # to be ranked

Group = Literal["method", "reference", "ceiling", "reported"]
GROUPS: tuple[Group, ...] = ("method", "reference", "ceiling", "reported")


@dataclass(frozen=True)
class Entry:
    """One method on one shift. Percents, one per seed; none if a seed lacks one."""

    values: tuple[float, ...]
    lacks: Mapping[str, int]  # how many seeds are missing, failed, diverged, oom or stale


@dataclass(frozen=True)
class Ranks:
    """A place among the methods that can be ranked. Percents."""

    place: int  # by the mean
    low: int  # the best that cannot be ruled out, at 95 % for all methods at once
    high: int
    tie: int  # methods of one number cannot be told from the first of them
    mean_rank: float  # over shifts
    borda: float  # methods left behind, summed over shifts; half for equals
    iqm: float  # interquartile mean over shifts and seeds
    worst: float  # the mean on the shift where it is lowest
    worst_shift: str


@dataclass(frozen=True)
class Row:
    """One method on every shift, by the board's rule of selection."""

    method: str
    group: Group  # "reference" where nothing is trained, "ceiling" on target labels
    reads: str
    sees: str
    readout: str
    entries: Mapping[str, Entry]
    source: tuple[float, ...]  # on the source domain's test rows, if there are, per seed
    average: tuple[float, ...]  # over shifts, per seed; empty unless every cell is scored
    interval: tuple[float, float] | None  # of the mean, 95 %
    against: Comparison | None  # the baseline, in percent
    ranks: Ranks | None
    unranked: str  # why, if it is not
    by_rule: Mapping[Rule, float | None]  # the mean by every rule; where there is a choice
    images_seen: int | None
    seconds: float | None  # training, features and readout of one cell, all stages counted
    diagnostics: Mapping[str, tuple[float, ...]]  # by name, as the average; those asked for
    level: Level | None = None  # of what somebody else has sent
    reported: Reported | None = None

    @property
    def complete(self) -> bool:
        return bool(self.average)

    @property
    def draws(self) -> bool:
        """Whether there was anything to choose."""
        return bool(self.by_rule)

    @property
    def oracle_gap(self) -> float | None:
        """How much more the oracle's choice would have reached, in points."""
        best = self.by_rule.get("oracle")
        return best - mean(self.average) if best is not None and self.complete else None


@dataclass(frozen=True)
class Board:
    """Rows, best first; references, ceilings and what papers say come last."""

    source: Source
    rows: tuple[Row, ...]
    columns: tuple[str, ...]  # of diagnostics
    metric: str
    by_row: bool  # whether tests and intervals know which test rows are right, beside seeds

    @cached_property
    def places(self) -> dict[Place, list[Record]]:
        return by_place(self.source.records)

    @cached_property
    def picked(self) -> dict[str, dict[tuple[str, int], State | None]]:
        """What the rule chose, by method."""
        expected, methods = self.source.expected, dict.fromkeys(name for name, _, _ in self.places)
        return {m: picks(self.places, m, expected, expected.rule) for m in methods}

    @property
    def shifts(self) -> tuple[str, ...]:
        return self.source.expected.shifts

    @property
    def compares(self) -> str | None:
        """The baseline, if there is one."""
        return self.source.expected.baseline

    @property
    def ranked(self) -> list[Row]:
        return [row for row in self.rows if row.ranks]

    @property
    def rules(self) -> list[Rule]:
        """Those by which anything was chosen; none where there was no choice."""
        told = [row.by_rule for row in self.rows]
        return [rule for rule in RULES if any(by.get(rule) is not None for by in told)]


def board(source: Source, columns: Sequence[str] = ()) -> Board:
    """BadInput if the records differ in what they were measured on, or two are of one cell."""
    check_alike([record for record in source.records if record.cell_id not in source.stale])
    places: dict[str, dict[Place, list[Record]]] = {}
    for place, members in by_place(source.records).items():
        places.setdefault(place[0], {})[place] = members
    drafts = [draft(source, places.get(m, {}), m, columns) for m in source.expected.methods]
    rows = ranked(compared(drafts, source.expected.baseline))
    rows += [row_of_report(told, source.expected.shifts) for told in source.reported]
    metric = next((record.data.metric for record in source.records), "accuracy")
    by_row = any(one.results.strata for one in drafts if one.results)
    return Board(source, tuple(sorted(rows, key=place_of)), tuple(columns), metric, by_row)


def checked_board(source: Source, columns: Sequence[str] = ()) -> Board:
    """As `board`. BadInput also if predictions are damaged that no row needs."""
    read: set[str] = set()

    def noted(record: Record) -> Predictions:
        read.add(record.cell_id)
        return source.predictions(record)

    made = board(replace(source, predictions=noted), columns)
    for record in source.records:
        if record.cell_id not in read:
            source.predictions(record)
    return replace(made, source=source)


def place_of(row: Row) -> tuple[int, bool, bool, float]:
    """Best first within a group, of those that can be ranked, then of those that are complete."""
    best_first = -mean(row.average) if row.complete else 0.0
    return GROUPS.index(row.group), row.ranks is None, not row.complete, best_first


def check_alike(records: Sequence[Record]) -> None:
    for what, values in (
        ("data", {record.data.fingerprint[:12] for record in records}),
        ("protocols", {record.protocol for record in records}),
        ("precisions", {record.spec.precision for record in records if record.spec.chain}),
    ):
        if len(values) > 1:
            raise BadInput(f"the records are of several {what}: {', '.join(sorted(values))}")


def by_place(records: Iterable[Record]) -> dict[Place, list[Record]]:
    """The records of every method, shift and training seed, by draw. BadInput for two of one."""
    found: dict[Place, list[Record]] = {}
    for record in sorted(records, key=lambda r: r.draw):
        mine = found.setdefault((record.method, record.shift, record.seeds.train), [])
        if mine and mine[-1].draw == record.draw:
            ids = " and ".join(sorted(r.cell_id[:12] for r in (mine[-1], record)))
            named = f"{record.method} · {record.shift} · {record.seeds.train}"
            raise BadInput(f"two records, {ids}, are of {named}")
        mine.append(record)
    return found


@dataclass(frozen=True)
class Draft:
    """A row, and what tests compare it by: nothing, unless it is complete."""

    row: Row
    results: Results | None


def draft(
    source: Source, places: Mapping[Place, list[Record]], method: str, columns: Sequence[str]
) -> Draft:
    """``places`` are those of the method."""
    wanted = source.expected
    records = [record for members in places.values() for record in members]
    picked = picks(places, method, wanted, wanted.rule)
    entries = {
        shift: entry(
            [state_of(source, places, method, shift, seed) for seed in wanted.seeds],
            [picked[shift, seed] for seed in wanted.seeds],
        )
        for shift in wanted.shifts
    }
    complete = bool(entries) and not any(entry.lacks for entry in entries.values())
    every = (
        [
            [state for shift in wanted.shifts if (state := picked[shift, seed])]
            for seed in wanted.seeds
        ]
        if complete
        else []
    )
    results = results_of(source, every) if complete else None
    first = records[0] if records else None
    chain = first.spec.chain if first else ()
    costs = [record.cost for record in records if record.cost]
    averages = tuple(mean(percents(states, "target")) for states in every)
    row = Row(
        method=method,
        group=group_of(first),
        reads=joined(" + ".join(stage.reads) or "images" for stage in chain),
        sees=joined(stage.sees for stage in chain),
        readout=first.spec.readout.partition("(")[0] if first else "–",
        entries=entries,
        source=tuple(mean(known) for states in every if (known := percents(states, "source"))),
        average=averages,
        interval=in_percent(statistics.interval(results)) if results else None,
        against=None,
        ranks=None,
        unranked=why_unranked(group_of(first), entries, len(wanted.seeds)),
        by_rule=by_rule(places, method, wanted),
        images_seen=max((cost.images_seen for cost in costs), default=None),
        seconds=mean(map(seconds_of, costs)) if costs else None,
        diagnostics={name: diagnosed(every, name) for name in columns},
        level=source.levels.get(method),
    )
    return Draft(row, results)


def group_of(record: Record | None) -> Group:
    if record is not None and record.spec.labels == "target":
        return "ceiling"
    return "reference" if record is not None and not record.spec.chain else "method"


def why_unranked(group: Group, entries: Mapping[str, Entry], seeds: int) -> str:
    if group != "method":
        return {"reference": "trains nothing", "ceiling": "reads target labels"}.get(group, "")
    if lacks := sorted({status for entry in entries.values() for status in entry.lacks}):
        return ", ".join(lacks)
    return f"{seeds} of {LEAST_SEEDS} seeds" if seeds < LEAST_SEEDS else ""


def picks(
    places: Mapping[Place, list[Record]], method: str, wanted: Expected, rule: Rule
) -> dict[tuple[str, int], State | None]:
    """What the rule chooses for every shift and seed."""
    found = {}
    for shift, seed in product(wanted.shifts, wanted.seeds):
        place = (method, shift, seed)
        states = states_of(places.get(place, ()))
        found[shift, seed] = chosen(states, rule, held_out_of(places, place))
    return found


def by_rule(
    places: Mapping[Place, list[Record]], method: str, wanted: Expected
) -> dict[Rule, float | None]:
    """The mean over shifts and seeds, in percent, by every rule; nothing without a choice."""
    if not any(len(states_of(records)) > 1 for records in places.values()):
        return {}
    told: dict[Rule, float | None] = {}
    for rule in RULES:
        states = [*picks(places, method, wanted, rule).values()]
        values = percents([state for state in states if state], "target")
        told[rule] = mean(values) if states and len(values) == len(states) else None
    return told


def state_of(
    source: Source, places: Mapping[Place, list[Record]], method: str, shift: str, seed: int
) -> str:
    """What became of a method with one seed: scored, or what it lacks."""
    records = places.get((method, shift, seed), [])
    if any(record.cell_id in source.stale for record in records):
        return "stale"
    trains = any(record.spec.chain for record in records)
    if len(records) < (source.expected.draws if trains else 1):
        return "missing"
    states = [record.status for record in records]
    if "failed" in states:
        return "failed"
    return "scored" if "scored" in states else states[0]


def entry(states: Sequence[str], picked: Sequence[State | None]) -> Entry:
    """``states`` are what became of every seed, ``picked`` what the rule chose."""
    told = [
        "undecided" if state == "scored" and pick is None else state
        for state, pick in zip(states, picked, strict=True)
    ]
    lacks = Counter(state for state in told if state != "scored")
    values = percents([pick for pick in picked if pick], "target")
    known = {*lacks} <= {"stale"} and len(values) == len(picked)
    return Entry(tuple(values) if known else (), dict(sorted(lacks.items())))


def results_of(source: Source, every: Sequence[Sequence[State]]) -> Results:
    """``every`` are the states of each seed, in the order of the shifts."""
    values = np.array([[value_of(s.scores, "target") for s in states] for states in every]).T
    shared = together(every)
    if source.truth is None or source.truth.metric != "accuracy":
        return Results(values, (), shared)
    strata: list[Stratum] = []
    for states in zip(*every, strict=True):
        targets = states[0].record.data.targets
        for domain in targets:
            right = [rows_right(source, source.truth, state, domain) for state in states]
            known = [rows for rows in right if rows is not None]
            if len(known) < len(right):
                return Results(values, (), shared)
            strata.append(Stratum(1 / (len(every[0]) * len(targets)), np.stack(known), domain))
    return Results(values, tuple(strata), shared)


def together(every: Sequence[Sequence[State]]) -> np.ndarray:
    """bool [S, S]: the shifts that share a training with some seed, or the encoder untrained."""
    shifts = range(len(every[0]))
    found = np.eye(len(every[0]), dtype=bool)
    for states in every:
        stages = [{*s.record.artifacts.stages} if s.record.artifacts else set() for s in states]
        for one, other in product(shifts, shifts):
            found[one, other] |= bool(stages[one] & stages[other]) or not (
                stages[one] | stages[other]
            )
    return found


def rows_right(source: Source, truth: Truth, state: State, domain: str) -> np.ndarray | None:
    """bool [N]: whether each test row with a label is right; None where it is not known."""
    predicted = source.predictions(state.record).get(prediction_name(domain, state.step))
    labels = truth.labels.get(domain)
    if predicted is None or labels is None or len(predicted) != len(labels):
        return None
    return (predicted == labels)[labels >= 0]


def compared(drafts: Sequence[Draft], baseline: str | None) -> list[Draft]:
    """With the difference of each to the baseline."""
    base = next((d.results for d in drafts if d.row.method == baseline), None)

    def against(one: Draft) -> Comparison | None:
        if base is None or one.results is None or one.row.method == baseline:
            return None
        told = statistics.compare(one.results, base)
        low, high = (None if end is None else 100 * end for end in (told.low, told.high))
        return replace(told, difference=100 * told.difference, low=low, high=high)

    return [replace(d, row=replace(d.row, against=against(d))) for d in drafts]


def ranked(drafts: Sequence[Draft]) -> list[Row]:
    """Rows, with ranks where there is nothing against it."""
    able = [d for d in drafts if d.results is not None and not d.row.unranked]
    able.sort(key=lambda d: -mean(d.row.average))
    others = [d.row for d in drafts if d not in able]
    if not able:
        return others
    results = [d.results for d in able if d.results is not None]
    tests = statistics.every_pair(results)
    means = np.stack([told.values.mean(1) for told in results])  # [M, S]
    low, high = statistics.rank_intervals(tests).T
    ties = statistics.ties(range(len(able)), tests.adjusted)
    borda = statistics.borda(means)
    mean_ranks = statistics.mean_ranks(means)
    shifts = [*able[0].row.entries]
    rows = []
    for place, (one, told) in enumerate(zip(able, results, strict=True)):
        worst, lowest = statistics.worst(told.values)
        ranks = Ranks(
            place=place + 1,
            low=int(low[place]),
            high=int(high[place]),
            tie=int(ties[place]),
            mean_rank=float(mean_ranks[place]),
            borda=float(borda[place]),
            iqm=100 * statistics.interquartile_mean(told.values),
            worst=100 * lowest,
            worst_shift=shifts[worst],
        )
        rows.append(replace(one.row, ranks=ranks))
    return rows + others


def row_of_report(told: Reported, shifts: Sequence[str]) -> Row:
    entries = {s: Entry((told.values[s],) if s in told.values else (), {}) for s in shifts}
    whole = all(entry.values for entry in entries.values())
    return Row(
        method=told.method,
        group="reported",
        reads="–",
        sees="–",
        readout="–",
        entries=entries,
        source=(),
        average=(mean(told.values[shift] for shift in shifts),) if shifts and whole else (),
        interval=None,
        against=None,
        ranks=None,
        unranked="from a paper",
        by_rule={},
        images_seen=None,
        seconds=None,
        diagnostics={},
        reported=told,
    )


def diagnosed(every: Sequence[Sequence[State]], name: str) -> tuple[float, ...]:
    """One number for the records of every seed, their mean; none if one of them lacks it."""
    told = [[diagnostic(state.record, name) for state in states] for states in every]
    whole = [[value for value in values if value is not None] for values in told]
    return tuple(map(mean, whole)) if whole == told else ()


def diagnostic(record: Record, name: str) -> float | None:
    return getattr(record.diagnostics, name, None)


def percents(states: Iterable[State | Record], role: Literal["source", "target"]) -> list[float]:
    values = [value_of(state.scores, role) for state in states]
    return [100 * value for value in values if value is not None]


def in_percent(interval: tuple[float, float] | None) -> tuple[float, float] | None:
    return None if interval is None else (100 * interval[0], 100 * interval[1])


def seconds_of(cost: Cost) -> float:
    trained = sum(stage.seconds for stage in cost.stages)
    return trained + cost.features_seconds + cost.readout_seconds


def joined(parts: Iterable[str]) -> str:
    return " > ".join(parts) or "–"


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
