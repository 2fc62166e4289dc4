"""Connectivity, against closed forms, slow code, and bugs that others had and that we plant."""

import io
import json
import math
from dataclasses import replace
from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from tiny import heights
from torch import nn

from benchbench import DomainData
from benchbench.cli import main
from benchbench.data.encoded_images import Encoded, starts_of
from benchbench.data.pack import in_memory
from benchbench.diagnostics import connectivity as module
from benchbench.diagnostics import node_classifiers
from benchbench.diagnostics.connectivity import Errors, Estimate, connectivity, kind_of
from benchbench.diagnostics.connectivity_measurement import Meter, tensors_of, unpacked
from benchbench.diagnostics.connectivity_report import read_told, rendered, told
from benchbench.diagnostics.graph_nodes import LEAST, Node, halves, nodes_of
from benchbench.diagnostics.node_classifiers import (
    Effort,
    Mistakes,
    NodeFeed,
    Subject,
    apart,
    beats,
    pairs_to_ask,
    shared,
    tells_all,
    tried,
)
from benchbench.extension.conformance.fixtures import bars, sentences
from benchbench.extension.constants import TEST, TRAIN, UNKNOWN, VAL
from benchbench.extension.contracts import Rows
from benchbench.extension.errors import BadInput
from benchbench.store.artifacts import Store
from benchbench.suites.suite import Shift
from benchbench.training.device import Machine
from benchbench.training.loop import Diverged, as_it_is

CPU = Machine(torch.device("cpu"), "fp32")
EFFORT = Effort(lr=0.02, views=100)  # of linear scores: all that these worlds need
SIDES = ({0}, {1})


