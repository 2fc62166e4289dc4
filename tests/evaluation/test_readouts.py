"""Readouts against scikit-learn and plain loops."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchbench.evaluation.features import Features, Moments
from benchbench.evaluation.readouts import linear_probe, row_blocks
from benchbench.evaluation.readouts.interface import accuracy
from benchbench.evaluation.readouts.knn import Keys, knn
from benchbench.evaluation.readouts.lbfgs_solver import Curvature
from benchbench.evaluation.readouts.linear_probe import linear, logistic_path, probe
from benchbench.evaluation.readouts.nearest_class_mean import prototype
from benchbench.evaluation.readouts.pfa import pfa
from benchbench.evaluation.readouts.registry import READOUTS, resolve_readout
from benchbench.evaluation.readouts.ridge import ridge, ridge_path
from benchbench.extension.errors import BadInput


def blobs(n, width=20, classes=4, spread=2.0, seed=0):
    """Overlapping classes on correlated features of very different scales, off the origin."""
    generator = torch.Generator().manual_seed(seed)
    fixed = torch.Generator().manual_seed(99)
    centres = torch.randn(classes, width, generator=fixed)
    mix = torch.randn(width, width, generator=fixed) * torch.logspace(0, -2, width)
    labels = torch.randint(classes, (n,), generator=generator)
    z = centres[labels] + spread * torch.randn(n, width, generator=generator)
    return Features((z @ mix + 3).float(), labels)


def objective(weight, features, c):
    logits = F.pad(features.z.double(), (0, 1), value=1.0) @ weight
    return (F.cross_entropy(logits, features.labels) + weight[:-1].square().sum()
            / (2 * len(features.z) * c)).item()  # fmt: skip


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
def test_the_whole_path_reaches_scikit_learns_objective():
    train = blobs(300)
    path = np.logspace(-6, 5, 12).tolist()
    weights = logistic_path(train.z, train.labels, 4, path, max_iter=500)
    for weight, c in zip(weights, path, strict=True):
        model = LogisticRegression(C=c, solver="newton-cholesky", max_iter=1000, tol=1e-9)
        model.fit(train.z.double().numpy(), train.labels.numpy())
        theirs = torch.tensor(np.vstack([model.coef_.T, model.intercept_]))
        assert objective(weight, train, c) <= objective(theirs, train, c) * (1 + 1e-6)


def test_at_a_moderate_penalty_the_weights_themselves_agree():
    train = blobs(300)
    model = LogisticRegression(C=0.1, max_iter=20_000, tol=1e-10)
    model.fit(train.z.double().numpy(), train.labels.numpy())
    (weight,) = logistic_path(train.z, train.labels, 4, [0.1], max_iter=500)
    assert np.allclose(weight[:-1].T.numpy(), model.coef_, atol=1e-3)


def test_a_class_without_training_rows_and_constant_features_do_no_harm():
    train = blobs(60)
    z = torch.cat([train.z, torch.ones(60, 1), torch.zeros(60, 1)], 1)
    weights = logistic_path(z, train.labels, 6, [1e-6, 1.0, 1e5], max_iter=100)
    assert weights.isfinite().all()
    predicted = (F.pad(z.double(), (0, 1), value=1.0) @ weights[1]).argmax(1)
    assert set(predicted.tolist()) <= {0, 1, 2, 3}


def test_the_penalty_is_chosen_on_validation_and_of_equals_the_strongest():
    train, val = blobs(200), blobs(60, seed=1)
    fitted = linear(penalties=12)(train, val, train.z, 4)
    assert fitted.selection == "source-val"
    path = torch.logspace(-6, 5, 12, dtype=torch.float64).tolist()
    weights = logistic_path(train.z, train.labels, 4, path, 200)
    padded = F.pad(val.z.double(), (0, 1), value=1.0)
    right = [((padded @ w).argmax(1) == val.labels).float().mean().item() for w in weights]
    best = [number for number, its in enumerate(right) if its == max(right)]
    assert 0 < best[0] < best[-1], "the strongest is another than the first, and than the weakest"
    assert fitted.chosen["C"] == path[best[0]]
    assert accuracy(fitted.scores(val.z), val.labels) == pytest.approx(max(right))


def test_nearest_neighbours_agree_with_scikit_learn():
    train, val = blobs(150), blobs(80, seed=1)
    fitted = knn(k=(7,), temperature=0.1)(train, val, train.z, 4)
    model = KNeighborsClassifier(
        7, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.1)
    )
    model.fit(train.z.numpy(), train.labels.numpy())
    theirs = torch.tensor(model.predict_proba(val.z.numpy()))
    ours = fitted.scores(val.z)
    assert torch.allclose(ours / ours.sum(1, keepdim=True), theirs.float(), atol=1e-4)


def test_the_number_of_neighbours_is_chosen_on_validation():
    train, val, sizes = blobs(150), blobs(100, seed=1), (1, 3, 5, 10, 20, 50, 150)
    fitted = knn(k=(*sizes, 500))(train, val, train.z, 4)  # there are no 500
    right = []
    for size in sizes:
        model = KNeighborsClassifier(
            size, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07)
        )
        model.fit(train.z.double().numpy(), train.labels.numpy())
        right.append(model.score(val.z.double().numpy(), val.labels.numpy()))
    best = [size for size, its in zip(sizes, right, strict=True) if its == max(right)]
    assert sizes[0] < best[0] < best[-1] < sizes[-1], "the fewest of equals is not at an end"
    assert fitted.chosen["k"] == best[0]
    assert accuracy(fitted.scores(val.z), val.labels) == pytest.approx(max(right))


def test_ridge_is_scikit_learns_at_every_penalty():
    train = blobs(200)
    path = [1e-6, 1e-3, 1.0, 1e3]
    for weight, a in zip(ridge_path(train.z, train.labels, 4, path), path, strict=True):
        model = Ridge(alpha=len(train.z) * a)
        model.fit(train.z.double().numpy(), F.one_hot(train.labels, 4).double().numpy())
        assert np.allclose(weight[:-1].T.numpy(), model.coef_, atol=1e-6)
        assert np.allclose(weight[-1].numpy(), model.intercept_, atol=1e-6)


def test_ridges_penalty_is_chosen_on_validation_and_of_equals_the_strongest():
    train, val = blobs(200), blobs(200, seed=1)
    fitted = ridge(penalties=12)(train, val, train.z, 4)
    path = torch.logspace(-6, 5, 12, dtype=torch.float64).tolist()
    padded = F.pad(val.z.double(), (0, 1), value=1.0)
    weights = ridge_path(train.z, train.labels, 4, path)
    right = [accuracy(padded @ w, val.labels) for w in weights]
    assert fitted.chosen["a"] == path[11 - int(np.argmax(right[::-1]))]
    assert accuracy(fitted.scores(val.z), val.labels) == pytest.approx(max(right))


def test_the_prototype_readout_is_scikit_learns_nearest_centroid():
    train, val = blobs(150), blobs(80, seed=1)
    theirs = NearestCentroid().fit(train.z.double().numpy(), train.labels.numpy())
    ours = prototype()(train, val, train.z, 6).scores(val.z).argmax(1)  # two classes are absent
    assert np.array_equal(ours.numpy(), theirs.predict(val.z.double().numpy()))


@pytest.mark.parametrize("t", [1, 2, 3])
@pytest.mark.parametrize("centred", [True, False])
def test_pfa_averages_features_preconditioned_by_the_second_moment(t, centred):
    train, val = blobs(60, width=6), blobs(40, width=6, seed=1)
    everything = torch.cat([train.z, val.z])
    seen = everything.double().numpy()
    centre = sum(seen) / len(seen) if centred else np.zeros(6)
    z, y = train.z.double().numpy() - centre, train.labels.numpy()
    moment = sum(np.outer(row - centre, row - centre) for row in seen) / len(seen)
    wanted = []
    for label in range(4):
        own = [row for row, its in zip(z, y, strict=True) if its == label]
        average = sum(own) / (len(own) if centred else len(z))
        for _ in range(t - 1):
            average = moment @ average
        wanted.append((val.z.double().numpy() - centre) @ average)
    ours = pfa(t=t, centred=centred)(train, val, lambda: Moments.of(everything), 4).scores(val.z)
    assert np.allclose(ours.numpy().T, wanted, rtol=1e-9)


def heavy(z: torch.Tensor, seed: int) -> torch.Tensor:
    """Student's t with two degrees of freedom in the last quarter of the dimensions."""
    count = z.shape[1] // 4
    drawn = np.random.default_rng(seed).standard_t(2, (len(z), count))
    return torch.cat([z[:, :-count], torch.tensor(drawn).float()], 1)


