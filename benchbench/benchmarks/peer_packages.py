"""An epoch of SimCLR beside the same epoch by other packages, and what each makes of an encoder.

Every pipeline has a process of its own: the memory allocator is set for ours alone.
"""

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import mean, median, stdev
from typing import Any

import torch

from benchbench.benchmarks.paired_rounds import ratio, side_by_side
from benchbench.benchmarks.simclr_pipelines import (
    AUGMENTATION,
    FLOOR,
    OBJECTIVE,
    OURS,
    PIPELINES,
    Setting,
)
from benchbench.benchmarks.training_step import SHAPES, now, random_data
from benchbench.data.pack import Pack, in_memory
from benchbench.evaluation.features import Features, Moments, extract
from benchbench.evaluation.readouts.interface import accuracy
from benchbench.evaluation.readouts.registry import resolve_readout
from benchbench.extension.catalog import Catalog, Choice
from benchbench.extension.constants import TEST, TRAIN, VAL
from benchbench.training.budget import Budget
from benchbench.training.device import Machine

JUDGED = (OURS, "lightly")  # whose encoders are compared
WARM = 2  # steps of every round that are not counted, in which workers start
LR = 1e-3

Ask = Callable[..., Any]


@dataclass(frozen=True)
class Job:
    """What a process is told of its work."""

    machine: Machine
    encoder: Choice
    objective: Choice
    augmentation: tuple[Choice, ...]
    dataset: Choice
    side: int
    batch_size: int
    rows: int  # random ones, of which a step's time is told
    steps: int  # of a round

    @classmethod
    def make(
        cls,
        catalog: Catalog,
        machine: Machine,
        shape: str,
        batch_size: int,
        *,
        rows: int,
        steps: int,
    ) -> "Job":
        text, side = SHAPES[shape]
        return cls(
            machine,
            catalog.resolve("encoder", text),
            catalog.resolve("objective", OBJECTIVE),
            tuple(catalog.pipeline(AUGMENTATION)),
            catalog.resolve("dataset", f"digits(size={side})"),
            side,
            batch_size,
            rows,
            steps,
        )

    def setting(self, pack: Pack, domains: tuple[str, ...], steps: int, seed: int) -> Setting:
        budget = Budget(steps, self.batch_size, LR, weight_decay=0.0, warmup=0.1)
        choices = self.encoder, self.objective, self.augmentation
        return Setting(self.machine, *choices, pack, domains, budget, seed)


def compare_peers(
    catalog: Catalog,
    machine: Machine,
    shape: str,
    batch_size: int,
    rounds: int,
    steps: int,
    *,
    rows: int = 10_000,
    epochs: int = 0,
    seeds: int = 3,
    names: tuple[str, ...] = tuple(PIPELINES),
) -> dict[str, Any]:
    """Seconds of an epoch over ``rows`` random images, from some steps of it in every round.

    With ``epochs``, also the accuracy of a linear readout after so many on the dataset digits.
    """
    job = Job.make(catalog, machine, shape, batch_size, rows=rows, steps=steps)
    left_out = {name: why for name in names if (why := missing(name))}
    with ExitStack() as stack:
        asks = {
            name: stack.enter_context(process(name, job)) for name in names if name not in left_out
        }
        for ask in asks.values():
            ask("pace")  # warmed up
        told = side_by_side(rounds, {name: partial(ask, "pace") for name, ask in asks.items()})
        judged = {name: ask for name, ask in asks.items() if name in JUDGED}
        accuracies = compare_accuracy(judged, epochs, seeds) if epochs else {}
    return {
        "shape": shape,
        "batch_size": batch_size,
        "device": machine.name,
        "precision": machine.precision,
        "compiled": machine.compiled,
        "rows": rows,
        "rounds": rounds,
        "steps": steps,
        "pipelines": {
            name: {
                "epoch_seconds": median(spans) * (rows // batch_size),
                "images_per_second": batch_size / median(spans),
                **ratio("ratio", spans, told[OURS]),
            }
            for name, spans in told.items()
        },
        **(ratio("step_to_floor", told[OURS], told[FLOOR]) if FLOOR in told else {}),
        "left_out": left_out,
        "accuracy": accuracies,
    }


def missing(name: str) -> str:
    """Why a pipeline cannot be tried; nothing if it can."""
    if name == FLOOR or find_spec(name):
        return ""
    return f'{name} is not installed: pip install "benchbench-shift[peers]"'


def compare_accuracy(asks: dict[str, Ask], epochs: int, seeds: int) -> dict[str, dict[str, Any]]:
    """Test accuracy of a linear readout by pipeline, and without training; every seed alike."""
    questions = {name: (ask, epochs) for name, ask in asks.items()}
    questions["untrained"] = (asks[OURS], 0)
    found = {
        name: [ask("accuracy", count, seed) for seed in range(seeds)]
        for name, (ask, count) in questions.items()
    }
    return {
        name: {
            "epochs": questions[name][1],
            "mean": mean(values),
            "sd": stdev(values) if seeds > 1 else 0.0,
            "values": values,
        }
        for name, values in found.items()
    }


@contextmanager
def process(name: str, job: Job) -> Iterator[Ask]:
    """Start a pipeline's process; what is yielded asks it something and waits for the answer."""
    context = multiprocessing.get_context("spawn")
    mine, its = context.Pipe()
    child = context.Process(target=serve, args=(its, name, job))
    child.start()
    its.close()

    def ask(*question: Any) -> Any:
        mine.send(question)
        try:
            return mine.recv()
        except EOFError:
            raise RuntimeError(f"the process of {name} ended; what it said stands above") from None

    try:
        yield ask
    finally:
        mine.close()
        child.terminate()
        child.join()


def serve(line: Connection, name: str, job: Job) -> None:
    """Answer until the other end hangs up."""
    pack = in_memory(random_data(job.side, job.rows))
    setting = job.setting(pack, pack.domain_names, WARM + job.steps, seed=0)
    answers: dict[str, Callable[..., float]] = {
        "pace": partial(pace, name, setting),
        "accuracy": partial(accuracy_of, name, job),
    }
    with suppress(EOFError, KeyboardInterrupt):
        while True:
            what, *asked = line.recv()
            line.send(answers[what](*asked))
            if job.machine.device.type == "cuda":
                torch.cuda.empty_cache()  # for the other processes


def pace(name: str, setting: Setting) -> float:
    """Mean seconds of the steps after those that warm up."""
    ticks: list[float] = []
    PIPELINES[name](setting, lambda: ticks.append(now(setting.machine)))
    return (ticks[-1] - ticks[WARM - 1]) / (len(ticks) - WARM)


def accuracy_of(name: str, job: Job, epochs: int, seed: int) -> float:
    """Of a linear readout, on the test rows of two domains whose training rows were seen."""
    pack = in_memory(job.dataset.build(Path()))
    domains = pack.domain_names[-2:]
    rows = [torch.cat([pack.rows(d, split) for d in domains]) for split in (TRAIN, VAL, TEST)]
    steps = epochs * (len(rows[0]) // job.batch_size)
    setting = job.setting(pack, domains, steps, seed)
    encoder = PIPELINES[name](setting, lambda: None) if steps else setting.networks[0]
    train, val, test = (
        Features(extract(encoder, pack.inputs, part, job.machine.device), pack.labels[part])
        for part in rows
    )
    _, build = resolve_readout("linear")
    assert build
    fitted = build()(train, val, lambda: Moments.of(train.z), len(pack.class_names))
    return accuracy(fitted.scores(test.z), test.labels)