class Linear(nn.Module):
    """The pixels themselves, so that scores are linear in them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs.flatten(1)


class Wide(nn.Sequential):
    """Enough random features to learn some hundred rows by heart."""

    def __init__(self, width: int) -> None:
        self.num_features = 256
        super().__init__(nn.Flatten(), nn.Linear(width, self.num_features), nn.ReLU())


def seeded(kind, *options):
    def make(seed):
        torch.manual_seed(seed)
        return kind(*options)

    return make


def subject_of(inputs, nodes, effort=EFFORT, *, augment=as_it_is, encoder=Linear, seed=0):
    width = inputs[0].numel()
    return Subject(nodes, inputs, augment, seeded(encoder, width), CPU, effort, seed)


def all_pairs(nodes):
    return list(combinations(range(len(nodes)), 2))


def found_by(estimator, subject) -> Mistakes:
    if estimator == "fast":
        return shared(subject)
    return apart(subject, all_pairs(subject.nodes))


def grid(sizes, classes: int) -> list[Node]:
    """Nodes of so many rows each to learn from, and 20 to validate and to test."""
    nodes, start = [], 0
    for number, size in enumerate(sizes):
        parts = torch.arange(start, start + size + 40).split([size, 20, 20])
        nodes.append(Node(number % classes, number // classes, *parts))
        start += size + 40
    return nodes


def rows_in(nodes) -> torch.Tensor:
    return torch.tensor([sum(map(len, (n.train, n.val, n.test))) for n in nodes])


def close(found, truth, nodes, tolerance=0.02):
    """Every pair, and α, β and γ, in their order too."""
    errors = Errors(nodes, found).error
    kinds = {"alpha": [], "beta": [], "gamma": []}
    for i, j in all_pairs(nodes):
        assert abs(errors[i, j] - truth[i, j]) < tolerance, (i, j, errors[i, j], truth[i, j])
        kinds[kind_of(nodes[i], nodes[j])].append(float(truth[i, j]))
    means = {kind: sum(values) / len(values) for kind, values in kinds.items()}
    result = connectivity(nodes, found, *SIDES)
    for kind, mean in means.items():
        assert abs(getattr(result, kind).value - mean) < tolerance, kind
    assert sorted(means, key=means.get) == sorted(means, key=lambda k: getattr(result, k).value)
    return result


# --- truth


CENTRES = torch.tensor([[0.0, 0.0], [0.9, 0.0], [3.4, 0.0], [0.0, 1.6], [0.9, 2.4], [3.4, 1.0]])


def gaussians(sigma=1.0, sizes=(30,) * 6, seed=0):
    """Three classes in two domains; a row is its node's centre, a view adds noise to it.

    Two of them at distance d, seen as often, are confused with probability Φ(−d / 2σ) at best.
    """
    nodes = grid(sizes, 3)
    inputs = torch.nn.functional.pad(CENTRES, (0, 4)).repeat_interleave(rows_in(nodes), 0)
    truth = torch.special.ndtr(-torch.cdist(CENTRES, CENTRES) / (2 * sigma))

    def noise(rows):
        return rows + sigma * torch.randn_like(rows)

    return subject_of(inputs, nodes, augment=noise, seed=seed), truth


@pytest.mark.parametrize("estimator", ["fast", "faithful"])
def test_errors_of_gaussians_are_those_of_the_best_classifier(estimator):
    subject, truth = gaussians()
    off_diagonal = truth[~torch.eye(6, dtype=torch.bool)]
    assert 0.02 < off_diagonal.min() < 0.04 and 0.32 < off_diagonal.max() < 0.35
    result = close(found_by(estimator, subject), truth, subject.nodes)
    for label, (alpha, gamma) in result.of_class.items():
        assert abs(alpha - truth[label, 3 + label]) < 0.02
        others = [i for i in range(3) if i != label]
        across = [truth[label, 3 + i] for i in others] + [truth[i, 3 + label] for i in others]
        assert abs(gamma - sum(across) / 4) < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
@pytest.mark.parametrize("estimator", ["fast", "faithful"])
def test_errors_are_the_same_for_other_seeds(estimator, seed):
    subject, truth = gaussians(seed=seed)
    close(found_by(estimator, subject), truth, subject.nodes, 0.025)


@pytest.mark.gpu
@pytest.mark.parametrize("estimator", ["fast", "faithful"])
@pytest.mark.parametrize("place", ["cpu", "cuda"])
def test_errors_are_the_same_on_a_gpu_wherever_the_rows_lie(estimator, place):
    subject, truth = gaussians()
    machine = Machine(torch.device("cuda"), "fp32")
    subject = replace(subject, machine=machine, inputs=subject.inputs.to(place))
    close(found_by(estimator, subject), truth, subject.nodes, 0.025)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["fast", "faithful"])
def test_more_noise_connects_more(estimator):
    found = []
    for sigma in (0.5, 1.0, 2.0):
        subject, truth = gaussians(sigma)
        found.append(connectivity(subject.nodes, found_by(estimator, subject), *SIDES))
    for kind in ("alpha", "beta", "gamma"):
        weak, middle, strong = (getattr(result, kind) for result in found)
        assert weak.value < middle.value - 0.04 and middle.value < strong.value - 0.04


def mixture(q: float, r: float):
    """Four kinds of rows: of two classes, common to both domains or found in the second alone.

    In the second domain a row is of the common kind with probability q; in both, a row of class 1
    is of a kind of class 0 with probability r. Shares are exact.
    """
    pure = torch.eye(4)
    strange = [q * pure[c] + (1 - q) * pure[2 + c] for c in (0, 1)]
    shares = [pure[0], (1 - r) * pure[1] + r * pure[0]]
    shares += [strange[0], (1 - r) * strange[1] + r * strange[0]]
    nodes = grid((100,) * 4, 2)
    kinds = []
    for share, node in zip(shares, nodes, strict=True):
        for rows in (node.train, node.val, node.test):
            kinds.append(torch.arange(4).repeat_interleave((share * len(rows)).round().long()))
    truth = torch.tensor([[float(torch.minimum(a, b).sum()) / 2 for a in shares] for b in shares])
    return subject_of(pure[torch.cat(kinds)], nodes, replace(EFFORT, views=1)), truth


@pytest.mark.parametrize("q", [0.0, 0.2, 0.5, 0.8])
@pytest.mark.parametrize("estimator", ["fast", "faithful"])
def test_domains_that_share_a_known_part_are_confused_for_half_of_it(estimator, q):
    subject, truth = mixture(q, 0.0)
    found = found_by(estimator, subject)
    result = connectivity(subject.nodes, found, *SIDES)
    assert abs(result.alpha.value - q / 2) < 0.02
    assert max(result.beta.value, result.gamma.value) < 0.02
    if estimator == "fast":
        assert abs(result.domain - q / 2) < 0.02


@pytest.mark.parametrize("estimator", ["fast", "faithful"])
def test_domains_and_classes_that_share_known_parts_are_confused_for_half_of_them(estimator):
    subject, truth = mixture(0.5, 0.3)
    assert truth[0, 2] == 0.25 and truth[0, 1] == pytest.approx(0.15)
    close(found_by(estimator, subject), truth, subject.nodes)


# --- bugs that others had


def random_pack():
    """Noise, whose labels and domains say nothing: 160 rows to test of each class and domain."""
    count = 320
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (4 * count, 1, 8, 8), generator=generator, dtype=torch.uint8)
    node = torch.arange(4).repeat_interleave(count)
    split = torch.tensor([TRAIN] * 120 + [VAL] * 40 + [TEST] * 160).repeat(4)
    names = (("a", "b"), ("one", "other"))
    return in_memory(DomainData(images, node % 2, node // 2, *names, split))


def of_noise():
    pack = random_pack()
    nodes, _ = nodes_of(pack, pack.domain_names, pack.labels, 0)
    everyone, pairs = pairs_to_ask(nodes, 15, 4, 0)
    subject = subject_of(pack.inputs, everyone, Effort(lr=0.005, test_rows=160), encoder=Wide)
    return connectivity(everyone, apart(subject, pairs), *SIDES)


def is_chance(estimate):
    assert estimate.low < 0.5 < estimate.high and estimate.high - estimate.low < 0.2


def resampled_before_the_split(node, seed):
    """Halves of which duplicates are learned from and tested: `Connect Later`'s published code."""
    leaky = []
    for half in halves(node, seed):
        rows = torch.cat([half.train, half.val, half.test])
        sizes = [2 * len(part) for part in (half.train, half.val, half.test)]
        generator = torch.Generator().manual_seed(half.half)
        drawn = rows[torch.randint(len(rows), (sum(sizes),), generator=generator)]
        train, val, test = drawn.split(sizes)
        leaky.append(replace(half, train=train, val=val, test=test))
    return tuple(leaky)


