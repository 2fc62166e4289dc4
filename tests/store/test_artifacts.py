"""Nothing half-written, nothing damaged is ever read."""

import os
import time
import warnings

import pytest
import torch

from benchbench.extension.errors import BadInput
from benchbench.store.artifacts import Store
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
