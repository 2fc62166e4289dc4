"""The command `bench`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import click

from benchbench.cli.options import catalog, compile_option, device_option, plugin_options, wanted
from benchbench.extension.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from benchbench.training.device import Machine


@dataclass(frozen=True)
class Asked:
    """The options of the command."""

    batch_size: int
    rounds: int
    steps: int | None
    epochs: int
    seeds: int
    precision: Literal["auto", "bf16", "fp32"]
    device: str
    compiled: bool

    @property
    def machine(self) -> Machine:
        from benchbench.training.device import Machine

        return Machine.choose(self.device, self.precision, compiled=self.compiled)


@click.command()
@plugin_options
@click.argument("what", default="resnet18@32")
@click.option("--batch-size", default=256, show_default=True, type=click.IntRange(min=2))
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--steps",
    type=click.IntRange(min=2),
    help="Of a round: 5, of peers 8. Of steady, in all: 10,000.",
)
@click.option(
    "--epochs",
    default=0,
    show_default=True,
    type=click.IntRange(min=0),
    help="Of peers: for how many to train on the dataset digits before accuracy is compared.",
)
@click.option(
    "--seeds",
    default=3,
    show_default=True,
    type=click.IntRange(min=1),
    help="Of peers: how many encoders each trains for that.",
)
@click.option("--precision", type=click.Choice(["auto", "bf16", "fp32"]), default="auto")
@compile_option
@device_option
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON, to keep.")
def bench(what: str, as_json: bool, **options: Any) -> None:
    """Measure WHAT against a floor or a peer, side by side, round by round.

    \b
    SHAPE             a training step and its parts against its floor
    objectives:SHAPE  the step of every objective against that of simclr
    peers:SHAPE       an epoch against its floor, lightly, torchvision and kornia
    streams:SHAPE     a step from images that are not on the device against one from those that are
    steady:SHAPE      memory and pace of a long run
    readout           the linear readout against scikit-learn
    data              preparing, fetching and opening data
    store             the store against plain files
    launch            a cell by several processes, Ray and submitit against one process
    startup           commands against the start of Python and torch

    SHAPE is small_cnn@32, resnet18@32, resnet50@224 or vit_small@224.
    """
    from benchbench.benchmarks.training_step import SHAPES
    from benchbench.extension.grammar import instead

    of_shapes = {prefix + shape: (prefix, shape) for prefix in SHAPED for shape in SHAPES}
    known = [*of_shapes, *PLAIN]
    if what not in known:
        raise BadInput(f"there is no measurement {what!r}; {instead(what, known)}")
    asked = Asked(**options)
    if what in PLAIN:
        figures = PLAIN[what](asked)
        told, text = figures, lines_of(figures)
    else:
        prefix, shape = of_shapes[what]
        told, text = SHAPED[prefix](shape, asked)
    click.echo(json.dumps(told, indent=1) if as_json else text)


def step(shape: str, asked: Asked) -> tuple[Any, str]:
    from benchbench.benchmarks.training_step import PARTS, measure

    steps = asked.steps or 5
    report = measure(catalog(), asked.machine, shape, asked.batch_size, asked.rounds, steps)
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
    from benchbench.benchmarks.training_step import compare_objectives

    measured, left_out = compare_objectives(
        catalog(), asked.machine, shape, asked.batch_size, asked.rounds, asked.steps or 5
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
        catalog(),
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
    told = compare_streams(catalog(), asked.machine, shape, asked.batch_size, asked.rounds, steps)
    figures = {name: value for name, value in told.items() if isinstance(value, float)}
    return told, f"{heading(told)}\n{lines_of(figures)}"


def steady(shape: str, asked: Asked) -> tuple[Any, str]:
    from benchbench.benchmarks.long_run import run_steadily

    steps = asked.steps or 10_000
    figures = run_steadily(catalog(), asked.machine, shape, asked.batch_size, steps)
    return figures, lines_of(figures)


def readout(asked: Asked) -> dict[str, Any]:
    from benchbench.benchmarks.linear_readout import compare_readout

    return compare_readout()


def data(asked: Asked) -> dict[str, Any]:
    from benchbench.benchmarks.data_reading import compare_data

    return compare_data(catalog(), asked.machine)


def store(asked: Asked) -> dict[str, Any]:
    from benchbench.benchmarks.store_throughput import compare_store

    return compare_store(catalog(), asked.rounds)


def launch(asked: Asked) -> dict[str, Any]:
    from benchbench.benchmarks.launch_overhead import compare_launch

    return compare_launch(wanted())


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


def table(rows: Iterable[Sequence[Any]], headers: Sequence[str], formats: Sequence[str]) -> str:
    from tabulate import tabulate

    cells = [[format(cell, form) for cell, form in zip(row, formats, strict=True)] for row in rows]
    aligned = ["left" if not form else "right" for form in formats]
    return tabulate(cells, headers, "github", colalign=aligned, disable_numparse=True)


def lines_of(figures: Mapping[str, float]) -> str:
    return "\n".join(f"{name.replace('_', ' ')}  {value:.6g}" for name, value in figures.items())
