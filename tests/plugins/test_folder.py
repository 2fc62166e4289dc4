import os
import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import IMG_EXTENSIONS

from benchbench import TEST, TRAIN, UNKNOWN, VAL, BadInput
from benchbench.data.preparation import prepare
from benchbench.store.artifacts import Store
from benchbench_files.tree import SUFFIXES, folder, unreadable


@pytest.fixture
def plant(tmp_path):
    """Puts files of no content below the test's folder, and returns that folder."""

    def put(*paths: str) -> Path:
        for path in paths:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).touch()
        return tmp_path

    return put


def rows(data):
    """What the columns say of each image."""
    return {
        path: (data.domain_names[domain], data.class_names[label])
        for path, domain, label in zip(data.inputs.paths, data.domains, data.labels, strict=True)
    }


def splits(data):
    return dict(zip(data.inputs.paths, data.split.tolist(), strict=True))


def test_an_image_gets_the_names_of_the_folders_it_lies_in(plant):
    data = folder(plant("photo/dog/1.jpg", "photo/cat/2.jpg", "art/dog/3.jpg"), size=64)
    assert rows(data) == {
        "art/dog/3.jpg": ("art", "dog"),
        "photo/cat/2.jpg": ("photo", "cat"),
        "photo/dog/1.jpg": ("photo", "dog"),
    }
    assert data.inputs.paths == ("art/dog/3.jpg", "photo/cat/2.jpg", "photo/dog/1.jpg")
    assert data.inputs.size == 64
    assert (data.labels.dtype, data.domains.dtype) == (torch.int64, torch.int64)
    assert data.split is None
    assert data.units is None


def test_images_of_any_mode_and_size_are_listed_as_torchvision_lists_them(tmp_path):
    for domain in ("a", "b"):
        for name in ("cat", "dog"):
            home = tmp_path / domain / name
            home.mkdir(parents=True)
            Image.new("RGBA", (5, 9)).save(home / "alpha.png")
            Image.new("L", (30, 2)).save(home / "grey.JPG", format="JPEG")
            Image.new("P", (1, 1)).save(home / "palette.png")
            Image.new("I;16", (7, 7)).save(home / "deep.tiff")
    data = folder(tmp_path)
    theirs = {
        Path(path).relative_to(tmp_path).as_posix(): (domain, images.classes[label])
        for domain in ("a", "b")
        for images in [ImageFolder(tmp_path / domain)]
        for path, label in images.samples
    }
    assert rows(data) == theirs
    assert len(theirs) == 16


def test_no_image_is_opened(plant):
    root = plant("a/x/empty.png", "b/x/empty.png")
    assert len(folder(root).inputs) == 2


def test_suffixes_are_those_of_torchvision():
    assert SUFFIXES == IMG_EXTENSIONS


def test_what_is_hidden_or_no_image_is_passed_over(plant):
    images = ["a/x/1.JPEG", "b/x/1.png"]
    others = ["README.md", ".git/x/1.png", "a/.x/1.png", "a/x/.1.png", "a/x/1.txt", "b/x/.png"]
    others += ["__MACOSX/a/x/._1.png", "Thumbs.db", "a/x/desktop.ini", "a/.DS_Store", "a/x/._1.png"]
    with pytest.warns(match=r"are not read, .* like those of images: 1 \.md, 1 \.txt$") as told:
        assert folder(plant(*images, *others)).inputs.paths == tuple(images)
    assert len(told) == 1


def test_classes_are_the_union_over_domains_in_order_of_code_points(plant):
    data = folder(plant("a/b/1.png", "a/B/1.png", "b/é/1.png", "b/10/1.png", "b/9/1.png"))
    assert data.class_names == ("10", "9", "B", "b", "é")


def test_images_in_a_folder_unlabelled_have_no_class(plant):
    data = folder(plant("a/cat/1.png", "a/dog/2.png", "b/unlabelled/3.png"))
    assert data.class_names == ("cat", "dog")
    assert data.labels.tolist() == [0, 1, UNKNOWN]
    with pytest.raises(BadInput, match="some domain needs its classes"):
        folder(plant("x/a/unlabelled/1.png", "x/b/unlabelled/1.png"), path="x")


