"""Nothing half-written, nothing damaged is ever read."""

import hashlib
import io
import json
import math
import os
import random
import subprocess
import sys
import time
import warnings

import pytest
import safetensors.torch
import torch
from resident import STATUS

from benchbench.extension.errors import BadInput
from benchbench.store.artifacts import (
    DTYPES,
    Store,
    artifact_of,
    packed,
    sha256_of,
    write_artifact,
)
from benchbench.store.atomic_files import place
from benchbench.store.keys import key_of, keys_with
from benchbench.store.records import read_status


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def test_what_is_written_is_read_back(store):
    tensors = {
        "a": torch.randn(3, 4).to(memory_format=torch.contiguous_format),
        "n": torch.tensor(3),
    }
    shared = tensors["a"][1:]
    digest = store.write("stages", "key", {**tensors, "shared": shared}, {"seconds": 1.5})
    kept = store.read("stages", "key")
    assert kept.sha256 == digest and kept.note == {"seconds": 1.5}
    assert torch.equal(kept.tensors["a"], tensors["a"]) and torch.equal(
        kept.tensors["shared"], shared
    )
    assert store.read("stages", "other") is None
    assert not list(store.root.rglob("*.part"))


def test_of_processes_that_train_together_one_writes(tmp_path):
    """The others say what they would have written, and neither keep nor remove anything."""
    first, second = Store(tmp_path), Store(tmp_path, writes=False)
    digest = second.write("stages", "a" * 64, {"x": torch.ones(3)})
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert first.write("stages", "a" * 64, {"x": torch.ones(3)}) == digest
    second.remove("stages", "a" * 64)
    assert torch.equal(second.read("stages", "a" * 64).tensors["x"], torch.ones(3))
    first.remove("stages", "a" * 64)
    assert second.read("stages", "a" * 64) is None


def test_what_several_want_is_made_once(store):
    made = []

    def make():
        made.append(store.claims.signs()["key"].work)
        return {"z": torch.arange(3)}, {"rows": 3}

    first, second = (store.once("features", "key", "features of a", make) for _ in range(2))
    assert made == ["features of a"] and store.claims.signs() == {}
    assert first.note == second.note == {"rows": 3} and first.sha256 == second.sha256
    assert torch.equal(first.tensors["z"], second.tensors["z"])


@pytest.mark.parametrize("damage", ["flip", "header", "note", "truncate", "empty"])
def test_a_damaged_artifact_is_set_aside_and_told_of(store, damage):
    store.write("stages", "key", {"a": torch.randn(100)}, {"seconds": 1.5})
    path = store.root / "stages" / "key.safetensors"
    content = bytearray(path.read_bytes())
    places = {"flip": -7, "header": 12, "note": content.index(b"seconds") + 12}
    if damage in places:
        content[places[damage]] ^= 1
    path.write_bytes({"truncate": content[:50], "empty": b""}.get(damage, content))
    with pytest.warns(UserWarning, match="is damaged"):
        assert store.read("stages", "key") is None
    assert path.with_name(path.name + ".damaged").exists()
    assert not store.has("stages", "key")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert store.read("stages", "key") is None


def test_a_key_follows_every_value_and_not_their_order():
    parts = {"a": 1, "b": [1, 2], "c": {"d": 0.5}}
    assert key_of(parts) == key_of(dict(reversed(parts.items())))
    changed = [{**parts, "a": 2}, {**parts, "b": [2, 1]}, {**parts, "c": {"d": 0.25}},
               {**parts, "e": None}]  # fmt: skip
    assert len({key_of(p) for p in [parts, *changed]}) == 5
    with pytest.raises(ValueError):
        key_of({"a": float("nan")})


