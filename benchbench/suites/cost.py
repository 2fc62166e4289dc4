"""What cells cost before any is run, and which of them a given time is best spent on."""

import time
from collections.abc import Callable, Hashable, Iterable, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from benchbench.data.batches import Feed
from benchbench.evaluation.features import CHUNK, extract
from benchbench.evaluation.readouts.registry import reads_moments
from benchbench.extension.contracts import Objective, Rows, begun
from benchbench.extension.errors import BadInput
from benchbench.suites.plan import Link, Plan, build_encoder, build_views
from benchbench.suites.shift_features import Share, Sides, shares_of, unread
from benchbench.suites.suite import Cell, Shift
from benchbench.training.device import keep_freed_memory
from benchbench.training.loop import Diverged, train
from benchbench.training.memory import SLOTS, Footprint, Live, footprint_of, members

RECORD = 15_000  # bytes of a record, its predictions and diagnostics

Told = TypeVar("Told")


@dataclass(frozen=True)
class Estimate:
    """What some work costs. A sum adds what stays and what passes takes the largest of."""

    seconds: float = 0.0
    memory: int = 0  # bytes on the device, at the peak of a step or of extracting features
    kept: int = 0  # bytes that stay in the store
    features: int = 0  # bytes of what stays that are features
    checkpoint: int = 0  # bytes there while a stage is trained: one, and the next beside it

    @property
    def disk(self) -> int:
        return self.kept + self.checkpoint

    def __add__(self, other: "Estimate") -> "Estimate":
        return Estimate(
            self.seconds + other.seconds,
            max(self.memory, other.memory),
            self.kept + other.kept,
            self.features + other.features,
            max(self.checkpoint, other.checkpoint),
        )


@dataclass(frozen=True)
class Pace:
    """What a stage takes: what its first step takes beyond the others, and each of them."""

    first: float  # seconds; compiling is part of it
    step: float

    def of(self, steps: int) -> float:
        return self.first + steps * self.step