TURN = torch.linalg.qr(torch.randn(24, 24, generator=torch.Generator().manual_seed(1))).Q
WORLDS = {
    "as they are": lambda z, seed: z,
    "a large common mean": lambda z, seed: z + 100,
    "a far larger one": lambda z, seed: z + 1e4,
    "a large mean of one feature": lambda z, seed: z + 100 * torch.eye(24)[0],
    "a dead dimension": lambda z, seed: z * (torch.arange(24) != 5) + 3.0 * (torch.arange(24) == 5),
    "a hundred times its spread": lambda z, seed: 1e-3 * z + 100,
    "times 1e4": lambda z, seed: 1e4 * z,
    "times 1e3": lambda z, seed: 1e3 * z,
    "times 1e-3": lambda z, seed: 1e-3 * z,
    "times 1e-4": lambda z, seed: 1e-4 * z,
    "rotated": lambda z, seed: z @ TURN,
    "heavy tails": heavy,
    "scales of their own": lambda z, seed: z * torch.logspace(1, -1, 24),
}
SHARES = {"as many of each class": [1, 1, 1, 1, 1], "of uneven classes": [8, 4, 2, 1, 1]}


@pytest.mark.filterwarnings("ignore:self.within_class_std_dev_")
@pytest.mark.parametrize("shares", SHARES)
@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("readout", ["linear", "ridge", "knn", "prototype", "pfa"])
def test_no_readout_is_at_chance_where_the_nearest_class_mean_is_not(readout, world, shares):
    """Five clear classes; means over classes of the accuracy, so that chance is 0.2."""
    centres = 2 * torch.randn(5, 24, generator=torch.Generator().manual_seed(7))
    parts = []
    for seed, count in enumerate((300, 100, 500)):
        generator = torch.Generator().manual_seed(seed)
        shares_of = torch.tensor(SHARES[shares]).double()
        labels = torch.multinomial(shares_of, count, True, generator=generator)
        z = centres[labels] + torch.randn(count, 24, generator=generator)
        parts.append(Features(WORLDS[world](z, seed).float(), labels))
    train, val, test = parts
    everything = torch.cat([train.z, test.z])
    nearest = NearestCentroid().fit(train.z.double().numpy(), train.labels.numpy())
    fitted = READOUTS[readout]()(train, val, lambda: Moments.of(everything), 5)
    ours = fitted.scores(test.z).argmax(1).numpy()
    theirs = nearest.predict(test.z.double().numpy())
    y = test.labels.numpy()
    mean, mine = (balanced_accuracy_score(y, told) for told in (theirs, ours))
    assert mean > 0.9
    assert mine > (0.55 if readout == "pfa" else 0.85)


