"""What a Python call returns: a board that shows itself, and what a run left behind it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchbench.extension.errors import BadInput
from benchbench.extension.grammar import instead
from benchbench.leaderboard import table_formats
from benchbench.leaderboard.board_folder import Source
from benchbench.leaderboard.comparison import Line, compared, lines_of
from benchbench.leaderboard.table import Board as Table
from benchbench.leaderboard.table import checked_board

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from matplotlib.figure import Figure

    from benchbench.extension.constants import Rule
    from benchbench.store.records import Record
    from benchbench.suites.plan import Plan
    from benchbench.suites.suite import Cell


FORMS = ("markdown", "csv", "latex", "json")


class Board:
    """A table of methods under domain shift, made of records.

    It is printed as Markdown, and shown as HTML in a notebook. Values are in percent of the
    dataset's own metric.
    """

    source: Source
    columns: tuple[str, ...]

    def __init__(self, source: Source, columns: Sequence[str] = ()) -> None:
        self.source, self.columns = source, tuple(columns)

    @cached_property
    def table(self) -> Table:
        """Every row with its statistics; see `benchbench.leaderboard.table.Board`.

        BadInput if predictions are damaged.
        """
        return checked_board(self.source, self.columns)

    @property
    def name(self) -> str:
        """That of the suite."""
        return self.source.name

    @property
    def records(self) -> tuple[Record, ...]:
        """One for each cell that was run: what was measured, and all that it takes to repeat it."""
        return self.source.records

    @property
    def methods(self) -> tuple[str, ...]:
        """Their names, the best first, then those that are not ranked."""
        return tuple(dict.fromkeys(row.method for row in self.table.rows))

    @property
    def shifts(self) -> tuple[str, ...]:
        """Such as ``"scans > photos"``: a source and a target."""
        return self.table.shifts

    def by_rule(self, rule: Rule) -> Board:
        """The same board, its draws and snapshots chosen by another rule of selection."""
        expected = replace(self.source.expected, rule=rule)
        return Board(replace(self.source, expected=expected), self.columns)

    def render(self, form: str = "markdown") -> str:
        """As markdown, csv, latex or json. BadInput if ``form`` is none of these."""
        if form not in FORMS:
            raise BadInput(f"no format is named {form!r}; {instead(form, FORMS)}")
        return table_formats.render(self.table, form)

    def __str__(self) -> str:
        return self.render()

    def __repr__(self) -> str:
        return f"<board {self.name}: {len(self.records)} records of {len(self.methods)} methods>"

    def _repr_markdown_(self) -> str:
        return self.render()

    def _repr_html_(self) -> str:
        from benchbench.leaderboard.page import emphasised

        told = "".join(f"<p>{emphasised(line)}</p>" for line in table_formats.meanings(self.table))
        folded = f"<details><summary>What the columns mean</summary>{told}</details>"
        return f"{table_formats.html(self.table)}\n{folded}"

    def rows(self) -> list[dict[str, Any]]:
        """One dict for each method and shift.

        ``values`` are the scores of its ``n_seeds`` training seeds, ``mean`` and ``sd`` (n - 1)
        theirs, or None. ``lacks`` counts cells by what is wrong with them, such as failed, missing
        or stale: where one has no score, there are no values.
        """
        return [
            {
                "method": row.method,
                "group": row.group,
                "reads": row.reads,
                "sees": row.sees,
                "readout": row.readout,
                "shift": shift,
                "mean": table_formats.average(entry.values),
                "sd": table_formats.sd(entry.values),
                "n_seeds": len(entry.values),
                "values": list(entry.values),
                "lacks": dict(entry.lacks),
            }
            for row in self.table.rows
            for shift, entry in row.entries.items()
        ]

    def to_frame(self) -> pd.DataFrame:
        """`rows` as a pandas.DataFrame. BadInput if pandas is not installed."""
        try:
            import pandas as pd
        except ImportError:
            raise BadInput(
                'to_frame needs pandas: pip install "benchbench-shift[export]"; rows() does not'
            ) from None
        return pd.DataFrame(self.rows())

    def compare(self, one: str, other: str) -> Comparison:
        """Whether ``one`` is better than ``other``, by a test paired over seeds and test rows.

        BadInput if a method is unknown, or the two are one.
        """
        return Comparison(self.source, one, other, compared(self.source, one, other, as_json=False))

    def predictions(self, method: str, shift: str, seed: int) -> dict[str, np.ndarray]:
        """By domain, of its N test rows the predicted classes, int32 [N], or numbers, float32 [N].

        Classes are indices into the dataset's class names. BadInput if there is no such cell, or
        its predictions are not in the store or the folder.
        """
        record = self.record(method, shift, seed)
        found = self.source.predictions(record)
        if not found:
            raise BadInput(f"the predictions of {record.cell} are not here")
        return {name: values for name, values in found.items() if "@" not in name}

    def record(self, method: str, shift: str, seed: int) -> Record:
        """That of a cell, of its first draw. BadInput says which there are."""
        known = {(r.method, r.shift, r.seeds.train): r for r in self.records if not r.draw}
        if (method, shift, seed) in known:
            return known[method, shift, seed]
        if method not in {name for name, _, _ in known}:
            raise BadInput(
                f"{self.name} has no record of method {method!r}; "
                f"{instead(method, {name for name, _, _ in known})}"
            )
        there = sorted({f"{s}, seed {n}" for name, s, n in known if name == method})
        raise BadInput(
            f"{self.name} has no record of {method} on {shift!r} with seed {seed}; there is "
            f"{'; '.join(there)}"
        )

    def curves(self) -> dict[str, list[list[float]]]:
        """By method, for each of its stages the losses of at most 64 steps, equally spaced.

        They are those of the method's first record that has any.
        """
        found: dict[str, list[list[float]]] = {}
        for record in self.records:
            keys = record.artifacts.stages if record.artifacts else ()
            losses = [self._losses()[key] for key in keys if key in self._losses()]
            if losses and record.method not in found:
                found[record.method] = losses
        return found

    def _losses(self) -> Mapping[str, list[float]]:
        return self.source.curves

    def plot(self) -> Figure:
        """For each shift, every method's mean over training seeds, with its standard deviation."""
        from benchbench.leaderboard.board_plot import plotted

        return plotted(self.table)