class Calibration:
    """What the cells of a plan cost, from a short trial of every kind of stage.

    Memory comes from two tiny batches, before a step of the full size is timed: what cannot fit is
    never tried. ``processes`` share the device's memory; None is for cells that run elsewhere,
    where memory is not known. Left out are the time and memory of fitting readouts and of
    diagnosing, which depend on what the features will be; buffers that libraries keep for
    themselves; and what is spared by going on from a checkpoint. With ``timed=False`` seconds are
    left out, too.
    """

    def __init__(self, plan: Plan, *, timed: bool = True, processes: int | None = 1) -> None:
        self.plan, self.timed, self.processes = plan, timed, processes
        self._known: dict[tuple[object, Hashable], Any] = {}
        self._works: dict[Cell, dict[str, Estimate]] = {}

    @cached_property
    def free(self) -> int:
        """Bytes free on the device for each process, once the data lie there."""
        _ = self.plan.inputs
        return self.plan.machine.free_memory() // (self.processes or 1)

    def check(self, cell: Cell) -> None:
        """BadInput if what the cell still has to do does not fit into memory."""
        if self.processes is None:
            return
        for link in self.plan.missing(cell):
            needed = self._footprint(cell, link).bytes(link.stage.budget)
            if needed > self.free:
                raise BadInput(self._refusal(cell, link, needed))
        needed = self._once(features_memory, cell.method.encoder)
        if needed > self.free and self._encoded(cell):
            raise BadInput(
                f"encoder {cell.method.encoder} needs about {sized(needed)} of memory for {CHUNK} "
                f"rows, and {self._there}; choose a smaller encoder or smaller inputs"
            )

    def work(self, cell: Cell) -> dict[str, Estimate]:
        """What the cell still has to do, by the keys under which other cells find it done."""
        if cell not in self._works:
            self.check(cell)
            encoder = cell.method.encoder
            work = {self.plan.cell_id(cell): Estimate(kept=RECORD)}
            work |= {link.key: self._stage(cell, link) for link in self.plan.missing(cell)}
            work |= {key: self._features(encoder, of) for key, of in self._encoded(cell).items()}
            self._works[cell] = work
        return self._works[cell]

    def beyond(self, cell: Cell, done: Set[str]) -> Estimate:
        """What the cell costs where the work under some keys is done."""
        return total(cost for key, cost in self.work(cell).items() if key not in done)

    def in_turn(self, cells: Iterable[Cell]) -> list[Estimate]:
        """What each of the cells costs, run one after the other: nothing is done twice."""
        done: set[str] = set()
        costs = []
        for cell in cells:
            costs.append(self.beyond(cell, done))
            done |= self.work(cell).keys()
        return costs

    def stages(self, cells: Iterable[Cell]) -> int:
        """How many stages the cells still have to train."""
        return len({link.key for cell in cells for link in self.plan.missing(cell)})

    def compiling(self, cells: Iterable[Cell]) -> list[tuple[str, int, Pace, Pace]]:
        """Of every kind of stage that is left in a compiled plan: its encoder and objective, and
        the most steps of such a stage; its pace without compiling, and with it.
        """
        plain = replace(self.plan, machine=replace(self.plan.machine, compiled=False))
        found: dict[object, tuple[str, int, Pace, Pace]] = {}
        for cell in cells:
            for link in self.plan.missing(cell):
                kind, steps = kind_of(cell, link), link.stage.budget.steps
                name = f"{link.objective.entry.name} on {cell.method.encoder}"
                if kind not in found:
                    compiled = self._once(pace_of, kind, cell, link)
                    found[kind] = name, steps, pace_of(cell, link, plain), compiled
                elif steps > found[kind][1]:
                    found[kind] = name, steps, *found[kind][2:]
        return [*found.values()]

    def _encoded(self, cell: Cell) -> dict[str, Share]:
        """What is missing of features, and of their moments where the readout reads these."""
        plan, sides = self.plan, (cell.shift.sources, cell.shift.targets)
        read = self._once(shares, sides)
        if reads_moments(cell.method.readout):
            read = [*read, *self._once(rests, sides)]
        states = [plan.encoder_key(cell)]
        for link in plan.links(cell)[-1:]:
            states += [link.snapshot_key(step) for step in link.snapshots]
        wanted = [(state, share) for state in states for share in read]
        for link in plan.missing(cell):
            if self._wants_probe(cell, link):
                alone = tuple((domain,) for domain in cell.labelled)
                wanted += [(link.start, share) for share in self._once(shares, alone)]
        keys = {share.key(key, plan.pack.fingerprint): share for key, share in wanted}
        return {key: of for key, of in keys.items() if not plan.store.has("features", key)}

    def _stage(self, cell: Cell, link: Link) -> Estimate:
        budget = link.stage.budget
        size = self.plan.facts(cell.method.encoder, link.stage.objective).nbytes
        kind = kind_of(cell, link)
        pace = self._once(pace_of, kind, cell, link) if self.timed else Pace(0.0, 0.0)
        return Estimate(
            pace.of(budget.steps),
            self._footprint(cell, link).bytes(budget),
            kept=size * (1 + len(link.snapshots)),
            checkpoint=2 * size * (1 + SLOTS[budget.optimizer]),
        )

    def _features(self, encoder: str, share: Share) -> Estimate:
        rows, width = len(share.rows), self.plan.facts(encoder, None).width
        pace = self._once(seconds_per_row, encoder) if self.timed else 0.0
        kept = 8 * width * (width + 1) if share.part == "moments" else 4 * rows * width
        return Estimate(rows * pace, self._once(features_memory, encoder), kept, features=kept)

    def _wants_probe(self, cell: Cell, link: Link) -> bool:
        """Whether a readout of the stage before is fitted to begin with."""
        begins = self.plan.facts(cell.method.encoder, link.stage.objective).begins
        before = cell.method.chain[link.depth - 1].objective if link.depth else None
        inherits = self.plan.facts(cell.method.encoder, before).linear_head
        return begins == "probe" or (begins == "head" and not inherits)

    def _footprint(self, cell: Cell, link: Link) -> Footprint:
        return self._once(footprint, kind_of(cell, link), cell, link)

    def _once(self, trial: Callable[..., Told], key: Hashable, *of: object) -> Told:
        """What a trial tells, of all that has one key once."""
        if (trial, key) not in self._known:
            self._known[trial, key] = trial(*(of or (key,)), self.plan)
        told: Told = self._known[trial, key]
        return told

    def _refusal(self, cell: Cell, link: Link, needed: int) -> str:
        budget, told = link.stage.budget, self._footprint(cell, link)
        whole = self.plan.facts(cell.method.encoder, link.stage.objective).looks_inside
        parts = None if whole else told.parts_that_fit(budget, self.free)
        least = max(2, len(link.domains), budget.parts)
        size = told.batch_that_fits(budget, self.free, least)
        remedies = [f"{n} = {v}" for n, v in (("parts", parts), ("batch_size", size)) if v]
        remedy = f"set {' or '.join(remedies)}" if remedies else "choose a smaller encoder"
        return (
            f"method {cell.method.name}: a step of {link.stage.objective} with batch_size = "
            f"{budget.batch_size} needs about {sized(needed)} of memory, and {self._there}; "
            f"{remedy}"
        )

    @property
    def _there(self) -> str:
        return f"{sized(self.free)} are free on {self.plan.machine.name}"


