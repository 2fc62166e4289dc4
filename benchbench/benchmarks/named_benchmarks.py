"""Every benchmark by its name: what it measures, as figures and as a text.

Each is imported when it is asked for, as it brings heavy packages of its own.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

from benchbench.benchmarks.training_step import PARTS, SHAPES, compare_objectives, measure
from benchbench.diagnostics.text_tables import table
from benchbench.extension.catalog import Catalog, Wanted, load
from benchbench.extension.constants import Precision
from benchbench.extension.errors import BadInput
from benchbench.extension.grammar import instead
from benchbench.training.device import Machine


@dataclass(frozen=True)
class Asked:
    """How much is measured, and on what."""

    wanted: Wanted
    batch_size: int
    rounds: int
    steps: int | None
    epochs: int
    seeds: int
    precision: Precision | Literal["auto"]
    device: str
    compiled: bool

    @cached_property
    def catalog(self) -> Catalog:
        return load(self.wanted)

    @property
    def machine(self) -> Machine:
        return Machine.choose(self.device, self.precision, compiled=self.compiled)


def figures_and_text(what: str, asked: Asked) -> tuple[Any, str]:
    """BadInput if there is no such benchmark."""
    of_shapes = {prefix + shape: (prefix, shape) for prefix in SHAPED for shape in SHAPES}
    known = [*of_shapes, *PLAIN]
    if what not in known:
        raise BadInput(f"there is no measurement {what!r}; {instead(what, known)}")
    if what in PLAIN:
        figures = PLAIN[what](asked)
        return figures, lines_of(figures)
    prefix, shape = of_shapes[what]
    return SHAPED[prefix](shape, asked)


def step(shape: str, asked: Asked) -> tuple[Any, str]:
    steps = asked.steps or 5
    report = measure(asked.catalog, asked.machine, shape, asked.batch_size, asked.rounds, steps)
    figures = asdict(report)
    rows = [(name, figures[name], figures[name] / report.step) for name in ("step", *PARTS)]
    rows.append(("floor", report.floor, report.floor / report.step))
    low, high = report.ratio_range
    text = (
        f"{heading(figures)}, medians of {report.rounds} rounds\n"
        f"{table(rows, ('', 'ms', 'of the step'), ('', '.1f', '.1%'))}\n"
        f"ratio of step to floor {report.ratio:.3f}, from {low:.3f} to {high:.3f}; "
        f"{report.images_per_second:,.0f} images/s"
    )
    return figures, text


def objectives(shape: str, asked: Asked) -> tuple[Any, str]:
    measured, left_out = compare_objectives(
        asked.catalog, asked.machine, shape, asked.batch_size, asked.rounds, asked.steps or 5
    )
    told = [asdict(row) for row in measured]
    headers = ("objective", "views", "step, ms", "× simclr", "× simclr, per view")
    cells = [tuple(row.values()) for row in told]
    return told, "\n".join(
        [
            table(cells, headers, ("", "", *[".2f"] * 3)),
            *(f"{name}: {why}" for name, why in left_out.items()),
        ]
    )


def peers(shape: str, asked: Asked) -> tuple[Any, str]:
    from benchbench.benchmarks.peer_packages import compare_peers

    told = compare_peers(
        asked.catalog,
        asked.machine,
        shape,
        asked.batch_size,
        asked.rounds,
        asked.steps or 8,
        epochs=asked.epochs,
        seeds=asked.seeds,
    )
    rows = [(name, *figures.values()) for name, figures in told["pipelines"].items()]
    headers = ("", "s/epoch", "images/s", "× benchbench", "lowest", "highest")
    paragraphs = [
        f"{heading(told)}; an epoch has {told['rows']:,} images; medians of {told['rounds']} "
        f"rounds of {told['steps']} steps",
        table(rows, headers, ("", ".2f", ",.0f", ".2f", ".2f", ".2f")),
        "ratio of benchbench to floor {step_to_floor:.3f}, from {step_to_floor_lowest:.3f} to "
        "{step_to_floor_highest:.3f}".format(**told),
        *told["left_out"].values(),
    ]
    if told["accuracy"]:
        found = told["accuracy"].items()
        accuracies = [(name, each["epochs"], each["mean"], each["sd"]) for name, each in found]
        columns = ("", "epochs", "accuracy", "sd of seeds")
        paragraphs += ["", table(accuracies, columns, ("", "", ".2%", ".2%"))]
    return told, "\n".join(paragraphs)


def streams(shape: str, asked: Asked) -> tuple[Any, str]:
    from benchbench.benchmarks.streaming import compare_streams

    steps = asked.steps or 5
    told = compare_streams(
        asked.catalog, asked.machine, shape, asked.batch_size, asked.rounds, steps
    )
    figures = {name: value for name, value in told.items() if isinstance(value, float)}
    return told, f"{heading(told)}\n{lines_of(figures)}"


def steady(shape: str, asked: Asked) -> tuple[Any, str]:
    from benchbench.benchmarks.long_run import run_steadily

    steps = asked.steps or 10_000
    figures = run_steadily(asked.catalog, asked.machine, shape, asked.batch_size, steps)
    return figures, lines_of(figures)


def readout(asked: Asked) -> dict[str, Any]:
    from benchbench.benchmarks.linear_readout import compare_readout

    wide = compare_readout(rows=582, width=1280, classes=7)  # few labels of a large model
    return compare_readout() | {f"wide_{name}": figure for name, figure in wide.items()}


def data(asked: Asked) -> dict[str, Any]:
    from benchbench.benchmarks.data_reading import compare_data

    return compare_data(asked.catalog, asked.machine)


def store(asked: Asked) -> dict[str, Any]:
    from benchbench.benchmarks.store_throughput import compare_store

    return compare_store(asked.catalog, asked.rounds)


def launch(asked: Asked) -> dict[str, Any]:
    from benchbench.benchmarks.launch_overhead import compare_launch

    return compare_launch(asked.wanted)


def startup(asked: Asked) -> dict[str, Any]:
    from benchbench.benchmarks.startup_time import compare_startup

    return compare_startup(asked.rounds)


SHAPED: dict[str, Callable[[str, Asked], tuple[Any, str]]] = {
    "": step,
    "objectives:": objectives,
    "peers:": peers,
    "streams:": streams,
    "steady:": steady,
}
PLAIN: dict[str, Callable[[Asked], dict[str, Any]]] = {
    "readout": readout,
    "data": data,
    "store": store,
    "launch": launch,
    "startup": startup,
}


def heading(told: Mapping[str, Any]) -> str:
    compiled = "compiled" if told["compiled"] else "not compiled"
    return (
        f"{told['shape']}, batch {told['batch_size']}, {told['precision']}, {compiled}, "
        f"{told['device']}"
    )


def lines_of(figures: Mapping[str, float]) -> str:
    return "\n".join(f"{name.replace('_', ' ')}  {value:.6g}" for name, value in figures.items())