def test_a_penalty_on_features_of_an_ordinary_scale_is_that_of_the_path():
    train, val = blobs(200), blobs(100, seed=1)
    for build, name in ((linear, "C"), (ridge, "a")):
        path = torch.logspace(-6, 5, 45, dtype=torch.float64).tolist()
        fitted = build()(train, val, train.z, 4)
        assert fitted.chosen[name] in path
        constant = Features(torch.ones(200, 3), train.labels)
        same = build()(constant, Features(torch.ones(100, 3), val.labels), constant.z, 4)
        assert same.chosen[name] in path and same.scores(constant.z).isfinite().all()


def test_neighbours_by_cosine_are_those_of_float64_where_all_cosines_are_near_one():
    train, val = (Features(f.z * 0.01 + 100, f.labels) for f in (blobs(150), blobs(80, seed=1)))
    near = KNeighborsClassifier(1, metric="cosine")
    near.fit(train.z.double().numpy(), train.labels.numpy())
    ours = knn(k=(1,))(train, val, train.z, 4).scores(val.z).argmax(1)
    assert (ours.numpy() == near.predict(val.z.double().numpy())).mean() > 0.97


@pytest.mark.parametrize("readout", [ridge(penalties=3), prototype(), pfa(), knn(), linear()])
def test_a_class_that_was_not_seen_is_not_predicted(readout):
    train, val = blobs(90), blobs(50, seed=1)
    moved = Features(train.z - 6, train.labels + 1)  # class 0 is absent, inner products negative
    others = Features(val.z, val.labels + 1)
    scores = readout(moved, others, lambda: Moments.of(train.z), 6).scores(val.z)
    assert scores.shape == (50, 6) and scores.isfinite().all()
    assert set(scores.argmax(1).tolist()) <= {1, 2, 3, 4}


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("liner", "did you mean 'linear'"),
        ("knn(n=3)", "has no option 'n'"),
        ("head(x=1)", "no readout is named 'head'"),
    ],
)
def test_an_unknown_readout_is_refused(text, sentence):
    with pytest.raises(BadInput, match=sentence):
        resolve_readout(text)