def total(costs: Iterable[Estimate]) -> Estimate:
    return sum(costs, Estimate())


def affordable(told: Calibration, cells: Sequence[Cell], seconds: float) -> list[Cell]:
    """Those of the cells that fit into the time, in the order in which to run them.

    The most informative come first, and a comparison is worth more than a repetition: all methods
    on one shift with one seed are a block. Blocks are taken whole while they fit, seeds in the
    suite's order and of one seed the cheapest shift first. What time is left is filled from the
    other blocks, cell by cell: the baseline, then the cheapest. What does not fit is passed over.
    Work that cells share is counted once.
    """
    purse = Purse(told, seconds)
    taken: list[Cell] = []
    passed: list[list[Cell]] = []
    for seed in dict.fromkeys(cell.seed for cell in cells):
        shifts: dict[Shift, list[Cell]] = {}
        for cell in cells:
            if cell.seed == seed:
                shifts.setdefault(cell.shift, []).append(cell)
        while shifts:
            block = shifts.pop(min(shifts, key=lambda shift: purse.cost(shifts[shift])))
            if purse.cost(block) <= purse.left:
                taken += purse.spent_on(block)
            else:
                passed.append(block)
    for block in passed:
        taken += purse.spent_on(block)
    return taken


@dataclass
class Purse:
    """Seconds that are left, and the work that is paid for."""

    told: Calibration
    left: float
    done: set[str] = field(default_factory=set)

    def cost(self, cells: Iterable[Cell]) -> float:
        work = {key: cost for cell in cells for key, cost in self.told.work(cell).items()}
        return sum(cost.seconds for key, cost in work.items() if key not in self.done)

    def spent_on(self, block: Iterable[Cell]) -> list[Cell]:
        """The cells of a block that it can pay for, the most wanted first."""
        bought, rest = [], [*block]
        while rest:
            cell = min(rest, key=self._rank)
            rest.remove(cell)
            if (cost := self.cost([cell])) <= self.left:
                self.left -= cost
                self.done |= self.told.work(cell).keys()
                bought.append(cell)
        return bought

    def _rank(self, cell: Cell) -> tuple[bool, float]:
        return cell.method.name != self.told.plan.suite.baseline, self.cost([cell])


def kind_of(cell: Cell, link: Link) -> tuple[object, ...]:
    """What decides the cost of a step: of stages that are of one kind, one is tried."""
    budget, choices = link.stage.budget, chain(*link.views.values())
    objective, drawn = link.objective, link.objective.entry.searched
    return (
        cell.method.encoder,
        objective.entry.name,
        *((name, value) for name, value in objective.options.items() if name not in drawn),
        len(link.domains),
        budget.batch_size,
        budget.parts,
        budget.optimizer,
        *(choice.text for choice in choices),
    )


def built(cell: Cell, link: Link, plan: Plan) -> tuple[nn.Module, Objective]:
    """Encoder and objective as the stage has them, for a trial."""
    encoder = fresh_encoder(cell.method.encoder, plan)
    objective = begun(link.objective.build(encoder, plan.pack.task), encoder, plan.pack.task)
    return encoder, objective.to(plan.machine.device)


