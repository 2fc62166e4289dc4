"""Which augmented test rows of a node are taken for rows of another: two estimators.

``apart`` is the estimator of Shen et al. 2022 (their code of 2021): for every pair of nodes a
network from scratch, trained on augmented rows to tell the two from each other. Here all networks
are trained together, on the same views. ``shared`` trains one network to tell all nodes apart; of
two nodes it decides for the one with the higher score, which is what a classifier of those two
would do if it were as good (with equal shares of all nodes, p(i | x, i or j) is a softmax over the
two scores).

Rows are split before anything is drawn from them, and every node has the same share of a batch.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchbench.data.gathering import Streamed
from benchbench.diagnostics.graph_nodes import Node, halves
from benchbench.extension.constants import TEST, VAL
from benchbench.extension.contracts import Batch, Objective, Rows, as_read
from benchbench.extension.errors import BadInput
from benchbench.training.budget import Budget
from benchbench.training.device import Machine, full_fp32
from benchbench.training.loop import Augment, Diverged, Views, train
from benchbench.training.seeds import derive_seed

TOGETHER = 32  # networks of pairs that are trained at once, and held in memory
LOOKS = (0.5, 0.75, 1.0)  # of the steps after which weights are tried on validation rows


@dataclass(frozen=True)
class Effort:
    """What an estimate may cost."""

    steps: int = 300
    rows: int = 32  # of every node in a step; of `shared` half of it, and at most 256 in all
    lr: float = 4e-3
    test_rows: int = 100  # of every node, at most
    views: int = 4  # of each of them


@dataclass(frozen=True)
class Subject:
    """What is estimated: nodes of some data under an augmentation, by some kind of network."""

    nodes: Sequence[Node]
    inputs: Tensor | Streamed
    augment: Augment
    encoder: Callable[[int], nn.Module]  # a seed to a network of random weights with num_features
    machine: Machine
    effort: Effort
    seed: int

    def drawn(self, node: Node, split: int) -> Tensor:
        """The rows of a node that are tried, at most ``test_rows``."""
        rows = node.val if split == VAL else node.test
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "drawn", *node.key, split))
        most = self.effort.test_rows
        return rows[torch.randperm(len(rows), generator=generator)[:most]].sort().values

    def views_of(self, node: Node, split: int) -> Tensor:
        """[views, rows, …] of a node's rows, the same whoever asks; for validation a single one."""
        rows, device = self.drawn(node, split), self.machine.device
        inputs = as_read(self.inputs[rows.to(self.inputs.device)].to(device))
        made = []
        for number in range(self.effort.views if split == TEST else 1):
            torch.manual_seed(derive_seed(self.seed, "tried", *node.key, split, number))
            made.append(self.augment(inputs))
        return torch.stack(made)


@dataclass(frozen=True)
class Mistakes:
    """For test rows of every node, how often their views are taken for another node's."""

    rows: tuple[Tensor, ...]  # int64 [n_i] for every node i, rows of the pack
    taken: tuple[Tensor, ...]  # float32 [n_i, nodes]: share of views; NaN where nobody asked
    strange: tuple[Tensor, ...]  # float32 [n_i]: taken for another domain's, whatever the class


class NodeFeed:
    """A step's rows: as many of every node, in the nodes' order; a function of (seed, step)."""

    def __init__(self, subject: Subject, rows: int) -> None:
        self.subject, self.rows = subject, rows

    def __call__(self, step: int) -> Rows:
        subject, device = self.subject, self.subject.machine.device
        generator = torch.Generator().manual_seed(derive_seed(subject.seed, "nodes", step))
        index = torch.cat(
            [
                node.train[torch.randint(len(node.train), (self.rows,), generator=generator)]
                for node in subject.nodes
            ]
        )
        nodes = torch.arange(len(subject.nodes)).repeat_interleave(self.rows)
        domains = torch.tensor([node.domain for node in subject.nodes])[nodes]
        inputs = subject.inputs[index.to(subject.inputs.device)].to(device)
        return Rows(inputs, nodes.to(device), domains.to(device))


