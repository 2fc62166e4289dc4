"""A training step beside its floor and in its parts; steps of objectives beside SimCLR's."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import torch
from torch import Tensor, nn

from benchbench.benchmarks.paired_rounds import side_by_side
from benchbench.data.batches import Feed
from benchbench.data.encoded_images import Encoded
from benchbench.data.gathering import Streamed, resident
from benchbench.data.pack import Pack, in_memory
from benchbench.extension.catalog import Catalog
from benchbench.extension.constants import TRAIN
from benchbench.extension.contracts import DomainData, Objective, as_read, begun
from benchbench.extension.errors import BadInput
from benchbench.suites.plan import build_augmentation, build_encoder
from benchbench.training.budget import Budget
from benchbench.training.device import Machine, autocast, full_fp32, keep_freed_memory
from benchbench.training.loop import Lap, Views, Watch, parameter_groups, train

SHAPES = {  # the encoder, and the side of its images
    "small_cnn@32": ("small_cnn", 32),
    "resnet18@32": ("timm(model='resnet18', small_stem=True)", 32),
    "resnet50@224": ("timm(model='resnet50')", 224),
    "vit_small@224": ("timm(model='vit_small_patch16_224')", 224),
}
AUGMENTATION = "random_resized_crop | horizontal_flip | color_jitter | greyscale | gaussian_blur"


PARTS = ("gather", "views", "forward", "backward", "update", "other")


@dataclass(frozen=True)
class Measured:
    """Medians in milliseconds; the ratio's are of floor and step run side by side."""

    shape: str
    batch_size: int
    device: str
    precision: str
    compiled: bool  # floor and step alike
    rounds: int
    floor: float  # forward, backward and update on two batches that already lie on the device
    step: float  # all of its parts:
    ratio: float
    ratio_range: tuple[float, float]
    gather: float
    views: float
    forward: float  # with the projector and the loss
    backward: float
    update: float
    other: float  # keeping the loss, and looking at it once in many steps
    images_per_second: float


def measure(
    catalog: Catalog, machine: Machine, shape: str, batch_size: int, rounds: int, steps: int
) -> Measured:
    """SimCLR with all of its augmentation on random images, against the same network bare."""
    keep_freed_memory()
    encoder, objective, views, feed = simclr(catalog, machine, shape, batch_size)
    budget = Budget(steps + 1, batch_size, lr=1e-3, weight_decay=1e-4, warmup=0.1)
    bare = bare_step(encoder, objective, as_read(feed(0).inputs), budget, machine)
    laps = Laps(machine)
    # A GPU must be waited for at the end of each part, which slows the step: in a run of its own.
    apart = machine.device.type == "cuda"

    def our_step(lap: Lap | None) -> float:
        laps.pause()
        return pace(encoder, objective, views, feed, budget, machine, lap)

    clocked(bare, 2, machine)
    our_step(None)  # warmed up
    actions = {
        "floor": lambda: clocked(bare, steps, machine),
        "step": lambda: our_step(None if apart else laps),
    }
    told = side_by_side(rounds, actions)
    if apart:
        our_step(laps)
    ratios = [step / floor for floor, step in zip(told["floor"], told["step"], strict=True)]
    step = median(told["step"])
    return Measured(
        shape,
        batch_size,
        machine.name,
        machine.precision,
        machine.compiled,
        rounds,
        floor=1e3 * median(told["floor"]),
        step=1e3 * step,
        ratio=median(ratios),
        ratio_range=(min(ratios), max(ratios)),
        **{part: 1e3 * median(spans) for part, spans in laps.spans.items()},
        images_per_second=batch_size / step,
    )


def simclr(
    catalog: Catalog, machine: Machine, shape: str, batch_size: int
) -> tuple[nn.Module, Objective, Views, Feed]:
    """All that a suite would train with, on random images."""
    text, side = SHAPES[shape]
    pack = in_memory(random_data(side, rows=2 * batch_size))
    encoder = build_encoder(catalog.resolve("encoder", text), pack.task, seed=0)
    encoder = encoder.to(machine.device).to(memory_format=torch.channels_last)
    objective = catalog.resolve("objective", "simclr").build(encoder, pack.task)
    views = Views(build_augmentation(catalog.pipeline(AUGMENTATION), pack.task))
    feed = fed(pack, resident(pack.inputs, machine), batch_size, machine)
    return encoder, objective.to(machine.device), views, feed


def fed(pack: Pack, images: Tensor | Encoded | Streamed, batch_size: int, machine: Machine) -> Feed:
    """All rows of the pack, from where the images are."""
    return Feed(pack, images, pack.domain_names, (), batch_size, 0, machine.device)


