"""Rows 4 and 15: bits that flip, files that are cut off, and files that would run code."""

import io
import os
import pickle
import warnings
from pathlib import Path

import pytest
import torch
from audiences import lasting, run_all
from cases import QUICK

from benchbench.extension.errors import BadInput
from benchbench.store.artifacts import Store, artifact_of
from benchbench.store.records import read_record, read_records, read_status


@pytest.fixture
def artifact(tmp_path) -> Path:
    store = Store(tmp_path / "store")
    store.write("stages", "key", {"a": torch.arange(20.0), "n": torch.tensor(3)}, {"seconds": 1.5})
    return store.root / "stages" / "key.safetensors"


def test_row_04_no_bit_of_an_artifact_can_flip_unnoticed(artifact):
    content = artifact.read_bytes()
    assert artifact_of(io.BytesIO(content)) is not None
    for bit in range(8 * len(content)):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        assert artifact_of(io.BytesIO(flipped)) is None, f"bit {bit}"


def test_row_04_no_artifact_can_be_cut_off_unnoticed(artifact):
    content = artifact.read_bytes()
    for length in range(len(content)):
        assert artifact_of(io.BytesIO(content[:length])) is None, f"{length} bytes"
    assert artifact_of(io.BytesIO(content + b"\0")) is None


@pytest.mark.parametrize("kind", ["stages", "features", "diagnostics"])
def test_row_04_what_is_damaged_is_set_aside_by_name_and_made_anew(plan_of, tmp_path, kind):
    (before,) = run_all(plan_of(QUICK)).records
    (record,) = (tmp_path / "store" / "records" / "tiny").glob("*.json")
    record.unlink()
    path = next((tmp_path / "store" / kind).glob("*.safetensors"))
    content = bytearray(path.read_bytes())
    content[-3] ^= 16
    path.write_bytes(content)
    with pytest.warns(UserWarning, match=f"{path} is damaged: set aside, and made anew"):
        (after,) = run_all(plan_of(QUICK)).records
    assert lasting(after) == lasting(before)
    assert path.with_name(path.name + ".damaged").read_bytes() == content


def test_row_04_a_damaged_record_stops_a_run_is_named_and_never_replaced(plan_of, tmp_path):
    run_all(plan_of(QUICK))
    (path,) = (tmp_path / "store" / "records" / "tiny").glob("*.json")
    whole = path.read_bytes()
    for content in (b"", whole[:-20], whole[: len(whole) // 2], b"\0" * len(whole)):
        path.write_bytes(content)
        plan = plan_of(QUICK)
        with pytest.raises(BadInput, match=f"{path} is not a record"):
            run_all(plan)
        assert path.read_bytes() == content


def test_row_04_no_record_can_be_cut_off_unnoticed(plan_of, tmp_path):
    run_all(plan_of(QUICK))
    (path,) = (tmp_path / "store" / "records" / "tiny").glob("*.json")
    whole = path.read_bytes()
    for length in range(0, len(whole.rstrip()), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(BadInput):
            read_record(path)


def test_row_04_no_bit_of_a_record_can_flip_unnoticed(plan_of, tmp_path):
    (record,) = run_all(plan_of(QUICK)).records
    (path,) = (tmp_path / "store" / "records" / "tiny").glob("*.json")
    whole = path.read_bytes()
    for position in range(len(whole)):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << position % 8
        path.write_bytes(flipped)
        with pytest.raises(BadInput):
            read_record(path)
        status = outcome(lambda: read_status(str(path)))
        assert status in (None, "scored"), (position, status)
    for position in range(0, len(whole), 97):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        with pytest.raises(BadInput):
            read_records(path.parent)


def outcome(read):
    try:
        return read()
    except BadInput:
        return None


class Probe:
    """Unpickled, it makes a file."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


@pytest.mark.parametrize("form", ["pickle", "torch"])
def test_row_15_a_pickle_in_place_of_an_artifact_is_damaged_and_does_not_run(tmp_path, form):
    store, place = Store(tmp_path / "store"), tmp_path / "it-ran"
    path = store.root / "stages" / "key.safetensors"
    path.parent.mkdir(parents=True)
    if form == "torch":
        torch.save({"a": Probe(place)}, path)
    else:
        path.write_bytes(pickle.dumps(Probe(place)))
    with pytest.warns(UserWarning, match="is damaged"):
        assert store.read("stages", "key") is None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert not store.take_in("stages", "other", io.BytesIO(pickle.dumps(Probe(place))))
    assert not place.exists()
    pickle.loads(pickle.dumps(Probe(place)))  # noqa: S301  it would have
    assert place.exists()
