"""The nodes of the connectivity graph: a class in a domain, with rows to learn from and to test."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from benchbench.data.pack import Pack
from benchbench.data.splits import draw_split
from benchbench.extension.constants import TEST, TRAIN, VAL
from benchbench.extension.errors import BadInput
from benchbench.training.seeds import derive_seed

LEAST = 5  # rows of a node in each split; with fewer a test error says nothing


@dataclass(frozen=True)
class Node:
    """A class in a domain, or a random half of one. No row is in two splits."""

    label: int
    domain: int
    train: Tensor  # int64 [n], rows of the pack
    val: Tensor
    test: Tensor
    half: int = 0  # 1 or 2 of a half; 0 of the whole

    @property
    def key(self) -> tuple[int, int, int]:
        return self.label, self.domain, self.half


def grouped(labels: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Each label of int64 [N], ascending, and the places where it is, ascending: by one sort."""
    found, counts = labels.unique(return_counts=True)
    places = labels.argsort(stable=True).split(counts.tolist())
    yield from zip(found.tolist(), places, strict=True)


def nodes_of(
    pack: Pack, domains: Sequence[str], labels: Tensor, seed: int
) -> tuple[list[Node], list[str]]:
    """Every class of every domain with enough rows, and a sentence for each that has too few.

    ``labels`` int64 [N] are the pack's, or what stands for them. Rows are learned from and tested
    in the splits that the pack gives them; a domain without labels in some split is split anew.
    BadInput if a domain has no class left.
    """
    nodes, poor = [], []
    for name in domains:
        number = pack.domain_names.index(name)
        rows = ((pack.domains == number) & (labels >= 0)).nonzero().flatten()
        split, of_rows = pack.split[rows], labels[rows]
        if not all((split == part).any() for part in (TRAIN, VAL, TEST)):
            split = draw_split(of_rows, pack.domains[rows], None, pack.domain_names, seed)
        mine = []
        for label, places in grouped(of_rows):
            inside = split[places]
            train, val, test = (rows[places[inside == s]] for s in (TRAIN, VAL, TEST))
            sizes = len(train), len(val), len(test)
            if min(sizes) < LEAST:
                poor.append(
                    f"class {pack.class_names[label]!r} of domain {name!r} is left out: it has "
                    f"{', '.join(map(str, sizes))} labelled rows for training, validation "
                    f"and test; {LEAST} are needed"
                )
                continue
            mine.append(Node(label, number, train, val, test))
        if not mine:
            raise BadInput(f"domain {name!r} has no class with {LEAST} labelled rows in each split")
        nodes += mine
    return nodes, poor


def halves(node: Node, seed: int) -> tuple[Node, Node]:
    """Two random halves of a node, which no classifier can tell apart but by rows it has seen."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "half", *node.key))

    def mixed(rows: Tensor) -> Tensor:
        return rows[torch.randperm(len(rows), generator=generator)]

    train, val, test = mixed(node.train), mixed(node.val), mixed(node.test)
    return (
        replace(node, train=train[::2], val=val[::2], test=test[::2], half=1),
        replace(node, train=train[1::2], val=val[1::2], test=test[1::2], half=2),
    )