def test_what_cannot_be_told_apart_has_half_its_rows_mistaken_unless_rows_leak(monkeypatch):
    found = of_noise()
    for estimate in (found.alpha, found.beta, found.gamma, found.rho):
        is_chance(estimate)
    monkeypatch.setattr(node_classifiers, "halves", resampled_before_the_split)
    leaky = of_noise()
    is_chance(leaky.alpha)
    with pytest.raises(AssertionError):
        is_chance(leaky.rho)
    assert leaky.rho.high < 0.4


class Spoiled(NodeFeed):
    """In the second half of the steps the first node is the last: what is learned then is wrong."""

    def __call__(self, step):
        rows = super().__call__(step)
        if step < 0.5 * self.subject.effort.steps:
            return rows
        return Rows(rows.inputs.flip(0), rows.labels, rows.domains)


def spoiled_error(estimator):
    subject, _ = gaussians(0.2)
    subject = replace(subject, effort=replace(EFFORT, lr=0.1, steps=200, views=2))
    return connectivity(subject.nodes, found_by(estimator, subject), *SIDES).alpha.value


@pytest.mark.parametrize("estimator", ["fast", "faithful"])
def test_the_weights_that_validate_best_are_kept_and_not_the_last(estimator, monkeypatch):
    monkeypatch.setattr(node_classifiers, "NodeFeed", Spoiled)
    assert spoiled_error(estimator) < 0.02
    aliased = SimpleNamespace(deepcopy=lambda weights: weights)
    monkeypatch.setattr(node_classifiers, "copy", aliased)  # `best_model = model`, of the same code
    with pytest.raises(AssertionError):
        assert spoiled_error(estimator) < 0.02


UNEVEN = (400, 10, 10, 10, 40, 800)


