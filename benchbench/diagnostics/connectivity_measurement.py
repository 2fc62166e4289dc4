"""Connectivity of a dataset under augmentations, measured once and kept in the store."""

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from benchbench.data.gathering import Streamed, resident
from benchbench.data.pack import Pack
from benchbench.diagnostics.connectivity import Connectivity, check_pairs, connectivity
from benchbench.diagnostics.graph_nodes import Node, nodes_of
from benchbench.diagnostics.node_classifiers import (
    Effort,
    Mistakes,
    Subject,
    apart,
    pairs_to_ask,
    shared,
)
from benchbench.extension.catalog import Catalog, Choice
from benchbench.extension.errors import BadInput
from benchbench.store.artifacts import Store
from benchbench.store.keys import key_of
from benchbench.suites.plan import (
    build_augmentation,
    build_encoder,
    check_modality,
    identity_of,
    versions_of,
)
from benchbench.suites.suite import Shift
from benchbench.training.device import Machine

Estimator = Literal["fast", "faithful"]
MOST_PAIRS, CONTROLS = 15, 4  # of classes within or across domains, and of halves: `faithful`
EDITION = 1  # of the estimators; another number measures anew


@dataclass(frozen=True)
class Measured:
    """What was found for some domains under one augmentation."""

    augmentation: str  # with all defaults
    nodes: tuple[Node, ...]
    left_out: tuple[str, ...]  # a sentence for each class of a domain that has too few rows
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
        """Of a shift, from the store or by training networks.

        With ``labels`` int64 [N], as if these were the pack's. BadInput if there are too few rows
        or classes.
        """
        domains = tuple(n for n in self.pack.domain_names if n in shift.sources + shift.targets)
        sources, targets = ({self.pack.domain_names.index(n) for n in side}
                            for side in (shift.sources, shift.targets))  # fmt: skip
        nodes, pairs, poor = self._nodes(domains, labels)
        check_pairs(nodes, sources, targets, str(shift))
        steps = self.steps(augmentation)
        spelled = " | ".join(step.text for step in steps) or "none"
        given = None if labels is None else digest_of(labels)
        key = self.key(steps, {"domains": domains, "labels": given, "estimator": self.estimator})

        def measure() -> tuple[dict[str, Tensor], Any]:
            subject, start = self.subject(nodes, steps, self.seed), time.perf_counter()
            mistakes = shared(subject) if self.estimator == "fast" else apart(subject, pairs)
            note = {"seconds": time.perf_counter() - start, "device": self.machine.name}
            return tensors_of(mistakes), note

        work = f"connectivity under {augmentation}"
        kept = self.store.once("connectivity", key, work, measure)
        mistakes = unpacked(kept.tensors)
        measured = Measured(spelled, nodes, poor, mistakes, **kept.note)
        return measured, connectivity(nodes, mistakes, sources, targets)

    def steps(self, augmentation: str) -> list[Choice]:
        """BadInput if there is no such augmentation, or it is not for such data."""
        steps = self.catalog.pipeline(augmentation)
        for step in steps:
            check_modality(step, self.pack.task, self.catalog)
        return steps

    def subject(self, nodes: Sequence[Node], steps: Sequence[Choice], seed: int) -> Subject:
        choice = self.catalog.resolve("encoder", self.encoder)
        return Subject(
            nodes,
            self.inputs,
            build_augmentation(steps, self.pack.task),
            lambda seed: build_encoder(choice, self.pack.task, seed),
            self.machine,
            self.effort,
            seed,
        )

    @cached_property
    def inputs(self) -> Tensor | Streamed:
        return resident(self.pack.inputs, self.machine)

    def _nodes(
        self, domains: Sequence[str], labels: Tensor | None
    ) -> tuple[tuple[Node, ...], list[tuple[int, int]], tuple[str, ...]]:
        """All that are told apart, the pairs that `apart` asks, and what is left out."""
        given = self.pack.labels if labels is None else labels
        nodes, poor = nodes_of(self.pack, domains, given, self.seed)
        if self.estimator == "fast":
            return tuple(nodes), [], tuple(poor)
        everyone, pairs = pairs_to_ask(nodes, MOST_PAIRS, CONTROLS, self.seed)
        return tuple(everyone), pairs, tuple(poor)

    def key(self, steps: Sequence[Choice], more: Mapping[str, object]) -> str:
        """Of what is learned from views by these steps."""
        return key_of(
            {
                "edition": EDITION,
                "encoder": identity_of(self.catalog.resolve("encoder", self.encoder)),
                "augmentation": [identity_of(step) for step in steps],
                "effort": asdict(self.effort),
                "seed": self.seed,
                "precision": self.machine.precision,
                "data": self.pack.fingerprint,
                "versions": versions_of(self.pack.task),
                **more,
            }
        )


def usual_encoder(pack: Pack) -> str:
    return "transformer" if pack.vocabulary else "small_cnn(width=16)"


def digest_of(labels: Tensor) -> str:
    return hashlib.sha256(labels.contiguous().numpy().data).hexdigest()


def tensors_of(mistakes: Mistakes) -> dict[str, Tensor]:
    sizes = torch.tensor([len(rows) for rows in mistakes.rows])
    joined = {name: torch.cat(parts) for name, parts in vars(mistakes).items()}
    return joined | {"sizes": sizes}


def unpacked(tensors: dict[str, Tensor]) -> Mistakes:
    sizes = tensors["sizes"].tolist()
    return Mistakes(*(tensors[part.name].split(sizes) for part in fields(Mistakes)))
