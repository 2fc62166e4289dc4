"""What pictures share, and the one of predicted against measured accuracy."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import StringIO

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchbench.diagnostics.accuracy_prediction import PREDICTORS, Point, datasets, elsewhere, expit
from benchbench.store.records import Record

# Okabe and Ito's colours, which colour-blind people tell apart
BLUE, SKY, ORANGE, GREEN, PURPLE = "#0072B2", "#56B4E9", "#D55E00", "#009E73", "#CC79A7"
BLACK, GREY = "#000000", "#777777"
SEPARATION = {
    "domain_accuracy_within": "accuracy of a linear probe for the domain, within a class",
    "mmd_squared": "MMD² between source and target features",
}
COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, BLACK)
MARKERS = ("o", "s", "^", "D", "v", "P", "*", "<", ">", "X", "d")  # another number than of colours


@contextmanager
def one_style() -> Iterator[None]:
    """Whatever the user's own matplotlibrc says; the same bytes for the same picture."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rc("svg", hashsalt="benchbench")  # else identifiers differ from run to run
        mpl.rc("axes", titlesize=11)
        mpl.rc("axes.spines", top=False, right=False)
        yield


def svg(figure: Figure) -> str:
    """To be called within ``one_style``, as is what makes the figure."""
    text = StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def separation(records: Sequence[Record]) -> str:
    """How far features tell the domains of a shift apart, and the target accuracy, by method."""
    known = [r for r in records if r.diagnostics and r.diagnostics.mmd_squared is not None]
    methods = sorted({record.method for record in known})
    with one_style():
        figure = Figure(figsize=(9.2, 4.6), layout="constrained")
        for axes, name in zip(figure.subplots(1, 2, sharey=True), SEPARATION, strict=True):
            for number, method in enumerate(methods):
                mine = [record for record in known if record.method == method]
                x = [getattr(record.diagnostics, name) for record in mine]
                y = [100 * (record.value("target") or 0) for record in mine]
                dots(axes, number, x, y, method, size=22)
            axes.set(xlabel=SEPARATION[name], ylim=(0, 100))
        figure.axes[0].set_ylabel("target accuracy, %")
        figure.axes[0].legend(loc="upper left", frameon=False, fontsize=8)
        return svg(figure)


def dots(
    axes: Axes, number: int, x: Sequence[float], y: Sequence[float], label: str, *, size: int
) -> None:
    """A group's, by its number in a colour and a shape of its own."""
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    axes.scatter(x, y, color=colour, marker=marker, s=size, alpha=0.75, linewidths=0, label=label)


def predicted(points: Sequence[Point], names: Sequence[str] = ("connectivity",)) -> str:
    """For each set of predictors, what a fit to the other datasets says of every point."""
    with one_style():
        figure = Figure(figsize=(4.6 * len(names), 4.6), layout="constrained")
        every = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
        for axes, name in zip(every, names, strict=True):
            told = elsewhere(points, PREDICTORS[name])
            for number, dataset in enumerate(datasets(points)):
                mine = [i for i, point in enumerate(points) if point.dataset == dataset]
                x = [100 * expit(told[i]) for i in mine]
                y = [100 * points[i].target for i in mine]
                dots(axes, number, x, y, dataset, size=18)
            axes.plot([0, 100], [0, 100], color=GREY, linewidth=0.8)
            axes.set(xlim=(0, 100), ylim=(0, 100), xlabel="predicted target accuracy, %")
            axes.set_title(f"by {name}")
        every[0].set_ylabel("measured target accuracy, %")
        every[0].legend(loc="upper left", frameon=False)
        return svg(figure)
