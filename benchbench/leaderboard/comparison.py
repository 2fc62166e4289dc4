"""Two methods of a board, by a paired test."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from statistics import fmean

from tabulate import tabulate

from benchbench.extension.errors import BadInput
from benchbench.extension.grammar import instead
from benchbench.leaderboard import escaping
from benchbench.leaderboard.board_folder import Source
from benchbench.leaderboard.statistics import Comparison
from benchbench.leaderboard.table import Entry, board, checked_board
from benchbench.leaderboard.table_formats import said, tenths


@dataclass(frozen=True)
class Line:
    """Two methods on one shift, or on all."""

    shift: str
    entries: tuple[Entry, Entry]
    comparison: Comparison | None  # in points; None unless both are complete


def compared(source: Source, one: str, other: str, as_json: bool) -> str:
    """A table, or JSON. BadInput if there is no such method, or both are the same."""
    for name in (one, other):
        if name not in source.expected.methods:
            raise BadInput(
                f"{source.name} has no method {name!r}; {instead(name, source.expected.methods)}"
            )
    if one == other:
        raise BadInput(f"{one!r} is compared with itself")
    lines, by_row = lines_of(source, one, other), checked_board(source).by_row
    if as_json:
        fields = [
            {
                "shift": line.shift,
                one: line.entries[0].values,
                other: line.entries[1].values,
                **(asdict(line.comparison) if line.comparison else {}),
            }
            for line in lines
        ]
        return json.dumps(fields, indent=1, allow_nan=False) + "\n"
    head = ["shift", one, other, "difference", "95 %", "p"]
    body = [[line.shift, *map(said, line.entries), *figures(line.comparison)] for line in lines]
    shown = [[escaping.markdown(cell) for cell in cells] for cells in (head, *body)]
    align = ["left"] + ["right"] * 5
    text = tabulate(shown[1:], shown[0], tablefmt="github", disable_numparse=True, colalign=align)
    return f"{text}\n\n{verdict(lines[-1], one, other, by_row=by_row)}\n"


def lines_of(source: Source, one: str, other: str) -> list[Line]:
    """Shift by shift, then over all."""
    shifts = source.expected.shifts
    found = []
    for title, some in [*((shift, (shift,)) for shift in shifts), ("all", shifts)]:
        wanted = replace(source.expected, methods=(one, other), shifts=some, baseline=other)
        made = board(replace(source, expected=wanted, reported=()))
        mine, its = (next(r for r in made.rows if r.method == name) for name in (one, other))
        both = tuple(whole(r.entries[s] for s in some) for r in (mine, its))
        found.append(Line(title, (both[0], both[1]), mine.against))
    return found


def whole(entries: Iterable[Entry]) -> Entry:
    """The mean over shifts, by seed."""
    every = [*entries]
    lacks: Counter[str] = Counter()
    for entry in every:
        lacks.update(entry.lacks)
    values = (
        tuple(map(fmean, zip(*(entry.values for entry in every), strict=True)))
        if all(entry.values for entry in every)
        else ()
    )
    return Entry(values, dict(lacks))


def figures(told: Comparison | None) -> list[str]:
    if told is None:
        return ["–"] * 3
    known = told.low is not None and told.high is not None
    between = f"{told.low:+.1f} … {told.high:+.1f}" if known else "–"
    return [tenths(told.difference, "+"), between, "–" if told.p is None else f"{told.p:.2g}"]


def verdict(line: Line, one: str, other: str, *, by_row: bool) -> str:
    """In words, and what the test is."""
    told = line.comparison
    test = (
        f"Paired over training seeds{' and test rows' if by_row else ''}; the shifts are taken as "
        "they are. The 95 % interval and p are of Student's t with Welch and Satterthwaite's "
        "degrees of freedom."
    )
    if told is None:
        return f"Not compared over all shifts: one of the two is not complete. {test}"
    if told.p is None:
        return f"One seed does not tell how much another would differ. {test}"
    better, worse = (one, other) if told.difference > 0 else (other, one)
    if told.p < 0.05:
        return f"{escaping.markdown(better)} is better than {escaping.markdown(worse)}. {test}"
    return f"The two cannot be told apart. {test}"
