"""Spectral contrastive features of class–domain graphs, and what a head of one domain reads off.

The block model and its graphs are those of Shen et al. 2022 (arXiv:2204.00570, section 4), the
features those of HaoChen et al. 2021 (arXiv:2106.04156). All arrays of numbers are float64.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from itertools import product
from math import isclose, sqrt
from typing import Any, Literal

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from benchbench.extension.errors import BadInput

Numbers = NDArray[np.floating[Any]]
Labels = NDArray[np.int64]
Held = Literal["whole", "a part", "none"]

MOST = 4000  # inputs: the eigenvectors of a dense matrix of so many take seconds
ETA = 1e-3  # of the ridge heads of drawn graphs
SWEPT = ("inputs", "alpha", "beta", "gamma", "features")


@dataclass(frozen=True)
class Blocks:
    """How likely inputs of two class–domain pairs are a positive pair, up to a common factor.

    BadInput where a probability is none, all are 0, or there is but one class or domain.
    """

    classes: int
    domains: int
    rho: float  # of the same class and the same domain
    alpha: float  # of the same class in different domains
    beta: float  # of different classes in the same domain
    gamma: float  # of different classes in different domains

    def __post_init__(self) -> None:
        for name, count in (("classes", self.classes), ("domains", self.domains)):
            if count < 2:
                raise BadInput(f"{name} = {count} leaves nothing to compare; it takes 2 or more")
        odds = {name: getattr(self, name) for name in ("rho", "alpha", "beta", "gamma")}
        for name, probability in odds.items():
            if not 0 <= probability <= 1:
                raise BadInput(f"{name} = {probability:g} is no probability; it is from 0 to 1")
        if not any(odds.values()):
            raise BadInput("rho, alpha, beta and gamma are all 0; one at least must be above 0")

    @property
    def pairs(self) -> int:
        return self.classes * self.domains

    @property
    def matrix(self) -> Numbers:
        """[pairs, pairs]; the row of class c in domain d is c · domains + d."""
        same_class, any_class = np.eye(self.classes), np.ones((self.classes,) * 2)
        same_domain, any_domain = np.eye(self.domains), np.ones((self.domains,) * 2)
        return np.asarray(
            self.gamma * np.kron(any_class, any_domain)
            + (self.beta - self.gamma) * np.kron(any_class, same_domain)
            + (self.alpha - self.gamma) * np.kron(same_class, any_domain)
            + (self.rho - self.alpha - self.beta + self.gamma) * np.kron(same_class, same_domain)
        )


@dataclass(frozen=True)
class Eigenspace:
    """Of `Blocks.matrix`. Divided by that of the constant, ``value`` is of the normalised one."""

    name: str
    dimension: int
    value: float


def eigenspaces(blocks: Blocks) -> tuple[Eigenspace, ...]:
    """Constant, class (u ⊗ 1), domain (1 ⊗ v) and interaction (u ⊗ v), in closed form.

    u and v sum to 0. Class exceeds interaction by m (α − γ), and domain by r (β − γ).
    """
    r, m = blocks.classes, blocks.domains
    rho, alpha, beta, gamma = blocks.rho, blocks.alpha, blocks.beta, blocks.gamma
    constant = rho + (m - 1) * alpha + (r - 1) * beta + (r - 1) * (m - 1) * gamma
    return (
        Eigenspace("constant", 1, constant),
        Eigenspace("class", r - 1, rho - beta + (m - 1) * (alpha - gamma)),
        Eigenspace("domain", m - 1, rho - alpha + (r - 1) * (beta - gamma)),
        Eigenspace("interaction", (r - 1) * (m - 1), rho - alpha - beta + gamma),
    )


def numeric(blocks: Blocks) -> dict[str, Numbers]:
    """By eigenspace, the eigenvalues [dimension] that LAPACK finds of the normalised matrix."""
    found = np.linalg.eigvalsh(normalised(blocks.matrix))[::-1]
    parts, start = {}, 0
    for space in sorted(eigenspaces(blocks), key=lambda space: -space.value):
        parts[space.name] = found[start : start + space.dimension]
        start += space.dimension
    return parts


def held(blocks: Blocks, k: int) -> dict[str, Held]:
    """By eigenspace, how much of it k features of the population have.

    Negative eigenvalues give none; of spaces that tie where k cuts, each gives a part.
    """
    spaces = eigenspaces(blocks)
    least = 1e-12 * spaces[0].value
    told: dict[str, Held] = {}
    for space in spaces:
        above = sum(s.dimension for s in spaces if s.value > space.value + least)
        reached = sum(s.dimension for s in spaces if s.value >= space.value - least)
        if space.value <= least or above >= k:
            told[space.name] = "none"
        else:
            told[space.name] = "whole" if reached <= k else "a part"
    return told


@dataclass(frozen=True)
class Setting:
    """The block model with so many inputs of every class–domain pair, and k features."""

    blocks: Blocks
    inputs: int
    features: int

    def __post_init__(self) -> None:
        if self.inputs < 1:
            raise BadInput(
                f"inputs = {self.inputs} should be 1 or more, of each class in each domain"
            )
        if self.nodes > MOST:
            raise BadInput(
                f"{self.blocks.classes} classes × {self.blocks.domains} domains × {self.inputs} "
                f"inputs are {self.nodes:,} nodes, but the graph may have {MOST:,}"
            )
        if not 1 <= self.features <= self.nodes:
            raise BadInput(
                f"features = {self.features} should be from 1 to {self.nodes}, the number of nodes"
            )

    @property
    def nodes(self) -> int:
        return self.blocks.pairs * self.inputs


@dataclass(frozen=True)
class Graph:
    """Inputs, and how likely each two are drawn as a positive pair."""

    blocks: Blocks
    weights: Numbers  # [N, N], symmetric, of sum 1; no row is 0
    classes: Labels  # [N]
    domains: Labels  # [N]; 0 is the source, the others are targets

    @property
    def marginal(self) -> Numbers:
        """[N], of sum 1"""
        return np.asarray(self.weights.sum(1))

    @property
    def source(self) -> NDArray[np.bool_]:
        return self.domains == 0


def population(blocks: Blocks) -> Graph:
    """One node for each class–domain pair."""
    classes, domains = np.divmod(np.arange(blocks.pairs), blocks.domains)
    return Graph(blocks, blocks.matrix / blocks.matrix.sum(), classes, domains)


def draw(blocks: Blocks, inputs: int, seed: int) -> Graph:
    """A graph of the stochastic block model: each pair of inputs is an edge, or not, by chance.

    An input is with itself a pair with probability rho. Inputs without an edge are left out;
    BadInput if the source or the targets have no other.
    """
    rng = np.random.default_rng(seed)
    likely = np.kron(blocks.matrix, np.ones((inputs, inputs)))
    upper = np.triu(rng.random(likely.shape) < likely, 1)
    edges = upper | upper.T | np.diag(rng.random(len(likely)) < blocks.rho)
    linked = edges.any(1)
    pair = np.repeat(np.arange(blocks.pairs), inputs)[linked]
    classes, domains = np.divmod(pair, blocks.domains)
    if not 0 < np.count_nonzero(domains == 0) < len(domains):
        raise BadInput(
            f"with {inputs} inputs of each class in each domain and seed {seed}, no input of the "
            "source or none of the targets has an edge; raise inputs or the probabilities"
        )
    weights = edges[np.ix_(linked, linked)].astype(np.float64)
    return Graph(blocks, weights / weights.sum(), classes, domains)


def normalised(weights: Numbers) -> Numbers:
    """D^(−1/2) S D^(−1/2) of S [N, N], D its row sums."""
    scale = np.sqrt(weights.sum(1))
    return weights / np.outer(scale, scale)


def features(graph: Graph, k: int) -> Numbers:
    """[N, min(k, N)]: the minimiser √λ v / √p of `loss`, its columns by falling eigenvalue.

    HaoChen et al. 2021, section 3.2; negative eigenvalues are 0. Unique up to rotation.
    """
    values, vectors = largest(normalised(graph.weights), min(k, len(graph.weights)))
    falling = (vectors * np.sqrt(values.clip(min=0)))[:, ::-1]
    return np.asarray(falling / np.sqrt(graph.marginal)[:, None])


def largest(matrix: Numbers, k: int) -> tuple[Numbers, Numbers]:
    """The k largest eigenvalues [k], rising, and their vectors [N, k].

    LAPACK finds k of them in less than half of the time of all, but may fail, or find fewer, where
    eigenvalues are equal; then all are computed.
    """
    n = len(matrix)
    try:
        values, vectors = scipy.linalg.eigh(matrix, subset_by_index=(n - k, n - 1))
    except np.linalg.LinAlgError:
        values = np.empty(0)
    if len(values) < k:
        values, vectors = np.linalg.eigh(matrix)
    return values[-k:], vectors[:, -k:]


def loss(graph: Graph, phi: Numbers) -> float:
    """The spectral contrastive loss −2 E⁺[φ(x)ᵀφ(x⁺)] + E[(φ(x)ᵀφ(x′))²] of φ [N, k].

    HaoChen et al. 2021, equation 6. At best minus the sum of the k largest λ², of those above 0.
    """
    alike = phi @ phi.T
    return float(-2 * (graph.weights * alike).sum() + graph.marginal @ alike**2 @ graph.marginal)


def descend(graph: Graph, k: int, seed: int) -> Numbers:
    """Features [N, k] by gradient descent on `loss` from a small random start.

    In √p φ the loss is ‖Ā − FFᵀ‖² up to a constant, and as no eigenvalue of Ā exceeds 1, steps of
    0.2 are stable. It ends after 20,000 of them, or where the gradient is below 1e-14.
    """
    target = normalised(graph.weights)
    f = 0.1 * np.random.default_rng(seed).normal(size=(len(target), k))
    for _ in range(20_000):
        slope = 4 * (f @ (f.T @ f) - target @ f)
        if np.abs(slope).max() < 1e-14:
            break
        f -= 0.2 * slope
    return np.asarray(f / np.sqrt(graph.marginal)[:, None])


def ridge(phi: Numbers, labels: Labels, count: int, eta: float) -> Numbers:
    """Weights [k, count] that minimise the mean of ‖φW − Y‖², Y one-hot − 1/count, + η‖W‖²."""
    aims = np.eye(count)[labels] - 1 / count
    moment = phi.T @ phi / len(phi) + eta * np.eye(phi.shape[1])
    return np.linalg.solve(moment, phi.T @ aims / len(phi))


def source_head(graph: Graph, phi: Numbers, eta: float) -> Numbers:
    """The ridge head [k, classes] of the source's labels."""
    return ridge(phi[graph.source], graph.classes[graph.source], graph.blocks.classes, eta)


