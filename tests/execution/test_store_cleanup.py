"""What a store's own commands remove, name and move; and what they leave, whenever they end."""

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from audiences import Count, run_all
from click.testing import CliRunner
from tiny import SUITE, Text, make_plan

from benchbench.cli import main
from benchbench.execution.local import run_cells
from benchbench.execution.store_cleanup import clean, faults, files_of, sorted_out
from benchbench.extension.errors import BadInput
from benchbench.store.artifacts import Store
from benchbench.store.merge import export_files, import_store
from benchbench.store.records import read_records
from benchbench.suites.suite import chosen

CHAINS = (
    SUITE.replace("seeds = [0]", "seeds = [0]\nsnapshots = 2")
    + """
[[method]]
chain = ""
[[method]]
chain = ["simclr", { objective = "lp_ft", sees = "source" }]
readout = "head"
"""
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A store with a random encoder, a pre-training, and a chain that begins with a probe."""
    folder = tmp_path_factory.mktemp("trained")
    records = run_all(make_plan(CHAINS, folder / "store", folder)).records
    assert [record.status for record in records] == ["scored"] * 3
    return folder / "store"


@pytest.fixture
def store(trained, tmp_path) -> Store:
    shutil.copytree(trained, tmp_path / "store")
    return Store(tmp_path / "store")


def files(store: Store) -> set[str]:
    every = (p for p in store.root.rglob("*") if p.is_file() and p.parent.name != "claims")
    return {p.relative_to(store.root).as_posix() for p in every}


def littered(store: Store, count: int = 3) -> set[str]:
    """Files in it that no record needs, and that go."""
    before = files(store)
    for number in range(count):
        for kind in ("stages", "snapshots", "features", "diagnostics", "checkpoints"):
            store.write(kind, f"{number:064x}", {"a": torch.zeros(9)})
    damaged = store.root / "stages" / f"{count:064x}.safetensors.damaged"
    damaged.write_bytes(b"half")
    return files(store) - before


def invoke(store: Store, *words: str):
    result = CliRunner().invoke(main, ["store", *words, "--store", str(store.root)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_all_that_a_run_leaves_is_needed(store):
    before = files(store)
    kinds = {name.partition("/")[0] for name in before}
    assert kinds == {"stages", "snapshots", "features", "diagnostics", "packs", "records"}
    assert clean(store, 0).waste == []
    assert files(store) == before


def test_what_only_a_lost_record_needed_goes_and_nothing_else(store, tmp_path):
    before = files(store)
    folder = store.records("tiny")
    chain = next(r for r in read_records(folder) if len(r.spec.chain) == 2)
    for path in folder.glob(f"{chain.file_name.removesuffix('.json')}*"):
        path.unlink()
    gone = {piece.kind for piece in clean(store, 0).waste}
    assert gone == {"stages", "snapshots", "features", "diagnostics"}
    first, second = chain.artifacts.stages
    assert store.has("stages", first) and not store.has("stages", second)
    again = run_all(make_plan(CHAINS, store.root, tmp_path))
    assert again.stages == ["lp_ft"], "the pre-training is there, and with it the rest"
    new = files(store) - before
    assert files(store) >= before and {name.partition("/")[0] for name in new} == {"packs"}


def test_gc_says_what_would_go_and_then_removes_that(store):
    before = files(store)
    waste = littered(store)
    for kind in ("connectivity", "pseudo", "diverged"):
        store.write(kind, "f" * 64, {"a": torch.zeros(9)})
    everything = files(store)
    told = invoke(store, "gc", "--dry-run")[1]
    assert "would go: 0 files" in told and "left, as younger than --older-than: 16 files" in told
    status, told, _ = invoke(store, "gc", "--dry-run", "--older-than", "0.001s")
    assert status == 0 and "features: 3 files" in told and "would go: 16 files, 0.0 MB" in told
    assert files(store) == everything
    assert "removed: 16 files" in invoke(store, "gc", "--older-than", "0.001s")[1]
    assert files(store) == everything - waste
    assert {name.partition("/")[0] for name in files(store) - before} == {
        "connectivity",
        "diverged",
        "pseudo",
    }


def test_what_a_living_claim_works_on_stays(store):
    waste = littered(store)
    claimed = f"{1:064x}"
    with store.claims.held(claimed, "simclr"):
        kept = clean(store, 0)
    assert {(piece.kind, piece.key) for piece in kept.busy} == {
        *((kind, claimed) for kind in ("features", "diagnostics", "checkpoints")),
        *((kind, f"{n:064x}") for kind in ("stages", "snapshots") for n in range(3)),
        ("stages", f"{3:064x}"),
    }
    stay = {piece.path.relative_to(store.root).as_posix() for piece in kept.busy}
    assert waste & files(store) == stay
    clean(store, 0)
    assert not waste & files(store)


def test_nobody_starts_while_files_go(store, monkeypatch):
    littered(store)
    took = []

    def unlink(path, missing_ok=False):
        other = "import sys; from pathlib import Path; from benchbench.store.locks import Claims\n"
        run = subprocess.Popen([sys.executable, "-c", other + "print(1, flush=True)\n"
            f"Claims(Path({str(store.root)!r})).take('k', 'w'); print(2, flush=True)"],
            stdout=subprocess.PIPE, text=True)  # fmt: skip
        took.append(run)
        assert run.stdout.readline() == "1\n"
        time.sleep(0.3)
        assert run.poll() is None and not store.claims.living("k")
        monkeypatch.undo()
        path.unlink()

    monkeypatch.setattr(Path, "unlink", unlink)
    clean(store, 0)
    assert took[0].communicate(timeout=60)[0] == "2\n"


def test_an_unfinished_stage_that_a_record_names_can_go_on(store):
    (record,) = [r for r in read_records(store.records("tiny")) if len(r.spec.chain) == 1]
    (key,) = record.artifacts.stages
    store.remove("stages", key)
    for name in (key, "e" * 64):
        store.write("checkpoints", name, {"a": torch.zeros(9)})
    assert [piece.key for piece in clean(store, 0).waste] == ["e" * 64]


@pytest.mark.parametrize("seed", range(5))
def test_stopped_at_any_moment_all_that_is_needed_is_there(store, monkeypatch, seed):
    needed = files(store)
    littered(store, 20)
    left, real = random.Random(seed).randrange(1, 100), Path.unlink

    def unlink(path, missing_ok=False):
        nonlocal left
        left -= 1
        if left == 0:
            raise KeyboardInterrupt
        real(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    with pytest.raises(KeyboardInterrupt):
        clean(store, 0)
    monkeypatch.undo()
    assert needed < files(store)
    clean(store, 0)
    assert files(store) == needed


def test_killed_it_leaves_all_that_is_needed_and_no_lock(store):
    needed = files(store)
    waste = littered(store, 400)
    words = ["store", "gc", "--older-than", "0.001s", "--store", str(store.root)]
    child = subprocess.Popen([sys.executable, "-m", "benchbench", *words])
    before = (store.root / "stages").stat().st_mtime_ns
    while (store.root / "stages").stat().st_mtime_ns == before and child.poll() is None:
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    child.wait(timeout=60)
    assert needed <= files(store) and waste - files(store)
    clean(store, 0)
    assert files(store) == needed


def test_a_record_that_cannot_be_read_stops_it(store):
    everything = littered(store) | files(store)
    path = next(store.records("tiny").glob("*.json"))
    path.write_text(path.read_text()[:-20])
    with pytest.raises(BadInput, match=r"is not a record: .*; what it needs is unknown, and nothi"):
        clean(store, 0)
    assert files(store) == everything


def test_verify_names_what_is_damaged_and_repairs_nothing(store):
    assert invoke(store, "verify")[1] == f"store {store.root} is as it was written\n"
    stage, feature, *_ = (next((store.root / k).glob("*")) for k in ("stages", "features"))
    one, two, three = sorted(store.records("tiny").glob("*.json"))
    for path in (stage, feature, one.with_suffix(".safetensors")):
        content = bytearray(path.read_bytes())
        content[-5] ^= 1
        path.write_bytes(content)
    two.with_suffix(".safetensors").unlink()
    three.write_text(Text(three.read_text()).replace('"seed', '"sead'))
    everything = files(store)
    status, told, _ = invoke(store, "verify")
    said = told.splitlines()
    assert status == 1 and len(said) == 5
    for words in (f"{stage} is damaged", f"{feature} is damaged", f"{three} is not a record: ",
                  f"{one.with_suffix('.safetensors')} does not hold the predictions",
                  f"{two.with_suffix('.safetensors')} cannot be read: No such file"):  # fmt: skip
        assert any(line.startswith(words) for line in said), words
    assert files(store) == everything

    status, told, _ = invoke(store, "verify", "--set-aside")
    assert status == 1 and told.count("set aside, and made anew") == 2
    moved = {f"{p.parent.name}/{p.name}" for p in (stage, feature)}
    assert files(store) == everything - moved | {f"{name}.damaged" for name in moved}
    assert len([*faults(store, lambda done, total: None)]) == 3


def test_one_pre_training_moves_to_another_machine_and_is_checked(store, tmp_path):
    plan = make_plan(CHAINS, store.root, tmp_path)
    cells = chosen(plan.cells, "method=simclr")
    found = files_of(plan, cells, records_only=False)
    kinds = [path.relative_to(store.root).parts[0] for path in found]
    assert sorted(kinds) == ["records", "records", "snapshots", "stages"]
    assert len(files_of(plan, cells, records_only=True)) == 2
    archive, there = tmp_path / "x.tar", tmp_path / "there"
    export_files(store, archive, found)
    taken = import_store(Store(there), archive)
    assert (taken.records, taken.stages, taken.refused) == (1, 2, ())
    audience = Count()
    other = make_plan(CHAINS, there, tmp_path)
    run_cells(other, [cell for cell in other.cells if not other.done(cell)], audience)
    assert audience.stages == ["lp_ft"], "of the chain, only the rest was trained there"


def test_list_tells_files_and_bytes_of_every_kind(store):
    status, told, _ = invoke(store, "list")
    rows = {line.split("|")[1].strip(): line.split("|") for line in told.splitlines()}
    assert status == 0 and int(rows["records"][2]) == 6 and int(rows["stages"][2]) == 2
    assert rows["stages"][3].strip().endswith("MB") and "all" in rows


@pytest.mark.parametrize("words", [("gc",), ("verify",), ("list",), ("export", "x.tar")])
def test_where_there_is_no_store_that_is_said(tmp_path, words):
    status, out, err = invoke(Store(tmp_path / "none"), *words)
    assert (status, out) == (2, "") and "there is no store" in err
    assert not (tmp_path / "none").exists()


def test_only_needs_a_suite(store):
    status, _, err = invoke(store, "export", "x.tar", "--only", "method=simclr")
    assert status == 2 and "say which suite, too" in err


def test_a_dry_run_writes_nothing(store):
    shutil.rmtree(store.root / "claims", ignore_errors=True)
    assert sorted_out(store, 0, set()).waste == []
    invoke(store, "gc", "--dry-run")
    assert not (store.root / "claims").exists()
