"""The compositions of augmentations that a search draws from, as data, and how they are spelled."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from benchbench.extension.catalog import Catalog
from benchbench.extension.contracts import Task
from benchbench.extension.errors import BadInput
from benchbench.extension.grammar import spell
from benchbench.suites.plan import check_modality
from benchbench.training.seeds import derive_seed

MEAN_STEPS = 4  # of a random composition, where there are as many to choose from
GRAIN = 0.01  # between the values that are tried

Drawn = Mapping[str, float]  # "invert": in (1) or out (0); "invert.p": the value of an option


def same(value: float) -> object:
    return value


def up_to_one(value: float) -> object:
    return value, 1.0


def from_zero(value: float) -> object:
    return 0.0, value


def from_a_tenth(value: float) -> object:
    return 0.1, value


def around_one(value: float) -> object:
    return round(1 - value, 2), round(1 + value, 2)


@dataclass(frozen=True)
class Range:
    """The values of an option: whole numbers between whole bounds, else of two digits."""

    option: str
    low: float
    high: float
    made: Callable[[float], object] = same  # the option, of the number

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int)


@dataclass(frozen=True)
class Step:
    """An augmentation that is in a composition or not; what has no range keeps its default."""

    name: str
    ranges: tuple[Range, ...] = ()
    always: bool = False  # in every composition

    def place(self, options: Range) -> str:
        return f"{self.name}.{options.option}"


STEPS = (  # in the order in which they are applied: place, colour, what hides
    Step("random_resized_crop", (Range("scale", 0.08, 0.8, up_to_one),), always=True),
    Step(
        "affine",
        (
            Range("degrees", 0, 30, float),
            Range("translate", 0.0, 0.3),
            Range("scale", 0.0, 0.5, around_one),
        ),
    ),
    Step("rotation", (Range("degrees", 15, 180, float),)),
    Step("horizontal_flip", (Range("p", 0.1, 0.5),)),
    Step(
        "color_jitter",
        (
            Range("brightness", 0.1, 0.9),
            Range("contrast", 0.1, 0.9),
            Range("saturation", 0.1, 0.9),
            Range("hue", 0.02, 0.4),
        ),
        always=True,
    ),
    Step("stain_jitter", (Range("sigma", 0.02, 0.3),)),
    Step("greyscale", (Range("p", 0.1, 0.8),)),
    Step("invert", (Range("p", 0.05, 0.5),)),
    Step("solarize", (Range("threshold", 0.2, 0.8), Range("p", 0.05, 0.5))),
    Step("randaugment", (Range("n", 1, 3), Range("magnitude", 3, 20))),
    Step("gaussian_blur", (Range("sigma", 0.5, 3.0, from_a_tenth), Range("p", 0.1, 1.0))),
    Step("noise", (Range("std", 0.02, 0.4, from_zero),)),
    Step("cutout", (Range("size", 0.1, 0.6),)),
    Step("span", (Range("share", 0.1, 0.9, up_to_one),)),
    Step("synonyms", (Range("p", 0.05, 0.6),)),
    Step("token_dropout", (Range("p", 0.05, 0.5),)),
)


def steps_for(catalog: Catalog, task: Task, among: Sequence[str] = ()) -> tuple[Step, ...]:
    """The steps that the catalog offers for such data; with ``among``, those of these names.

    What ``among`` names and ``STEPS`` does not comes last, with its defaults. BadInput if one of
    its names is unknown or not for such data, or if nothing is left.
    """
    for name in among:
        choice = catalog.resolve("augmentation", name)
        check_modality(choice, task, catalog)
        choice.build(task)
    ranged = [step for step in STEPS if not among or step.name in among]
    others = sorted({*among} - {step.name for step in ranged})
    steps = tuple(step for step in ranged if fits(catalog, task, step.name))
    steps += tuple(map(Step, others))
    if not steps:
        raise BadInput(f"no augmentation that can be searched is for these {task.modality}s")
    return steps


def fits(catalog: Catalog, task: Task, text: str) -> bool:
    """Whether ``a | b(key=value)`` is on offer, and can be built for such data."""
    try:
        for choice in catalog.pipeline(text):
            check_modality(choice, task, catalog)
            choice.build(task)
    except BadInput:
        return False
    return True


def drawn(steps: Sequence[Step], seed: int) -> Drawn:
    """At random, values uniformly; what is not always in is in with one probability for all."""
    kept = sum(step.always for step in steps)
    share = min(0.5, (MEAN_STEPS - kept) / max(len(steps) - kept, 1))
    generator = torch.Generator().manual_seed(derive_seed(seed, "composition"))

    def between(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    values: dict[str, float] = {}
    for step in steps:
        chance = float(torch.rand((), generator=generator))
        values[step.name] = int(step.always or chance < share)
        for options in step.ranges:
            grain = 1 if options.whole else GRAIN
            number = between(round(options.low / grain), round(options.high / grain)) * grain
            values[step.place(options)] = number if options.whole else round(number, 2)
    return values


def spelled(steps: Sequence[Step], values: Drawn) -> str:
    """The composition as ``a(x=…) | b(y=…)``; the first step alone if all are out."""
    chosen = [step for step in steps if values[step.name]] or steps[:1]
    return " | ".join(
        spell(
            step.name,
            {
                options.option: options.made(
                    int(values[step.place(options)])
                    if options.whole
                    else round(values[step.place(options)], 2)
                )
                for options in step.ranges
            },
        )
        for step in chosen
    )


def random_composition(steps: Sequence[Step], seed: int) -> str:
    """What costs no search: one draw."""
    return spelled(steps, drawn(steps, seed))