def test_keys_with_are_keys_of_all_parts():
    common = {"z": [1, {"b": '"ü"', "a": None}], "a": "x", "m": 0.5}
    key = keys_with(common, "seed", "encoder", "b")
    for seed, encoder, b in ((0, "e", None), (10**30, "\0seed\0", ["\u2028"]), (True, "", 1.5)):
        told = {"seed": seed, "encoder": encoder, "b": b}
        assert key(**told) == key_of({**common, **told})
    with pytest.raises(ValueError, match="has a mark in it"):
        keys_with({"a": "\0seed\0"}, "seed")


def an_hour_ago(store):
    """When every record was written."""
    for path in store.records("tiny").iterdir():
        os.utime(path, (time.time() - 3600,) * 2)


@pytest.fixture
def records(store):
    """Three files in place of records, each with a status."""
    store.records("tiny").mkdir(parents=True)
    for name, status in (("a", "scored"), ("b", "failed"), ("c", "scored")):
        (store.records("tiny") / f"{name}.json").write_text(f'{{\n "status": "{status}"\n}}\n')
    return store


def statuses(store, suite="tiny"):
    return store.statuses(suite, store.state(suite))


def test_statuses_are_read_again_as_soon_as_a_record_is_another(records, monkeypatch):
    read = []
    monkeypatch.setattr(
        "benchbench.store.artifacts.read_status", lambda p: read.append(p) or read_status(p)
    )
    first = {"a": "scored", "b": "failed", "c": "scored"}
    for _ in range(2):  # just written: another change might not show in the time
        assert statuses(records) == first
    assert len(read) == 6 and not (records.root / "summaries").exists()
    an_hour_ago(records)
    for _ in range(3):
        assert statuses(records) == first
    assert len(read) == 9
    place(records.records("tiny") / "b.json", b'{\n "status": "scored"\n}\n')
    assert statuses(records) == {**first, "b": "scored"}
    an_hour_ago(records)
    (records.records("tiny") / "b.json").unlink()
    assert statuses(records) == {"a": "scored", "c": "scored"} == statuses(records)
    place(records.records("tiny") / "d.json", b'{\n "status": "oom"\n}\n')
    assert statuses(records)["d"] == "oom" and statuses(records, "other") == {}


def test_a_file_that_takes_the_time_and_size_of_another_is_not_taken_for_it(records):
    an_hour_ago(records)
    assert statuses(records)["b"] == "failed"
    path = records.records("tiny") / "b.json"
    times = path.stat().st_mtime_ns
    place(path, path.read_bytes().replace(b"failed", b"scored"))
    os.utime(path, ns=(times, times))
    assert statuses(records)["b"] == "scored"


def test_a_summary_that_is_damaged_or_cannot_be_written_is_told_anew(records, monkeypatch):
    an_hour_ago(records)
    told = statuses(records)
    (path,) = (records.root / "summaries").iterdir()
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.warns(UserWarning, match="is damaged"):
        assert statuses(records) == told
    path.unlink()

    def full(*paths):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    assert statuses(records) == told and not path.exists()


def test_a_store_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match=r"store .*file/store cannot be written: Not a directory"):
        Store(tmp_path / "file" / "store").check(0)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_store_is_refused(store):
    store.root.mkdir()
    store.root.chmod(0o555)
    with pytest.raises(BadInput, match="cannot be written: Permission denied"):
        store.check(0)


def test_too_little_space_is_told_before_anything_runs(store):
    with pytest.raises(
        BadInput, match="no space left in store .* about 1,000,000,000,000 MB are needed"
    ):
        store.check(10**18)


def test_a_full_disk_is_one_sentence(store, monkeypatch):
    real = os.fsync

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BadInput, match="cannot be written: No space left on device"):
        store.write("stages", "key", {"a": torch.randn(3)})
    monkeypatch.setattr(os, "fsync", real)
    assert [p for p in store.root.rglob("*") if p.is_file()] == []


# What a file of any types holds, beside the library whose format it is

PLANES = (torch.channels_last, torch.contiguous_format)