def test_names_may_hold_spaces_and_any_script(plant):
    data = folder(plant("art painting/giraffe copy/1 2.jpg", "写真/犬/一.jpg"))
    assert rows(data) == {
        "art painting/giraffe copy/1 2.jpg": ("art painting", "giraffe copy"),
        "写真/犬/一.jpg": ("写真", "犬"),
    }


def test_the_path_is_joined_to_the_root_unless_it_is_absolute(plant, tmp_path):
    root = plant("PACS/a/x/1.png", "PACS/b/x/1.png")
    joined = folder(root, path="PACS")
    absolute = folder(Path("nowhere"), path=str(tmp_path / "PACS"))
    assert joined.inputs == absolute.inputs
    assert joined.inputs.root == tmp_path / "PACS"


def test_a_split_is_read_where_every_domain_has_one(plant):
    data = folder(
        plant(
            *(f"a/{split}/x/1.png" for split in ("train", "val", "test")),
            *(f"b/{split}/y/1.png" for split in ("train", "val", "test")),
        )
    )
    assert splits(data) == {
        "a/test/x/1.png": TEST,
        "a/train/x/1.png": TRAIN,
        "a/val/x/1.png": VAL,
        "b/test/y/1.png": TEST,
        "b/train/y/1.png": TRAIN,
        "b/val/y/1.png": VAL,
    }
    assert data.split.dtype == torch.int64
    assert data.class_names == ("x", "y")


def test_classes_may_be_called_train_and_test_among_others(plant):
    data = folder(plant("a/train/1.png", "a/test/1.png", "a/bus/1.png", "b/train/1.png"))
    assert data.split is None
    assert data.class_names == ("bus", "test", "train")


def test_a_domain_without_val_gives_it_a_fifth_of_each_class_of_its_train(plant):
    sizes = {"x": 10, "y": 23, "z": 1}
    trees = [f"a/train/{c}/{i}.png" for c, size in sizes.items() for i in range(size)]
    trees += ["a/test/x/0.png", "b/train/x/0.png", "b/train/x/1.png", "b/train/x/2.png"]
    data = folder(plant(*trees, "b/val/x/0.png", "b/test/x/0.png"))
    chosen = Counter((p.split("/")[0], p.split("/")[-2], s) for p, s in splits(data).items())
    assert chosen == {
        ("a", "x", TRAIN): 8,
        ("a", "x", VAL): 2,
        ("a", "x", TEST): 1,
        ("a", "y", TRAIN): 18,
        ("a", "y", VAL): 5,
        ("a", "z", TRAIN): 1,
        ("b", "x", TRAIN): 3,
        ("b", "x", VAL): 1,
        ("b", "x", TEST): 1,
    }


def test_the_val_that_is_drawn_is_a_function_of_the_seed(plant):
    root = plant(
        *(f"{d}/{s}/x/{i}.png" for d in "ab" for s in ("train", "test") for i in range(40))
    )
    assert splits(folder(root)) == splits(folder(root, seed=0))
    assert splits(folder(root)) != splits(folder(root, seed=1))


def test_linked_folders_are_followed(plant, tmp_path):
    root = plant("store/one/x/1.png", "store/two/2.png", "data/b/x/1.png")
    (root / "data/a").symlink_to(root / "store/one")
    (root / "data/b/y").symlink_to("../../store/two")
    with pytest.warns(match="links lead out of .*data to 2 of its 3 images, such as a/x/1.png"):
        data = folder(tmp_path, path="data")
    assert data.inputs.paths == ("a/x/1.png", "b/x/1.png", "b/y/2.png")


