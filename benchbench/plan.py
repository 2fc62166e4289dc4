"""What a suite means with this data on this machine: its cells, their keys, what cannot run."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, reduce
from importlib.metadata import version
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from benchbench.catalog import Catalog, Choice
from benchbench.contracts import Objective, Task
from benchbench.data.feed import Feed, resident, shares
from benchbench.data.pack import Pack, Report, check_shift, prepare
from benchbench.machine import Machine
from benchbench.readout import resolve_readout
from benchbench.record import Record, file_stem
from benchbench.store import Store, key_of
from benchbench.suite import Cell, Stage, Suite
from benchbench.terms import BadInput, derive_seed
from benchbench.train import Augment


@dataclass(frozen=True)
class Link:
    """A stage of a cell with everything settled, and the key of what it leaves."""

    stage: Stage
    depth: int
    objective: Choice
    augmentations: tuple[Choice, ...]
    reads: tuple[str, ...]
    domains: tuple[str, ...]
    key: str


@dataclass(frozen=True)
class Facts:
    """What is known of an objective on an encoder once both were built."""

    reads: tuple[str, ...]
    has_head: bool
    nbytes: int  # of both, in the store
    width: int  # num_features


@dataclass(frozen=True)
class Plan:
    """A suite with its data prepared and its machine chosen."""

    suite: Suite
    catalog: Catalog
    dataset: Choice
    pack: Pack
    store: Store
    machine: Machine
    _facts: dict[tuple[str, str | None], Facts] = field(default_factory=dict)

    @classmethod
    def make(
        cls, suite: Suite, catalog: Catalog, data: Path, store: Store, device: str, report: Report
    ) -> "Plan":
        """BadInput if the data, the machine or what the suite names is not there."""
        machine = Machine.choose(device, suite.precision)
        dataset = catalog.resolve("dataset", suite.dataset)
        for method in suite.methods():  # before hours of decoding
            catalog.resolve("encoder", method.encoder)
            resolve_readout(method.readout)
            for stage in method.chain:
                catalog.resolve("objective", stage.objective)
                catalog.pipeline(stage.augmentation)
        pack = prepare(dataset.build(data), store.root / "packs", suite.split_seed, report)
        return cls(suite, catalog, dataset, pack, store, machine)

    @cached_property
    def cells(self) -> list[Cell]:
        return self.suite.cells(self.pack.domain_names)

    @cached_property
    def images(self) -> Tensor:
        """The pack's images, on the device where they fit."""
        return resident(self.pack.images, self.machine.device)

    def links(self, cell: Cell) -> list[Link]:
        """The cell's chain. A stage's key rests on all that can change what it leaves."""
        key = self._first_key(cell)
        links: list[Link] = []
        for depth, stage in enumerate(cell.method.chain):
            objective = self.catalog.resolve("objective", stage.objective)
            augmentations = tuple(self.catalog.pipeline(stage.augmentation))
            reads = self.facts(cell.method.encoder, stage.objective).reads
            domains = cell.shift.seen(stage.sees, self.pack.domain_names)
            key = key_of(
                {
                    "previous": key,
                    "depth": depth,
                    "objective": _identity(objective),
                    "augmentations": [_identity(choice) for choice in augmentations],
                    "domains": domains,
                    "labelled": cell.labelled if "labels" in reads else (),
                    "budget": asdict(stage.budget),
                    "seed": cell.seed,
                    "protocol": self.suite.protocol,
                    "precision": self.machine.precision,
                    "data": self.pack.fingerprint,
                }
            )
            links.append(Link(stage, depth, objective, augmentations, reads, domains, key))
        return links

    def _first_key(self, cell: Cell) -> str:
        """The key of the encoder before any stage."""
        encoder = self.catalog.resolve("encoder", cell.method.encoder)
        return key_of(
            {
                "encoder": _identity(encoder),
                "task": asdict(self.pack.task),
                "seed": cell.seed,
                "protocol": self.suite.protocol,
                "versions": {name: version(name) for name in ("timm", "torch")},
            }
        )

    def encoder_key(self, cell: Cell) -> str:
        """The key of the encoder that the cell's readout meets."""
        links = self.links(cell)
        return links[-1].key if links else self._first_key(cell)

    def cell_id(self, cell: Cell) -> str:
        return key_of(
            {
                "suite": self.suite.name,
                "method": cell.method.name,
                "shift": str(cell.shift),
                "encoder": self.encoder_key(cell),
                "readout": resolve_readout(cell.method.readout)[0],
                "labelled": cell.labelled,
                "seed": cell.seed,
                "protocol": self.suite.protocol,
                "data": self.pack.fingerprint,
            }
        )

    def record(self, cell: Cell) -> Record | None:
        """What is known of the cell from an earlier run."""
        stem = file_stem(cell.method.name, str(cell.shift), cell.seed, self.cell_id(cell))
        return self.store.record(self.suite.name, stem)

    def done(self, cell: Cell) -> bool:
        """Whether running the cell again would tell nothing new."""
        record = self.record(cell)
        return record is not None and record.status in ("scored", "diverged")

    def feed(self, cell: Cell, link: Link) -> Feed:
        size, seed = link.stage.budget.batch_size, stage_seed(cell, link.depth)
        device = self.machine.device
        return Feed(self.pack, self.images, link.domains, cell.labelled, size, seed, device)

    def facts(self, encoder: str, objective: str | None) -> Facts:
        """BadInput if encoder or objective break their contracts, or do not go together."""
        if (encoder, objective) not in self._facts:
            self._facts[encoder, objective] = self._look(encoder, objective)
        return self._facts[encoder, objective]

    def _look(self, encoder: str, objective: str | None) -> Facts:
        network = build_encoder(self.catalog.resolve("encoder", encoder), self.pack.task, seed=0)
        if objective is None:
            return Facts((), False, nbytes(network), cast(int, network.num_features))
        built = self.catalog.resolve("objective", objective).build(network, self.pack.task)
        if not isinstance(built, Objective) or not set(built.reads) <= {"labels", "domains"}:
            raise BadInput(f"objective {objective} breaks the contract of Objective")
        size = nbytes(network) + nbytes(built)
        return Facts(
            tuple(sorted(built.reads)), built.has_head, size, cast(int, network.num_features)
        )

    def check(self, cell: Cell) -> None:
        """BadInput if the cell cannot run, as far as can be told without training."""
        method, shift = cell.method, cell.shift
        check_shift(self.pack, cell.labelled, shift.targets, str(shift))
        _, build_readout = resolve_readout(method.readout)
        if build_readout is not None:
            build_readout()
        self.facts(method.encoder, None)
        for link in self.links(cell):
            shares(self.pack, link.domains, link.stage.budget.batch_size)
            if "labels" in link.reads and not set(link.domains) & set(cell.labelled):
                raise BadInput(
                    f"method {method.name}: {link.stage.objective} reads labels, but sees "
                    f"{link.stage.sees}, where there are none; labels = {method.labels!r}"
                )
            build_augmentation(link.augmentations, self.pack.task)
        if build_readout is None:
            last = method.chain[-1].objective if method.chain else None
            if not self.facts(method.encoder, last).has_head:
                owner = last or "an untrained encoder"
                raise BadInput(f"method {method.name}: {owner} has no head; use readout linear")

    def bytes_needed(self, cells: Sequence[Cell]) -> int:
        """About what the cells still have to write: encoders, features, and one checkpoint."""
        sizes, missing, rows = [0], set(), len(self.pack.labels)
        for cell in cells:
            width = self.facts(cell.method.encoder, None).width
            for link in self.links(cell):
                size = self.facts(cell.method.encoder, link.stage.objective).nbytes
                if link.key not in missing and not self.store.has("stages", link.key):
                    missing.add(link.key)
                    sizes.append(size + 4 * rows * width)  # and its features
        return sum(sizes) + 3 * max(sizes) + 10_000 * len(cells)


