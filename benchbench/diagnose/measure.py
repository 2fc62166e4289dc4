"""Connectivity of a dataset under augmentations, measured once and kept in the store."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from importlib.metadata import version
from typing import Literal

import torch
from torch import Tensor

from benchbench.catalog import Catalog
from benchbench.data.encoded import Encoded
from benchbench.data.feed import resident
from benchbench.data.pack import Pack
from benchbench.diagnose.connectivity import Connectivity, connectivity
from benchbench.diagnose.mistakes import Effort, Mistakes, Subject, apart, pairs_to_ask, shared
from benchbench.diagnose.nodes import Node, nodes_of
from benchbench.machine import Machine
from benchbench.plan import build_augmentation, build_encoder, check_modality, identity_of
from benchbench.store import Store, key_of
from benchbench.suite import Shift
from benchbench.terms import BadInput

Estimator = Literal["fast", "faithful"]
MOST_PAIRS, CONTROLS = 15, 4  # of classes within or across domains, and of halves: `faithful`
EDITION = 1  # of the estimators; another number measures anew


@dataclass(frozen=True)
class Measured:
    """What was found for some domains under one augmentation."""

    augmentation: str  # with all defaults
    nodes: tuple[Node, ...]
    mistakes: Mistakes
    seconds: float
    device: str


@dataclass(frozen=True)
class Meter:
    """Measures connectivity of one dataset."""

    catalog: Catalog
    pack: Pack
    store: Store
    machine: Machine
    encoder: str
    estimator: Estimator = "fast"
    effort: Effort = field(default_factory=Effort)
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.pack.class_names:
            raise BadInput("connectivity is of classes, and the dataset's labels are numbers")
        check_modality(self.catalog.resolve("encoder", self.encoder), self.pack.task, self.catalog)

    def of(
        self, augmentation: str, shift: Shift, labels: Tensor | None = None
    ) -> tuple[Measured, Connectivity]:
        """Of a shift; with ``labels`` int64 [N], as if these were the pack's."""
        domains = tuple(n for n in self.pack.domain_names if n in shift.sources + shift.targets)
        measured = self.measured(augmentation, domains, labels)
        numbers = [{self.pack.domain_names.index(n) for n in side}
                   for side in (shift.sources, shift.targets)]  # fmt: skip
        return measured, connectivity(measured.nodes, measured.mistakes, *numbers)

    def measured(
        self, augmentation: str, domains: Sequence[str], labels: Tensor | None = None
    ) -> Measured:
        """From the store, or by training networks."""
        steps = self.catalog.pipeline(augmentation)
        for step in steps:
            check_modality(step, self.pack.task, self.catalog)
        nodes, pairs = self._nodes(domains, labels)
        spelled = " | ".join(step.text for step in steps) or "none"
        key = self._key([identity_of(step) for step in steps], domains, labels)
        claims = self.store.claims
        with claims.held(key, f"connectivity under {augmentation}"):
            if kept := self.store.read("connectivity", key):
                mistakes = unpacked(kept.tensors)
                return Measured(spelled, nodes, mistakes, **kept.note)
            choice = self.catalog.resolve("encoder", self.encoder)
            subject = Subject(
                nodes,
                self._inputs,
                build_augmentation(steps, self.pack.task),
                lambda seed: build_encoder(choice, self.pack.task, seed),
                self.machine,
                self.effort,
                self.seed,
            )
            start = time.perf_counter()
            mistakes = shared(subject) if self.estimator == "fast" else apart(subject, pairs)
            seconds, device = time.perf_counter() - start, self.machine.name
            note = {"seconds": seconds, "device": device}
            self.store.write("connectivity", key, tensors_of(mistakes), note)
        return Measured(spelled, nodes, mistakes, seconds, device)

    @cached_property
    def _inputs(self) -> Tensor | Encoded:
        return resident(self.pack.inputs, self.machine.device)

    def _nodes(
        self, domains: Sequence[str], labels: Tensor | None
    ) -> tuple[tuple[Node, ...], list[tuple[int, int]]]:
        given = self.pack.labels if labels is None else labels
        nodes, _ = nodes_of(self.pack, domains, given, self.seed)
        if self.estimator == "fast":
            return tuple(nodes), []
        everyone, pairs = pairs_to_ask(nodes, MOST_PAIRS, CONTROLS, self.seed)
        return tuple(everyone), pairs

    def _key(
        self, augmentation: list[tuple[str, str]], domains: Sequence[str], labels: Tensor | None
    ) -> str:
        given = "" if labels is None else key_of({"labels": labels.tolist()})
        return key_of(
            {
                "edition": EDITION,
                "estimator": self.estimator,
                "encoder": identity_of(self.catalog.resolve("encoder", self.encoder)),
                "augmentation": augmentation,
                "domains": domains,
                "labels": given,
                "effort": asdict(self.effort),
                "seed": self.seed,
                "precision": self.machine.precision,
                "data": self.pack.fingerprint,
                "torch": version("torch"),
            }
        )


def tensors_of(mistakes: Mistakes) -> dict[str, Tensor]:
    sizes = torch.tensor([len(rows) for rows in mistakes.rows])
    joined = {name: torch.cat(parts) for name, parts in vars(mistakes).items()}
    return joined | {"sizes": sizes}


def unpacked(tensors: dict[str, Tensor]) -> Mistakes:
    sizes = tensors["sizes"].tolist()
    return Mistakes(*(tensors[part.name].split(sizes) for part in fields(Mistakes)))
