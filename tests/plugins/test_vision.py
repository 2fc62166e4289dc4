"""Files in the formats of MNIST, USPS, SVHN, SYN, MNIST-M, CIFAR-10 and STL-10, and corruptions."""

import bz2
import io
import pickle
import re
import struct
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from tiny import make_catalog, smoke

from benchbench import TEST, TRAIN, UNKNOWN, VAL, BadInput
from benchbench.data.dataset_loading import described
from benchbench_vision.corruptions import CORRUPTIONS, damaged
from benchbench_vision.pairs import listed, matlab

PARTS = ((True, "train", 30), (False, "test", 20))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Small files in the true formats. An image's mean grey says its class."""
    top = tmp_path_factory.mktemp("vision")
    rng = np.random.default_rng(0)

    def pixels(labels, side, channels=3):
        base = 20 + 20 * np.asarray(labels)[:, None, None, None]
        noise = rng.integers(0, 15, (len(labels), side, side, channels))
        return (base + noise).astype(np.uint8)

    for folder in ("MNIST/raw", "USPS", "SVHN", "SynthDigits", "cifar-10-batches-py",
                   "stl10_binary"):  # fmt: skip
        (top / folder).mkdir(parents=True)
    for train, word, count in PARTS:
        labels = np.arange(count) % 10
        prefix = top / "MNIST/raw" / ("train" if train else "t10k")
        images = pixels(labels, 28, 1)
        Path(f"{prefix}-images-idx3-ubyte").write_bytes(
            struct.pack(">HBBIII", 0, 8, 3, count, 28, 28) + images.tobytes()
        )
        Path(f"{prefix}-labels-idx1-ubyte").write_bytes(
            struct.pack(">HBBI", 0, 8, 1, count) + labels.astype(np.uint8).tobytes()
        )
        lines = []
        for label, image in zip(labels, pixels(labels, 16, 1), strict=True):
            values = image.ravel() / 127.5 - 1
            fields = " ".join(f"{n + 1}:{v:.6f}" for n, v in enumerate(values))
            lines.append(f"{label + 1} {fields}\n")
        name = "usps.bz2" if train else "usps.t.bz2"
        (top / "USPS" / name).write_bytes(bz2.compress("".join(lines).encode()))
        tens = np.where(labels == 0, 10, labels)[:, None]  # how SVHN spells zero
        content = {"X": pixels(labels, 32).transpose(1, 2, 3, 0), "y": tens}
        savemat(top / f"SVHN/{word}_32x32.mat", content)
        savemat(top / f"SynthDigits/synth_{word}_32x32.mat", content)
        home = top / "mnist_m" / f"mnist_m_{word}"
        home.mkdir(parents=True)
        names = [f"{row:08d}.png" for row in range(count)]
        for name, image in zip(names, pixels(labels, 32), strict=True):
            Image.fromarray(image).save(home / name)
        listing = "".join(f"{n} {d}\n" for n, d in zip(names, labels, strict=True))
        home.with_name(f"{home.name}_labels.txt").write_text(listing)
        batches = [f"data_batch_{n}" for n in range(1, 6)] if train else ["test_batch"]
        for name in batches:
            data = pixels(labels, 32).transpose(0, 3, 1, 2).reshape(count, -1)
            batch = pickle.dumps({"data": data, "labels": labels.tolist()})
            (top / "cifar-10-batches-py" / name).write_bytes(batch)
        stl = pixels(labels, 96).transpose(0, 3, 2, 1)  # column by column
        (top / f"stl10_binary/{word}_X.bin").write_bytes(stl.tobytes())
        (top / f"stl10_binary/{word}_y.bin").write_bytes((labels + 1).astype(np.uint8).tobytes())
    words = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship",
             "truck"]  # fmt: skip
    (top / "cifar-10-batches-py/batches.meta").write_bytes(pickle.dumps({"label_names": words}))
    (top / "stl10_binary/unlabeled_X.bin").write_bytes(
        pixels(np.arange(12) % 10, 96).transpose(0, 3, 2, 1).tobytes()
    )
    return top


@pytest.fixture
def data_of(root, monkeypatch):
    """Of a dataset as a suite spells it. The files are not the published ones: no md5 is asked."""
    for module in ("svhn", "cifar", "stl10"):
        monkeypatch.setattr(
            f"torchvision.datasets.{module}.check_integrity",
            lambda path, md5=None: Path(path).is_file(),
        )
    return lambda text: described(make_catalog().resolve("dataset", text), root)


def grey(data):
    return data.inputs.float().mean((1, 2, 3))


