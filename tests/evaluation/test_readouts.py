"""Readouts against scikit-learn and plain loops."""

import hashlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

from benchbench.evaluation.features import Features, Moments
from benchbench.evaluation.readouts.interface import accuracy
from benchbench.evaluation.readouts.knn import knn
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
