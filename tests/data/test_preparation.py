"""Data are decoded once, whatever happens meanwhile, and opened without a look at the images."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny

from benchbench.data import preparation as module
from benchbench.data.encoded_images import Encoded
from benchbench.data.inspection import ailments
from benchbench.data.pack import in_memory
from benchbench.data.preparation import opened, pixels_in, prepare, prepared, verified
from benchbench.extension.contracts import DomainData, ImageFiles
from benchbench.extension.errors import BadInput
from benchbench.store.artifacts import Store

IDENTITY = {"dataset": "mine", "plugin": "digest", "root": "here"}


def silent(done, total):
    pass


def untouched():
    pytest.fail("the dataset was built again")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def data(tmp_path):
    """Thirty images on disk, and a table that they are described by."""
    (tmp_path / "images").mkdir()
    source = in_memory(tiny(None))
    for row in range(30):
        array = source.inputs[row].permute(1, 2, 0).numpy()
        Image.fromarray(array).save(tmp_path / "images" / f"{row}.png")
    (tmp_path / "table.csv").write_text("…")
    return DomainData(
        ImageFiles(tmp_path / "images", [f"{row}.png" for row in range(30)], 16),
        source.labels[:30],
        source.domains[:30],
        source.class_names,
        source.domain_names,
        source.split[:30],
        groups=torch.arange(30) % 4 - 1,
        group_names=("a", "b", "c"),
        metric="worst_group",
        sources=(tmp_path / "table.csv",),
    )


def same(a, b):
    columns = ("inputs", "labels", "domains", "split", "groups")
    words = ("class_names", "domain_names", "group_names", "metric", "licence", "fingerprint")
    return all(torch.equal(getattr(a, n), getattr(b, n)) for n in columns) and all(
        getattr(a, n) == getattr(b, n) for n in words
    )


def test_what_was_prepared_is_opened_without_the_plugin(data, store):
    first = prepared(IDENTITY, lambda: data, store, 0, silent)
    again = prepared(IDENTITY, untouched, store, 0, silent)
    assert same(first, again)
    assert isinstance(again.labels, torch.Tensor) and again.labels.dtype == torch.int64
    assert verified(IDENTITY, data, store, 0)[0] == []


def test_pixels_that_are_more_than_the_memory_are_opened(tmp_path):
    """Twice as many as there is memory and swap, in a file with holes."""
    told = Path("/proc/meminfo").read_text() if Path("/proc/meminfo").exists() else ""
    there = sum(1024 * int(n) for n in re.findall(r"^(?:Mem|Swap)Total:\s+(\d+)", told, re.M))
    rows = (2 * there or 1 << 36) // (3 * 96 * 96)
    place = tmp_path / "pixels.npy"
    head = module._header(np.dtype(np.uint8), (rows, 3, 96, 96))
    with place.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + rows * 3 * 96 * 96)
        file.seek(len(head) + (rows - 1) * 3 * 96 * 96)
        file.write(bytes([7, 8, 9]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels = opened(place)
    assert pixels.shape == (rows, 3, 96, 96) and pixels[-1, 0, 0, :4].tolist() == [7, 8, 9, 0]
    assert pixels[torch.tensor([0, rows - 1])].sum() == 24


def test_another_seed_of_the_split_decodes_nothing_again(data, store):
    drawn = replace(data, split=None)
    first = prepared(IDENTITY, lambda: drawn, store, 0, silent)
    other = prepared(IDENTITY, lambda: drawn, store, 1, lambda done, n: pytest.fail("decoded"))
    assert torch.equal(first.inputs, other.inputs) and not torch.equal(first.split, other.split)


def test_images_in_memory_are_kept_once(store):
    plain = tiny(None)
    first = prepared(IDENTITY, lambda: plain, store, 0, silent)
    prepared({**IDENTITY, "root": "there"}, lambda: plain, store, 0, silent)
    assert torch.equal(prepared(IDENTITY, untouched, store, 0, silent).inputs, plain.inputs)
    assert first.fingerprint == in_memory(plain).fingerprint
    assert len(list((store.root / "packs" / "pixels").glob("*.npy"))) == 1


@pytest.mark.parametrize("what", ["image", "table", "gone"])
def test_an_edited_dataset_is_told_of_and_prepared_anew(data, store, tmp_path, what):
    before = prepared(IDENTITY, lambda: data, store, 0, silent)
    path = tmp_path / ("table.csv" if what == "table" else "images/7.png")
    after = data
    if what == "gone":
        path.unlink()
        after = replace(
            data,
            inputs=replace(data.inputs, paths=[p for p in data.inputs.paths if p != "7.png"]),
            **{n: torch.cat([getattr(data, n)[:7], getattr(data, n)[8:]])
               for n in ("labels", "domains", "split", "groups")},
        )  # fmt: skip
    elif what == "image":
        Image.new("RGB", (9, 9), "red").save(path)
    else:
        path.write_text("… and more")
    with pytest.warns(UserWarning, match=f"mine is prepared anew: .*{path.name} has changed"):
        now = prepared(IDENTITY, lambda: after, store, 0, silent)
    assert (now.fingerprint == before.fingerprint) is (what == "table")
    prepared(IDENTITY, untouched, store, 0, silent)


def test_of_many_images_some_are_looked_at_and_verify_looks_at_all(data, store, monkeypatch):
    monkeypatch.setattr(module, "LOOKED_AT", 10)
    prepared(IDENTITY, lambda: data, store, 0, silent)
    Image.new("RGB", (9, 9), "red").save(data.inputs.root / "1.png")  # 0, 3, 6 … are looked at
    prepared(IDENTITY, untouched, store, 0, silent)
    (fault,) = verified(IDENTITY, data, store, 0)[0]
    assert fault == "files of mine have changed since it was prepared"


def test_flipped_pixels_and_labels_are_found(data, store):
    prepared(IDENTITY, lambda: data, store, 0, silent)
    other = replace(data, labels=(data.labels + 1) % 3)
    faults = verified(IDENTITY, other, store, 0)[0]
    assert "labels, domains or splits of mine have changed" in faults
    (pixels,) = (store.root / "packs" / "pixels").glob("*.npy")
    with pixels.open("r+b") as file:
        file.seek(-5, os.SEEK_END)
        byte = file.read(1)[0]
        file.seek(-5, os.SEEK_END)
        file.write(bytes([byte ^ 1]))
    (fault,) = verified(IDENTITY, data, store, 0)[0]
    assert fault.endswith("are not those that were decoded; delete it")


def test_lost_pixels_are_decoded_again(data, store):
    first = prepared(IDENTITY, lambda: data, store, 0, silent)
    (pixels,) = (store.root / "packs" / "pixels").glob("*.npy")
    fingerprint = first.fingerprint
    pixels.unlink()
    with pytest.warns(UserWarning, match="mine is prepared anew: pixels are gone"):
        assert prepared(IDENTITY, lambda: data, store, 0, silent).fingerprint == fingerprint


def test_all_broken_images_are_counted_and_nothing_is_left(data, store):
    for name in ("3.png", "11.png", "29.png"):
        (data.inputs.root / name).write_bytes(b"")
    with pytest.raises(
        BadInput, match="image .*3.png cannot be decoded: it is of no format .*; nor can 2 others"
    ):
        prepare(data, store, 0, silent)
    assert list(store.root.rglob("*.np*")) == list(store.root.rglob("*.decoding")) == []


@pytest.mark.parametrize(
    ("mode", "sides"), [("CMYK", (9, 7)), ("P", (9, 7)), ("LA", (9, 7)), ("RGB", (1, 1))]
)
def test_images_of_odd_modes_and_one_pixel_become_rgb(data, store, mode, sides):
    suffix = "jpg" if mode == "CMYK" else "png"
    image = Image.new("RGB", sides, (200, 40, 90)).convert(mode)
    image.save(data.inputs.root / f"odd.{suffix}", quality=95)
    one = replace(data.inputs, paths=[f"odd.{suffix}"] * 30)
    pack, _ = prepare(replace(data, inputs=one), store, 0, silent)
    wanted = torch.tensor([200, 40, 90]) if mode != "LA" else torch.tensor([93] * 3)
    assert (pack.inputs.float().mean((0, 2, 3)) - wanted).abs().max() < 8


def test_the_centre_is_cropped_as_torchvision_crops_it(tmp_path, data):
    from torchvision import transforms as T

    pixels = np.random.default_rng(0).integers(0, 256, (50, 81, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "images" / "wide.png")
    ours = module.read_image(tmp_path / "images" / "wide.png", 28, crop=0.875)
    chain = T.Compose([T.Resize(32), T.CenterCrop(28), T.PILToTensor()])
    with Image.open(tmp_path / "images" / "wide.png") as image:
        theirs = chain(image)
    assert ours.shape == theirs.shape
    assert np.abs(ours.astype(int) - theirs.numpy().astype(int)).max() <= 1


def test_too_little_space_is_told_before_decoding(data, store, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(BadInput, match="no space left in store .* 0 MB are free"):
        prepare(data, store, 0, lambda done, n: pytest.fail("decoded"))
    assert list(store.root.rglob("*.decoding")) == []


def test_a_disk_that_fills_up_is_one_sentence_and_leaves_nothing(data, store, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BadInput, match="cannot be written: No space left on device"):
        prepare(data, store, 0, silent)
    assert [p.suffix for p in store.root.rglob("*") if p.is_file()] == [".lock"]


SLOW = """
import sys, time
from pathlib import Path
import torch
from benchbench.extension.contracts import ImageFiles
from benchbench.data import preparation as module
from benchbench.data.encoded_images import Encoded
module.BLOCK, module.SYNC_EVERY = 2, 0
root, store, pause = Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3])
files = ImageFiles(root, [f"{row}.png" for row in range(30)], 16)
def report(done, total):
    print(done, flush=True)
    time.sleep(pause)
