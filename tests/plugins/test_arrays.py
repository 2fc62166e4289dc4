import io

import numpy as np
import pytest
import torch
from PIL import Image

from benchbench import TEST, TRAIN, UNKNOWN, VAL, BadInput
from benchbench_files import arrays


def columns(n=20, domain="a", side=6, channels=3, classes=("zero", "one"), **changes):
    rng = np.random.default_rng(len(domain) + ord(domain[0]))
    content = {
        "images": rng.integers(0, 256, (n, side, side, channels), np.uint8),
        "labels": np.arange(n) % len(classes),
        "label_names": np.array(classes),
        "domain": np.zeros(n, np.int64),
        "domain_names": np.array([domain]),
        "split": (np.arange(n) >= n * 3 // 4).astype(np.int8),
        "split_names": np.array(["train", "test"]),
    }
    content |= changes
    return {name: value for name, value in content.items() if value is not None}


@pytest.fixture
def plant(tmp_path):
    def put(**files):
        for name, content in files.items():
            np.savez(tmp_path / f"{name}.npz", **content)
        return tmp_path

    return put


def test_files_are_joined_by_the_names_of_their_domains(plant):
    root = plant(
        x=columns(domain="a"),
        y=columns(domain="b", channels=1),
        z=columns(n=8) | {"domain_names": np.array(["c", "a"]), "domain": np.arange(8) % 2},
    )
    data = arrays(root, size=6)
    assert data.domain_names == ("a", "b", "c") and data.class_names == ("zero", "one")
    assert data.inputs.shape == (48, 3, 6, 6) and data.inputs.dtype == torch.uint8
    assert data.domains.bincount().tolist() == [24, 20, 4]
    for name, start in (("x", 0), ("y", 20)):
        pixels = np.load(root / f"{name}.npz")["images"]
        wanted = torch.from_numpy(
            np.broadcast_to(pixels, (20, 6, 6, 3)).transpose(0, 3, 1, 2).copy()
        )
        assert torch.equal(data.inputs[start : start + 20], wanted)


def test_encoded_images_are_those_that_were_encoded(plant):
    plain = columns()
    encoded = []
    for image in plain["images"]:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG")
        encoded.append(np.frombuffer(file.getvalue(), np.uint8))
    packed = columns(
        images=None,
        packed=np.concatenate(encoded),
        offsets=np.cumsum([0, *map(len, encoded)]),
    )
    root = plant(packed=packed, plain=plain)
    one, other = (arrays(root, files=f"{name}.npz", size=6) for name in ("packed", "plain"))
    assert torch.equal(one.inputs, other.inputs)


def test_images_are_resized_as_pillow_resizes(plant):
    root = plant(x=columns(side=6))
    data = arrays(root, size=9)
    first = Image.fromarray(np.load(root / "x.npz")["images"][0])
    wanted = np.asarray(first.resize((9, 9), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    assert np.array_equal(data.inputs[0].numpy(), wanted)


def test_a_fifth_of_each_class_of_train_validates_where_there_is_no_val(plant):
    root = plant(x=columns(n=80))
    data = arrays(root)
    counts = [int((data.split == part).sum()) for part in (TRAIN, VAL, TEST)]
    assert counts == [48, 12, 20]
    assert data.labels[data.split == VAL].bincount().tolist() == [6, 6]
    assert torch.equal(data.split, arrays(root).split)
    assert not torch.equal(data.split, arrays(root, seed=1).split)
    assert torch.equal(data.split == TEST, torch.arange(80) >= 60)


def test_a_val_that_is_there_is_kept(plant):
    names = np.array(["train", "val", "test"])
    split = np.arange(20) % 3
    data = arrays(plant(x=columns(split=split, split_names=names)))
    assert data.split.tolist() == split.tolist()


def test_units_stay_on_one_side_and_a_row_without_one_is_alone(plant):
    group = np.repeat(np.arange(10), 8)
    group[-4:] = -1
    root = plant(x=columns(n=80, group=group), y=columns(n=20, domain="b"))
    data = arrays(root)
    first = data.units[:80]
    assert first[:76].tolist() == group[:76].tolist() and len(first[76:].unique()) == 4
    assert len(data.units[80:].unique()) == 20 and data.units[80:].min() > first.max()
    train, val = (set(first[data.split[:80] == part].tolist()) for part in (TRAIN, VAL))
    assert val and not train & val
    assert arrays(root, files="y.npz").units is None


def test_an_unknown_label_stays_unknown_and_a_missing_split_is_left_to_the_core(plant):
    labels = np.arange(20) % 3 - 1
    data = arrays(plant(x=columns(labels=labels, split=None, split_names=None)))
    assert (data.labels == UNKNOWN).sum() == 7 and data.split is None


@pytest.mark.parametrize(
    ("files", "options", "words"),
    [
        ({}, {}, "there is no npz file in .*: .* holds nothing"),
        ({"x": columns()}, {"files": "y.npz"}, "there is no file .*y.npz: .* holds x.npz"),
        ({"x": columns()}, {"path": "deep"}, "there is no folder .*deep"),
        ({"x": columns()}, {"size": 0}, "size = 0 must lie between 1 and 65,535"),
        ({"x": columns(labels=None)}, {}, "x.npz has no array 'labels'; it has domain, "),
        ({"x": columns(images=None)}, {}, "x.npz has neither images nor packed and offsets"),
        (
            {"x": columns(labels=np.full(20, 2))},
            {},
            "labels must lie between -1 and 1, but is 2 in row 0",
        ),
        ({"x": columns(labels=np.zeros(19, int))}, {}, r"labels has shape \(19,\), not \(20,\)"),
        ({"x": columns(split_names=None)}, {}, "no array 'split_names', which should be of train"),
        (
            {"x": columns(images=np.zeros((20, 6, 6, 3)))},
            {},
            r"images should be uint8 \[N, H, W, 1 or 3\], not float64",
        ),
        (
            {"x": columns(), "y": columns(domain="b", classes=("cat", "dog"))},
            {},
            "y.npz has the classes cat, dog …, x.npz has zero, one …",
        ),
        (
            {"x": columns(images=None, packed=np.zeros(40, np.uint8), offsets=np.arange(0, 42, 2))},
            {},
            "x.npz: image 0 cannot be decoded",
        ),
    ],
)
def test_what_cannot_be_read_is_said_in_one_sentence(plant, files, options, words):
    with pytest.raises(BadInput, match=words) as caught:
        arrays(plant(**files), **options)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_npz_is_named(tmp_path):
    (tmp_path / "x.npz").write_bytes(b"no zip file")
    with pytest.raises(BadInput, match="x.npz cannot be read as npz"):
        arrays(tmp_path)


@pytest.mark.data
def test_the_real_digits_have_the_counts_of_their_readme(real_data):
    names = ("digits_mnist.npz", "digits_usps.npz", "digits_mnistm.npz")
    data = arrays(real_data, files=names)
    assert data.domain_names == ("mnist", "usps", "mnistm")
    held_out = torch.stack([(data.split == TEST) & (data.domains == d) for d in range(3)]).sum(1)
    assert held_out.tolist() == [2000, 2007, 1000]
    assert data.domains.bincount().tolist() == [12000, 9298, 8000]