def test_a_readout_is_spelled_with_its_defaults():
    assert resolve_readout("knn(k=[3])")[0] == "knn(k=(3,), temperature=0.07)"
    assert resolve_readout("head") == ("head", None)


def test_zero_shot_is_the_cosine_with_the_embedding_of_each_text(tmp_path):
    train, test = blobs(20), blobs(30, seed=1)
    text = np.random.default_rng(0).normal(size=(4, 20)).astype(np.float32)
    np.save(tmp_path / "text.npy", text)
    spelled, build = resolve_readout(f"zero_shot(embeddings={str(tmp_path / 'text.npy')!r})")
    fitted = build()(train, train, train.z, 4)
    for row, scores in zip(test.z.numpy(), fitted.scores(test.z), strict=True):
        wanted = [row @ t / np.linalg.norm(row) / np.linalg.norm(t) for t in text]
        assert scores.tolist() == pytest.approx(wanted, abs=1e-6)
    digest = hashlib.sha256((tmp_path / "text.npy").read_bytes()).hexdigest()
    assert f"sha256='{digest}'" in spelled  # another file is another readout
    assert resolve_readout(spelled)[0] == spelled
    np.save(tmp_path / "text.npy", 2 * text)
    with pytest.raises(BadInput, match="is not the file of this sha256"):
        resolve_readout(spelled)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "zero_shot: embeddings = .* cannot be read: .*No such file"),
        (np.zeros((4, 20), np.int64), "should hold finite floats"),
        (np.full((4, 20), np.nan), "should hold finite floats"),
        (np.ones((3, 20)), r"is of shape \[3, 20\], but there are 4 classes and 20 features"),
    ],
)
def test_embeddings_that_do_not_fit_are_refused(content, words, tmp_path):
    path = tmp_path / "text.npy"
    if content is not None:
        np.save(path, content)
    with pytest.raises(BadInput, match=words):
        resolve_readout(f"zero_shot(embeddings={str(path)!r})")[1]()(
            blobs(20), blobs(20), blobs(20).z, 4
        )


def test_a_probe_is_the_readout_linear_as_a_layer():
    train, val = blobs(200), blobs(60, seed=1)
    layer, fitted = probe(train, val, 4), linear()(train, val, train.z, 4)
    with torch.no_grad():
        assert torch.allclose(layer(val.z).double(), fitted.scores(val.z), rtol=1e-3, atol=1e-3)


def few_wide_rows(n=40, width=100):
    """Fewer rows than features, off the origin; with weak penalties they are separable."""
    features = blobs(n, width=width)
    return Features(features.z * torch.logspace(0, -1, width), features.labels)


@pytest.mark.parametrize("rows", ["few", "many"])
def test_penalties_solved_one_after_another_reach_scikit_learns_objective(rows, monkeypatch):
    train = few_wide_rows() if rows == "few" else blobs(300)
    monkeypatch.setattr(linear_probe, "SMALL", 0)
    path = np.logspace(-6, 5, 45).tolist()
    mixed = path[::2] + path[1::2]  # in any order
    weights = logistic_path(train.z, train.labels, 4, mixed, max_iter=200)
    assert weights.shape == (45, train.z.shape[1] + 1, 4)
    for weight, c in list(zip(weights, mixed, strict=True))[::4]:
        model = LogisticRegression(C=c, solver="newton-cg", max_iter=1000, tol=1e-9)
        model.fit(train.z.double().numpy(), train.labels.numpy())
        theirs = torch.tensor(np.vstack([model.coef_.T, model.intercept_]))
        assert objective(weight, train, c) <= objective(theirs, train, c) + 1e-6


def test_of_few_wide_rows_the_weights_lie_in_the_span_of_the_centred_rows():
    train = few_wide_rows()
    (weight,) = logistic_path(train.z, train.labels, 4, [1.0], max_iter=200)
    centred = (train.z.double() - train.z.double().mean(0)).T.numpy()
    shares, *_ = np.linalg.lstsq(centred, weight[:-1].numpy(), rcond=None)
    assert weight.abs().max() > 0.1
    assert np.allclose(centred @ shares, weight[:-1].numpy(), atol=1e-4)  # of the slope: 1e-5