class AsFrequent(NodeFeed):
    """Rows as frequent as they are, not as many of every node."""

    def __call__(self, step):
        sizes = torch.tensor([len(node.train) for node in self.subject.nodes])
        generator = torch.Generator().manual_seed(step)
        count = self.rows * len(sizes)
        nodes = torch.multinomial(sizes.float(), count, True, generator=generator)
        index = torch.stack([self.subject.nodes[node].train[0] for node in nodes.tolist()])
        return Rows(self.subject.inputs[index], nodes, nodes // 3)


@pytest.mark.parametrize("estimator", ["fast", "faithful"])
def test_nodes_of_very_different_size_are_told_apart_as_equals_are(estimator, monkeypatch):
    subject, truth = gaussians(sizes=UNEVEN)
    close(found_by(estimator, subject), truth, subject.nodes)
    if estimator == "fast":
        monkeypatch.setattr(node_classifiers, "NodeFeed", AsFrequent)
        with pytest.raises(AssertionError):
            close(found_by(estimator, subject), truth, subject.nodes)


# --- rows


def disjoint(*parts):
    joined = torch.cat(parts)
    return len(joined.unique()) == len(joined)


def test_nodes_hold_the_labelled_rows_of_their_splits_each_once():
    data = bars(40)
    pack = in_memory(replace(data, labels=data.labels.where(torch.arange(360) % 7 > 0, UNKNOWN)))
    nodes, poor = nodes_of(pack, ("odd", "left"), pack.labels, 0)
    assert [node.key for node in nodes] == [(c, d, 0) for d in (2, 0) for c in range(3)]
    assert not poor
    for node in nodes:
        assert disjoint(node.train, node.val, node.test)
        for rows, split in ((node.train, TRAIN), (node.val, VAL), (node.test, TEST)):
            of_node = (pack.labels == node.label) & (pack.domains == node.domain)
            assert torch.equal(rows, (of_node & (pack.split == split)).nonzero().flatten())


@pytest.mark.parametrize("split", [TRAIN, TEST])
def test_a_domain_in_one_split_is_split_anew_and_the_others_are_not(split):
    data = bars(40)
    pack = in_memory(replace(data, split=data.split.where(data.domains != 1, split)))
    nodes, _ = nodes_of(pack, pack.domain_names, pack.labels, 0)
    again, _ = nodes_of(pack, pack.domain_names, pack.labels, 1)
    assert len(nodes) == 9
    for node, other in zip(nodes, again, strict=True):
        assert disjoint(node.train, node.val, node.test)
        assert len(node.train) + len(node.val) + len(node.test) == 40
        assert (node.domain == 1) == (not torch.equal(node.test, other.test))
        assert min(len(node.val), len(node.test)) >= LEAST
        rows = torch.cat([node.train, node.val, node.test])
        assert (pack.labels[rows] == node.label).all()
        assert (pack.domains[rows] == node.domain).all()


def test_halves_share_no_row_and_nothing_is_lost():
    (node, *_), _ = nodes_of(pack := in_memory(bars(33)), ("left",), pack.labels, 0)
    one, other = halves(node, 0)
    for part in ("train", "val", "test"):
        both = getattr(one, part), getattr(other, part)
        assert disjoint(*both) and torch.equal(torch.cat(both).sort().values, getattr(node, part))
        assert abs(len(both[0]) - len(both[1])) <= 1
    assert (one.key, other.key) == ((*node.key[:2], 1), (*node.key[:2], 2))
    assert torch.equal(halves(node, 0)[0].train, one.train)
    assert not torch.equal(halves(node, 1)[0].train, one.train)


def scarce(domain: int, *labels: int):
    """Bars, of which in a domain some classes have two labelled rows to test."""
    data = bars(40)
    few = (data.domains == domain) & torch.isin(data.labels, torch.tensor(labels))
    hidden = few & (data.split == TEST)
    hidden[hidden.nonzero().flatten()[: 2 * len(labels)]] = False
    return in_memory(replace(data, labels=data.labels.where(~hidden, UNKNOWN)))


def test_a_class_with_few_rows_is_left_out_with_a_sentence():
    pack = scarce(1, 2)
    nodes, poor = nodes_of(pack, pack.domain_names, pack.labels, 0)
    assert len(nodes) == 8 and (2, 1, 0) not in {node.key for node in nodes}
    assert poor == [
        "class 'high' of domain 'right' is left out: it has 24, 8, 2 labelled rows for training, "
        "validation and test; 5 are needed"
    ]


def test_a_domain_with_no_class_left_is_bad_input():
    pack = scarce(1, 0, 1, 2)
    with pytest.raises(BadInput, match="domain 'right' has no class with 5 labelled rows in each"):
        nodes_of(pack, pack.domain_names, pack.labels, 0)


def test_pairs_are_all_of_a_class_across_domains_and_some_of_the_others():
    rows = torch.arange(10)
    nodes = [Node(label, domain, rows, rows, rows) for domain in range(3) for label in range(8)]
    everyone, pairs = pairs_to_ask(nodes, 5, 2, 0)
    assert everyone[:24] == nodes and len(everyone) == 28 and len(set(pairs)) == len(pairs)
    kinds = {kind: [] for kind in ("alpha", "beta", "gamma", "rho")}
    for i, j in pairs:
        domains = {everyone[i].domain, everyone[j].domain}
        kinds[kind_of(everyone[i], everyone[j])].append(tuple(sorted(domains)))
    across = [(0, 1), (0, 2), (1, 2)]
    assert sorted(kinds["alpha"]) == sorted(across * 8)
    assert sorted(kinds["gamma"]) == sorted(across * 5)
    assert sorted(kinds["beta"]) == sorted([(0,), (1,), (2,)] * 5)
    assert len(kinds["rho"]) == 2
    assert pairs == pairs_to_ask(nodes, 5, 2, 0)[1] != pairs_to_ask(nodes, 5, 2, 1)[1]


# --- what is made of scores


def test_mistakes_are_those_that_a_loop_over_scores_counts():
    subject, _ = gaussians()
    subject = replace(subject, effort=Effort(20, test_rows=7, views=3))
    found, network, nodes = shared(subject), tells_all(subject), subject.nodes
    scores = [tried(network, subject.views_of(node, TEST)).tolist() for node in nodes]
    errors = Errors(nodes, found)
    for i, node in enumerate(nodes):
        assert len(found.rows[i]) == 7 and set(found.rows[i].tolist()) <= set(node.test.tolist())
        for row in range(7):
            for j in range(6):
                beaten = [view[row][j] > view[row][i] for view in scores[i]]
                share = found.taken[i][row, j]
                assert share.isnan() if i == j else share == pytest.approx(sum(beaten) / 3)
            strange = 0
            for view in scores[i]:
                likely = [sum(math.exp(s) for s in view[row][d : d + 3]) for d in (0, 3)]
                strange += likely[1 - node.domain] > likely[node.domain]
            assert found.strange[i][row] == pytest.approx(strange / 3)
    for i, j in all_pairs(nodes):
        wrong = []
        for mine, other in ((i, j), (j, i)):
            told = [row[other] > row[mine] for view in scores[mine] for row in view]
            wrong.append(sum(told) / len(told))
        assert errors.error[i, j] == errors.error[j, i] == pytest.approx(sum(wrong) / 2)


def test_scores_that_say_nothing_are_wrong_half_of_the_time():
    own = torch.tensor([1.0, 1.0, 1.0, torch.nan])
    assert beats(torch.tensor([2.0, 0.0, 1.0, torch.nan]), own).tolist() == [1, 0, 0.5, 0.5]
    same = node_classifiers.taken_for(0, torch.zeros(2, 3, 2))
    assert same[:, 1].tolist() == [0.5] * 3


def test_a_network_trained_with_others_is_the_one_trained_alone():
    """As the losses are summed, and no rule of the optimizer looks at two networks at once."""
    subject, _ = gaussians()
    encoder = seeded(Wide, subject.inputs[0].numel())
    subject = replace(subject, encoder=encoder, effort=Effort(40, lr=0.01, views=5))
    together = apart(subject, pairs := all_pairs(subject.nodes))
    for pair in pairs[::4]:
        alone = apart(subject, [pair])
        for node, other in (pair, pair[::-1]):
            assert torch.allclose(
                alone.taken[node][:, other], together.taken[node][:, other], atol=1e-6
            )
            assert alone.taken[node].isnan().sum() == 5 * len(alone.rows[node])


def nobody(nodes) -> torch.Tensor:
    """True where a node would be taken for itself: [nodes, 1, nodes]."""
    return torch.eye(len(nodes), dtype=torch.bool)[:, None]


def of_taken(taken) -> Mistakes:
    """Of float32 [nodes, rows, nodes]."""
    count, rows, _ = taken.shape
    taken = taken.masked_fill(nobody(taken), torch.nan)
    return Mistakes((torch.arange(rows),) * count, tuple(taken), (torch.zeros(rows),) * count)


def made_up(nodes, rows: int, seed: int = 0) -> Mistakes:
    """Every pair has a rate of its own, and every row and pair a share of views."""
    count, generator = len(nodes), torch.Generator().manual_seed(seed)
    rate = torch.rand(count, 1, count, generator=generator)
    return of_taken(rate * torch.rand(count, rows, count, generator=generator))


def cells(classes: int, domains: int) -> list[Node]:
    rows = torch.arange(9)
    return [Node(c, d, rows, rows, rows) for d in range(domains) for c in range(classes)]


@pytest.mark.parametrize("sides", [({0, 1}, {2}), ({0}, {3}), ({3}, {0, 1, 2}), ({0, 2}, {1, 3})])
def test_shifts_between_several_domains_are_of_the_pairs_across_and_within_them(sides):
    nodes = cells(3, 4)
    found = made_up(nodes, 11)
    sums = {"alpha": [], "beta": [], "gamma": []}
    of_class = {c: ([], []) for c in range(3)}
    for i, j in all_pairs(nodes):
        (a, d), (b, e) = (nodes[i].label, nodes[i].domain), (nodes[j].label, nodes[j].domain)
        error = (float(found.taken[i][:, j].mean()) + float(found.taken[j][:, i].mean())) / 2
        leads = (d in sides[0] and e in sides[1]) or (e in sides[0] and d in sides[1])
        if leads and a == b:
            sums["alpha"].append(error)
            of_class[a][0].append(error)
        elif leads:
            sums["gamma"].append(error)
            of_class[a][1].append(error)
            of_class[b][1].append(error)
        elif d == e and d in sides[0] | sides[1]:
            sums["beta"].append(error)
    result, back = connectivity(nodes, found, *sides), connectivity(nodes, found, *sides[::-1])
    assert result == back and result.rho is None
    for kind, errors in sums.items():
        estimate = getattr(result, kind)
        assert estimate.pairs == len(errors)
        assert estimate.value == pytest.approx(sum(errors) / len(errors), abs=1e-6)
        assert estimate.rows == 11 * 3 * len(sides[0] | sides[1])
    for label, (alphas, gammas) in of_class.items():
        wanted = (sum(alphas) / len(alphas), sum(gammas) / len(gammas))
        assert result.of_class[label] == pytest.approx(wanted, abs=1e-6)


def test_pairs_that_nobody_asked_do_not_count():
    nodes = cells(3, 2)
    found = made_up(nodes, 10)
    whole = connectivity(nodes, found, *SIDES)
    found.taken[0][:, 4] = found.taken[4][:, 0] = torch.nan
    part = connectivity(nodes, found, *SIDES)
    assert (part.gamma.pairs, whole.gamma.pairs) == (5, 6)
    assert (part.alpha, part.beta) == (whole.alpha, whole.beta)
    assert not math.isnan(part.gamma.low) and part.gamma != whole.gamma


def test_intervals_are_those_of_a_plain_loop():
    nodes = cells(2, 2)
    found, generator = made_up(nodes, 30), np.random.default_rng(0)
    taken = [part.numpy() for part in found.taken]
    alphas, betas = [], []
    for _ in range(2000):
        again = [part[generator.integers(0, 30, 30)].mean(0) for part in taken]
        pairs = {(i, j): (again[i][j] + again[j][i]) / 2 for i, j in all_pairs(nodes)}
        alphas.append((pairs[0, 2] + pairs[1, 3]) / 2)
        drawn = generator.choice([pairs[0, 1], pairs[2, 3]], 2)
        betas.append(drawn.mean())
    result = connectivity(nodes, found, *SIDES)
    for estimate, values in ((result.alpha, alphas), (result.beta, betas)):
        low, high = np.quantile(values, [0.025, 0.975])
        assert abs(estimate.low - low) < 0.006 and abs(estimate.high - high) < 0.006


def test_intervals_cover_the_truth_about_as_often_as_they_say(monkeypatch):
    """All views of a row go the same way, so that only rows count."""
    monkeypatch.setattr(module, "RESAMPLED", 400)
    missed, count = 0, 200
    for seed in range(count):
        generator = torch.Generator().manual_seed(seed)
        found = of_taken((torch.rand(4, 40, 4, generator=generator) < 0.3).float())
        nodes = [replace(node, half=1 + seed) for node in cells(2, 2)]  # which decides the draws
        alpha = connectivity(nodes, found, *SIDES).alpha
        missed += not alpha.low <= 0.3 <= alpha.high
    assert 0.01 < missed / count < 0.11


def test_ratios_exist_where_nothing_was_mistaken():
    none = Estimate(0.0, 0.0, 0.0, 3, 100)
    assert none.smoothed == pytest.approx(0.5 / 101)
    assert Estimate(0.2, 0.1, 0.3, 3, 100).smoothed == pytest.approx(20.5 / 101)
    other = replace(none, value=0.1)
    found = module.Connectivity(other, none, none, None, None, {})
    assert found.log_ratios == pytest.approx((math.log(10.5 / 0.5), 0.0))


def test_mistakes_survive_the_store_bit_for_bit(tmp_path):
    nodes = cells(2, 2)
    found = made_up(nodes, 10)
    found = Mistakes(tuple(part[: 5 + n] for n, part in enumerate(found.rows)),
                     tuple(part[: 5 + n] for n, part in enumerate(found.taken)),
                     tuple(part[: 5 + n] / 3 for n, part in enumerate(found.strange)))  # fmt: skip
    store = Store(tmp_path)
    store.write("connectivity", "key", tensors_of(found))
    again = unpacked(store.read("connectivity", "key").tensors)
    for name, parts in vars(found).items():
        for part, other in zip(parts, getattr(again, name), strict=True):
            assert part.dtype == other.dtype and part.numpy().tobytes() == other.numpy().tobytes()


# --- the meter


@pytest.fixture
def meter(catalog, tmp_path):
    effort = Effort(4, test_rows=8, views=2)
    store = Store(tmp_path / "store")
    return Meter(catalog, in_memory(bars(40)), store, CPU, "small_cnn(width=4)", effort=effort)


def shift(text: str) -> Shift:
    return Shift.parse(text, ("left", "right", "odd"))


def kept(meter) -> int:
    return len(list((meter.store.root / "connectivity").glob("*.safetensors")))


def never(*args, **how):
    raise AssertionError("it is trained")


@pytest.mark.parametrize("estimator", ["fast", "faithful"])
def test_nothing_is_measured_twice(meter, estimator, monkeypatch):
    meter = replace(meter, estimator=estimator)
    first = meter.of("noise", shift("left > odd"))
    monkeypatch.setattr(node_classifiers, "train", never)
    again, back = (meter.of("noise", shift(text)) for text in ("left > odd", "odd > left"))
    assert first[1] == again[1] == back[1]
    assert first[0].seconds == again[0].seconds > 0
    assert first[0].augmentation == again[0].augmentation == "noise(std=(0.0, 0.1))"
    for part in ("rows", "taken", "strange"):
        for one, other in zip(*(getattr(m.mistakes, part) for m, _ in (first, again)), strict=True):
            assert torch.equal(one.nan_to_num(-1), other.nan_to_num(-1))


def test_whatever_changes_what_is_found_is_measured_anew(meter):
    other = (meter.pack.labels + 1) % 3
    noisy = in_memory(bars(40, seed=1))
    wanted = [
        (meter, "none", "left > right", None),
        (replace(meter, seed=1), "none", "left > right", None),
        (meter, "noise", "left > right", None),
        (meter, "noise(std=(0.0, 0.2))", "left > right", None),
        (replace(meter, estimator="faithful"), "none", "left > right", None),
        (meter, "none", "left > right", other),
        (replace(meter, effort=replace(meter.effort, steps=5)), "none", "left > right", None),
        (replace(meter, effort=replace(meter.effort, views=1)), "none", "left > right", None),
        (replace(meter, encoder="small_cnn(width=5)"), "none", "left > right", None),
        (replace(meter, pack=noisy), "none", "left > right", None),
        (meter, "none", "left > odd", None),
        (meter, "none", "left + odd > right", None),
    ]
    for count, (this, augmentation, text, labels) in enumerate(wanted, 1):
        this.of(augmentation, shift(text), labels)
        assert kept(meter) == count


def test_a_measurement_is_a_function_of_its_seed(meter, tmp_path):
    found = meter.of("noise", shift("left > right"))[1]
    torch.manual_seed(123)
    again = replace(meter, store=Store(tmp_path / "other"))
    assert again.of("noise", shift("left > right"))[1] == found


def test_given_labels_stand_for_those_of_the_data(meter):
    hidden = meter.pack.labels.where(meter.pack.domains == 0, UNKNOWN)
    blind = replace(meter, pack=in_memory(replace(bars(40), labels=hidden)))
    with pytest.raises(BadInput, match="domain 'right' has no class"):
        blind.of("noise", shift("left > right"))
    measured, found = blind.of("noise", shift("left > right"), meter.pack.labels)
    assert len(measured.nodes) == 6 and found == meter.of("noise", shift("left > right"))[1]


@pytest.mark.slow
def test_bars_in_grey_are_told_apart_and_domains_too(meter):
    meter = replace(meter, effort=Effort(60, lr=0.02))
    _, found = meter.of("none", shift("left > right"))
    assert max(found.alpha.value, found.beta.value, found.gamma.value, found.domain) < 0.05
    faithful = replace(meter, estimator="faithful")
    _, found = faithful.of("none", shift("left > right"))
    assert max(found.alpha.value, found.beta.value, found.gamma.value) < 0.05
    assert found.domain is None and found.rho.value > 0.3


def test_classes_on_one_side_alone_leave_nothing_to_measure(meter, monkeypatch):
    monkeypatch.setattr(node_classifiers, "train", never)
    domains, labels = meter.pack.domains, meter.pack.labels
    one_class = torch.zeros_like(labels)
    with pytest.raises(BadInput, match="shift left > odd: no domain has two classes with"):
        meter.of("none", shift("left > odd"), one_class)
    others = torch.where(domains == 2, 2, labels % 2)
    with pytest.raises(BadInput, match="shift left > odd: no class has enough .* of both sides"):
        meter.of("none", shift("left > odd"), others)


def test_what_is_left_out_is_said(meter):
    meter = replace(meter, pack=scarce(1, 2))
    found = told("tiny", meter, where := shift("left > right"), meter.of("none", where), "given")
    assert len(found.nodes) == 5 and set(found.nodes[0].model_dump().values()) >= {"low", "left"}
    (sentence,) = found.left_out
    assert sentence.startswith("class 'high' of domain 'right' is left out: it has 24, 8, 2")
    text = rendered([found, found], "markdown")
    assert text.count(sentence) == 1 and text.endswith("\n")


def test_numbers_have_no_connectivity(catalog, tmp_path):
    with pytest.raises(BadInput, match="connectivity is of classes, and the dataset's labels are"):
        Meter(catalog, in_memory(heights(None)), Store(tmp_path), CPU, "small_cnn(width=4)")


def test_texts_have_encoders_and_augmentations_of_their_own(catalog, tmp_path):
    pack, store = in_memory(sentences(60)), Store(tmp_path)
    with pytest.raises(BadInput, match="encoder small_cnn is for images, and the data are texts"):
        Meter(catalog, pack, store, CPU, "small_cnn(width=4)")
    encoder = "transformer(width=16, depth=1, dropout=0.0)"
    meter = Meter(catalog, pack, store, CPU, encoder, effort=Effort(80, lr=0.02))
    with pytest.raises(BadInput, match="augmentation noise is for images, and the data are texts"):
        meter.of("noise", shift("left > right"))
    with pytest.raises(BadInput, match="no augmentation is named 'nois'|no augmentation 'nois'"):
        meter.of("nois", shift("left > right"))
    _, found = meter.of("token_dropout", shift("left > right"))
    assert max(found.alpha.value, found.beta.value) < 0.25  # a word tells, if it stays in its place


def test_a_loss_that_is_no_number_is_bad_input(meter, monkeypatch):
    def diverges(*args, **how):
        raise Diverged("the loss became nan at step 3")

    monkeypatch.setattr(node_classifiers, "train", diverges)
    with pytest.raises(BadInput, match="cannot be told apart: the loss became nan at step 3"):
        meter.of("none", shift("left > right"))


def test_encoded_images_are_measured_as_their_pixels_are(meter, tmp_path):
    place, contents = tmp_path / "all.bytes", []
    for image in meter.pack.inputs:
        buffer = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, "PNG")
        contents.append(buffer.getvalue())
    place.write_bytes(b"".join(contents))
    np.save(starts_of(place), np.cumsum([0, *map(len, contents)]))
    encoded = Encoded(place, meter.pack.inputs.shape[2], None)
    other = replace(
        meter, pack=replace(meter.pack, inputs=encoded), store=Store(tmp_path / "encoded")
    )
    assert other.of("noise", shift("left > odd"))[1] == meter.of("noise", shift("left > odd"))[1]


