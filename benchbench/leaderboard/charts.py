"""Pictures of a board as SVG: on its page in the page's colours, as files with their own."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, floor, log10
from statistics import fmean
from typing import Literal

import numpy as np
from markupsafe import Markup

from benchbench.leaderboard import escaping
from benchbench.leaderboard.selection import State
from benchbench.leaderboard.table import Board, Row
from benchbench.leaderboard.table_formats import between, rule_name, spread
from benchbench.store.records import value_of

WIDTH, LEFT, RIGHT, TOP = 560, 52, 16, 30  # pixels; text is 13 of them high, on a page at least 11
HEIGHT, BELOW, LINE = 300, 44, 19  # of the plotting area, of the axis below it, of a line of text
COLOURS, MOST_POINTS, MOST_LANES, POINTS = 7, 400, 30, 40
STYLE = Markup("""
.chart { --c0: #0072b2; --c1: #c65400; --c2: #008060; --c3: #b5588c; --c4: #a87000; --c5: #3b8fc4;
  --c6: #5b4ba0; --quiet: #667079; --grid: #e2e5e9; --plain: #fff;
  font: 13px system-ui, sans-serif; }
@media (prefers-color-scheme: dark) { .chart { --c0: #56b0ee; --c1: #ff9255; --c2: #3ecfa4;
  --c3: #eba3cb; --c4: #f0bd55; --c5: #9ad8ff; --c6: #b5a6f5; --quiet: #98a2ac; --grid: #30363d;
  --plain: #16191d; } }
.chart text { fill: currentColor; } .chart .quiet { fill: var(--quiet); }
.chart .grid { stroke: var(--grid); } .chart .axis { stroke: var(--quiet); }
.chart .dash { stroke: var(--quiet); stroke-dasharray: 5 4; }
.chart .mark { fill: var(--m); stroke: var(--plain); stroke-width: 1; }
.chart .hollow { fill: var(--plain); stroke: var(--m); stroke-width: 2; }
.chart .span { stroke: var(--m); stroke-width: 2; opacity: .55; }
.chart .curve { fill: none; stroke: var(--m); stroke-width: 2; stroke-linejoin: round; }
.chart .band { fill: var(--m); opacity: .18; }
.chart .m0 { --m: var(--c0); } .chart .m1 { --m: var(--c1); } .chart .m2 { --m: var(--c2); }
.chart .m3 { --m: var(--c3); } .chart .m4 { --m: var(--c4); } .chart .m5 { --m: var(--c5); }
.chart .m6 { --m: var(--c6); } .chart .m7 { --m: var(--quiet); }
.chart .end { text-anchor: end; } .chart .middle { text-anchor: middle; }
""")
ALONE = Markup("""svg { color: #1b1f24; background: #fff; }
@media (prefers-color-scheme: dark) { svg { color: #e6e9ec; background: #16191d; } }
""")
SHAPES = (
    "M-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z",
    "M-4-4h8v8h-8z",
    "M0-6L5.2 4h-10.4z",
    "M0-5.8L5.8 0 0 5.8-5.8 0z",
    "M0 6L5.2-4h-10.4z",
    "M-1.7-5h3.4v3.3h3.3v3.4h-3.3v3.3h-3.4v-3.3h-3.3v-3.4h3.3z",
    "M-4.7-2.5l2.2-2.2L0-2.2 2.5-4.7l2.2 2.2L2.2 0l2.5 2.5-2.2 2.2L0 2.2-2.5 4.7l-2.2-2.2L-2.2 0z",
)
Picks = Mapping[tuple[str, int], State | None]  # what counts, by shift and seed
Link = Callable[[Row], str]  # where on the page a row is told of; nothing where there is none


@dataclass(frozen=True)
class Chart:
    """One picture. Its name is safe in ids and in names of files."""

    name: str
    title: str
    caption: str
    svg: Markup


@dataclass(frozen=True)
class Mark:
    """A shape in a colour: either tells who it is."""

    shape: int
    colour: int
    hollow: bool = False


@dataclass(frozen=True)
class Point:
    x: float
    y: float
    mark: Mark
    said: str  # who it is, and both numbers
    interval: tuple[float, float] | None = None  # of y
    link: str = ""


@dataclass(frozen=True)
class Lane:
    """A line of a chart: a label, and dots on an axis that all share."""

    label: str
    dots: tuple[tuple[float, Mark, str], ...]
    span: tuple[float, float] | None
    link: str = ""


@dataclass(frozen=True)
class Scale:
    """From numbers to pixels."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, value = (log10(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (value - low) / ((high - low) or 1) * (self.end - self.start)

    def ticks(self) -> list[float]:
        if not self.log:
            return steps(self.low, self.high)
        powers = range(floor(log10(self.low)), floor(log10(self.high)) + 1)
        for parts in ((1, 2, 5), (1, 3), (1,)):
            found = [part * 10.0**power for power in powers for part in parts]
            found = [value for value in found if self.low <= value <= self.high]
            if 2 <= len(found) <= 7:
                return found
        return found if len(found) > 7 else steps(self.low, self.high)


FIRST, ORACLE, LAST, OTHERS = Mark(0, 0), Mark(3, 1, True), Mark(1, 7, True), Mark(0, 7)
REFERENCE = Mark(1, 7, True)


def pictures(board: Board, picked: Mapping[str, Picks], link: Link = lambda row: "") -> list[Chart]:
    """All that there is something to draw for. ``picked`` is what counts of every method."""
    drawn = (
        means(board, link),
        against_cost(board, link),
        source_and_target(board, picked),
        beside_connectivity(board, picked),
        by_rules(board, link),
    )
    return [chart for chart in drawn if chart]


def as_file(chart: Chart) -> str:
    """A picture that needs no page around it."""
    head = '<svg xmlns="http://www.w3.org/2000/svg"'
    body = str(chart.svg).replace("<svg", head, 1)
    return body.replace("</desc>", f"</desc><style>{STYLE}{ALONE}</style>", 1) + "\n"


def marks_of(board: Board) -> dict[str, Mark]:
    """The first methods have shapes and colours of their own; the others are grey."""
    names = [row.method for row in board.rows if row.group == "method"]
    known = {name: Mark(n, n) for n, name in enumerate(names[:COLOURS])}
    others = {"method": OTHERS, "reference": REFERENCE}
    drawn = [row for row in board.rows if row.group in others]
    return {row.method: known.get(row.method, others[row.group]) for row in drawn}


def keys_of(board: Board, shown: Iterable[str]) -> list[tuple[Mark, str]]:
    """What a legend says of the marks of these methods, each mark once."""
    marks, there = marks_of(board), {*shown}
    found: dict[Mark, list[str]] = {}
    for row in board.rows:
        if row.method in there and row.group in ("method", "reference"):
            found.setdefault(marks[row.method], []).append(row.method)
    kinds = {OTHERS: "other methods", REFERENCE: "references"}
    return [(m, kinds[m] if len(who) > 1 else who[0]) for m, who in found.items()]


def means(board: Board, link: Link) -> Chart | None:
    """Every complete row's mean over shifts, with its interval."""
    rows = [row for row in board.rows if row.complete and row.group != "ceiling"]
    if len(rows) < 2:
        return None
    kinds = {"method": FIRST, "reference": REFERENCE, "reported": ORACLE}
    lanes = [
        Lane(
            row.method,
            ((fmean(row.average), kinds[row.group], f"{row.method}: {spread(row.average)}"),),
            row.interval,
            link(row),
        )
        for row in rows
    ]
    names = {
        "method": "method",
        "reference": "reference: nothing is trained",
        "reported": "from a paper",
    }
    there = {row.group for row in rows}
    keys = [(mark, names[group]) for group, mark in kinds.items() if group in there]
    caption = f"{over_all(board, rows)}.{ceilings(board)}{cut(len(lanes))}"
    return laned("means", "Means and how sure they are", caption, lanes, measured(board), keys)


def against_cost(board: Board, link: Link) -> Chart | None:
    """What a method reaches, and the time it takes."""
    rows = [r for r in board.rows if r.complete and r.seconds and r.group != "ceiling"]
    if len(rows) < 2:
        return None
    marks = marks_of(board)
    points = [
        Point(
            row.seconds or 0,
            fmean(row.average),
            marks[row.method],
            f"{row.method}: {spread(row.average)}, {row.seconds:.3g} s",
            row.interval,
            link(row),
        )
        for row in rows
    ]
    return scattered(
        Chart(
            "cost",
            "Accuracy against cost" if board.metric == "accuracy" else "Score against cost",
            f"{over_all(board, rows)}; seconds of one cell with all of its stages. Better is up, "
            f"cheaper is left.{ceilings(board)}",
            Markup(),
        ),
        points,
        "seconds of one cell",
        measured(board),
        keys_of(board, [row.method for row in rows]),
        log=True,
    )


def source_and_target(board: Board, picked: Mapping[str, Picks]) -> Chart | None:
    """In-distribution against out-of-distribution."""
    pairs = [
        (row.method, shift, source, target)
        for row in board.rows
        if row.group != "ceiling"
        for shift in board.shifts
        for states in [states_on(board, picked, row.method, shift)]
        if (source := average(states, "source")) is not None
        if (target := average(states, "target")) is not None
    ]
    what = "One point is a method on a shift, its mean over seeds."
    if len(pairs) > MOST_POINTS:
        pairs = over_shifts(pairs)
        what = "One point is a method, its mean over shifts and seeds."
    if len(pairs) < 2:
        return None
    marks = marks_of(board)
    points = [
        Point(x, y, marks[name], f"{name}, {shift}: source {x:.1f}, target {y:.1f}")
        for name, shift, x, y in pairs
    ]
    return scattered(
        Chart(
            "source-and-target",
            "Source against target",
            f"{what} On the dashed line the target is as easy as the source; the distance below it "
            "is what the shift costs.",
            Markup(),
        ),
        points,
        "on test rows of the source, %",
        measured(board),
        keys_of(board, [pair[0] for pair in pairs]),
        diagonal=True,
    )


def over_shifts(
    pairs: Sequence[tuple[str, str, float, float]],
) -> list[tuple[str, str, float, float]]:
    names = dict.fromkeys(name for name, *_ in pairs)
    mine = {name: [pair for pair in pairs if pair[0] == name] for name in names}
    return [
        (name, "all shifts", fmean(p[2] for p in told), fmean(p[3] for p in told))
        for name, told in mine.items()
    ]


def beside_connectivity(board: Board, picked: Mapping[str, Picks]) -> Chart | None:
    """What a method reaches on a shift, and how its first augmentation connects the domains."""
    ratios = {
        (told.fingerprint, told.shift, told.augmentation): exp(told.log_ratios[0])
        for told in board.source.connectivity
    }
    marks = marks_of(board)
    points, shown = [], []
    for row in board.rows:
        for shift in board.shifts if row.group != "ceiling" else ():
            states = states_on(board, picked, row.method, shift)
            if not states or not states[0].record.spec.chain:
                continue
            record = states[0].record
            key = (record.data.fingerprint, shift, record.spec.chain[0].augmentation)
            ratio, reached = ratios.get(key), average(states, "target")
            if ratio is None or reached is None:
                continue
            said = f"{row.method}, {shift}: α/γ {ratio:.2f}, reached {reached:.1f}"
            points.append(Point(ratio, reached, marks[row.method], said))
            shown.append(row.method)
    if len(points) < 2:
        return None
    return scattered(
        Chart(
            "connectivity",
            "Connectivity and what is reached",
            "One point is a method on a shift. α/γ: how much more often the augmentation lets a "
            "class be taken for itself in the other domain than for another class there; right of "
            "1 it connects the domains.",
            Markup(),
        ),
        points,
        "α/γ of the method's first augmentation",
        measured(board),
        keys_of(board, shown),
        log=True,
    )


def by_rules(board: Board, link: Link) -> Chart | None:
    """What other rules would have chosen of the same runs."""
    rows = [row for row in board.rows if row.draws and any(v is not None for v in told_by(row))]
    if not rows:
        return None
    mine = board.source.expected.rule
    special = {"oracle": ORACLE, "last": LAST, mine: FIRST}
    lanes = []
    for row in rows:
        known = [(rule, value) for rule, value in row.by_rule.items() if value is not None]
        known.sort(key=lambda pair: pair[0] in special)  # drawn last, on top
        dots = tuple(
            (value, special.get(rule, OTHERS), f"{row.method}, {rule_name(rule)}: {value:.1f}")
            for rule, value in known
        )
        ends = [value for rule, value in known if rule in (mine, "oracle")]
        span = (min(ends), max(ends)) if len(ends) == 2 else None
        lanes.append(Lane(row.method, dots, span, link(row)))
    there = {rule for row in rows for rule, value in row.by_rule.items() if value is not None}
    keys = [(FIRST, f"{rule_name(mine)}: the board's rule"), (ORACLE, "oracle: by target labels")]
    keys += [(LAST, "last: nothing chosen")] if "last" in there and mine != "last" else []
    keys += [(OTHERS, "other rules")] if there - {*special} else []
    caption = (
        "The mean over shifts, had another rule chosen of the same draws and snapshots. The line "
        "from the board's rule to the oracle's is the oracle gap." + cut(len(lanes))
    )
    return laned("rules", "By the rule of selection", caption, lanes, measured(board), keys)


def told_by(row: Row) -> list[float | None]:
    return [*row.by_rule.values()]


def learning(name: str, title: str, losses: Sequence[Sequence[float]]) -> Chart | None:
    """The losses of one stage: the median over cells, and between the lowest and the highest."""
    told = [one for one in losses if len(one) > 1]
    if not told:
        return None
    places = np.linspace(0, 1, POINTS)
    known = {count: np.linspace(0, 1, count) for count in {*map(len, told)}}
    every = np.stack([np.interp(places, known[len(one)], one) for one in told])
    low, middle, high = every.min(0), np.median(every, 0), every.max(0)
    log = bool(low.min() > 0)
    x = Scale(0, 100, LEFT, WIDTH - RIGHT)
    y = scale([low.min(), high.max()], TOP + 150, TOP, log)
    line = polyline(x, y, places, middle)
    band = f"{polyline(x, y, places, high)}L{polyline(x, y, places[::-1], low[::-1])[1:]}Z"
    cells = f"{len(told)} cell" + "s" * (len(told) > 1)
    said = f"{cells}, loss from {middle[0]:.3g} to {middle[-1]:.3g}."
    if len(told) > 1:
        said += " The line is the median, and the band reaches from the lowest to the highest."
    body = frame(x, y, "share of the steps, %", "loss" + ", log scale" * log)
    body += Markup(
        '<g class="m0"><path class="band" d="{}"/><path class="curve" d="{}"/></g>'
    ).format(band, line)
    whole = Chart(name, title, said, Markup())
    return replace(whole, svg=canvas(whole, TOP + 150 + BELOW, body))


def polyline(x: Scale, y: Scale, places: np.ndarray, values: np.ndarray) -> str:
    points = zip(places, values, strict=True)
    return "M" + "L".join(f"{x(100 * p):.0f} {y(float(v)):.1f}" for p, v in points)


def scattered(
    chart: Chart,
    points: Sequence[Point],
    across: str,
    up: str,
    keys: Sequence[tuple[Mark, str]],
    *,
    log: bool = False,
    diagonal: bool = False,
) -> Chart:
    heights = [value for p in points for value in (p.y, *(p.interval or ()))]
    widths = [p.x for p in points]
    if diagonal:
        widths = heights = [*widths, *heights]
    x = scale(widths, LEFT, WIDTH - RIGHT, log)
    y = scale(heights, TOP + HEIGHT, TOP)
    body = frame(x, y, across + (", log scale" if log else ""), up)
    if diagonal:
        body += line(x(x.low), y(x.low), x(x.high), y(x.high), "dash")
    body += Markup().join(
        linked(p.link, p.said, bar(x(p.x), y, p) + placed(p.mark, x(p.x), y(p.y))) for p in points
    )
    top = TOP + HEIGHT + BELOW + 20
    body += legend(keys, top)
    lines = (len(keys) + 1) // 2
    return replace(chart, svg=canvas(chart, top + lines * LINE, body))


def bar(x: float, y: Scale, point: Point) -> Markup:
    if point.interval is None:
        return Markup()
    low, high = map(y, point.interval)
    return line(x, low, x, high, f"span m{point.mark.colour}")


def laned(
    name: str,
    title: str,
    caption: str,
    lanes: Sequence[Lane],
    across: str,
    keys: Sequence[tuple[Mark, str]],
) -> Chart:
    shown = lanes[:MOST_LANES]
    values = [v for lane in shown for v in (*(d[0] for d in lane.dots), *(lane.span or ()))]
    names = [short(lane.label, 29) for lane in shown]
    gap, label = 24, 24 + 8 * max(map(len, names))
    x = scale(values, label, WIDTH - RIGHT)
    bottom = TOP + gap * len(shown)
    body = Markup().join(
        line(x(tick), TOP, x(tick), bottom, "grid")
        + words(f"{tick:g}", x(tick), bottom + 16, "quiet middle")
        for tick in x.ticks()
    )
    body += words(across, WIDTH - RIGHT, bottom + 36, "quiet end")
    for number, lane in enumerate(shown):
        height = TOP + gap * (number + 0.5)
        said = "; ".join(dot[2] for dot in lane.dots)
        drawn = words(names[number], label - 14, height + 4, "end")
        if lane.span:
            colour = lane.dots[0][1].colour if len(lane.dots) == 1 else FIRST.colour
            drawn += line(x(lane.span[0]), height, x(lane.span[1]), height, f"span m{colour}")
            if len(lane.dots) == 1:
                said += f", 95 % interval {between(lane.span)}"
        drawn += Markup().join(placed(mark, x(value), height) for value, mark, _ in lane.dots)
        body += linked(lane.link, said, drawn)
    top = bottom + BELOW + 20
    body += legend(keys, top)
    chart = Chart(name, title, caption, Markup())
    return replace(chart, svg=canvas(chart, top + (len(keys) + 1) // 2 * LINE, body))


def canvas(chart: Chart, height: float, body: Markup) -> Markup:
    return Markup(
        '<svg class="chart" role="group" aria-labelledby="{name}-title {name}-desc" '
        'width="{width}" height="{height:.0f}" viewBox="0 0 {width} {height:.0f}">'
        '<title id="{name}-title">{title}</title><desc id="{name}-desc">{caption}</desc>'
        "{body}</svg>"
    ).format(
        name=f"chart-{chart.name}",
        width=WIDTH,
        height=height,
        title=escaping.visible(chart.title),
        caption=escaping.visible(chart.caption),
        body=body,
    )


def frame(x: Scale, y: Scale, across: str, up: str) -> Markup:
    """Axes with numbers, lines behind the marks, and what is measured."""
    body = words(up, 0, 14, "quiet")
    for tick in y.ticks():
        body += line(LEFT, y(tick), WIDTH - RIGHT, y(tick), "grid")
        body += words(f"{tick:g}", LEFT - 8, y(tick) + 4, "quiet end")
    body += line(LEFT, y.start, WIDTH - RIGHT, y.start, "axis")
    for tick in x.ticks():
        body += line(x(tick), y.start, x(tick), y.start + 4, "axis")
        body += words(f"{tick:g}", x(tick), y.start + 18, "quiet middle")
    return body + words(across, WIDTH - RIGHT, y.start + 38, "quiet end")


def legend(keys: Sequence[tuple[Mark, str]], top: float) -> Markup:
    """Marks and names in two columns."""
    body = Markup()
    for number, (mark, name) in enumerate(keys):
        left, height = LEFT - 40 + 278 * (number % 2), top + number // 2 * LINE
        body += placed(mark, left, height - 4) + words(short(name, 40), left + 14, height, "")
    return body


def linked(link: str, said: str, body: Markup) -> Markup:
    """What one mark says to who points at it or cannot see it; where it leads to, if anywhere."""
    named = Markup("<title>{}</title>{}").format(escaping.visible(said), body)
    if link:
        return Markup('<a href="#{}">{}</a>').format(link, named)
    return Markup('<g role="img">{}</g>').format(named)


def placed(mark: Mark, x: float, y: float) -> Markup:
    kind = "hollow" if mark.hollow else "mark"
    return Markup('<path class="{} m{}" transform="translate({:.1f} {:.1f})" d="{}"/>').format(
        kind, mark.colour, x, y, SHAPES[mark.shape]
    )


def line(x0: float, y0: float, x1: float, y1: float, kind: str) -> Markup:
    return Markup('<path class="{}" d="M{:.1f} {:.1f}L{:.1f} {:.1f}"/>').format(
        kind, x0, y0, x1, y1
    )


def words(text: str, x: float, y: float, kind: str) -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}">{}</text>').format(
        kind, x, y, escaping.visible(text)
    )


def scale(values: Sequence[float], start: float, end: float, log: bool = False) -> Scale:
    """As wide as the values, and a little more; never of no width."""
    low, high = float(min(values)), float(max(values))
    if log:
        room = (high / low) ** 0.06 if high > low else 1.3
        return Scale(low / room, high * room, start, end, True)
    room = 0.06 * (high - low) or 1.0
    return Scale(low - room, high + room, start, end)


def steps(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers from ``low`` to ``high``, a handful."""
    power = 10.0 ** floor(log10((high - low) / most))
    step = next(part * power for part in (1, 2, 5, 10) if (high - low) / (part * power) <= most)
    first = int(np.ceil(low / step))
    return [round(n * step, 10) for n in range(first, int(np.floor(high / step)) + 1)]


def short(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def measured(board: Board) -> str:
    return f"{board.metric.replace('_', ' ')} on test rows of the target, %"


def over_all(board: Board, rows: Sequence[Row]) -> str:
    """What a mark of a row is."""
    sure = ", with its 95 % interval" if any(row.interval for row in rows) else ""
    shifts = f"{len(board.shifts)} shifts" if len(board.shifts) > 1 else "one shift"
    return f"Mean over {shifts}{sure}"


def ceilings(board: Board) -> str:
    """What is left out, as it would make all others look alike."""
    told = [r for r in board.rows if r.group == "ceiling" and r.complete]
    named = ", ".join(f"{row.method} {spread(row.average)}" for row in told)
    return f" Not drawn, for it reads target labels: {named}." if named else ""


def cut(lanes: int) -> str:
    return f" The first {MOST_LANES} of {lanes}." if lanes > MOST_LANES else ""


def states_on(board: Board, picked: Mapping[str, Picks], method: str, shift: str) -> list[State]:
    """What counts of a method on a shift; nothing if a seed lacks it."""
    mine = picked.get(method, {})
    found = [mine.get((shift, seed)) for seed in board.source.expected.seeds]
    whole = [state for state in found if state]
    return whole if len(whole) == len(found) else []


def average(states: Sequence[State], role: Literal["source", "target"]) -> float | None:
    values = [value_of(state.scores, role) for state in states]
    known = [100 * value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None
