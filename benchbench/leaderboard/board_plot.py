"""A board as a matplotlib figure, for a notebook or a paper."""

from io import BytesIO
from statistics import mean, stdev

from matplotlib.figure import Figure

from benchbench.diagnostics.plots import BLUE, GREY, ORANGE, one_style
from benchbench.leaderboard.table import Board

MOST_ROWS = 40
INCH = 72  # pixels, in a notebook


class Picture(Figure):
    """A figure that a notebook shows, also one that has not loaded pyplot."""

    def _repr_png_(self) -> bytes:
        image = BytesIO()
        self.savefig(image, format="png", dpi=INCH)
        return image.getvalue()


def plotted(board: Board) -> Figure:
    """Every method's mean over training seeds on each shift, and its standard deviation.

    A panel for each shift, methods in the board's order; the baseline is a line.
    """
    rows = [row for row in board.rows if any(entry.values for entry in row.entries.values())]
    rows = rows[:MOST_ROWS]
    shifts = board.shifts
    with one_style():
        figure = Picture(figsize=(2.2 + 2.6 * len(shifts), 1.0 + 0.28 * len(rows)))
        figure.set_layout_engine("constrained")
        panels = figure.subplots(1, len(shifts), sharey=True, squeeze=False)[0]
        for panel, shift in zip(panels, shifts, strict=True):
            panel.set_title(shift)
            panel.set_xlabel(f"{board.metric.replace('_', ' ')}, %")
            for place, row in enumerate(rows):
                values = row.entries[shift].values if shift in row.entries else ()
                if not values:
                    continue
                spread = stdev(values) if len(values) > 1 else 0.0
                color = ORANGE if row.method == board.compares else BLUE
                panel.errorbar(mean(values), place, xerr=spread, fmt="o", color=color, capsize=2)
                if row.method == board.compares:
                    panel.axvline(mean(values), color=GREY, linewidth=0.8, linestyle=":")
        panels[0].set_yticks(range(len(rows)), [row.method for row in rows])
        panels[0].set_ylim(len(rows) - 0.5, -0.5)
    return figure