# --- the command

PLUGIN = """
from benchbench import hookimpl
from benchbench.extension.conformance.fixtures import bars


def bright_bars(root):
    \"\"\"The data of the conformance kit.\"\"\"
    return bars(40)


@hookimpl
def benchbench_datasets():
    return {"bright_bars": bright_bars}
"""


@pytest.fixture
def run(tmp_path):
    """Runs the command on bars; returns its status, standard output and error."""
    plugin = tmp_path / "bright.py"
    plugin.write_text(PLUGIN)

    def invoke(*words: str):
        text = ["diagnose", "connectivity", "--plugin", str(plugin), "bright_bars", "--steps", "3"]
        text += ["--store", str(tmp_path / "store"), "--encoder", "small_cnn(width=4)", *words]
        result = CliRunner().invoke(main, text)
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return invoke


def test_the_command_compares_augmentations_on_shifts_and_does_nothing_twice(run, monkeypatch):
    words = ("--augmentation", "none", "--augmentation", "horizontal_flip | noise")
    status, out, err = run(*words)
    assert status == 0
    head, line, *body = out.partition("\n\n")[0].splitlines()
    assert head.split("|")[1].strip() == "shift" and len(body) == 6  # every two of three domains
    assert sum("left > right" in row for row in body) == 2
    assert r"horizontal_flip(p=0.5) \| noise(std=(0.0, 0.1))" in body[-1]
    assert "Groups have 8 to 8 test rows." in out
    assert len(err.splitlines()) == 6 and "right > odd, none: " in err
    monkeypatch.setattr(node_classifiers, "train", never)
    assert run(*words) == (status, out, err)