def pfa(graph: Graph, phi: Numbers, t: int) -> Numbers:
    """The head [k, classes] Σ^(t−1) E_source[1(y = i) φ], Σ the second moment of all inputs.

    Preconditioned feature averaging, HaoChen et al. 2022 (arXiv:2204.02683).
    """
    own = phi[graph.source]
    averages = own.T @ np.eye(graph.blocks.classes)[graph.classes[graph.source]] / len(own)
    return np.asarray(np.linalg.matrix_power(phi.T @ phi / len(phi), t - 1) @ averages)


@dataclass(frozen=True)
class Measures:
    """Accuracies of heads, as shares of inputs, and how far class and domain share directions."""

    source: float  # the source's ridge head on the source
    target: float  # the same head on all other domains
    pfa: float  # on all other domains, the source's head by `pfa` with t = 2
    domain: float  # a ridge head for the domain, of and on all inputs
    cosine: float  # mean |cos| of class and domain heads, both of all inputs


def measure(graph: Graph, phi: Numbers) -> Measures:
    r, m, source = graph.blocks.classes, graph.blocks.domains, graph.source
    right = (phi @ source_head(graph, phi, ETA)).argmax(1) == graph.classes
    averaged = (phi @ pfa(graph, phi, t=2)).argmax(1) == graph.classes
    of_class = ridge(phi, graph.classes, r, ETA)
    of_domain = ridge(phi, graph.domains, m, ETA)
    return Measures(
        source=float(right[source].mean()),
        target=float(right[~source].mean()),
        pfa=float(averaged[~source].mean()),
        domain=float(((phi @ of_domain).argmax(1) == graph.domains).mean()),
        cosine=cosine(of_class, of_domain),
    )