def two_loops(slope, pairs):
    """Nocedal and Wright, algorithm 7.4, on numpy arrays; the oldest pair first."""
    q, alphas = slope.copy(), []
    for s, y in reversed(pairs):
        alphas.append(s @ q / (y @ s))
        q = q - alphas[-1] * y
    s, y = pairs[-1]
    r = s @ y / (y @ y) * q
    for (s, y), alpha in zip(pairs, reversed(alphas), strict=True):
        r = r + s * (alpha - y @ r / (y @ s))
    return r


@pytest.mark.parametrize("count", [1, 3, 5, 12])  # of 5 that are remembered
def test_the_inverse_hessian_is_that_of_two_loops_over_the_last_steps(count):
    generator = np.random.default_rng(count)
    stiff = np.diag(generator.uniform(0.1, 9, 8))
    known = Curvature(5, 8, torch.device("cpu"))
    pairs = [(s, stiff @ s) for s in generator.normal(size=(count, 8))]
    for s, y in pairs:
        known.add(torch.tensor(s), torch.tensor(y))
        known.add(torch.tensor(s), torch.tensor(-y))  # no curvature: skipped
    slope = generator.normal(size=8)
    ours = known.inverse_hessian(torch.tensor(slope)).numpy()
    assert np.allclose(ours, two_loops(slope, pairs[-5:]), rtol=1e-9)
    factor, more = generator.uniform(0.5, 2, 8), generator.uniform(0, 3, 8)
    known.rescale(torch.tensor(factor), torch.tensor(more))
    moved = [(s / factor, factor * (y + more * s)) for s, y in pairs[-5:]]
    ours = known.inverse_hessian(torch.tensor(slope)).numpy()
    assert np.allclose(ours, two_loops(slope, moved), rtol=1e-9)


def test_a_step_that_loses_its_curvature_counts_for_none():
    known = Curvature(5, 3, torch.device("cpu"))
    s, kept = torch.tensor([1.0, 0, 0]).double(), torch.tensor([0, 1.0, 0]).double()
    known.add(kept, 4 * kept)
    known.add(s, 2 * s)
    known.rescale(torch.ones(3).double(), torch.tensor([-2.0, 0, 0]).double())
    slope = torch.tensor([3.0, 8.0, 5.0]).double()
    assert known.inverse_hessian(slope).tolist() == [0.75, 2.0, 1.25]


class Largest(TorchDispatchMode):
    """The bytes of the largest storage that an operation makes, but for that of these rows."""

    bytes = 0

    def __init__(self, rows):
        super().__init__()
        self.there = rows.untyped_storage().data_ptr()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        returned = func(*args, **(kwargs or {}))
        for each in tree_leaves(returned):
            if isinstance(each, torch.Tensor):
                made = each.untyped_storage()
                self.bytes = max(self.bytes, made.nbytes() * (made.data_ptr() != self.there))
        return returned


@pytest.mark.parametrize("readout", ["linear", "ridge", "knn", "prototype", "pfa"])
def test_in_little_memory_readouts_say_the_same_and_hold_no_copy_of_all_rows(readout, monkeypatch):
    train, val, test = blobs(4000), blobs(300, seed=1), blobs(3000, seed=2)
    moments = Moments.of(train.z)
    options = {"linear": {"penalties": 7}, "ridge": {"penalties": 7}}.get(readout, {})
    unbounded = READOUTS[readout](**options)(train, val, lambda: moments, 4)
    monkeypatch.setattr(row_blocks, "ON_CPU", 200_000)
    monkeypatch.setattr("benchbench.evaluation.readouts.knn.QUERIES", 64)
    with Largest(train.z) as largest:
        bounded = READOUTS[readout](**options)(train, val, lambda: moments, 4)
    assert largest.bytes < 200_000 < 4000 * 20 * 8
    assert bounded.chosen == unbounded.chosen
    ours, theirs = (fitted.scores(test.z) for fitted in (bounded, unbounded))
    tolerance = 1e-2 if readout == "linear" else 1e-6  # of a tolerance of the slope
    assert torch.allclose(ours, theirs, atol=tolerance, rtol=0)
    assert (ours.argmax(1) == theirs.argmax(1)).double().mean() > 0.999