class Tell(Objective):
    """Cross-entropy of which node a view is from, of scores that the network returns itself.

    Of networks for pairs, the sum over pairs, so that each is trained as if it were alone.
    """

    n_views = 1
    reads = frozenset({"labels"})

    def __init__(self, pairs: Sequence[tuple[int, int]] | None) -> None:
        super().__init__()
        self.pairs = pairs

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        (views,), nodes = batch.views, batch.labels
        assert nodes is not None, "it reads labels"
        if self.pairs is None:
            return F.cross_entropy(encoder(views).float(), nodes)
        share = int((nodes == 0).sum())
        by_node = views.unflatten(0, (-1, share))
        side = torch.arange(2, device=views.device).repeat_interleave(share)
        losses = [
            F.cross_entropy(network(by_node[[i, j]].flatten(0, 1)).float(), side)
            for network, (i, j) in zip(encoder.children(), self.pairs, strict=True)
        ]
        return torch.stack(losses).sum()


def scorer(subject: Subject, name: str, outputs: int) -> nn.Module:
    """A network of random weights with as many scores."""
    encoder = subject.encoder(derive_seed(subject.seed, name))
    head = nn.Linear(encoder.num_features, outputs)  # type: ignore[arg-type]
    return nn.Sequential(encoder, head).to(subject.machine.device)


def shared(subject: Subject) -> Mistakes:
    """By one network for all nodes."""
    network = tells_all(subject)
    scores = [tried(network, subject.views_of(node, TEST)) for node in subject.nodes]
    return Mistakes(
        tuple(subject.drawn(node, TEST) for node in subject.nodes),
        tuple(taken_for(node, part) for node, part in enumerate(scores)),
        tuple(strange(subject.nodes, node, part) for node, part in enumerate(scores)),
    )


