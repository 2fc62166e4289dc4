"""Data are decoded once, split, checked and fingerprinted."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny

from benchbench.data.decoding import read_image
from benchbench.data.pack import check_shift, in_memory
from benchbench.data.preparation import prepare
from benchbench.data.splits import draw_split
from benchbench.extension.constants import TEST, TRAIN, UNKNOWN, VAL
from benchbench.extension.contracts import ImageFiles
from benchbench.extension.errors import BadInput
from benchbench.store.artifacts import Store


def silent(done, total):
    pass


@pytest.fixture
def files(tmp_path):
    """Six images of different sizes and modes, and data that describe them."""
    rng = np.random.default_rng(0)
    modes = ["RGB", "L", "RGBA", "P", "1", "I;16"]
    paths = []
    for number, mode in enumerate(modes):
        side = 8 + 3 * number
        pixels = rng.integers(0, 256, (side, side + 2, 3), dtype=np.uint8)
        image = Image.fromarray(pixels)
        if mode == "I;16":
            image = Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 256)
        else:
            image = image.convert(mode)
        paths.append(f"{number} é.png")
        image.save(tmp_path / paths[-1])
    columns = tiny(None, rows=1)
    return replace(
        columns,
        inputs=ImageFiles(tmp_path, tuple(paths), 16),
        labels=columns.labels[:6],
        domains=columns.domains[:6],
        split=None,
    )


def test_files_are_decoded_once_to_what_pillow_reads(files, tmp_path):
    seen = []
    pack = prepare(files, Store(tmp_path), 0, lambda done, total: seen.append((done, total)))[0]
    assert seen == [(6, 6)]
    with Image.open(tmp_path / files.inputs.paths[2]) as image:
        wanted = np.asarray(image.convert("RGB").resize((16, 16), Image.Resampling.BILINEAR))
    assert torch.equal(pack.inputs[2], torch.tensor(wanted).permute(2, 0, 1))
    again = prepare(files, Store(tmp_path), 0, lambda done, total: pytest.fail("decoded twice"))[0]
    assert again.fingerprint == pack.fingerprint
    assert torch.equal(again.inputs, pack.inputs)


def test_sixteen_bit_images_are_scaled_not_clipped(files, tmp_path):
    pixels = read_image(tmp_path / files.inputs.paths[5], 16)
    assert 60 < pixels.mean() < 200
    assert pixels.shape == (3, 16, 16)


def test_a_changed_file_changes_the_fingerprint(files, tmp_path):
    before = prepare(files, Store(tmp_path), 0, silent)[0].fingerprint
    Image.new("RGB", (9, 9), "red").save(tmp_path / files.inputs.paths[0])
    assert prepare(files, Store(tmp_path), 0, silent)[0].fingerprint != before


@pytest.mark.parametrize("content", [b"", b"no image", None])
def test_an_image_that_cannot_be_decoded_is_named_and_leaves_nothing(files, tmp_path, content):
    path = tmp_path / files.inputs.paths[3]
    path.write_bytes(path.read_bytes()[:60] if content is None else content)
    with pytest.raises(BadInput, match="image .*3 é.png cannot be decoded"):
        prepare(files, Store(tmp_path), 0, silent)[0]
    assert {p.suffix for p in (tmp_path / "packs" / "pixels").iterdir()} == {".lock"}


def test_every_part_of_the_data_is_in_the_fingerprint(tmp_path):
    data = tiny(None)
    pixel = data.inputs.clone()
    pixel[7, 1, 3, 3] ^= 1
    label = data.labels.clone()
    label[7] = (label[7] + 1) % 3
    domain = data.domains.clone()
    domain[7] = (domain[7] + 1) % 3
    side = data.split.clone()
    side[7] = TEST
    others = [
        replace(data, inputs=pixel),
        replace(data, labels=label),
        replace(data, domains=domain),
        replace(data, split=side),
        replace(data, class_names=("x", "middle", "high")),
        replace(data, domain_names=("x", "right", "odd")),
    ]
    prints = {in_memory(d).fingerprint for d in [data, tiny(None), *others]}
    assert len(prints) == 7


@pytest.mark.parametrize(
    ("column", "value", "sentence"),
    [
        ("labels", torch.zeros(3, dtype=torch.int64), r"labels must be int64 of shape \[360\]"),
        ("labels", torch.zeros(360), "labels must be int64"),
        ("class_names", (), "labels must be float32, as there are no class_names"),
        ("groups", torch.zeros(360, 2).bool(), r"groups must be bool of shape \[360, 0\]"),
        ("metric", "pearson", "pearson is of numbers, and the dataset.s labels are classes"),
        ("vocabulary", ("a",), "texts need a vocabulary, and its images must have none"),
        ("labels", torch.full((360,), 3), r"labels must lie in \[-1, 2\]"),
        ("domains", torch.full((360,), -1), r"domains must lie in \[0, 2\]"),
        ("split", torch.full((360,), 3), r"split must lie in \[0, 2\]"),
        ("inputs", torch.zeros(360, 3, 4, 4), "images must be uint8"),
    ],
)
def test_data_that_break_the_contract_are_refused(tmp_path, column, value, sentence):
    with pytest.raises(BadInput, match=sentence):
        in_memory(replace(tiny(None), **{column: value}))


def test_a_metric_of_groups_needs_some_wherever_it_scores():
    data = tiny(None)
    groups = (data.domains == 0).long() - 1
    pack = in_memory(replace(data, groups=groups, group_names=("one",), metric="worst_group"))
    with pytest.raises(BadInput, match="of groups, and no test row of domain 'right' is in one"):
        check_shift(pack, ("left",), ("right",), "left > right")


def test_a_drawn_split_has_the_same_shares_of_every_class_and_domain():
    data = tiny(None)
    split = draw_split(data.labels, data.domains, None, data.domain_names, 0)
    for domain in range(3):
        for label in range(3):
            cell = split[(data.domains == domain) & (data.labels == label)]
            assert [int((cell == s).sum()) for s in (TRAIN, VAL, TEST)] == [26, 6, 8]
    assert torch.equal(split, draw_split(data.labels, data.domains, None, data.domain_names, 0))
    other = draw_split(data.labels, data.domains, None, data.domain_names, 1)
    assert not torch.equal(split, other)


def test_a_drawn_split_keeps_units_whole():
    data = tiny(None)
    units = 7 * (torch.arange(len(data.labels)) // 12)  # each has rows in two or three domains
    split = draw_split(data.labels, data.domains, units, data.domain_names, 0)
    assert all(len(split[units == unit].unique()) == 1 for unit in units.unique())
    assert all((split == s).any() for s in (TRAIN, VAL, TEST))


def test_a_shift_without_common_classes_or_without_labels_is_refused(tmp_path):
    data = tiny(None)
    apart = data.labels.clone()
    apart[data.domains == 0] = 0
    apart[data.domains == 1] = 2
    pack = in_memory(replace(data, labels=apart))
    with pytest.raises(
        BadInput, match="'right' has no class in common .* it has high, they have low"
    ):
        check_shift(pack, ("left",), ("right",), "left > right")
    hidden = data.labels.clone()
    hidden[(data.domains == 0) & (data.split == VAL)] = UNKNOWN
    pack = in_memory(replace(data, labels=hidden))
    with pytest.raises(BadInput, match="domain 'left' has no labelled validation rows"):
        check_shift(pack, ("left",), ("right",), "left > right")
    check_shift(pack, ("right",), ("left",), "right > left")