@dataclass(frozen=True)
class Comparison:
    """Two methods of a board; printed, a table and a sentence that says which is better."""

    source: Source
    one: str
    other: str
    text: str

    @cached_property
    def lines(self) -> tuple[Line, ...]:
        """Shift by shift, then over all."""
        return tuple(lines_of(self.source, self.one, self.other))

    @property
    def difference(self) -> float | None:
        """``one`` minus ``other`` over all shifts, in points; None unless both are complete."""
        told = self.lines[-1].comparison
        return told.difference if told else None

    @property
    def p(self) -> float | None:
        """Two-sided, of Student's t; None with one seed."""
        told = self.lines[-1].comparison
        return told.p if told else None

    def json(self) -> str:
        return compared(self.source, self.one, self.other, as_json=True)

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__

    def _repr_markdown_(self) -> str:
        return self.text


@dataclass(frozen=True)
class Made:
    """What stands behind results: a plan, its cells, and what was said of them."""

    plan: Plan
    cells: tuple[Cell, ...]
    suite_text: str
    unregistered: tuple[str, ...] = ()  # sentences, one for each object that has no digest
    notes: tuple[str, ...] = ()


class Results(Board):
    """What `benchbench.run` and `benchbench.evaluate` return: a board, and what was run for it."""

    def __init__(self, made: Made, columns: Sequence[str] = (), rule: Rule | None = None) -> None:
        self.made, self.columns, self.rule = made, tuple(columns), rule
        self.others: tuple[Source, ...] = ()

    @cached_property
    def source(self) -> Source:  # type: ignore[override]
        from benchbench.leaderboard.publishing import of_plan

        source = of_plan(self.made.plan)
        for other in self.others:
            source = joined(source, other)
        if self.rule:
            source = replace(source, expected=replace(source.expected, rule=self.rule))
        return source

    def read(self) -> None:
        """Read what a store that will be gone has of these cells."""
        from benchbench.leaderboard.publishing import curves_of

        source = self.source
        kept = {record.cell_id: source.predictions(record) for record in source.records}
        self.__dict__["source"] = replace(
            source,
            predictions=lambda record: kept[record.cell_id],
            curves=curves_of(self.made.plan, source),
        )

    def beside(self, board: Board) -> Results:
        """The same, with the methods of another board that has these shifts of the same data."""
        results = Results(self.made, self.columns, self.rule)
        results.others = (*self.others, board.source)
        if "source" in self.__dict__:
            results.__dict__["source"] = joined(self.source, board.source)
        return results

    def render(self, form: str = "markdown") -> str:
        from benchbench.leaderboard.publishing import board_of_plan

        if form not in FORMS or self.others or self.made.unregistered:
            return super().render(form)
        plan = self.made.plan
        return board_of_plan(plan, plan.state(), form, self.columns, self.rule)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about the run, such as which object is unregistered, and why."""
        return self.made.notes

    @property
    def statuses(self) -> dict[str, str]:
        """By the name of each cell that was asked for: scored, failed, diverged, oom or missing."""
        if self.made.unregistered:
            known = {record.cell: record.status for record in self.records}
            return {str(cell): known.get(str(cell), "missing") for cell in self.made.cells}
        plan = self.made.plan
        states = plan.statuses(plan.state())
        return {str(cell): states[cell] or "missing" for cell in self.made.cells}

    @property
    def complete(self) -> bool:
        """Whether every cell that was asked for is scored."""
        return set(self.statuses.values()) <= {"scored"}

    def _losses(self) -> Mapping[str, list[float]]:
        from benchbench.leaderboard.publishing import curves_of

        return self.source.curves or curves_of(self.made.plan, self.source)

    def publish(self, folder: str | Path) -> Board:
        """Write the board as a folder: records, predictions, tables and a page.

        BadInput if an object is unregistered: nobody could know which code its numbers are of.
        """
        from benchbench.leaderboard.publishing import publish

        if self.made.unregistered:
            raise BadInput(f"it cannot be published: {self.made.unregistered[0]}")
        return Board(publish(self.made.plan, self.made.suite_text, Path(folder)))


def joined(mine: Source, theirs: Source) -> Source:
    """The methods of both on the shifts of the first. BadInput if they have no shift in common."""
    shifts = tuple(s for s in mine.expected.shifts if s in theirs.expected.shifts)
    if not shifts:
        raise BadInput(
            f"board {theirs.name} has none of the shifts {', '.join(mine.expected.shifts)}; it has "
            f"{', '.join(theirs.expected.shifts)}"
        )
    known = {record.cell_id for record in mine.records}
    more = tuple(r for r in theirs.records if r.shift in shifts and r.cell_id not in known)
    methods = tuple(dict.fromkeys((*mine.expected.methods, *theirs.expected.methods)))
    expected = replace(theirs.expected, methods=methods, shifts=shifts)
    return replace(
        mine,
        expected=expected,
        records=(*mine.records, *more),
        stale={**theirs.stale, **mine.stale},
        predictions=lambda r: (mine if r.cell_id in known else theirs).predictions(r),
        levels={**theirs.levels, **mine.levels},
        curves={**theirs.curves, **mine.curves},
    )


__all__ = ["Board", "Comparison", "Made", "Results"]