class Laps:
    """Seconds of the parts of each step. After a pause, the next part's are not known."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.spans: dict[str, list[float]] = {part: [] for part in PARTS}
        self.last: float | None = None

    def __call__(self, part: str) -> None:
        end = now(self.machine)
        if self.last is not None:
            self.spans[part].append(end - self.last)
        self.last = end

    def pause(self) -> None:
        self.last = None


@dataclass(frozen=True)
class Relative:
    """An objective's training step beside SimCLR's, medians of rounds side by side."""

    objective: str
    views: int  # that pass through the encoder with a gradient or without, small ones too
    milliseconds: float
    ratio: float  # to SimCLR's step
    per_view: float  # to SimCLR's step, each for one of its views


def compare_objectives(
    catalog: Catalog, machine: Machine, shape: str, batch_size: int, rounds: int, steps: int
) -> tuple[list[Relative], dict[str, str]]:
    """Every objective as its factory has it, on its own views; and why some cannot be tried."""
    keep_freed_memory()
    text, side = SHAPES[shape]
    pack = in_memory(random_data(side, rows=2 * batch_size))
    full = build_augmentation(catalog.pipeline(AUGMENTATION), pack.task)
    small = catalog.resolve("augmentation", f"random_resized_crop(size={side // 2})")
    views = Views(full, small=build_augmentation([small], pack.task))
    images = resident(pack.inputs, machine)
    domains = pack.domain_names
    feed = Feed(pack, images, domains, domains[:1], batch_size, 0, machine.device)
    budget = Budget(steps + 1, batch_size, lr=1e-4, weight_decay=1e-4, warmup=0.1)

    def built(name: str) -> tuple[nn.Module, Objective]:
        encoder = build_encoder(catalog.resolve("encoder", text), pack.task, seed=0)
        objective = catalog.resolve("objective", name).build(encoder, pack.task)
        begun(objective, encoder, pack.task)
        encoder = encoder.to(machine.device).to(memory_format=torch.channels_last)
        return encoder, objective.to(machine.device)

    def paced(encoder: nn.Module, objective: Objective) -> float:
        return pace(encoder, objective, views, feed, budget, machine)

    yardstick = built("simclr")
    paced(*yardstick)
    measured, left_out = [], {}
    for name in sorted(name for kind, name in catalog.entries if kind == "objective"):
        try:
            one = built(name)
        except BadInput as error:
            left_out[name] = str(error)
            continue
        paced(*one)
        pairs = [(paced(*yardstick), paced(*one)) for _ in range(rounds)]
        ratio = median(mine / theirs for theirs, mine in pairs)
        count = one[1].n_views + one[1].n_weak + one[1].n_small
        milliseconds = 1e3 * median(mine for _, mine in pairs)
        measured.append(Relative(name, count, milliseconds, ratio, ratio * 2 / count))
    return measured, left_out


def pace(
    encoder: nn.Module,
    objective: Objective,
    views: Views,
    feed: Feed,
    budget: Budget,
    machine: Machine,
    lap: Lap | None = None,
) -> float:
    """Median seconds of a training step."""
    ticks: list[float] = []

    def watch(done: int, loss: Tensor) -> None:
        ticks.append(now(machine))

    train_on(machine, encoder, objective, views, feed, budget, watch, lap=lap)
    return median(later - before for before, later in pairwise(ticks))


def train_on(
    machine: Machine,
    encoder: nn.Module,
    objective: Objective,
    views: Views,
    feed: Feed,
    budget: Budget,
    watch: Watch,
    *,
    seed: int = 0,
    lap: Lap | None = None,
) -> None:
    """As a suite does it on the machine."""
    train(
        encoder,
        objective,
        views,
        feed,
        budget,
        seed,
        precision=machine.precision,
        compiled=machine.compiled,
        watch=watch,
        lap=lap,
    )


def bare_step(
    encoder: nn.Module, objective: Objective, images: Tensor, budget: Budget, machine: Machine
) -> Callable[[], None]:
    """What no training step can do without, at the same precision and memory layout."""
    both = torch.cat([images, images]).to(memory_format=torch.channels_last)
    groups = parameter_groups(encoder, objective, budget)
    optimizer = torch.optim.AdamW(groups, lr=0.0, fused=True)
    run = torch.compile(encoder.forward, dynamic=False) if machine.compiled else encoder

    def step() -> None:
        encoder.train()
        with full_fp32(fixed_shapes=True):
            with autocast(machine.device, machine.precision):
                loss = run(both).float().square().mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
        optimizer.step()

    return step


def clocked(call: Callable[[], object], times: int, machine: Machine) -> float:
    """Median seconds of a call."""
    spans = []
    for _ in range(times):
        start = now(machine)
        call()
        spans.append(now(machine) - start)
    return median(spans)


def now(machine: Machine) -> float:
    """The time at which the device has done all that it was told."""
    if machine.device.type == "cuda":
        torch.cuda.synchronize(machine.device)
    return time.perf_counter()


def random_data(side: int, rows: int) -> DomainData:
    """Random images of two domains and ten classes."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (rows, 3, side, side), dtype=torch.uint8, generator=generator)
    labels, domains = torch.arange(rows) % 10, torch.arange(rows) % 2
    split = torch.full_like(labels, TRAIN)
    classes = tuple(map(str, range(10)))
    return DomainData(images, labels, domains, classes, ("one", "other"), split)