def stage_seed(cell: Cell, depth: int) -> int:
    return derive_seed(cell.seed, "stage", depth)


def build_encoder(choice: Choice, task: Task, seed: int) -> nn.Module:
    """An encoder whose random weights are a function of the seed, tried on two blank images."""
    torch.manual_seed(derive_seed(seed, "encoder"))
    encoder = choice.build(task)
    width = getattr(encoder, "num_features", None)
    if not isinstance(encoder, nn.Module) or not isinstance(width, int):
        raise BadInput(f"encoder {choice.text} is no module with num_features")
    with torch.no_grad():
        try:
            shape = tuple(encoder.eval()(torch.zeros(2, *task.image_shape)).shape)
        except (RuntimeError, AssertionError, ValueError) as error:
            size = " × ".join(map(str, task.image_shape))
            raise BadInput(f"encoder {choice.text} cannot read images of {size}: {error}") from None
    if shape != (2, width):
        raise BadInput(f"encoder {choice.text} returns {shape} for two images, not (2, {width})")
    return encoder


def build_augmentation(choices: Sequence[Choice], task: Task) -> Augment:
    """One function that applies all steps in turn."""
    steps = [choice.build(task) for choice in choices]
    return lambda images: reduce(lambda x, step: step(x), steps, images)


def nbytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in module.state_dict().values())


def _identity(choice: Choice) -> tuple[str, str]:
    return choice.text, choice.entry.plugin.digest
