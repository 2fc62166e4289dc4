"""What cells cost with all that follows training: readouts, validators and diagnostics."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from benchbench.diagnostics.geometry import ROWS as LOOKED_AT
from benchbench.diagnostics.geometry import Side, diagnose
from benchbench.evaluation.criteria import FEW, PATH, common_key, in_common, validate
from benchbench.evaluation.criteria import ROWS as READ
from benchbench.evaluation.features import Features, Moments
from benchbench.evaluation.readouts.linear_probe import linear
from benchbench.evaluation.readouts.registry import resolve_readout
from benchbench.evaluation.readouts.row_blocks import allowed, where_they_fit
from benchbench.extension.constants import TEST, TRAIN, VAL
from benchbench.extension.grammar import options_of, parse
from benchbench.suites.cost import Calibration, Estimate
from benchbench.suites.plan import Plan
from benchbench.suites.suite import Cell
from benchbench.training.device import held_memory

STEPS = 60  # of a solver, in the mean: how solving grows beside decomposing
PENALTIES: int = options_of(linear)["penalties"]
LANES = {"linear": PENALTIES, "validators": len(PATH), "diagnostics": 1}  # penalties of each fit


@dataclass(frozen=True)
class Sizes:
    """How many rows of a shift are read, of which width, into how many classes (0 of numbers)."""

    train: int  # of the source, with labels, and so on
    val: int
    unlabelled: int  # of all domains
    target: int  # of the target's domains, for training
    test: int  # of all domains
    width: int
    classes: int

    @classmethod
    def of(cls, cell: Cell, width: int, plan: Plan) -> "Sizes":
        pack, domains = plan.pack, (*cell.shift.sources, *cell.shift.targets)

        def count(names: tuple[str, ...], split: int, labelled: bool = False) -> int:
            rows = [pack.rows(name, split) for name in names]
            return sum(len(pack.with_label(r) if labelled else r) for r in rows)

        return cls(
            train=count(cell.labelled, TRAIN, True),
            val=count(cell.labelled, VAL, True),
            unlabelled=count(domains, TRAIN),
            target=count(cell.shift.targets, TRAIN),
            test=count(domains, TEST),
            width=width,
            classes=pack.task.num_classes,
        )

    def tried(self) -> "Sizes":
        """What a trial takes: as many, but few enough for some seconds."""
        most = {"val": 300, "target": 600, "width": 256, "classes": 16}
        few = {name: min(value, most.get(name, 1000)) for name, value in vars(self).items()}
        return Sizes(**few | {"train": max(few["train"], min(self.classes, 16) * 2)})

    @property
    def bytes(self) -> int:
        """Of the features, as they are kept and as what reads them joins them, and of all pairs."""
        rows = self.train + self.val + self.test + min(self.unlabelled, 2 * READ)
        return 2 * 4 * rows * self.width + 3 * 8 * min(self.target, FEW) ** 2


def solving(rows: int, width: int, classes: int, lanes: int) -> float:
    """Operations of logistic regression, in the space of the rows where these are fewer."""
    space = min(rows, width)
    basis = rows * width * space + 10.0 * space**3
    return basis + 4.0 * STEPS * lanes * max(classes, 2) * rows * space


def of_readout(name: str, s: Sizes) -> float:
    """Operations of fitting a readout and of scoring, up to a factor."""
    scored = float(s.val + s.test) * s.width * max(s.classes, 1)
    if name == "linear" and s.classes:
        return solving(s.train, s.width, s.classes, LANES["linear"]) + PENALTIES * scored
    if name in ("linear", "ridge"):
        space = min(s.train, s.width)
        return s.train * s.width * space + 10.0 * space**3 + PENALTIES * scored
    if name == "knn":
        return float(s.val + s.test) * s.train * s.width
    if name == "pfa":
        return float(s.unlabelled) * s.width**2 + 10.0 * s.width**3 + scored
    return s.train * s.width + scored


def of_common(name: str, s: Sizes) -> float:
    """Operations of what validators take from features alone."""
    source, target = min(s.train, READ), min(s.target, READ)
    spectrum = float(target) * s.width * min(target, s.width)
    clusters = float(min(target, FEW)) * s.width * max(s.classes, 1) * STEPS
    return spectrum + solving(source + target, s.width, 2, LANES[name]) + clusters


def of_validators(name: str, s: Sizes) -> float:
    """Operations of the validators of a readout."""
    target, few = min(s.target, READ), min(s.target, FEW)
    return float(target + s.val) * s.width * max(s.classes, 1) + few**2 * max(s.classes, 1)


def of_diagnostics(name: str, s: Sizes) -> float:
    """Operations of diagnosing: heads of both sides, and what tells them apart."""
    source, target = min(s.train, LOOKED_AT), min(s.target, LOOKED_AT)
    heads = sum(solving(rows, s.width, s.classes, LANES[name]) for rows in (source, target))
    each = 2 * min(source, target)
    within = max(s.classes, 1) * solving(each // max(s.classes, 1), s.width, 2, LANES[name])
    spectrum = float(source + target) * s.width**2
    return heads + solving(each, s.width, 2, LANES[name]) + within + spectrum


Growth = Callable[[str, Sizes], float]
Part = tuple[str, Growth]
COMMON, VALIDATORS = ("validators", of_common), ("validators", of_validators)
DIAGNOSTICS = ("diagnostics", of_diagnostics)


class WholeCost(Calibration):
    """As `Calibration`, and what follows training, from a trial on features that are drawn.

    A trial runs what a cell runs, on fewer rows, features and classes where there are many; its
    time grows as the operations do. How many steps a solver takes depends on the features, and a
    processor does more operations a second on large matrices: the estimate is of the order of the
    time. Head and zero_shot are taken to cost nothing.
    """

    def __init__(self, plan: Plan, **options: Any) -> None:
        super().__init__(plan, **options)
        self._paces: dict[tuple[object, ...], float] = {}

    def work(self, cell: Cell) -> dict[str, Estimate]:
        """Validators and diagnostics of an encoder are shared by its readouts."""
        if cell in self._works:
            return self._works[cell]
        work = dict(super().work(cell))
        plan, own = self.plan, self.plan.cell_id(cell)
        sizes = Sizes.of(cell, plan.facts(cell.method.encoder, None).width, plan)
        states = self.states(cell)
        readout = parse(cell.method.readout)[0]
        each = self._seconds(cell.method.readout, (readout, of_readout), sizes)
        each += self._seconds("linear", VALIDATORS, sizes)
        read = Estimate(
            len(states) * each, sizes.bytes + held_by_fit(readout, sizes, plan.machine.device)
        )
        work[own] += read
        for number, state in enumerate(states):
            key = common_key(state, plan.pack.fingerprint, cell.labelled, cell.shift.targets)
            if not plan.store.has("diagnostics", key):
                seconds = self._seconds("linear", COMMON, sizes)
                if not number:  # the end, which is diagnosed, too
                    seconds += self._seconds("linear", DIAGNOSTICS, sizes)
                work[key] = Estimate(seconds)
        for link in plan.missing(cell):
            if self._wants_probe(cell, link):
                work[link.key] += Estimate(self._seconds("linear", ("linear", of_readout), sizes))
        self._works[cell] = work
        return work

    def _seconds(self, readout: str, part: Part, sizes: Sizes) -> float:
        name, growth = part
        if not self.timed or name in ("head", "zero_shot"):
            return 0.0
        tried = sizes.tried()
        key = readout, growth, tried
        if key not in self._paces:
            self._paces[key] = trial(readout, growth, tried, self.plan.machine.device)
            self._paces[key] /= growth(name, tried)
        return self._paces[key] * growth(name, sizes)


def program_memory(device: torch.device) -> int:
    """Bytes that this process holds of the device once all that a cell needs is loaded.

    On the CPU that is the program and its libraries, which load a part of themselves at the first
    step, and the data that were read.
    """
    if device.type == "cpu":
        import timm  # noqa: F401

        layer = nn.Conv2d(3, 8, 3)
        layer(torch.zeros(2, 3, 8, 8)).sum().backward()
        torch.optim.AdamW(layer.parameters(), fused=True).step()
        for growth in (of_readout, of_validators, of_diagnostics):
            trial("linear", growth, Sizes(40, 20, 40, 40, 20, 8, 2), device)
    return held_memory(device)


def held_by_fit(name: str, s: Sizes, device: torch.device) -> int:
    """Bytes that fitting takes beside features and matrices of their width: no more than allowed.

    Two copies in float64, and what the solver of all penalties keeps.
    """
    lanes = LANES["linear"] * s.classes if name == "linear" else 0
    copies = 8 * (2 * s.train * s.width + 3 * lanes * (s.train + 10 * s.width))
    return 8 * s.width**2 + min(copies, allowed(device))


def trial(readout: str, growth: Growth, s: Sizes, device: torch.device) -> float:
    """Seconds of what ``growth`` is of.

    Features have classes apart and, as those of trained encoders, few directions of most variance:
    solvers take more steps to them than to white noise.
    """
    generator = torch.Generator().manual_seed(0)
    spectrum = 1 / (1 + torch.arange(s.width))
    mixing = torch.randn(s.width, s.width, generator=generator) * spectrum[:, None]
    mixing /= spectrum.norm()
    means = torch.randn(max(s.classes, 1), s.width, generator=generator) @ mixing

    def drawn(count: int) -> Features:
        noise = torch.randn(count, s.width, generator=generator) @ mixing
        number = torch.arange(count) % max(s.classes, 1)
        z = torch.relu(noise + 2 * means[number])
        return Features(z, number if s.classes else z[:, 0] + noise[:, 0])

    train, val, target, test = map(drawn, (s.train, s.val, s.target, s.test))
    rest = drawn(s.unlabelled).z

    def unlabelled() -> Moments:
        return Moments.of(rest)

    build = resolve_readout(readout)[1]
    assert build is not None, "a head is not tried"
    if growth is of_readout:
        train, val = where_they_fit((train, val), device)
        return clocked(lambda: build()(train, val, unlabelled, s.classes).scores(test.z))
    if growth is of_diagnostics:
        sides = Side.of(train, val, test), Side.of(target, val, test)
        return clocked(lambda: diagnose(*sides, s.classes))
    if growth is of_common:
        return clocked(lambda: in_common(train.z, val.z, target.z, s.classes))
    common = in_common(train.z, val.z, target.z, s.classes)
    fitted = build()(train, val, unlabelled, s.classes)
    return clocked(lambda: validate(fitted, common, val, target.z, val, s.classes))


def clocked(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
