"""The store against a dict: what is kept, what is made once, and what is never replaced."""

import json
import os
import shutil
import tarfile
import tempfile
import threading
import time
import warnings
from pathlib import Path

import pytest
import torch
from audiences import quiet
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tiny import SUITE, make_plan

import benchbench.store.locks
from benchbench.execution.cell import describe, execute
from benchbench.extension.errors import BadInput
from benchbench.store.artifacts import Store
from benchbench.store.merge import everything, export_files, import_store
from benchbench.store.records import read_record

KEYS = ("a" * 64, "b" * 64)
KINDS = ("stages", "features")
PLACE = st.tuples(st.sampled_from(KINDS), st.sampled_from(KEYS))
VALUE = st.integers(0, 3)
ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), PLACE, VALUE),
        st.tuples(st.just("once"), PLACE, VALUE),
        st.tuples(st.just("fails"), PLACE, VALUE),
        st.tuples(st.just("read"), PLACE, VALUE),
        st.tuples(st.just("cut"), PLACE, VALUE),
        st.tuples(st.just("flip"), PLACE, VALUE),
        st.tuples(st.just("remove"), PLACE, VALUE),
    ),
    min_size=4,
    max_size=12,
)


def content(value: int):
    return {"x": torch.full((2,), float(value))}, {"value": value}


@settings(max_examples=25, deadline=None, derandomize=True, database=None, phases=[Phase.generate])
@given(actions=ACTIONS)
def test_a_store_is_a_dict_that_makes_what_it_lacks(actions):
    """What is damaged is as what was never there; what cannot be made leaves nothing."""
    root = Path(tempfile.mkdtemp())
    store, model = Store(root), {}  # of a place: what is whole there
    try:
        for action, (kind, key), value in actions:
            path, place = root / kind / f"{key}.safetensors", (kind, key)
            made = []

            def make(value=value, made=made):
                made.append(value)
                return content(value)

            def fail(made=made):
                made.append(None)
                raise RuntimeError("no way")

            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message=".* is damaged")
                if action == "write":
                    store.write(kind, key, *content(value))
                    model[place] = value
                elif action == "once":
                    found = store.once(kind, key, "some work", make)
                    assert made == ([] if place in model else [value])
                    model.setdefault(place, value)
                    assert found.note == {"value": model[place]}
                    assert torch.equal(found.tensors["x"], content(model[place])[0]["x"])
                elif action == "fails":
                    if place in model:
                        assert store.once(kind, key, "work", fail).note == {"value": model[place]}
                    else:
                        with pytest.raises(RuntimeError):
                            store.once(kind, key, "work", fail)
                        assert made == [None] and not path.exists()
                elif action in ("cut", "flip") and place in model:
                    whole = path.read_bytes()
                    path.write_bytes(
                        whole[:-1] if action == "cut" else whole[:-1] + bytes([whole[-1] ^ 1])
                    )
                    del model[place]
                elif action == "remove":
                    store.remove(kind, key)
                    model.pop(place, None)
                found = store.read(kind, key)
            assert (found.note["value"] if found else None) == model.get(place)
            assert store.has(kind, key) == (place in model)
            assert not list((root / "claims").glob("*.json")), "nothing is claimed any more"
            assert not list(root.rglob("*.part"))
    finally:
        shutil.rmtree(root)


def test_of_several_that_want_the_same_one_makes_it(tmp_path, monkeypatch):
    """Each by its own store, as processes have; a claim is of whoever is alive."""
    monkeypatch.setattr(benchbench.store.locks, "LOOK_EVERY", 0.01)
    made, found, barrier = [], [], threading.Barrier(4)

    def make():
        made.append(threading.get_ident())
        time.sleep(0.1)  # long enough that the others come and have to wait
        return content(1)

    def want(key: str):
        store = Store(tmp_path)
        barrier.wait()
        found.append(store.once("features", key, "work", make).note)

    threads = [threading.Thread(target=want, args=(key,)) for key in KEYS * 2]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [{"value": 1}] * 4
    assert len(made) == 2, "one of two that want the same, and who wants something else waits not"


def test_what_another_holds_is_waited_for_and_then_taken_over(tmp_path, monkeypatch):
    """A claim that is given back without a result leaves the work to who waited."""
    monkeypatch.setattr(benchbench.store.locks, "LOOK_EVERY", 0.01)
    store, made = Store(tmp_path), []
    held = store.claims.take(KEYS[0], "the same work")
    assert store.claims.take(KEYS[0], "again") is None
    with store.claims.take(KEYS[1], "something else"):
        assert store.claims.living(KEYS[0]) and store.claims.living(KEYS[1])
    assert store.claims.living(KEYS[0]) and not store.claims.living(KEYS[1])

    def want():
        store.once("features", KEYS[0], "work", lambda: (made.append(1), content(2))[1])

    thread = threading.Thread(target=want)
    thread.start()
    time.sleep(0.1)
    assert not made
    with held:
        pass
    thread.join()
    assert made == [1] and store.read("features", KEYS[0]).note == {"value": 2}


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """A plan of one cell, its scored record and the predictions of that."""
    folder = tmp_path_factory.mktemp("scored")
    text = SUITE.replace('chain = "simclr"', 'chain = ""\nreadout = "prototype"')
    plan = make_plan(text, folder / "store", folder)
    record = execute(plan.cells[0], plan, quiet)
    kept = plan.store.records("tiny") / record.file_name
    return plan, record, kept.with_suffix(".safetensors").read_bytes()