def drawn_tensors(seed: int) -> dict[str, torch.Tensor]:
    """Some tensors of any types, shapes, orders in memory and names, of any bytes."""
    draw, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    found = {}
    for number in range(draw.randint(0, 6)):
        dtype = draw.choice([*DTYPES])
        shape = [draw.randint(0, 4) for _ in range(draw.randint(0, 4))]
        most = 2 if dtype == torch.bool else 256
        count = math.prod(shape) * dtype.itemsize
        content = torch.randint(0, most, (count,), dtype=torch.uint8, generator=generator)
        value = content.view(dtype).reshape(shape) if count else torch.zeros(shape, dtype=dtype)
        if len(shape) == 4:
            value = value.contiguous(memory_format=draw.choice(PLANES))
        name = draw.choice('abcé\n"\\\x01\x7f☃𝄞') * draw.randint(1, 3)
        found[f"{name}{number}"] = value
    return found


def of_the_library(tensors, said=None) -> bytes:
    own = {name: value.clone(memory_format=PLANES[1]) for name, value in tensors.items()}
    return safetensors.torch.save(own, said)


def test_a_file_is_byte_for_byte_one_of_the_librarys():
    seen = set()
    for seed in range(150):
        tensors = drawn_tensors(seed)
        seen |= {tensor.dtype for tensor in tensors.values()}
        theirs = of_the_library(tensors)
        digest = hashlib.sha256(theirs).hexdigest()
        assert packed(tensors) == theirs and sha256_of(tensors) == digest
        file, note = io.BytesIO(), json.dumps({"é\n": seed}, ensure_ascii=False)
        assert write_artifact(file, tensors, note) == digest
        said = {"note": note, "note_sha256": hashlib.sha256(note.encode()).hexdigest()}
        older = of_the_library(tensors, {"sha256": digest, **said})
        assert len(older) == len(file.getvalue())
        for content in (file.getvalue(), older):
            kept = artifact_of(io.BytesIO(content))
            assert kept.note == {"é\n": seed} and kept.sha256 == digest
            assert of_the_library(kept.tensors) == theirs
        if torch.float8_e8m0fnu not in {t.dtype for t in tensors.values()}:  # it cannot read them
            assert of_the_library(safetensors.torch.load(file.getvalue())) == theirs
    assert seen == {*DTYPES}


def test_a_type_that_no_file_holds_is_named(store):
    with pytest.raises(TypeError, match=r"tensor phase is torch.complex128, which no safetensors"):
        store.write("stages", "key", {"phase": torch.zeros(2, dtype=torch.complex128)})
    assert [path for path in store.root.rglob("*") if path.is_file()] == []


MEASURED = """
import sys
from pathlib import Path

import torch
from resident import peak_of

from benchbench.store.artifacts import Store

torch.set_num_threads(1)
store, rows = Store(Path(sys.argv[1])), int(sys.argv[2])
small = {"z": torch.rand(9, 1024), "n": torch.tensor(3)}
store.write("features", "small", small), store.read("features", "small")  # what is imported late
z = torch.rand(rows, 1024)
large = {"z": z, "half": z[: rows // 4].half(), "labels": torch.arange(rows)}
size = sum(tensor.nbytes for tensor in large.values())
written, digest = peak_of(lambda: store.write("features", "large", large))
read, kept = peak_of(lambda: store.read("features", "large"))
assert kept.sha256 == digest and all(torch.equal(kept.tensors[n], large[n]) for n in large)
print(written / size, read / size)
"""


@pytest.mark.skipif(not STATUS.exists(), reason="Linux alone says what is resident")
def test_an_artifact_is_written_and_read_in_hardly_more_memory_than_it_takes(tmp_path):
    """Beside an artifact of 200 MB, of which what is read is one more."""
    command = [sys.executable, "-c", MEASURED, str(tmp_path), "45000"]
    told = subprocess.run(command, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    written, read = map(float, told.stdout.split())
    assert written < 0.2 and 0.9 < read < 1.2
