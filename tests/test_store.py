"""Nothing half-written, nothing damaged is ever read."""

import os
import warnings

import pytest
import torch

from benchbench.keys import key_of
from benchbench.store import Store
from benchbench.terms import BadInput


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