def others(plan, record):
    """Records of the same cell: scored otherwise, failed, diverged."""
    worse = replace_scores(record, 0.0)
    failed, diverged = (
        describe(plan.cells[0], plan, s, "a reason") for s in ("failed", "diverged")
    )
    assert {r.file_name for r in (worse, failed, diverged)} == {record.file_name}
    return {"scored": worse, "failed": failed, "diverged": diverged}


def replace_scores(record, accuracy):
    scores = tuple(s.model_copy(update={"accuracy": accuracy}) for s in record.scores)
    return record.model_copy(update={"scores": scores})


@pytest.mark.parametrize("first", ["scored", "failed", "diverged"])
@pytest.mark.parametrize("second", ["scored", "failed", "diverged"])
def test_a_scored_record_is_never_replaced_and_any_other_is(scored, tmp_path, first, second):
    plan, record, predictions = scored
    store, others_of = Store(tmp_path), others(plan, record)
    before = record if first == "scored" else others_of[first]
    after = others_of[second]
    assert store.write_record(before, predictions if first == "scored" else None)
    path = store.records("tiny") / record.file_name
    wanted = first != "scored"
    assert store.write_record(after, b"others") is wanted
    assert read_record(path) == (after if wanted else before)
    assert path.with_suffix(".safetensors").read_bytes() == (b"others" if wanted else predictions)


@pytest.mark.parametrize("here", ["nothing", "scored", "failed"])
@pytest.mark.parametrize("there", ["scored", "failed"])
def test_an_import_brings_a_score_where_there_is_none_and_changes_no_other(
    scored, tmp_path, here, there
):
    plan, record, predictions = scored
    mine, theirs = Store(tmp_path / "mine"), Store(tmp_path / "theirs")
    others_of = others(plan, record)
    if here != "nothing":
        mine.write_record(others_of[here], b"mine")
    if there == "scored":
        theirs.write_record(record, predictions)
    else:
        failed = others_of["failed"].model_copy(update={"reason": "another reason"})
        theirs.write_record(failed)
    export_files(theirs, tmp_path / "x.tar", everything(theirs, records_only=True))
    taken = import_store(mine, tmp_path / "x.tar")
    path = mine.records("tiny") / record.file_name
    new = here == "nothing" or (here, there) == ("failed", "scored")
    assert (taken.records, taken.known, taken.refused) == (int(new), int(not new), ())
    found = read_record(path)
    if new:
        assert found.status == there
    else:
        assert found == others_of[here]
        assert path.with_suffix(".safetensors").read_bytes() == b"mine"


def test_an_import_keeps_a_stage_that_is_there(tmp_path):
    mine, theirs = Store(tmp_path / "mine"), Store(tmp_path / "theirs")
    mine.write("stages", KEYS[0], *content(1))
    theirs.write("stages", KEYS[0], *content(2))
    theirs.write("stages", KEYS[1], *content(3))
    theirs.write("features", KEYS[1], *content(4))
    export_files(theirs, tmp_path / "x.tar", everything(theirs, records_only=False))
    with tarfile.open(tmp_path / "x.tar") as tar:
        assert tar.getnames() == [f"stages/{key}.safetensors" for key in KEYS]
    taken = import_store(mine, tmp_path / "x.tar")
    assert (taken.stages, taken.known) == (1, 1)
    assert [mine.read("stages", key).note["value"] for key in KEYS] == [1, 3]


def test_what_a_running_process_writes_is_not_swept_and_what_the_dead_left_is(tmp_path):
    store = Store(tmp_path)
    ages = {"now": 0, "half an hour": 1800, "two hours": 7200}
    for kind in ("stages", "records/tiny"):
        (tmp_path / kind).mkdir(parents=True)
        for name, age in ages.items():
            for end in ("part", "json"):
                path = tmp_path / kind / f"{name}.{end}"
                path.write_text("{}")
                os.utime(path, (time.time() - age,) * 2)
    store.check()
    for kind in ("stages", "records/tiny"):
        left = {path.name for path in (tmp_path / kind).iterdir()}
        assert left == {"now.part", "half an hour.part", *(f"{name}.json" for name in ages)}


def test_a_store_that_does_not_write_leaves_nothing(tmp_path):
    """Of processes that train together, one writes."""
    store = Store(tmp_path, writes=False)
    assert store.once("features", KEYS[0], "work", lambda: content(1)).note == {"value": 1}
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    Store(tmp_path).write("features", KEYS[0], *content(2))
    store.remove("features", KEYS[0])
    assert store.read("features", KEYS[0]).note == {"value": 2}


def test_what_cannot_be_put_in_its_place_leaves_nothing_beside_it(tmp_path):
    store = Store(tmp_path)
    (tmp_path / "stages" / f"{KEYS[0]}.safetensors").mkdir(parents=True)
    with pytest.raises(BadInput, match="cannot be written: Is a directory"):
        store.write("stages", KEYS[0], *content(1))
    assert not list(tmp_path.rglob("*.part"))


def test_a_note_is_guarded_as_the_tensors_are(tmp_path):
    store = Store(tmp_path)
    store.write("stages", KEYS[0], *content(1))
    path = tmp_path / "stages" / f"{KEYS[0]}.safetensors"
    whole = path.read_bytes()
    length = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + length])
    header["__metadata__"]["note"] = json.dumps({"value": 2})
    changed = json.dumps(header, separators=(",", ":")).encode().ljust(length)
    path.write_bytes(len(changed).to_bytes(8, "little") + changed + whole[8 + length :])
    with pytest.warns(UserWarning, match="is damaged: set aside"):
        assert store.read("stages", KEYS[0]) is None
    assert path.with_name(path.name + ".damaged").exists()