def test_digits_of_five_sources_keep_their_classes_and_splits(data_of):
    data = data_of("digits5")
    assert data.domain_names == ("mnist", "mnistm", "usps", "svhn", "syn")
    assert tuple(data.inputs.shape) == (250, 3, 32, 32)
    assert ((grey(data) - 27 - 20 * data.labels).abs() < 4).all()  # the class that was painted
    for domain in range(5):
        here = data.split[data.domains == domain]
        assert here.bincount().tolist() == [20, 10, 20]
    assert torch.equal(data_of("digits5").split, data.split)
    assert not torch.equal(data_of("digits5(seed=1)").split, data.split)


def test_some_of_the_digits_need_only_their_own_files(root, data_of, tmp_path):
    (tmp_path / "USPS").symlink_to(root / "USPS")
    (tmp_path / "MNIST").symlink_to(root / "MNIST")
    choice = make_catalog().resolve("dataset", "digits5(domains=('usps', 'mnist'))")
    assert described(choice, tmp_path).domain_names == ("usps", "mnist")
    for text, sentence in (
        ("digits5(domains=('usps', 'mnits'))", "no domain 'mnits'; it has mnist, mnistm"),
        ("digits5(domains=('usps',))", "should name two or more, each once"),
    ):
        with pytest.raises(BadInput, match=sentence):
            described(make_catalog().resolve("dataset", text), tmp_path)


def test_nine_classes_are_shared_and_named_alike(data_of):
    data = data_of("cifar_stl(size=8)")
    assert len(data.class_names) == 9 and "frog" not in data.class_names
    own = ((grey(data) - 27) / 20).round().long()  # the number that its own dataset gives a class
    theirs = {
        "cifar": ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship",
                  "truck"],
        "stl": ["airplane", "bird", "automobile", "cat", "deer", "dog", "horse", "monkey", "ship",
                "truck"],
    }  # fmt: skip
    for number, label, domain in zip(own, data.labels, data.domains, strict=True):
        if label != UNKNOWN:
            assert data.class_names[label] == theirs[data.domain_names[domain]][number]
    assert int((data.labels == UNKNOWN).sum()) == 12
    assert (data.split[data.labels == UNKNOWN] == TRAIN).all()
    assert len(data_of("cifar_stl(unlabelled=False)").labels) == len(data.labels) - 12


def test_files_that_are_not_the_published_ones_are_refused(root):
    choice = make_catalog().resolve("dataset", "cifar_stl")
    with pytest.raises(BadInput, match="cannot read CIFAR10 below .*: Dataset not found or corrup"):
        described(choice, root)


def test_broken_files_are_named(data_of, root):
    for path in ("SynthDigits/synth_train_32x32.mat", "mnist_m/mnist_m_test/00000003.png"):
        whole = (root / path).read_bytes()
        (root / path).write_bytes(whole[:70])
        with pytest.raises(BadInput, match=f"{path} cannot be"):
            data_of("digits5")
        (root / path).write_bytes(whole)


def test_corrupted_images_are_in_one_domain_each(data_of):
    data = data_of("cifar10_c")
    assert data.domain_names == ("clean", *CORRUPTIONS)
    assert len(data.labels) == 170  # 5 batches of 30, and 20
    assert set(data.split.tolist()) == {TRAIN, VAL, TEST}
    sizes = data.domains.bincount()
    assert sizes.max() - sizes.min() <= 2
    again, other = data_of("cifar10_c"), data_of("cifar10_c(seed=1)")
    assert torch.equal(again.inputs, data.inputs) and not torch.equal(other.inputs, data.inputs)
    with pytest.raises(BadInput, match="no corruption 'fog'; there is gaussian_noise"):
        data_of("cifar10_c(kinds=('fog',))")
    with pytest.raises(BadInput, match="severity 1–5"):
        data_of("cifar10_c(severity=6)")


def photograph():
    """Smooth colours with an edge, none of them black or white."""
    y, x = np.mgrid[0:32, 0:32] / 31
    image = np.stack([0.3 + 0.4 * x, 0.3 + 0.4 * y, 0.4 + 0.2 * x * y], 2)
    image[8:20, 8:20] *= 0.6
    return np.uint8(image * 255)


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_every_severity_damages_more_than_the_one_before(kind):
    corrupt, levels = CORRUPTIONS[kind]
    images = [np.roll(photograph(), (row, 2 * row), (0, 1)) for row in range(12)]
    distances = []
    for level in levels:
        rng = np.random.default_rng(0)
        tries = [damaged(image, corrupt, level, rng) for image in images]
        assert tries[0].dtype == np.uint8 and tries[0].shape == images[0].shape
        distances.append(np.abs(np.float64(tries) - images).mean())
    if kind == "pixelate":  # 24 pixels to 32 fit better than 27 do
        distances = [distances[0], distances[-1]]
    assert distances[0] > 0.3 and all(a < b for a, b in pairwise(distances))


