"""ImageNet's layout in small, and the subclasses that BREEDS' authors draw."""

import pytest
import torch
from tiny import make_catalog, smoke
from trees import living17, of_class

from benchbench import TEST, TRAIN, VAL, BadInput
from benchbench.data.dataset_loading import described, missing_files
from benchbench.extension.errors import MissingData
from benchbench_imagenet.subclasses import SPLITS
from benchbench_imagenet.variants import imagenet_sketch

SIZES = {  # Santurkar et al. 2021, table 1: superclasses, and subclasses of each
    "entity13": (13, 20),
    "entity30": (30, 8),
    "living17": (17, 4),
    "nonliving26": (26, 4),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    top = tmp_path_factory.mktemp("imagenet")
    living17(top)
    classes = sorted(entry.name for entry in (top / "imagenet/train").iterdir())
    for folder in ("imagenet-r", "sketch", "imagenet-a"):
        for number, wnid in enumerate(classes[:4]):
            of_class(top / folder / wnid, 5, 60 * number)
    return top


@pytest.mark.parametrize("name", SIZES)
def test_subclasses_are_as_many_as_in_the_paper_and_no_two_alike(name):
    classes, each = SIZES[name]
    split = SPLITS[name]
    assert len(split) == classes
    sides = [(source.split(), target.split()) for source, target in split.values()]
    assert all(len(source) == len(target) == each // 2 for source, target in sides)
    every = [wnid for pair in sides for side in pair for wnid in side]
    assert len(set(every)) == classes * each


def test_living17_is_the_one_of_the_paper():
    """Santurkar et al. 2021, appendix: eft and axolotl, then common newt and spotted salamander."""
    living = SPLITS["living17"]
    assert list(living)[:5] == ["salamander", "turtle", "lizard", "snake", "spider"]
    eft, axolotl, newt, spotted = "n01631663", "n01632777", "n01630670", "n01632458"
    assert [{*side.split()} for side in living["salamander"]] == [{eft, axolotl}, {newt, spotted}]


def test_living17_is_read_from_imagenet(root):
    data = described(make_catalog().resolve("dataset", "living17(size=8)"), root)
    assert len(data.labels) == 17 * 4 * 6
    assert data.inputs.crop == 0.875
    for path, label, domain, split in zip(
        data.inputs.paths, data.labels, data.domains, data.split, strict=True
    ):
        part, wnid = path.split("/")[1:3]
        assert wnid in SPLITS["living17"][data.class_names[label]][domain].split()
        assert (split == TEST) == (part == "val")
    assert data.split.bincount().tolist() == [17 * 4 * 4, 17 * 4, 17 * 4]
    again = described(make_catalog().resolve("dataset", "living17(size=8, seed=1)"), root)
    assert not torch.equal(again.split, data.split)


@pytest.mark.parametrize("name", ["imagenet_r", "imagenet_sketch", "imagenet_a"])
def test_variants_have_imagenet_s_images_of_their_classes(root, name):
    data = described(make_catalog().resolve("dataset", name), root)
    assert len(data.class_names) == 4
    photographs, other = data.split[data.domains == 0], data.split[data.domains == 1]
    assert photographs.bincount().tolist() == [16, 4, 4]
    assert other.bincount().tolist() == [12, 4, 4]
    assert {TRAIN, VAL, TEST} == set(other.tolist())


@pytest.mark.parametrize(
    ("dataset", "shift"),
    [("living17(size=16)", "source > target"), ("imagenet_r(size=16)", "photographs > renditions")],
)
def test_prepared_pre_trained_read_off_and_recorded(root, tmp_path, dataset, shift):
    record = smoke(dataset, shift, root, tmp_path)
    assert record.scores[-1].n == (34 if dataset.startswith("living") else 4)


def test_what_is_missing_is_named(root, tmp_path):
    catalog = make_catalog()
    with pytest.raises(MissingData, match=r"needs imagenet/train/n\d+, .* and 132 more below"):
        described(catalog.resolve("dataset", "living17"), tmp_path)
    assert len(missing_files(catalog.resolve("dataset", "entity13"), root)) > 100
    (tmp_path / "imagenet").symlink_to(root / "imagenet")
    (tmp_path / "imagenet-r" / "n01631663").mkdir(parents=True)
    with pytest.raises(BadInput, match="there are no images in .*imagenet-r/n01631663"):
        described(catalog.resolve("dataset", "imagenet_r"), tmp_path)


def test_hidden_files_are_passed_over_and_others_counted(tmp_path):
    for folder in ("imagenet/train", "imagenet/val", "sketch"):
        of_class(tmp_path / folder / "n01", 5, 60)
        (tmp_path / folder / "__MACOSX").mkdir()
        (tmp_path / folder / ".cache").mkdir()
        for name in ("._n01_0.JPEG", "Thumbs.db", "n01_9.gif"):
            (tmp_path / folder / "n01" / name).write_bytes(b"x")
    with pytest.warns(match="are not read, .*: 3 .gif; in imagenet/train/n01: 1 of 3"):
        data = imagenet_sketch(tmp_path)
    assert len(data.inputs) == 15 and data.class_names == ("n01",)
    assert all(".JPEG" in path and "._" not in path for path in data.inputs.paths)
