"""An honest bundle, its board, and ways to make it another."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from audiences import Silent
from safetensors.numpy import load, save
from tiny import make_plan

from benchbench.api.submissions import recorded
from benchbench.execution.local import run_cells
from benchbench.leaderboard.bundle import Credits, narrowed, opened, submission_of, write_bundle
from benchbench.leaderboard.consistency import Board
from benchbench.leaderboard.true_labels import NAME, Truth
from benchbench.leaderboard.verification import Check, Verdict, verdict_on
from benchbench.store.records import Record
from benchbench.suites.plan import Plan

SUITE = """
name = "tiny"
dataset = "tiny"
shifts = ["left > right"]
seeds = [0, 1]
encoder = "small_cnn(width=4)"
precision = "fp32"
snapshots = 2
stage = { steps = 4, batch_size = 12, lr = 0.01, augmentation = "noise" }
[[method]]
chain = "simclr(temperature=0.2)"
[[method]]
chain = "erm"
readout = "head"
sees = "source"
[[method]]
chain = ""
"""
NUMBERS = """
name = "tiny"
dataset = "heights"
shifts = ["left > right"]
seeds = [0, 1]
encoder = "small_cnn(width=4)"
precision = "fp32"
stage = { steps = 2, batch_size = 12, lr = 0.01, augmentation = "noise" }
[[method]]
chain = "simclr"
"""
Files = dict[str, bytes]


@dataclass(frozen=True)
class Honest:
    plan: Plan
    board: Board
    content: bytes

    @property
    def files(self) -> Files:
        """The bundle's, by name."""
        with tarfile.open(fileobj=io.BytesIO(self.content)) as tar:
            return {member.name: tar.extractfile(member).read() for member in tar}


def honest_of(text: str, folder: Path) -> Honest:
    plan = make_plan(text, folder / "store", folder)
    assert all(record.status == "scored" for record in run_cells(plan, plan.cells, Silent()))
    (folder / NAME).write_bytes(Truth.of(plan.pack).content())
    names = [method.name for method in plan.suite.methods() if method.chain]
    credits = Credits(submitter="A. Person", paper="https://example.org/paper")
    chosen, records = narrowed(plan.suite, names), recorded(plan, names)
    write_bundle(folder / "honest.tar", chosen, records, plan.store, credits)
    return Honest(plan, Board.read(folder), (folder / "honest.tar").read_bytes())


@cache
def once(text: str, base: Path) -> Honest:
    """One for all modules that import the fixtures."""
    folder = base / f"honest-{sha256(text.encode())[:8]}"
    folder.mkdir()
    return honest_of(text, folder)


def judged(
    content: bytes,
    board: Board | None,
    folder: Path,
    level="consistent",
    further: dict[str, Check] | None = None,
) -> Verdict:
    """The verdict; nothing but the bundle is in the folder before and after."""
    path = folder / "bundle.tar"
    path.write_bytes(content)
    before = sorted(folder.parent.rglob("*"))
    try:
        with opened(path) as bundle:
            return verdict_on(submission_of(bundle), board, level, further=further)
    finally:
        assert sorted(folder.parent.rglob("*")) == before


def tar_of(files: Files) -> bytes:
    """As `benchbench submit` packs them."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def hashed(files: Files) -> Files:
    """With a manifest that says what there is, as somebody who forges would write it."""
    manifest = json.loads(files["manifest.json"])
    manifest["files"] = {
        name: {"sha256": sha256(content), "size": len(content)}
        for name, content in files.items()
        if not name.startswith("manifest.json")
    }
    return {**files, "manifest.json": json.dumps(manifest).encode()}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def changed(files: Files, name: str, change: Callable[[dict], object]) -> Files:
    """A JSON file with what ``change`` does to it in place."""
    fields = json.loads(files[name])
    fields.pop("sha256", None)  # of a record: older ones have none
    change(fields)
    return {**files, name: json.dumps(fields).encode()}


def record_name(files: Files, method: str = "simclr", seed: int = 0) -> str:
    (name,) = (n for n in files if f"/{method}" in n and f"--{seed}--" in n and ".json" in n)
    return name


def predictions_of(name: str) -> str:
    return name.replace(".json", ".safetensors")


def with_record(files: Files, change, method: str = "simclr", seed: int = 0) -> Files:
    """One record changed, and the manifest as it should be for that."""
    return hashed(changed(files, record_name(files, method, seed), change))


def with_predictions(files: Files, change, method: str = "simclr", seed: int = 0) -> Files:
    """One record's predictions changed in place, and every hash as it should be for that."""
    name = record_name(files, method, seed)
    tensors = load(files[predictions_of(name)])
    tensors = {key: values.copy() for key, values in tensors.items()}
    tensors = change(tensors) or tensors
    content = save(tensors)

    def say(fields):
        fields["artifacts"]["predictions_sha256"] = sha256(content)

    return hashed(changed({**files, predictions_of(name): content}, name, say))


def with_encoder(files: Files, change, method: str = "simclr", seed: int = 0) -> Files:
    """One record's encoder changed in place, and every hash as it should be for that."""
    name = record_name(files, method, seed)
    key = json.loads(files[name])["artifacts"]["stages"][-1]
    encoder = f"encoders/{key}.safetensors"
    tensors = {key: values.copy() for key, values in load(files[encoder]).items()}
    change(tensors)
    content = save(tensors)

    def say(fields):
        fields["artifacts"]["encoder_sha256"] = sha256(content)

    return hashed(changed({**files, encoder: content}, name, say))


def moved(files: Files, old: str, change) -> Files:
    """A record changed, and it and its predictions named as it then should be."""
    files = changed(files, old, change)
    record = Record.model_validate_json(files.pop(old))
    new = f"records/{record.file_name}"
    files[new] = record.text().encode()
    files[predictions_of(new)] = files.pop(predictions_of(old))
    return hashed(files)