def tells_all(subject: Subject) -> nn.Module:
    """A network, trained to tell all nodes apart, with a score for each."""
    count = len(subject.nodes)
    network = scorer(subject, "shared", count)

    def error() -> Tensor:
        scores = [tried(network, subject.views_of(node, VAL)) for node in subject.nodes]
        return torch.stack([taken_for(i, s).nanmean() for i, s in enumerate(scores)]).mean()[None]

    rows = max(1, min(subject.effort.rows // 2, 256 // count))
    fit([network], Tell(None), network, subject, rows, error)
    return network


def taken_for(node: int, scores: Tensor) -> Tensor:
    """[rows, nodes]: how often each other node beats a node, of its scores [views, rows, nodes]."""
    beaten = beats(scores, scores[:, :, node, None]).mean(0)
    beaten[:, node] = torch.nan
    return beaten


def beats(other: Tensor, own: Tensor) -> Tensor:
    """float32: 1 where the other score is higher, 0 where it is lower, ½ where neither is."""
    return ((other > own).float() + (~(own > other)).float()) / 2


def strange(nodes: Sequence[Node], node: int, scores: Tensor) -> Tensor:
    """[rows]: how often some other domain's nodes are together likelier than those of its own."""
    domains = torch.tensor([other.domain for other in nodes])
    sums = torch.stack([scores[:, :, domains == d].logsumexp(2) for d in domains.unique()], 2)
    own = scores[:, :, domains == nodes[node].domain].logsumexp(2)
    return (sums.amax(2) > own).float().mean(0)


def apart(subject: Subject, pairs: Sequence[tuple[int, int]]) -> Mistakes:
    """By a network for each pair of nodes, TOGETHER of them at a time: none knows of the others."""
    rows = tuple(subject.drawn(node, TEST) for node in subject.nodes)
    told = [torch.full((len(part), len(subject.nodes)), torch.nan) for part in rows]
    for start in range(0, len(pairs), TOGETHER):
        parts = asked_together(subject, pairs[start : start + TOGETHER])
        told = [torch.where(new.isnan(), old, new) for old, new in zip(told, parts, strict=True)]
    return Mistakes(rows, tuple(told), tuple(torch.full(part.shape, torch.nan) for part in rows))


def asked_together(subject: Subject, pairs: Sequence[tuple[int, int]]) -> list[Tensor]:
    """[rows, nodes] of every node: the share of views taken for the other, where a pair asks."""
    networks = nn.Sequential(
        *(
            scorer(subject, f"pair {subject.nodes[i].key} {subject.nodes[j].key}", 2)
            for i, j in pairs
        )
    )

    def taken(split: int) -> list[Tensor]:
        found = []
        for node, described in enumerate(subject.nodes):
            views = subject.views_of(described, split)
            told = torch.full((views.shape[1], len(subject.nodes)), torch.nan)
            for network, pair in zip(networks, pairs, strict=True):
                if node in pair:
                    scores = tried(network, views)
                    own = pair.index(node)
                    beaten = beats(scores[..., 1 - own], scores[..., own])
                    told[:, pair[1 - own]] = beaten.mean(0)
            found.append(told)
        return found

    def error() -> Tensor:
        told = taken(VAL)
        return torch.stack([(told[i][:, j].mean() + told[j][:, i].mean()) / 2 for i, j in pairs])

    fit(list(networks), Tell(pairs), networks, subject, subject.effort.rows, error)
    return taken(TEST)


def fit(
    networks: Sequence[nn.Module],
    objective: Tell,
    together: nn.Module,
    subject: Subject,
    rows: int,
    error: Callable[[], Tensor],
) -> None:
    """Train, and leave each network with those of its weights whose validation error is least."""
    effort = subject.effort
    looks = {max(1, round(part * effort.steps)) for part in LOOKS}
    best = torch.full((len(networks),), torch.inf)
    kept: list[dict[str, Tensor]] = [{} for _ in networks]

    def watch(done: int, loss: Tensor) -> None:
        if done not in looks:
            return
        errors = error()
        together.train()
        for number, network in enumerate(networks):
            if not errors[number] > best[number]:  # of equals the later
                best[number] = errors[number]
                kept[number] = copy.deepcopy(network.state_dict())

    size = rows * len(subject.nodes)
    try:
        train(
            together,
            objective,
            Views(subject.augment),
            NodeFeed(subject, rows),
            Budget(effort.steps, size, effort.lr, weight_decay=1e-4, warmup=0.1),
            derive_seed(subject.seed, "tell"),
            precision=subject.machine.precision,
            watch=watch,
        )
    except Diverged as error:
        raise BadInput(f"classes and domains cannot be told apart: {error}") from error
    for network, state in zip(networks, kept, strict=True):
        network.load_state_dict(state)


@full_fp32()
@torch.no_grad()
def tried(network: nn.Module, views: Tensor, chunk: int = 512) -> Tensor:
    """Scores [views, rows, outputs] in evaluation mode and float32."""
    network.eval()
    scores = [network(part) for part in views.flatten(0, 1).split(chunk)]
    return torch.cat(scores).float().cpu().unflatten(0, views.shape[:2])


def pairs_to_ask(
    nodes: Sequence[Node], most: int, controls: int, seed: int
) -> tuple[list[Node], list[tuple[int, int]]]:
    """The nodes with some halves, and the pairs of them that ``apart`` asks.

    All pairs of one class in two domains; of two classes, at most ``most`` pairs within every
    domain and as many across every two, drawn at random; ``controls`` pairs of halves of one node.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "pairs"))
    groups: dict[tuple[str, int, int], list[tuple[int, int]]] = {}
    for i, j in combinations(range(len(nodes)), 2):
        a, b = nodes[i], nodes[j]
        kind = "alpha" if a.label == b.label else "other"
        groups.setdefault((kind, a.domain, b.domain), []).append((i, j))
    asked = []
    for (kind, _, _), pairs in groups.items():
        count = len(pairs) if kind == "alpha" else most
        order = torch.randperm(len(pairs), generator=generator)[:count].tolist()
        asked += [pairs[k] for k in sorted(order)]
    everyone = list(nodes)
    large = [node for node in nodes if min(map(len, (node.train, node.val, node.test))) > 1]
    for k in torch.randperm(len(large), generator=generator)[:controls].tolist():
        asked.append((len(everyone), len(everyone) + 1))
        everyone += halves(large[k], seed)
    return everyone, asked