def cosine(one: Numbers, other: Numbers) -> float:
    """The mean |cos| of columns of [k, A] with columns of [k, B]; a column of zeros has 0."""
    least = np.finfo(np.float64).tiny
    directions = [w / np.linalg.norm(w, axis=0).clip(min=least) for w in (one, other)]
    return float(np.abs(directions[0].T @ directions[1]).mean())


@dataclass(frozen=True)
class Point:
    """What seeds measured at one value of a sweep."""

    value: float
    mean: Measures
    sd: Measures | None  # with n − 1; None of a single seed


def sweeps(setting: Setting, seeds: int) -> dict[str, list[Point]]:
    """By what is changed, the measures at every value of `grid`, of seeds 0, 1, … each."""
    wanted = {
        name: {value: changed(setting, name, value) for value in grid(setting, name)}
        for name in SWEPT
    }
    every = dict.fromkeys(each for values in wanted.values() for each in values.values())
    points = {each: measured(each, seeds) for each in every}
    return {
        name: [Point(value, *points[each]) for value, each in values.items()]
        for name, values in wanted.items()
    }


def grid(setting: Setting, name: str) -> list[float]:
    """The values of a sweep: the setting's own, and others on both sides of where theory turns."""
    blocks = setting.blocks
    r, m = blocks.classes, blocks.domains
    values: list[float]
    if name == "inputs":
        most = MOST // blocks.pairs
        values = [setting.inputs * share // 8 for share in (1, 2, 4, 8, 16)]
        enough = max(2, setting.features / blocks.pairs)
        return sorted({setting.inputs, *(n for n in values if enough <= n <= most)})
    if name == "features":
        values = [2, r + m - 3, r + m - 2, r + m - 1, r + m, r * m, 2 * r * m, setting.features]
        return sorted({k for k in values if 1 <= k <= setting.nodes})
    turn, shares = blocks.gamma, [0.2, 0.5, 0.8, 1, 1.2, 1.5, 2, 3]
    if name == "gamma":
        turn, shares = blocks.alpha, [0.1, 0.25, 0.5, 0.75, 0.9, 1, 1.1, 1.25, 1.5]
    values = [round(share * (turn or blocks.rho / 5 or 0.1), 6) for share in shares]
    return sorted({p for p in (*values, getattr(blocks, name)) if p <= 1})


def changed(setting: Setting, name: str, value: float) -> Setting:
    change: dict[str, Any] = {name: value}
    if name in ("inputs", "features"):
        return replace(setting, **change)
    return replace(setting, blocks=replace(setting.blocks, **change))


def measured(setting: Setting, seeds: int) -> tuple[Measures, Measures | None]:
    """Mean and sd over the seeds 0, 1, …"""
    graphs = (draw(setting.blocks, setting.inputs, seed) for seed in range(seeds))
    each = [measure(graph, features(graph, setting.features)) for graph in graphs]
    table = np.array([[getattr(one, field.name) for field in fields(Measures)] for one in each])
    sd = Measures(*table.std(0, ddof=1).tolist()) if seeds > 1 else None
    return Measures(*table.mean(0).tolist()), sd


@dataclass(frozen=True)
class Cell:
    """Of random settings with the same signs, which target accuracies k features gave, how often.

    Two classes in two domains, a node each.
    """

    features: int
    alpha_above: bool  # α > γ
    beta_above: bool  # β > γ
    accuracies: Mapping[float, int]


def four_nodes(settings: int = 4000) -> list[Cell]:
    """The smallest population, rho the largest of four numbers uniform in [0, 1], η 1e-6."""
    counts: dict[tuple[int, bool, bool], dict[float, int]] = {
        key: {} for key in product((2, 3, 4), (True, False), (True, False))
    }
    for numbers in np.random.default_rng(0).random((settings, 4)):
        largest = int(numbers.argmax())
        alpha, beta, gamma = np.delete(numbers, largest).tolist()
        graph = population(Blocks(2, 2, float(numbers[largest]), alpha, beta, gamma))
        phi = features(graph, 4)
        for k in (2, 3, 4):
            head = source_head(graph, phi[:, :k], eta=1e-6)
            right = (phi[:, :k] @ head).argmax(1) == graph.classes
            cell = counts[k, alpha > gamma, beta > gamma]
            accuracy = float(right[~graph.source].mean())
            cell[accuracy] = cell.get(accuracy, 0) + 1
    return [Cell(*key, dict(sorted(found.items()))) for key, found in counts.items()]


def clearance(setting: Setting) -> float:
    """What marks the class in a drawn graph, against the edge of the noise; by perturbation.

    n · min(λ_class, λ_class − λ_interaction) / (2 √(N p̄ (1 − p̄))), p̄ the mean probability of an
    edge. Classes can be told in the targets from about 0.5. Wants α > γ.
    """
    blocks = setting.blocks
    constant, of_class, _, interaction = (space.value for space in eigenspaces(blocks))
    mean = constant / blocks.pairs
    noise = 2 * sqrt(setting.nodes * mean * (1 - mean))
    return setting.inputs * min(of_class, of_class - interaction) / noise


def verdict(setting: Setting) -> list[str]:
    """What theory says of the setting, in sentences: of the population, then of its graphs."""
    blocks, k = setting.blocks, setting.features
    parts = held(blocks, k)
    whole = [name for name, part in parts.items() if part == "whole"]
    cut = [name for name, part in parts.items() if part == "a part"]
    signs = f"{compared(blocks, 'alpha')} and {compared(blocks, 'beta')}"
    a_part = f", and a part of {listed(cut)}" if cut else ""
    told = [
        f"{signs}: {outcome(blocks, parts)}.",
        f"Of the directions of the population, k = {k} features hold {listed(whole)}{a_part}.",
    ]
    if blocks.alpha > blocks.gamma and parts["class"] == "whole":
        stands = clearance(setting)
        needed = "" if stands >= 0.5 else ": more inputs are needed"
        told.append(
            f"In graphs of {setting.nodes:,} inputs, class is at {stands:.2f} of the edge of the "
            f"noise; to read it in the targets takes about 0.5{needed}."
        )
    return told


def compared(blocks: Blocks, name: str) -> str:
    value, gamma = getattr(blocks, name), blocks.gamma
    return f"{name} {'=' if isclose(value, gamma) else '>' if value > gamma else '<'} gamma"


def outcome(blocks: Blocks, parts: Mapping[str, Held]) -> str:
    """How class and domain are encoded, and what that does to a head of one domain.

    Of whole eigenspaces, the head's score for the right class of a target input is as λ_class −
    λ_interaction, those that the features hold: above 0 if α > γ, and below if α < γ. A part of
    the interaction weakens some classes against others.
    """
    apart = blocks.beta > blocks.gamma and parts["domain"] == "whole"
    domain = "the domain is encoded apart" if apart else "the domain is not encoded apart"
    if isclose(blocks.alpha, blocks.gamma) or parts["class"] == parts["interaction"] == "none":
        return f"{domain}, and a head from one domain is at chance in the others"
    if blocks.alpha < blocks.gamma:
        which = "all" if parts["interaction"] == "whole" else "some"
        return f"{domain}, and a head from one domain is wrong in the others for {which} classes"
    if parts["class"] == "a part":
        return f"{domain}, and a head from one domain may be wrong for some classes"
    together = "class and domain are encoded apart" if apart else domain
    doubt = ", though not surely for every class" if parts["interaction"] == "a part" else ""
    return f"{together}, and a head from one domain is right in all{doubt}"


def listed(names: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:]))) or "nothing"


def descent(setting: Setting) -> dict[str, Any]:
    """The loss of the population by gradient descent and by eigenvectors, and how they differ.

    The Gram matrices agree where they are ``unique``: where k cuts no eigenspace.
    """
    graph = population(setting.blocks)
    k = min(setting.features, setting.blocks.pairs)
    found, best = descend(graph, k, seed=0), features(graph, k)
    return {
        "features": k,
        "by_descent": loss(graph, found),
        "by_eigenvectors": loss(graph, best),
        "unique": "a part" not in held(setting.blocks, k).values(),
        "gram_difference": float(np.abs(found @ found.T - best @ best.T).max()),
    }