@pytest.mark.parametrize("estimator", ["fast", "faithful"])
def test_its_json_is_read_again(run, tmp_path, estimator):
    words = ("--shift", "left + odd > right", "--estimator", estimator, "--format", "json")
    status, out, _ = run(*words, "--seed", "3")
    path = tmp_path / "found.json"
    path.write_text(out)
    (found,) = read_told(path)
    assert status == 0 and rendered([found], "json") == out
    assert (found.dataset, found.shift, found.seed) == ("bright_bars", "left + odd > right", 3)
    assert (found.estimator, found.steps, found.labels) == (estimator, 3, "given")
    assert (found.rho is None) == (estimator == "fast") == (found.domain is not None)
    assert len(found.nodes) == 9 and found.alpha.pairs == 6
    for kind in (found.alpha, found.beta, found.gamma):
        assert 0 <= kind.low <= kind.value <= kind.high <= 1
    assert json.loads(out)[0]["augmentation"] == found.augmentation


def test_what_is_no_such_file_is_bad_input(tmp_path):
    path = tmp_path / "found.json"
    with pytest.raises(BadInput, match="cannot be read: No such file"):
        read_told(path)
    path.write_text('[{"dataset": 3}]')
    with pytest.raises(BadInput, match=r"does not hold connectivity: 0\.dataset: "):
        read_told(path)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--shift", "left > rigth"), "shift 'left > rigth': no domain 'rigth'; did you mean"),
        (("--shift", "left"), "shift 'left' should read 'source > target'"),
        (("--shift", "left > left"), "leads from 'left' to itself"),
        (("--augmentation", "noize"), "noize"),
        (("--augmentation", "noise(std=3)"), "noise"),
        (("--encoder", "small_cn"), "small_cn"),
        (("--encoder", "transformer"), "encoder transformer is for texts"),
        (("--device", "tpu"), "no device is named 'tpu'"),
    ],
)
def test_mistakes_of_the_user_end_in_one_sentence(run, words, sentence):
    status, out, err = run(*words)
    assert (status, out) == (2, "") and len(err.splitlines()) == 1
    assert err.startswith("benchbench: ") and sentence in err