def test_corruptions_do_what_their_formulas_say():
    rng = np.random.default_rng(0)
    flat = np.full((100, 100, 3), 0.5)
    noisy = CORRUPTIONS["gaussian_noise"][0](flat, 0.1, rng)
    assert (noisy - flat).std() == pytest.approx(0.1, rel=0.02)
    shot = CORRUPTIONS["shot_noise"][0](flat, 50, rng)
    assert shot.mean() == pytest.approx(0.5, rel=0.01)
    assert shot.var() == pytest.approx(0.5 / 50, rel=0.05)  # of Poisson: mean over photons
    salted = CORRUPTIONS["impulse_noise"][0](flat, 0.07, rng)
    assert (salted != flat).mean() == pytest.approx(0.07, abs=0.005)
    assert (salted == 1).mean() == pytest.approx((salted == 0).mean(), abs=0.005)
    image = photograph() / 255
    low = CORRUPTIONS["contrast"][0](image, 0.3, rng)
    assert np.allclose(low.mean((0, 1)), image.mean((0, 1)))
    assert np.allclose(low.std((0, 1)), 0.3 * image.std((0, 1)))
    from matplotlib.colors import hsv_to_rgb, rgb_to_hsv

    hsv = rgb_to_hsv(image)
    hsv[..., 2] = np.clip(hsv[..., 2] + 0.2, 0, 1)
    assert np.allclose(CORRUPTIONS["brightness"][0](image, 0.2, rng), hsv_to_rgb(hsv))


@pytest.mark.parametrize(
    ("dataset", "shift"),
    [
        ("digits5", "mnist > svhn"),
        ("cifar_stl(size=16)", "stl > cifar"),
        ("cifar10_c(kinds=('contrast',))", "clean > contrast"),
    ],
)
def test_prepared_pre_trained_read_off_and_recorded(data_of, root, tmp_path, dataset, shift):
    smoke(dataset, shift, root, tmp_path)


@pytest.mark.data
def test_real_images_are_recognised_after_every_corruption(real_data):
    """Of a few photographs, each damaged at its worst is most like the one it was made of."""
    with np.load(real_data / "cifar10_subset.npz") as file:
        starts = file["offsets"][:9]
        images = [
            np.asarray(Image.open(io.BytesIO(file["packed"][a:b].tobytes())))
            for a, b in pairwise(starts)
        ]

    def outline(image):
        """Grey, coarse, without brightness and contrast."""
        side = image.shape[0] // 4
        coarse = image.mean(2).reshape(4, side, 4, side).mean((1, 3)).ravel()
        return (coarse - coarse.mean()) / coarse.std()

    wanted = np.stack([outline(image) for image in images])
    rng = np.random.default_rng(0)
    assert len(CORRUPTIONS) >= 4
    for kind, (corrupt, levels) in CORRUPTIONS.items():
        found = np.stack([outline(damaged(image, corrupt, levels[-1], rng)) for image in images])
        right = (found @ wanted.T).argmax(1) == np.arange(len(images))
        assert right.mean() >= 0.75, kind


def test_lines_of_mnist_m_that_are_no_name_and_digit_are_refused(tmp_path):
    (tmp_path / "train").mkdir()
    lines = tmp_path / "train_labels.txt"
    lines.write_text("0.png 3\n\n1.png 0\n")
    paths, labels = listed(tmp_path / "train")
    assert [path.name for path in paths] == ["0.png", "1.png"] and labels.tolist() == [3, 0]
    for wrong in ("1 2.png 7", "1.png", "1.png 10", "1.png -1", "1.png 0.9", "1.png ²"):
        lines.write_text(f"0.png 3\n{wrong}\n")
        with pytest.raises(BadInput, match=rf"train_labels.txt, line 2: '{re.escape(wrong)}'"):
            listed(tmp_path / "train")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"y": np.array([[1.0], [0.9], [2]])}, "y holds 0.9, which is no digit"),
        ({"y": np.array([[1], [11], [2]])}, "y holds 11, which is no digit"),
        ({"y": np.array([[1], [2]])}, "with 3 for 2"),
        ({"X": np.zeros((4, 4, 3, 3))}, "it is float64 with 3 for 3"),
    ],
)
def test_labels_of_a_mat_file_that_are_no_digits_are_refused(tmp_path, changes, words):
    content = {"X": np.zeros((4, 4, 3, 3), np.uint8), "y": np.array([[1], [10], [2]])}
    savemat(tmp_path / "x.mat", content)
    assert matlab(tmp_path / "x.mat")[1].tolist() == [1, 0, 2]
    savemat(tmp_path / "x.mat", content | changes)
    with pytest.raises(BadInput, match=f"x.mat.*{words}"):
        matlab(tmp_path / "x.mat")