def fresh_encoder(text: str, plan: Plan) -> nn.Module:
    encoder = build_encoder(plan.catalog.resolve("encoder", text), plan.pack.task, 0)
    return encoder.to(plan.machine.device).to(memory_format=torch.channels_last)


def pace_of(cell: Cell, link: Link, plan: Plan, steps: int = 4) -> Pace:
    """What steps of the stage take here, tried on a copy that is thrown away.

    BadInput if it fails.
    """
    keep_freed_memory()
    encoder, objective = built(cell, link, plan)
    clock = [time.perf_counter()]

    def watch(step: int, loss: Tensor) -> None:
        loss.item()  # wait for the device
        clock.append(time.perf_counter())

    try:
        train(
            encoder,
            objective,
            build_views(link, plan.pack.task),
            plan.feed(cell, link),
            replace(link.stage.budget, steps=steps),
            seed=0,
            precision=plan.machine.precision,
            compiled=plan.machine.compiled,
            watch=watch,
        )
    except Diverged:  # as it says after the last step; with the cell's seed it need not
        pass
    except Exception as error:
        raise BadInput(
            f"method {cell.method.name}: a step of {link.stage.objective} fails: "
            f"{type(error).__name__}: {error}"
        ) from error
    step = (clock[-1] - clock[1]) / (len(clock) - 2)
    return Pace(max(0.0, clock[1] - clock[0] - step), step)


def footprint(cell: Cell, link: Link, plan: Plan) -> Footprint:
    """From a batch with four rows of a domain, and half of it; a smaller one is tried as it is."""
    encoder, objective = built(cell, link, plan)
    budget, domains = link.stage.budget, few(link)
    most = min(4 * len(domains), budget.batch_size)
    least = most // 2 if most == 4 * len(domains) else most

    def rows(size: int) -> Rows:
        device = plan.machine.device
        return Feed(plan.pack, plan.inputs, domains, link.labelled, size, 0, device)(0)

    return footprint_of(
        encoder,
        objective,
        build_views(link, plan.pack.task),
        (rows(least), rows(most)),
        plan.machine.precision,
        budget.optimizer,
    )


def few(link: Link) -> tuple[str, ...]:
    """Up to four of the stage's domains, of those with labels and of those without."""
    labelled = [name for name in link.domains if name in link.labelled]
    others = [name for name in link.domains if name not in link.labelled]
    return (*labelled[: max(2, 4 - len(others))], *others)[:4]


def shares(sides: Sides, plan: Plan) -> list[Share]:
    return shares_of(sides, plan.pack)


def rests(sides: Sides, plan: Plan) -> list[Share]:
    return unread(sides, plan.pack)


def features_memory(text: str, plan: Plan) -> int:
    """What the device holds while features are extracted, from those of two rows."""
    encoder = fresh_encoder(text, plan)
    with Live(members(encoder)) as live:
        extract(encoder, plan.inputs, torch.arange(2), plan.machine.device)
    rows = min(CHUNK, len(plan.pack.labels))
    return sum(tensor.nbytes for tensor in members(encoder)) + rows * live.peak // 2


def seconds_per_row(text: str, plan: Plan) -> float:
    """What the features of a row take here, tried on as many as are encoded at once."""
    encoder, device = fresh_encoder(text, plan), plan.machine.device
    rows = torch.arange(len(plan.pack.labels))[:CHUNK]
    extract(encoder, plan.inputs, rows[:2], device)  # warmed up
    start = time.perf_counter()
    extract(encoder, plan.inputs, rows, device)
    return (time.perf_counter() - start) / len(rows)


def sized(size: float) -> str:
    """Bytes to read: ``0.4 MB``, ``35 MB``, ``0.9 GB``."""
    if size >= 1e8:
        return f"{size / 1e9:.1f} GB"
    return f"{size / 1e6:.1f} MB" if size < 9.95e6 else f"{size / 1e6:.0f} MB"


def span(seconds: float) -> str:
    """A time to read: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
