"""What a suite means with this data on this machine: its cells, their keys, what cannot run."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache, cached_property, partial, reduce
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from benchbench.data.batches import Feed, shares
from benchbench.data.dataset_loading import packed
from benchbench.data.gathering import Streamed, nearby, resident
from benchbench.data.pack import Pack, check_shift, unseen
from benchbench.data.preparation import Report
from benchbench.evaluation.readouts.registry import check_task, resolve_readout
from benchbench.extension.catalog import Catalog, Choice
from benchbench.extension.constants import TRAIN
from benchbench.extension.contracts import Objective, Supervised, Task
from benchbench.extension.errors import BadInput
from benchbench.extension.grammar import spell
from benchbench.store.artifacts import State, Store, sha256_of
from benchbench.store.keys import first_key, keys_with, snapshot_key
from benchbench.store.records import Record, Status, Unseen, file_stem, nothing_collected
from benchbench.suites.hyperparameter_draws import drawn
from benchbench.suites.suite import Cell, Method, Sees, Shift, Stage, Suite
from benchbench.training.device import Machine
from benchbench.training.loop import Augment, Views, as_it_is
from benchbench.training.seeds import derive_seed

DONE = ("scored", "diverged")  # a status of which another run would tell nothing new


@dataclass(frozen=True)
class Link:
    """A stage of a cell with everything settled, and the key of what it leaves."""

    stage: Stage
    depth: int
    objective: Choice
    views: Mapping[str, tuple[Choice, ...]]  # the augmentations of every kind of view it makes
    reads: tuple[str, ...]
    domains: tuple[str, ...]
    labelled: tuple[str, ...]  # the domains whose labels it reads
    start: str  # the key of the encoder it starts from
    key: str
    snapshots: tuple[int, ...] = ()  # the steps after which its state is kept, too

    def snapshot_key(self, step: int) -> str:
        return snapshot_key(self.key, step)


@dataclass(frozen=True)
class Facts:
    """What is known of an objective on an encoder once both were built."""

    reads: tuple[str, ...]
    has_head: bool
    begins: str
    kinds: tuple[str, ...]  # of views it asks for: full, weak, small
    nbytes: int  # of both, in the store
    width: int  # num_features
    linear_head: bool = False  # one that the next stage can begin with
    looks_inside: bool = False


@dataclass(frozen=True)
class Settled:
    """A stage on an encoder, whatever the shift and the seed."""

    objective: Choice
    facts: Facts
    views: Mapping[str, tuple[Choice, ...]]
    identity: Mapping[str, object]  # what of it belongs into a key


@dataclass(frozen=True)
class Plan:
    """A suite with its data prepared and its machine chosen."""

    suite: Suite
    catalog: Catalog
    dataset: Choice
    pack: Pack
    store: Store
    machine: Machine
    checkpoint_every: float = 60.0  # seconds
    _facts: dict[Hashable, Facts] = field(default_factory=dict, init=False)

    @classmethod
    def make(
        cls,
        suite: Suite,
        catalog: Catalog,
        data: Path,
        store: Store,
        device: str,
        report: Report,
        *,
        compiled: bool = False,
    ) -> "Plan":
        """BadInput if the data, the machine or what the suite names is not there."""
        machine = Machine.choose(device, suite.precision, compiled=compiled)
        dataset = catalog.resolve("dataset", suite.dataset)
        for method in suite.methods():  # before hours of decoding
            catalog.resolve("encoder", method.encoder)
            resolve_readout(method.readout)
            for stage in method.chain:
                catalog.resolve("objective", stage.objective)
                for text in (stage.augmentation, stage.weak, stage.small):
                    catalog.pipeline(text or "none")
        pack = packed(dataset, data, store, suite.split_seed, report)
        return cls(suite, catalog, dataset, pack, store, machine)

    @cached_property
    def cells(self) -> list[Cell]:
        drawn_ones = cache(self._drawn)
        return [
            replace(cell, method=drawn_ones(cell.method, cell.seed, cell.draw))
            if cell.draw
            else cell
            for cell in self.suite.cells(self._named)
        ]

    @property
    def _named(self) -> tuple[str, ...]:
        """The domains that shifts may name; for "all", those that it means. BadInput if too few."""
        if self.suite.named_domains:
            return self.pack.domain_names
        if len(meant := self.pack.labelled_domains) < 2:
            there = f"domain {meant[0]!r} alone has" if meant else "no domain has"
            raise BadInput(f'shifts = "all" means no shift of {self.dataset.text}: {there} labels')
        return meant

    def remarks(self, cells: Sequence[Cell]) -> list[str]:
        """What a reader of these cells' scores should know of the data, a sentence each."""
        left_out = [name for name in self.pack.domain_names if name not in self._named]
        told = [
            f'shifts = "all" leaves out domain {name!r}: none of its {self._size(name):,} rows has '
            'a label; stages with sees = "all" train on them'
            for name in left_out
        ]
        taught = {(c.shift, c.method.labels): c for c in cells if not reads_texts(c.method.readout)}
        for (shift, labels), cell in taught.items():
            if found := self.unseen(cell):
                told.append(found.sentence(str(shift), labels))
        return told

    def _size(self, domain: str) -> int:
        return int((self.pack.domains == self.pack.domain_names.index(domain)).sum())

    def unseen(self, cell: Cell) -> Unseen | None:
        """Classes on which the cell errs, as no label has taught them."""
        if reads_texts(cell.method.readout):
            return None
        return unseen(self.pack, cell.labelled, cell.shift.targets)

    def _drawn(self, method: Method, seed: int, draw: int) -> Method:
        return drawn(method, self.catalog, self.suite.tune, seed, draw)

    @cached_property
    def inputs(self) -> Tensor | Streamed:
        """The pack's inputs, on the device where they fit."""
        return resident(self.pack.inputs, self.machine)

    @property
    def on_device(self) -> int:
        """Bytes of a GPU that inputs take."""
        near = nearby(self.__dict__["inputs"], self.machine.device) if self._asked else None
        return 0 if near is None else near.nbytes

    @property
    def _asked(self) -> bool:
        return "inputs" in self.__dict__

    def release(self) -> None:
        """Give back the memory that inputs take on a GPU, until they are asked for again."""
        if self.on_device:
            del self.__dict__["inputs"]
            torch.cuda.empty_cache()

    def make_room(self, needed: int) -> None:
        """Leave so many bytes of a GPU free: as many rows as that takes go back to the host."""
        held, free = self.on_device, self.machine.free_memory()
        if held and free < needed:
            self.release()
            room = max(0, held - (needed - free))
            self.__dict__["inputs"] = resident(self.pack.inputs, self.machine, room)

    def links(self, cell: Cell) -> list[Link]:
        """The cell's chain. A stage's key rests on all that can change what it leaves."""
        key = self._first_key(cell.method.encoder, cell.seed)
        links: list[Link] = []
        for depth, stage in enumerate(cell.method.chain):
            encoder, shift, labels = cell.method.encoder, cell.shift, cell.labelled
            link, key_from = self._link(encoder, stage, depth, shift, labels)
            start, key = key, key_from(previous=key, seed=cell.seed)
            links.append(link(start=start, key=key))
        return links

    @cached_property
    def _link(self) -> Callable[..., tuple[Callable[..., Link], Callable[..., str]]]:
        """What makes the links of a stage on a shift, and their keys, whatever the seed."""

        @cache
        def link(
            encoder: str, stage: Stage, depth: int, shift: Shift, labels: tuple[str, ...]
        ) -> tuple[Callable[..., Link], Callable[..., str]]:
            settled = self._settled(encoder, stage)
            reads, domains = settled.facts.reads, self._domains(shift, stage.sees)
            labelled = labels if "labels" in reads else ()
            common = {
                "depth": depth,
                "domains": domains,
                "labelled": labelled,
                "protocol": self.suite.protocol,
                "precision": self.machine.precision,
                "data": self.pack.fingerprint,
                **settled.identity,
            }
            made = partial(
                Link,
                stage,
                depth,
                settled.objective,
                settled.views,
                reads,
                domains,
                labelled,
                snapshots=self._snapshots(stage.budget.steps),
            )
            return made, keys_with(common, "previous", "seed")

        return link

    @cached_property
    def _settled(self) -> Callable[[str, Stage], Settled]:
        """Of a suite with many shifts, seeds and draws, each stage is worked out once."""

        @cache
        def settled(encoder: str, stage: Stage) -> Settled:
            objective = self.catalog.resolve("objective", stage.objective)
            facts = self.facts(encoder, stage.objective)
            texts = {"full": stage.augmentation, "weak": stage.weak, "small": stage.small or "none"}
            views = {kind: tuple(self.catalog.pipeline(texts[kind])) for kind in facts.kinds}
            identity = {
                "objective": identity_of(objective),
                "views": {kind: [identity_of(c) for c in views[kind]] for kind in views},
                "budget": stage.budget.key,
            }
            return Settled(objective, facts, views, identity)

        return settled

    @cached_property
    def _domains(self) -> Callable[[Shift, Sees], tuple[str, ...]]:
        """Whose rows a stage is given."""

        @cache
        def domains(shift: Shift, sees: Sees) -> tuple[str, ...]:
            seen = shift.seen(sees, self.pack.domain_names)
            if sees == "all":  # of which some may be there for their test rows alone
                return tuple(name for name in seen if len(self.pack.rows(name, TRAIN)))
            return seen

        return domains

    def _snapshots(self, steps: int) -> tuple[int, ...]:
        parts = self.suite.snapshots
        return tuple(sorted({steps * part // parts for part in range(1, parts)} - {0}))

    def missing(self, cell: Cell) -> list[Link]:
        """The stages of the cell that nobody has trained yet, or not with these snapshots."""
        return [link for link in self.links(cell) if not self.trained(link)]

    def trained(self, link: Link) -> bool:
        keys = map(link.snapshot_key, link.snapshots)
        return self.store.has("stages", link.key) and all(
            self.store.has("snapshots", key) for key in keys
        )

    @cached_property
    def _first_key(self) -> Callable[[str, int], str]:
        """The key of an encoder before any stage, by its spelling and the seed."""
        task, protocol = self.pack.task, self.suite.protocol
        facts, versions = asdict(task), versions_of(task)

        @cache
        def first(encoder: str, seed: int) -> str:
            identity = identity_of(self.catalog.resolve("encoder", encoder))
            return first_key(identity, facts, seed, protocol, versions, self.weights(encoder))

        return first

    @cached_property
    def weights(self) -> Callable[[str], str | None]:
        """The sha256 of what an encoder begins with, where its option ``pretrained`` is set.

        Under one name there may be other weights tomorrow.
        """

        @cache
        def weights(encoder: str) -> str | None:
            choice = self.catalog.resolve("encoder", encoder)
            if not choice.options.get("pretrained"):
                return None
            return sha256_of(build_encoder(choice, self.pack.task, seed=0).state_dict())

        return weights

    def encoder_key(self, cell: Cell) -> str:
        """The key of the encoder that the cell's readout meets."""
        links = self.links(cell)
        return links[-1].key if links else self._first_key(cell.method.encoder, cell.seed)

    @property
    def _groups(self) -> tuple[str, ...]:
        """What a record names of groups, which no training reads."""
        assert self.pack.groups is not None, "the names are of something"
        return (str(self.pack.groups.dtype), *self.pack.group_names)

    @cached_property
    def cell_id(self) -> Callable[[Cell], str]:
        """The key of all that a cell's record says."""

        @cache
        def key_from(
            method: Method, shift: Shift, draw: int, snapshots: tuple[int, ...]
        ) -> Callable[..., str]:
            common = {
                "suite": self.suite.name,
                "method": method.name,
                "shift": str(shift),
                "readout": resolve_readout(method.readout)[0],
                "labelled": Cell(method, shift, 0).labelled,
                "protocol": self.suite.protocol,
                "data": self.pack.fingerprint,
                "metric": self.pack.metric,
                **({"groups": self._groups} if self.pack.group_names else {}),
                **({"draw": draw} if draw else {}),
                **({"snapshots": snapshots} if snapshots else {}),
            }
            return keys_with(common, "encoder", "seed")

        @cache
        def of(cell: Cell) -> str:
            links = self.links(cell)
            snapshots = links[-1].snapshots if links else ()
            first = self._first_key(cell.method.encoder, cell.seed)
            key = key_from(cell.method, cell.shift, cell.draw, snapshots)
            return key(encoder=links[-1].key if links else first, seed=cell.seed)

        return of

    def stem(self, cell: Cell) -> str:
        """How the names of the cell's files begin."""
        return file_stem(cell.method.name, str(cell.shift), cell.seed, self.cell_id(cell))

    @cached_property
    def stems(self) -> list[str]:
        """The same of every cell."""
        with nothing_collected():
            return [self.stem(cell) for cell in self.cells]

    def record(self, cell: Cell) -> Record | None:
        """What is known of the cell from an earlier run."""
        return self.store.record(self.suite.name, self.stem(cell))

    def records(self) -> list[Record | None]:
        """The same of every cell."""
        return self.store.every_record(self.suite.name, self.stems)

    def status(self, cell: Cell) -> Status | None:
        """What became of the cell in an earlier run, without reading all of its record."""
        return self.store.status(self.suite.name, self.stem(cell))

    def state(self) -> State:
        """Of the suite's records, now."""
        return self.store.state(self.suite.name)

    def statuses(self, state: State) -> dict[Cell, Status | None]:
        """The same of every cell, faster."""
        known = self.store.statuses(self.suite.name, state)
        return {c: known.get(stem) for c, stem in zip(self.cells, self.stems, strict=True)}

    def older_records(self) -> dict[Cell, Record]:
        """Of cells without a record: what was last scored when data, code or settings were others.

        Such a record is stale.
        """
        there = self.store.stems(self.suite.name)
        named = zip(self.cells, self.stems, strict=True)
        missing = [cell for cell, stem in named if stem not in there]
        stems: dict[str, list[str]] = {}
        for stem in sorted(there) if missing else ():
            stems.setdefault(stem.rpartition("--")[0], []).append(stem)
        found = {}
        for cell in missing:
            mine = (cell.method.name, str(cell.shift), cell.draw, "scored")
            alike = stems.get(self.stem(cell).rpartition("--")[0], ())
            older = [r for stem in alike if (r := self.store.record(self.suite.name, stem))]
            for record in sorted(older, key=lambda r: r.started):
                if (record.method, record.shift, record.draw, record.status) == mine:
                    found[cell] = record
        return found

    def done(self, cell: Cell) -> bool:
        """Whether running the cell again would tell nothing new."""
        return self.status(cell) in DONE

    def feed(self, cell: Cell, link: Link) -> Feed:
        size, seed = link.stage.budget.batch_size, stage_seed(cell, link.depth)
        device = self.machine.device
        return Feed(self.pack, self.inputs, link.domains, link.labelled, size, seed, device)

    def facts(self, encoder: str, objective: str | None) -> Facts:
        """BadInput if encoder or objective break their contracts, or do not go together.

        Options that a search draws are taken to change none of it, as there may be thousands.
        """
        key = encoder, self._undrawn(objective) if objective else None
        if key not in self._facts:
            self._facts[key] = self._look(encoder, objective)
        return self._facts[key]

    def _undrawn(self, objective: str) -> Hashable:
        """An objective without the options that a search draws."""
        choice = self.catalog.resolve("objective", objective)
        drawn_ones = choice.entry.searched
        kept = {name: value for name, value in choice.options.items() if name not in drawn_ones}
        return spell(choice.entry.name, kept)

    def _look(self, encoder: str, objective: str | None) -> Facts:
        choice = self.catalog.resolve("encoder", encoder)
        check_modality(choice, self.pack.task, self.catalog)
        network = build_encoder(choice, self.pack.task, seed=0)
        if objective is None:
            width = cast(int, network.num_features)
            return Facts((), False, "fresh", (), nbytes(network), width)
        chosen = self.catalog.resolve("objective", objective)
        if isinstance(chosen.entry.factory, type):  # before it is built, as far as a class tells
            check_learns(chosen, chosen.entry.factory, self.pack.task)
        built = chosen.build(network, self.pack.task)
        if not isinstance(built, Objective) or not set(built.reads) <= {"labels", "domains"}:
            raise BadInput(f"objective {objective} breaks the contract of Objective")
        check_learns(chosen, type(built), self.pack.task)
        size = nbytes(network) + nbytes(built)
        wanted = {"full": built.n_views, "weak": built.n_weak, "small": built.n_small}
        return Facts(
            tuple(sorted(built.reads)),
            built.has_head,
            built.begins,
            tuple(kind for kind, count in wanted.items() if count),
            size,
            cast(int, network.num_features),
            isinstance(built, Supervised),
            built.looks_inside,
        )

    def check(self, cell: Cell) -> None:
        """BadInput if the cell cannot run, as far as can be told without training."""
        method, shift = cell.method, cell.shift
        check_shift(self.pack, cell.labelled, shift.targets, str(shift))
        _, build_readout = resolve_readout(method.readout)
        check_task(method.readout, self.pack.task.num_classes)
        if build_readout is not None:
            build_readout()
        self.facts(method.encoder, None)
        for link in self.links(cell):
            shares(self.pack, link.domains, link.labelled, link.stage.budget.batch_size)
            if "labels" in link.reads and not set(link.domains) & set(cell.labelled):
                raise BadInput(
                    f"method {method.name}: {link.stage.objective} reads labels, but sees "
                    f"{link.stage.sees}, where there are none; labels = {method.labels!r}"
                )
            self._check_parts(method, link)
            self._check_views(method, link)
            self._check_beginning(method, link)
        if build_readout is None:
            last = method.chain[-1].objective if method.chain else None
            if not self.facts(method.encoder, last).has_head:
                owner = last or "an untrained encoder"
                raise BadInput(f"method {method.name}: {owner} has no head; use readout linear")

    def _check_parts(self, method: Method, link: Link) -> None:
        parts, name = link.stage.budget.parts, link.stage.objective
        if parts > link.stage.budget.batch_size:
            raise BadInput(f"method {method.name}: parts = {parts} is more than a batch has rows")
        if parts > 1 and self.facts(method.encoder, name).looks_inside:
            raise BadInput(
                f"method {method.name}: {name} looks inside the encoder, which cannot read a batch "
                f"in parts = {parts}; set parts = 1"
            )

    def _check_views(self, method: Method, link: Link) -> None:
        for choice in (choice for choices in link.views.values() for choice in choices):
            check_modality(choice, self.pack.task, self.catalog)
        views, name = build_views(link, self.pack.task), link.stage.objective
        if "small" not in link.views:
            return
        if link.stage.small is None:
            how = 'set small = "swav_views(scale=(0.05, 0.14), size=…)", or ask it for none'
            if self.pack.vocabulary:
                how = f"ask it for none, as in {name.partition('(')[0]}(small=0)"
            raise BadInput(
                f"method {method.name}: {name} makes small views, but the stage does not say how; "
                f"{how}"
            )
        small = views.small(self.pack.task.blank(2))
        encoder = build_encoder(self.catalog.resolve("encoder", method.encoder), self.pack.task, 0)
        try:
            encoder(small)
        except (RuntimeError, AssertionError, ValueError) as error:
            size = " × ".join(map(str, small.shape[1:]))
            raise BadInput(f"encoder {method.encoder} cannot read {size}: {error}") from None

    def _check_beginning(self, method: Method, link: Link) -> None:
        name, facts = link.stage.objective, self.facts(method.encoder, link.stage.objective)
        before = method.chain[link.depth - 1].objective if link.depth else None
        inherits = facts.begins == "head" and self.facts(method.encoder, before).linear_head
        if facts.begins != "fresh" and not inherits and "labels" not in facts.reads:
            raise BadInput(
                f"method {method.name}: {name} goes on from the head of the stage before, and "
                f"{before or 'an untrained encoder'} has none that it can take"
            )


def reads_texts(readout: str) -> bool:
    """Whether the readout knows classes by their texts, and needs no labelled row of them."""
    return readout.partition("(")[0].strip() == "zero_shot"


def stage_seed(cell: Cell, depth: int) -> int:
    return derive_seed(cell.seed, "stage", depth)


def check_modality(choice: Choice, task: Task, catalog: Catalog) -> None:
    """BadInput if it is for images and the data are texts, or the other way round."""
    entry = choice.entry
    if task.modality not in entry.modalities:
        others = ", ".join(
            e.name
            for e in catalog.entries.values()
            if e.kind == entry.kind and task.modality in e.modalities
        )
        mine = "s and ".join(sorted(entry.modalities))
        raise BadInput(
            f"{entry.kind} {entry.name} is for {mine}s, and the data are {task.modality}s; for "
            f"them there is {others}"
        )


def check_learns(choice: Choice, kind: type, task: Task) -> None:
    """BadInput if an objective of this class cannot learn from such data."""
    if not issubclass(kind, Objective):
        return
    if task.modality not in kind.modalities:
        mine = "s and ".join(sorted(kind.modalities))
        raise BadInput(f"{choice.entry.name} is for {mine}s, and the data are {task.modality}s")
    wants_classes = "labels" in kind.reads or kind.predict is not Objective.predict
    if wants_classes and not task.num_classes and not kind.regresses:
        raise BadInput(f"{choice.entry.name} wants classes, and the data's labels are numbers")


def build_encoder(choice: Choice, task: Task, seed: int) -> nn.Module:
    """An encoder whose random weights are a function of the seed, tried on two blank rows."""
    torch.manual_seed(derive_seed(seed, "encoder"))
    encoder = choice.build(task)
    width = getattr(encoder, "num_features", None)
    if not isinstance(encoder, nn.Module) or not isinstance(width, int):
        raise BadInput(f"encoder {choice.text} is no module with num_features")
    with torch.no_grad():
        try:
            shape = tuple(encoder.eval()(task.blank(2)).shape)
        except Exception as error:  # as many types as there are networks
            size = f"{task.modality}s of {' × '.join(map(str, task.input_shape))}"
            raise BadInput(f"encoder {choice.text} cannot read {size}: {error}") from None
    if shape != (2, width):
        raise BadInput(f"encoder {choice.text} returns {shape} for two rows, not (2, {width})")
    return encoder


def build_augmentation(choices: Sequence[Choice], task: Task) -> Augment:
    """One function that applies all steps in turn."""
    steps = [choice.build(task) for choice in choices]
    return lambda inputs: reduce(lambda x, step: step(x), steps, inputs)


def build_views(link: Link, task: Task) -> Views:
    built = {kind: build_augmentation(choices, task) for kind, choices in link.views.items()}
    return Views(**{"full": as_it_is, **built})


def nbytes(module: nn.Module) -> int:
    return sum(tensor.nbytes for tensor in module.state_dict().values())


def versions_of(task: Task) -> dict[str, str]:
    """Of the libraries that encoders are made of."""
    text = ("transformers",) if task.vocabulary and find_spec("transformers") else ()
    return {name: version(name) for name in ("timm", "torch", *text)}


def identity_of(choice: Choice) -> tuple[str, str]:
    """What of a choice belongs into a key: its spelling, and its plugin's source."""
    return choice.text, choice.entry.plugin.digest
