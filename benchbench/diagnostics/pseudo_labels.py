"""Classes of target rows where nobody knows them: what classifiers of the source take them for."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchbench.data.pack import Pack
from benchbench.diagnostics.connectivity_measurement import Meter
from benchbench.diagnostics.graph_nodes import Node, nodes_of
from benchbench.diagnostics.node_classifiers import Subject, tells_all
from benchbench.evaluation.features import extract
from benchbench.extension.constants import UNKNOWN
from benchbench.suites.suite import Shift
from benchbench.training.seeds import derive_seed

CLASSIFIERS = 2


@dataclass(frozen=True)
class Pseudo:
    """Labels that no target label has touched."""

    labels: Tensor  # int64 [N]: the source's own; the target's predicted, or UNKNOWN
    agreement: float  # of two classifiers on target rows, in [0, 1]; about their accuracy
    source: tuple[float, ...]  # balanced accuracy of each on source rows that it has not seen
    chance: float  # of that accuracy: one over the number of classes they tell apart
    classes: int  # of the target's rows on which they agree; below 2 the labels say nothing


def pseudo_labels(meter: Meter, augmentation: str, shift: Shift) -> Pseudo:
    """By two classifiers, trained from scratch on augmented source rows, each with its own seed.

    A target row on which they disagree gets no label. How often they agree is about how often one
    of them is right, as far as they are calibrated (Jiang et al. 2022, arXiv:2106.13799); on a
    shift that misleads both alike it is too high.
    """
    pack, steps = meter.pack, meter.steps(augmentation)
    targets = torch.tensor([pack.domain_names.index(name) for name in shift.targets])
    rows = torch.isin(pack.domains, targets).nonzero().flatten()
    key = meter.key(
        steps, {"pseudo": shift.sources, "targets": shift.targets, "with": "source accuracy"}
    )

    def predicted() -> tuple[dict[str, Tensor], dict[str, object]]:
        told, source = [], []
        for number in range(CLASSIFIERS):
            seed = derive_seed(meter.seed, "pseudo", number)
            nodes = classes_of(pack, shift.sources, seed)
            subject = meter.subject(nodes, steps, seed)
            network = tells_all(subject)
            classes = torch.tensor([node.label for node in nodes])
            told.append(classes[predictions(network, subject, rows)])
            source.append(held_out_accuracy(network, subject))
        return {"told": torch.stack(told)}, {"source": source, "chance": 1 / len(nodes)}

    kept = meter.store.once("pseudo", key, f"labels for {shift}", predicted)
    told = kept.tensors["told"]
    agreed = told[0] == told[1]
    labels = pack.labels.clone()
    labels[rows] = torch.where(agreed, told[0], UNKNOWN)
    return Pseudo(
        labels,
        float(agreed.double().mean()),
        tuple(kept.note["source"]),
        kept.note["chance"],
        len(told[0][agreed].unique()),
    )


def classes_of(pack: Pack, domains: Sequence[str], seed: int) -> list[Node]:
    """A node for each class, of its rows in all of some domains."""
    nodes, _ = nodes_of(pack, domains, pack.labels, seed)
    joined = []
    for label in sorted({node.label for node in nodes}):
        mine = [node for node in nodes if node.label == label]
        train, val, test = (torch.cat([getattr(node, part) for node in mine])
                            for part in ("train", "val", "test"))  # fmt: skip
        joined.append(Node(label, mine[0].domain, train, val, test))
    return joined


def predictions(network: nn.Module, subject: Subject, rows: Tensor) -> Tensor:
    """int64 [N] on the CPU: the node that each row, as it is, looks most like."""
    return extract(network, subject.inputs, rows, subject.machine.device).argmax(1)


def held_out_accuracy(network: nn.Module, subject: Subject) -> float:
    """On the test rows of the nodes, as they are; every node counts the same."""
    right = [
        (predictions(network, subject, node.test) == number).double().mean()
        for number, node in enumerate(subject.nodes)
    ]
    return float(torch.stack(right).mean())