place, digest = module.decoded(files, store / "packs" / "pixels", report)
print("sha256", digest, flush=True)
"""


def start(data, store, pause):
    words = [sys.executable, "-W", "default", "-c", SLOW, data.inputs.root, store.root, str(pause)]
    pipe = subprocess.PIPE
    return subprocess.Popen(words, stdout=pipe, stderr=pipe, text=True)


def test_a_killed_process_is_gone_on_with(data, store):
    first = start(data, store, 0.2)
    for line in first.stdout:
        if line == "10\n":
            first.send_signal(signal.SIGKILL)
            break
    first.communicate()
    assert ailments(store, data.inputs.root) != []
    out, _ = start(data, store, 0).communicate()
    assert out.splitlines()[0] in ("8", "10", "12")  # not 2: what was decoded is kept
    fresh = Store(store.root.parent / "fresh")
    whole, _ = start(data, fresh, 0).communicate()
    assert whole.splitlines()[0] == "2"
    assert out.splitlines()[-1] == whole.splitlines()[-1]
    assert list(store.root.rglob("*.decoding")) == list(store.root.rglob("*.rows")) == []


@pytest.mark.parametrize("said", ["20", "", "many"])
def test_a_note_of_rows_that_are_not_there_is_not_believed(data, store, said):
    files = ImageFiles(data.inputs.root, [f"{row}.png" for row in range(30)], 16)
    whole = module.decoded(files, pixels_in(Store(store.root.parent / "fresh")), silent)
    place = module.listed(files, pixels_in(store))
    place.parent.mkdir(parents=True)
    place.with_suffix(".rows").write_text(said)  # what is left of a killed process, by half
    place.with_suffix(".decoding").write_bytes(b"")
    assert module.decoded(files, place.parent, silent)[1] == whole[1]
    assert torch.equal(module.opened(place), module.opened(whole[0]))


def test_pixels_belong_to_the_code_of_their_reader(data, store, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    code = "import numpy as np\ndef read(path):\n    return np.full((2, 4, 4), {}, np.float32)\n"
    found = []
    for number, value in enumerate((0.5, 1.0, 1e5)):
        (tmp_path / f"reader{number}.py").write_text(code.format(value))
        reader = import_module(f"reader{number}").read
        files = ImageFiles(data.inputs.root, ["0.png"], 4, reader=reader, channels=2)
        if value > 65_504:
            with pytest.raises(BadInput, match="0.png cannot be decoded: .* that float16 cannot"):
                module.decoded(files, pixels_in(store), silent)
            continue
        place, _ = module.decoded(files, pixels_in(store), silent)
        found.append(place)
        assert (module.opened(place) == value).all()
    assert found[0] != found[1]


def test_large_numbers_of_groups_are_kept(data, store):
    groups = torch.arange(len(data.labels)) + 3_000_000_000
    large = replace(data, groups=groups, group_names=(), metric="tenth_percentile")
    for build in (lambda: large, untouched):
        assert torch.equal(prepared(IDENTITY, build, store, 0, silent).groups, groups)


def test_of_two_processes_one_decodes_and_the_other_waits(data, store):
    first = start(data, store, 0.5)
    assert first.stdout.readline() == "2\n"
    second = start(data, store, 0)
    out, err = second.communicate()
    rest, _ = first.communicate()
    assert out == rest.splitlines()[-1] + "\n"  # its sha256 alone
    assert "another process prepares the same data; waiting for it" in err


def test_the_doctor_names_what_is_left_over(data, store, tmp_path):
    prepared(IDENTITY, lambda: data, store, 0, silent)
    assert ailments(store, tmp_path) == []
    pixels = store.root / "packs" / "pixels"
    np.save(pixels / "lost.npy", np.zeros(3))
    (pixels / "half.decoding").write_bytes(b"")
    (tmp_path / "table.csv").write_text("other")
    told = "\n".join(ailments(store, tmp_path / "nowhere"))
    for words in (
        "no folder",
        "half.decoding was not decoded",
        "lost.npy",
        "table.csv has changed",
    ):
        assert words in told


def test_columns_in_the_store_are_small(data, store):
    prepared(IDENTITY, lambda: data, store, 0, silent)
    (place,) = (store.root / "packs").glob("*.safetensors")
    header = place.read_bytes()
    assert (
        json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])["labels"]["dtype"] == "I32"
    )


def test_time_is_told_apart_to_the_nanosecond(data, store):
    prepared(IDENTITY, lambda: data, store, 0, silent)
    path = data.inputs.root / "0.png"
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    with pytest.warns(UserWarning, match="0.png has changed"):
        prepared(IDENTITY, lambda: data, store, 0, silent)
    assert time.time_ns() > status.st_mtime_ns


@pytest.fixture
def little_space(monkeypatch, data):
    """Enough for the files' own bytes, not for their pixels. Each image has a colour of its own."""
    for row in range(30):
        Image.new("RGB", (16, 16), (row, 2 * row, 3 * row)).save(data.inputs.root / f"{row}.png")
    size = sum((data.inputs.root / path).stat().st_size for path in data.inputs.paths)
    pixels = 30 * 3 * 16 * 16
    usage = type("Usage", (), {"free": (pixels + size) // 2})
    assert size < 0.9 * usage.free < usage.free < pixels
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)


def test_pixels_that_do_not_fit_stay_encoded_and_are_the_same(data, store, tmp_path, little_space):
    pack = prepared(IDENTITY, lambda: data, store, 0, silent)
    assert isinstance(pack.inputs, Encoded)
    again = prepared(IDENTITY, untouched, store, 0, silent)
    rows = torch.tensor([29, 0, 7, 7])
    wanted = torch.stack([rows, 2 * rows, 3 * rows], 1).to(torch.uint8)[..., None, None]
    wanted = wanted.expand(4, 3, 16, 16)
    assert torch.equal(pack.inputs[rows], wanted) and torch.equal(again.inputs[rows], wanted)
    assert pack.inputs.shape == (30, 3, 16, 16) and pack.inputs[rows[:0]].shape == (0, 3, 16, 16)
    assert pack.task.input_shape == (3, 16, 16)
    assert verified(IDENTITY, data, store, 0)[0] == []
    assert ailments(store, tmp_path) == []
    (kept,) = (store.root / "packs" / "pixels").glob("*.bytes")
    assert kept.stat().st_size < 30 * 3 * 16 * 16


def test_encoded_or_not_the_fingerprint_is_one(data, store, tmp_path, little_space, monkeypatch):
    encoded = prepared(IDENTITY, lambda: data, store, 0, silent)
    monkeypatch.undo()
    plain = prepared(IDENTITY, lambda: data, Store(tmp_path / "roomy"), 0, silent)
    assert isinstance(plain.inputs, torch.Tensor)
    assert plain.fingerprint == encoded.fingerprint


def test_a_broken_image_is_told_where_files_stay_encoded(data, store, little_space):
    (data.inputs.root / "3.png").write_bytes(b"no image")
    with pytest.raises(BadInput, match="image .*3.png cannot be decoded"):
        prepare(data, store, 0, silent)
    assert [p.suffix for p in store.root.rglob("*") if p.is_file()] == [".lock"]