@pytest.mark.parametrize("linked", ["a/y/2.png", "a/y"])
def test_a_file_that_two_paths_lead_to_is_refused(plant, linked):
    root = plant("a/x/1.png", "b/x/1.png", "a/y/3.png" if "." in linked else "b/z/3.png")
    (root / linked).symlink_to(root / ("b/x/1.png" if "." in linked else "b/z"))
    with pytest.raises(BadInput, match=r"a/y/\d.png and b/\w/\d.png below .* are one file"):
        folder(root)


def test_a_class_whose_files_are_of_other_suffixes_does_not_vanish(plant):
    root = plant(*(f"{d}/{c}/1.png" for d in "ab" for c in ("cat", "dog")), "b/bird/1.jfif")
    with pytest.raises(BadInput, match=r"the folder .*b/bird of a class has no image .* 1 other"):
        folder(root)
    (root / "b/bird/1.jfif").unlink()
    with pytest.raises(BadInput, match=r"the folder .*b/bird of a class has no image"):
        folder(root)


def test_files_that_are_not_read_are_counted_by_suffix(plant):
    root = plant("a/x/1.png", "b/x/1.png", *(f"a/x/{i}.GIF" for i in range(10)), "b/x/1.txt", "n")
    with pytest.warns(match=r"10 \.gif, 1 \.txt, 1 without suffix; in a/x: 10 of 12$"):
        folder(root)


@pytest.mark.parametrize("name", ["unlabelled", "Unlabeled", "UNLABELLED", "nan", "NaN"])
def test_every_spelling_of_unlabelled_is_no_class(plant, name):
    data = folder(plant("a/cat/1.png", "b/cat/1.png", f"b/{name}/2.png"))
    assert data.class_names == ("cat",) and sorted(data.labels.tolist()) == [UNKNOWN, 0, 0]


@pytest.mark.parametrize("name", ["none", "Unknown", "null", "?", "-1"])
def test_a_name_that_may_be_a_class_or_none_is_refused(plant, name):
    with pytest.raises(BadInput, match="which may be a class or none; write 'unlabelled'"):
        folder(plant("a/cat/1.png", "b/cat/1.png", f"b/{name}/2.png"))


def test_rows_without_a_label_stay_in_train(plant):
    tree = [f"{d}/{s}/{c}/{i}.png" for d in "ab" for s in ("train", "test") for c in ("cat", "dog")
            for i in range(10)]  # fmt: skip
    alone = splits(folder(plant(*tree)))
    more = [f"b/train/{name}/{i}.png" for name in ("unlabelled", "NaN") for i in range(20)]
    found = splits(folder(plant(*more)))
    assert {path: split for path, split in found.items() if path in alone} == alone
    assert {split for path, split in found.items() if path not in alone} == {TRAIN}


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        (["a+b/x/1.png"], r"the domain 'a\+b' could not be named in a shift"),
        (["a>b/x/1.png"], r"the domain 'a>b' could not be named in a shift"),
        (["a /x/1.png"], "the domain 'a ' could not be named in a shift"),
        (["a\n/x/1.png"], r"domains below .*: 'a\\n' is not UTF-8 text, or holds control"),
        (["a/x\x1b[31m/1.png"], r"classes below .*: 'x\\x1b.* is not UTF-8 text"),
        (["a/caf\u00e9/1.png", "a/cafe\u0301/1.png"], "two forms of Unicode that look the same"),
    ],
)
def test_names_that_cannot_be_used_are_refused(plant, tree, message):
    with pytest.raises(BadInput, match=message):
        folder(plant("b/x/1.png", "c/x/1.png", *tree))


@pytest.mark.parametrize("place", ["domain", "class"])
def test_names_that_are_not_utf_8_are_refused(plant, place):
    root = plant("a/x/1.png", "b/x/1.png")
    old = root / ("a" if place == "domain" else "a/x")
    old.rename(os.fsdecode(os.fsencode(old.parent) + b"/caf\xe9"))
    with pytest.raises(BadInput, match=r"'caf\\xe9' is not UTF-8 text"):
        folder(root)


