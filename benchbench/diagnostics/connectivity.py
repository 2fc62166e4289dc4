"""Connectivity of a shift: how hard it is to tell augmented rows of two nodes apart.

Shen et al. 2022, arXiv:2204.00570: α of one class in two domains, β of two classes in one domain,
γ of both other; each the mean, over pairs of nodes, of the test error of telling them apart, in
[0, 0.5]. Transfer is predicted from α/γ and β/γ.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from math import log
from typing import Literal

import torch
from torch import Tensor

from benchbench.diagnostics.graph_nodes import Node
from benchbench.diagnostics.node_classifiers import Mistakes
from benchbench.extension.errors import BadInput
from benchbench.training.seeds import derive_seed

Kind = Literal["alpha", "beta", "gamma", "rho"]
KINDS: tuple[Kind, ...] = ("alpha", "beta", "gamma", "rho")
RESAMPLED = 1000  # times, of a bootstrap


@dataclass(frozen=True)
class Estimate:
    """A mean test error with its 95 % interval, from resampled test rows and drawn pairs."""

    value: float
    low: float
    high: float
    pairs: int
    rows: int  # test rows of the pairs' nodes

    @property
    def smoothed(self) -> float:
        """As if half a row more had been mistaken, so that its logarithm exists."""
        return (self.value * self.rows + 0.5) / (self.rows + 1)


@dataclass(frozen=True)
class Connectivity:
    """Of one shift under one augmentation."""

    alpha: Estimate
    beta: Estimate
    gamma: Estimate
    rho: Estimate | None  # of two halves of a node: 0.5 unless test rows were learned from
    domain: float | None  # error of telling the domains apart, whatever the class; None: not asked
    of_class: dict[int, tuple[float, float]]  # class to its α, and its γ with the other classes

    @property
    def log_ratios(self) -> tuple[float, float]:
        """log(α/γ), log(β/γ)"""
        below = log(self.gamma.smoothed)
        return log(self.alpha.smoothed) - below, log(self.beta.smoothed) - below


def kind_of(a: Node, b: Node) -> Kind:
    if a.label == b.label:
        return "rho" if a.domain == b.domain else "alpha"
    return "beta" if a.domain == b.domain else "gamma"


def belongs(a: Node, b: Node, sources: set[int], targets: set[int]) -> bool:
    """Whether a pair lies within a domain of the shift, or leads across it."""
    if a.domain == b.domain:
        return a.domain in sources | targets
    return any(a.domain in one and b.domain in other
               for one, other in ((sources, targets), (targets, sources)))  # fmt: skip


def check_pairs(nodes: Sequence[Node], sources: set[int], targets: set[int], shift: str) -> None:
    """BadInput if some of α, β and γ would be of no pair. With α and β there is a γ."""
    kinds = {kind_of(a, b) for a, b in combinations(nodes, 2) if belongs(a, b, sources, targets)}
    if "alpha" not in kinds:
        raise BadInput(f"shift {shift}: no class has enough labelled rows in domains of both sides")
    if "beta" not in kinds:
        raise BadInput(f"shift {shift}: no domain has two classes with enough labelled rows")


def connectivity(
    nodes: Sequence[Node], mistakes: Mistakes, sources: set[int], targets: set[int]
) -> Connectivity:
    """Of the shift between some domains, by number; of the pairs that were asked."""
    errors = Errors(nodes, mistakes)
    pairs = {kind: errors.between(kind, sources, targets) for kind in KINDS}
    of_class = {}
    for label in sorted({nodes[i].label for i, _ in pairs["alpha"]}):
        mine = {
            kind: [(i, j) for i, j in pairs[kind] if label in (nodes[i].label, nodes[j].label)]
            for kind in KINDS
        }
        if mine["gamma"]:
            of_class[label] = (errors.mean(mine["alpha"]), errors.mean(mine["gamma"]))
    return Connectivity(
        errors.estimate(pairs["alpha"], drawn=False),
        errors.estimate(pairs["beta"], drawn=True),
        errors.estimate(pairs["gamma"], drawn=True),
        errors.estimate(pairs["rho"], drawn=True) if pairs["rho"] else None,
        errors.of_domains(),
        of_class,
    )


class Errors:
    """Balanced test errors of pairs of nodes, and what they would be on other test rows."""

    def __init__(self, nodes: Sequence[Node], mistakes: Mistakes) -> None:
        self.nodes, self.mistakes = nodes, mistakes
        self.error = balanced(torch.stack([taken.mean(0) for taken in mistakes.taken]))
        upper = torch.ones_like(self.error).triu(1).bool()
        self.asked = [(i, j) for i, j in (upper & ~self.error.isnan()).nonzero().tolist()]

    def between(self, kind: Kind, sources: set[int], targets: set[int]) -> list[tuple[int, int]]:
        """The pairs of a kind that lie within a domain of the shift, or lead across it."""
        nodes = self.nodes
        return [
            (i, j)
            for i, j in self.asked
            if kind_of(nodes[i], nodes[j]) == kind and belongs(nodes[i], nodes[j], sources, targets)
        ]

    def of_domains(self) -> float | None:
        """The mean over nodes of how often a row is taken for another domain's."""
        error = torch.stack([part.mean() for part in self.mistakes.strange]).mean()
        return None if error.isnan() else float(error)

    def mean(self, pairs: Sequence[tuple[int, int]]) -> float:
        return float(self.error[tuple(torch.tensor(pairs).T)].mean())

    def estimate(self, pairs: Sequence[tuple[int, int]], *, drawn: bool) -> Estimate:
        """The mean over pairs; with ``drawn`` they count as a sample of pairs."""
        first, second = torch.tensor(pairs).T
        spread = (self.resampled[:, first, second] + self.resampled[:, second, first]) / 2
        if drawn:
            generator = torch.Generator().manual_seed(derive_seed(0, "pairs of a bootstrap"))
            again = torch.randint(len(pairs), spread.shape, generator=generator)
            spread = spread.gather(1, again)
        low, high = spread.mean(1).quantile(torch.tensor([0.025, 0.975])).tolist()
        used = {node for pair in pairs for node in pair}
        rows = sum(len(self.mistakes.rows[node]) for node in used)
        return Estimate(self.mean(pairs), low, high, len(pairs), rows)

    @cached_property
    def resampled(self) -> Tensor:
        """[RESAMPLED, n, n]: how much of i is taken for j, of test rows drawn again.

        A row comes with all its views.
        """
        drawn = []
        for node, taken in zip(self.nodes, self.mistakes.taken, strict=True):
            generator = torch.Generator().manual_seed(derive_seed(0, "bootstrap", *node.key))
            index = torch.randint(len(taken), (RESAMPLED, len(taken)), generator=generator)
            weights = torch.zeros(RESAMPLED, len(taken))
            weights.scatter_add_(1, index, torch.ones(index.shape))
            asked = ~taken[0].isnan()
            means = torch.full((RESAMPLED, len(self.nodes)), torch.nan)
            means[:, asked] = weights @ taken[:, asked] / len(taken)
            drawn.append(means)
        return torch.stack(drawn, 1)


def balanced(taken: Tensor) -> Tensor:
    """[…, n, n], how much of i is taken for j, to the test error where both count the same."""
    return (taken + taken.mT) / 2