def test_a_path_in_blocks_reaches_the_objective_of_one_block(monkeypatch):
    train = blobs(1000)
    path = np.logspace(-6, 5, 12).tolist()
    monkeypatch.setattr(linear_probe, "SMALL", 0)
    whole = logistic_path(train.z, train.labels, 4, path, 200)
    monkeypatch.setattr(row_blocks, "ON_CPU", 100_000)
    parts = logistic_path(train.z, train.labels, 4, path, 200)
    assert whole.shape == parts.shape == (12, train.z.shape[1] + 1, 4)
    for one, other, c in zip(whole, parts, path, strict=True):
        wanted = objective(one, train, c)
        assert objective(other, train, c) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("memory", [2 * 10**9, 20_000])
def test_of_neighbours_as_near_those_are_taken_that_were_before(memory, monkeypatch):
    """Each row three times: of one block, those of torch's `topk`; of more, the nearest."""
    some = blobs(50)
    train = Features(some.z.repeat(3, 1), torch.arange(150) % 4)
    val = blobs(70, seed=1)
    monkeypatch.setattr(row_blocks, "ON_CPU", memory)
    monkeypatch.setattr("benchbench.evaluation.readouts.knn.QUERIES", 32)
    sizes = [1, 2, 5, 20]
    found = Keys(train.z).nearest(val.z, sizes)
    cosines = torch.cat(
        [F.normalize(part, dim=1) @ F.normalize(train.z, dim=1).T for part in val.z.split(32)]
    )
    for size, (near, index) in zip(sizes, found, strict=True):
        wanted, which = cosines.topk(size)
        assert torch.allclose(near, wanted, atol=1e-6)
        assert torch.allclose(cosines.gather(1, index), near, atol=1e-6)
        assert all(len(set(row)) == size for row in index.tolist())
        if memory > 20_000:
            assert torch.equal(index, which)


@pytest.mark.gpu
@pytest.mark.parametrize("readout", ["linear", "ridge", "knn", "prototype", "pfa"])
@pytest.mark.parametrize("n", [300, 15])
def test_a_readout_fitted_on_the_gpu_scores_rows_wherever_they_are(readout, n):
    train, val = blobs(n), blobs(100, seed=1)
    moments = Moments.of(train.z)
    here = READOUTS[readout]()(train, val, lambda: moments, 4)
    there = READOUTS[readout]()(
        *row_blocks.where_they_fit((train, val), torch.device("cuda")), lambda: moments, 4
    )
    scores = there.scores(val.z)
    assert scores.device.type == "cpu" and there.scores(val.z.cuda()).device.type == "cuda"
    assert torch.allclose(scores, here.scores(val.z), atol=1e-2 if readout == "linear" else 1e-5)


IN_A_PROCESS = """
import re, sys
from pathlib import Path
from threading import Event, Thread

import numpy as np
import torch

from benchbench.evaluation.readouts import row_blocks
from benchbench.evaluation.readouts.knn import Keys
from benchbench.evaluation.readouts.linear_probe import Regression

CLASSES = 182
row_blocks.ON_CPU = int(sys.argv[2])

def anonymous():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

z = torch.from_numpy(np.load(sys.argv[1], mmap_mode="c"))
peak, done = [0], Event()
def watch():
    while not done.wait(0.01):
        peak[0] = max(peak[0], anonymous())
before = anonymous()
Thread(target=watch, daemon=True).start()
problem = Regression(z, torch.arange(len(z)) % CLASSES, CLASSES)
assert problem.held is None and len(problem.blocks) > 1
weights = problem.along([1e-6, 1e-5], 1)
keys = Keys(z)
near, index = keys.nearest(z[:40], [5])[0]
assert keys.held is None and index[:, 0].tolist() == list(range(40))
done.set()
print(peak[0] - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="there is no /proc")
def test_linear_and_neighbours_of_a_memory_mapped_file_take_what_is_allowed(tmp_path):
    """Features of 328 MB, 655 MB in float64; libraries and gaps of the heap take up to 200 MB."""
    allowed = 300_000_000
    rows = np.lib.format.open_memmap(tmp_path / "z.npy", "w+", "f4", (160_000, 512))
    for start in range(0, len(rows), 8_000):
        rows[start : start + 8_000] = np.random.default_rng(start).normal(size=(8_000, 512))
    rows.flush()
    command = [sys.executable, "-c", IN_A_PROCESS, str(tmp_path / "z.npy"), str(allowed)]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(told.stdout) < allowed + 200_000_000