def test_files_and_roots_that_are_not_utf_8_are_read(tmp_path):
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    for domain in "ab":
        (root / domain / "x").mkdir(parents=True)
        Image.new("RGB", (4, 4), (9, 8, 7)).save(root / domain / "x" / os.fsdecode(b"\xe9.png"))
    pack, _ = prepare(folder(root, size=4), Store(tmp_path / "s"), 0, lambda *_: None)
    assert pack.inputs[:, :, 0, 0].tolist() == [[9, 8, 7]] * 2


def test_links_that_lead_back_are_not_followed(plant):
    root = plant("a/x/1.png", "b/x/1.png")
    (root / "a/x/here").symlink_to(".")
    (root / "a/x/up").symlink_to("..")
    (root / "a/x/top").symlink_to(root)
    (root / "a/itself").symlink_to("itself")
    (root / "a/root").symlink_to("/")
    data = folder(root)
    assert data.inputs.paths == ("a/x/1.png", "b/x/1.png")
    assert data.class_names == ("x",)


def test_links_between_two_folders_end_where_they_would_repeat(plant):
    root = plant("a/x/1.png", "b/x/1.png")
    (root / "a/x/other").symlink_to(root / "b/x")
    (root / "b/x/other").symlink_to(root / "a/x")
    with pytest.raises(BadInput, match=r"but there is a/x/other/1\.png"):
        folder(root)


@pytest.mark.parametrize(
    ("files", "path", "message"),
    [
        (["PACS/a/x/1.png", "VLCS/1"], "PAC", "there is no folder {}/PAC: {} holds PACS, VLCS"),
        (["PACS/a/x/1.png"], "PACS/b/c", "there is no folder {}/PACS/b/c: {}/PACS holds a"),
        (["x.zip"], "x.zip", "there is no folder {}/x.zip: {} holds x.zip"),
        ([f"{i:02}" for i in range(12)], "x", "there is no folder {}/x: {} holds "
         "00, 01, 02, 03, 04, 05, 06, 07, 08, 09 and 2 more"),
        ([], "", "{} must hold two or more folders, one for each domain: {} holds nothing"),
        (["1.png"], "", "{} must hold two or more folders, one for each domain: {} holds 1.png"),
        (["a/x/1.png"], "", "{} must hold two or more folders, one for each domain: {} holds a"),
        (["a/x/1.png", "b/x/1.txt"], "", "there are no images in {}/b: {}/b holds x"),
        (["a/x/1.png", "b/x/1.png", "b/2.png"], "",
         "images below {} must lie at domain/class/image, but there is b/2.png"),
        (["a/x/1.png", "b/x/1.png", "3.png"], "",
         "images below {} must lie at domain/class/image, but there is 3.png"),
        (["PACS/a/x/1.png", "VLCS/a/x/1.png"], "",
         "images below {} must lie at domain/class/image, but there is PACS/a/x/1.png"),
        (["a/train/x/1.png", "a/test/x/1.png", "b/x/1.png"], "",
         "images below {} must lie at domain/class/image, but there is a/test/x/1.png"),
        (["a/train/x/1.png", "a/test/1.png", "b/train/x/1.png", "b/test/x/1.png"], "",
         "images below {} must lie at domain/split/class/image, but there is a/test/1.png"),
        (["a/train/x/1.png", "a/test/x/1.txt", "b/train/x/1.png", "b/test/x/1.png"], "",
         "there are no images in {}/a/test: {}/a/test holds x"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_said_in_one_sentence(plant, files, path, message):
    root = plant(*files)
    with pytest.raises(BadInput, match=f"^{re.escape(message.replace('{}', str(root)))}$"):
        folder(root, path=path)


def test_a_folder_that_cannot_be_read_is_named():
    with pytest.raises(BadInput, match=r"^the folder a/x cannot be read: Permission denied$"):
        unreadable(PermissionError(13, "Permission denied", "a/x"))


def test_an_image_has_at_least_one_pixel(plant):
    with pytest.raises(BadInput, match="size = 0"):
        folder(plant("a/x/1.png", "b/x/1.png"), size=0)
