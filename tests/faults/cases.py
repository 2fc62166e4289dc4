"""What writes files: each case finds its beginning in a folder, and leaves its end there."""

import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import sklearn.cluster  # what a run imports late: now, and not in every fork
import sklearn.metrics  # noqa: F401
import torch
import torch._dynamo
from audiences import Silent
from PIL import Image
from tiny import SUITE, make_catalog, tiny
from torch import nn

import benchbench.leaderboard.publishing
from benchbench import Objective
from benchbench.data import download as downloads
from benchbench.data import preparation as preparing
from benchbench.data.pack import in_memory
from benchbench.execution.local import run_cells
from benchbench.execution.store_cleanup import clean
from benchbench.extension.catalog import Catalog, Entry, Plugin
from benchbench.extension.contracts import DomainData, Download, ImageFiles
from benchbench.leaderboard.bundle import Credits, narrowed, opened, submission_of, write_bundle
from benchbench.leaderboard.publishing import publish
from benchbench.leaderboard.verification import Verdict, take_in
from benchbench.store.artifacts import Store
from benchbench.store.locks import Claims
from benchbench.store.merge import everything, export_files, import_store
from benchbench.store.records import read_records
from benchbench.suites.plan import Plan
from benchbench.suites.suite import Suite

KEY = "c" * 64
QUICK = SUITE.replace("steps = 6", "steps = 2")
CREDITS = Credits(submitter="A. Person")


class Faulty(Objective):
    """Does something at its third step that no objective should."""

    n_views = 1

    def __init__(self, encoder, task, *, does="nothing"):
        super().__init__()
        self.does, self.steps = does, 0
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, encoder, batch):
        self.steps += 1
        if self.steps == 3:
            self.misbehave(encoder)
        return encoder(batch.views[0]).mean() * self.scale

    def misbehave(self, encoder):
        if self.does == "exits":
            sys.exit(3)
        if self.does == "takes all memory":
            torch.ones(1 << 32)
        if self.does == "takes all memory of Python":
            bytearray(1 << 34)

    def after_step(self, encoder):
        if self.does == "ruins the encoder" and self.steps == 6:
            for value in encoder.parameters():
                value.data.fill_(torch.inf)


def catalog() -> Catalog:
    """With an objective that misbehaves."""
    made, plugin = make_catalog(), Plugin("faulty", "tests", "0", "faulty", "digest of faulty")
    mine = {("objective", "faulty"): Entry("objective", "faulty", Faulty, plugin)}
    return replace(made, entries={**made.entries, **mine}, plugins=(*made.plugins, plugin))


CATALOG = catalog()  # once, before there are forks


def plan_in(folder: Path) -> Plan:
    """With a checkpoint after every step."""
    path = folder / "suite.toml"
    if not path.exists():
        path.write_text(QUICK)
    suite, store = Suite.read(str(path)), Store(folder / "store")
    plan = Plan.make(suite, CATALOG, folder, store, "cpu", counted)
    return replace(plan, checkpoint_every=-1.0)


def run(folder: Path) -> None:
    plan = plan_in(folder)
    run_cells(plan, [cell for cell in plan.cells if not plan.done(cell)], Silent())


# Beginnings: a folder as it is before, made from a folder in which `run` is over


def an_artifact(done: Path, folder: Path) -> None:
    Store(folder / "store").write("checkpoints", KEY, {"a": torch.zeros(50)}, {"seconds": 1.0})


def a_failure(done: Path, folder: Path) -> None:
    """A record without a score, in whose place the scored one comes."""
    (record,) = read_records(done / "store" / "records" / "tiny")
    failed = {"status": "failed", "reason": "it was said so", "scores": (), "artifacts": None}
    Store(folder / "store").write_record(record.model_copy(update=failed))
    shutil.copytree(done / "store" / "records", folder / "found")


def a_run(done: Path, folder: Path) -> None:
    shutil.copytree(done, folder, dirs_exist_ok=True)


def litter(done: Path, folder: Path) -> None:
    a_run(done, folder)
    for kind in ("stages", "features", "checkpoints"):
        Store(folder / "store").write(kind, KEY, {"a": torch.zeros(9)})


def an_archive(done: Path, folder: Path) -> None:
    store = Store(done / "store")
    export_files(store, folder / "x.tar", everything(store, records_only=False))


def a_bundle(done: Path, folder: Path) -> None:
    submit(done, folder / "x.tar")
    (folder / "board").mkdir()
    (folder / "board" / "suite.toml").write_text(QUICK)


def a_suite(done: Path, folder: Path) -> None:
    (folder / "suite.toml").write_text(QUICK)


def images(done: Path, folder: Path) -> None:
    (folder / "images").mkdir(parents=True)
    for row, image in enumerate(tiny(None).inputs[:4]):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / "images" / f"{row}.png")


# What they do


def write(folder: Path) -> None:
    Store(folder / "store").write("checkpoints", KEY, {"a": torch.ones(50)}, {"seconds": 2.0})


def write_record(folder: Path) -> None:
    (record,) = read_records(folder / "found" / "tiny")
    (path,) = (folder / "found" / "tiny").glob("*.safetensors")
    Store(folder / "store").write_record(record, path.read_bytes())


def claim(folder: Path) -> None:
    with Claims(folder / "store").held(KEY, "a stage"):
        pass


def gc(folder: Path) -> None:
    clean(Store(folder / "store"), 0)


def export(folder: Path) -> None:
    store = Store(folder / "store")
    export_files(store, folder / "out.tar", everything(store, records_only=False))


def import_(folder: Path) -> None:
    import_store(Store(folder / "store"), folder / "x.tar")


def submit(done: Path, out: Path) -> None:
    suite, store = Suite.read(str(done / "suite.toml")), Store(done / "store")
    names = [method.name for method in suite.methods()]
    write_bundle(out, narrowed(suite, names), read_records(store.records("tiny")), store, CREDITS)


def bundle(folder: Path) -> None:
    submit(folder, folder / "out.tar")


def verify_into(folder: Path) -> None:
    with opened(folder / "x.tar") as archive:
        submission = submission_of(archive)
        verdict = Verdict("consistent", "consistent", submission.manifest.methods)
        take_in(submission, verdict, folder / "board")


def publish_(folder: Path) -> None:
    """With short texts in place of tables and pages, which take longer to make than to write."""
    texts = {"README.md": "a table", "board.csv": "rows", "site/index.html": "a page"}
    benchbench.leaderboard.publishing.generated = lambda folder: texts
    publish(plan_in(folder), QUICK, folder / "board")


def rows(folder: Path) -> DomainData:
    """Four images that are files."""
    plain = in_memory(tiny(None))
    files = ImageFiles(folder / "images", [f"{row}.png" for row in range(4)], 16)
    columns = (plain.labels[:4], plain.domains[:4], plain.class_names, plain.domain_names)
    return DomainData(files, *columns, plain.split[:4])


def prepare(folder: Path) -> None:
    store = Store(folder / "store")
    preparing.prepared({"dataset": "mine"}, lambda: tiny(None), store, 0, counted)


def decode(folder: Path) -> None:
    preparing.BLOCK, preparing.SYNC_EVERY = 2, 0
    store = Store(folder / "store")
    preparing.prepared({"dataset": "mine"}, lambda: rows(folder), store, 0, counted)


def keep_encoded(folder: Path) -> None:
    preparing.too_large = lambda files, folder: True
    decode(folder)


def counted(done: int, total: int) -> None:
    pass


def fetch(folder: Path) -> None:
    """What the beginning says, from a server of the test."""
    address, md5 = (folder / "address").read_text().split()
    downloads.CHUNK = 400
    item = Download(address, "raw/x.zip", md5, unpack="raw")
    downloads.download(item, folder / "data", counted)


BEGINNINGS: dict[str, Callable[[Path, Path], None]] = {
    "write": an_artifact,
    "write_record": a_failure,
    "gc": litter,
    "export": a_run,
    "import": an_archive,
    "submit": a_run,
    "verify_into": a_bundle,
    "publish": a_run,
    "decode": images,
    "keep_encoded": images,
    "run": a_suite,
}
WORK: dict[str, Callable[[Path], None]] = {
    "write_first": write,
    "write": write,
    "write_record": write_record,
    "claim": claim,
    "gc": gc,
    "export": export,
    "import": import_,
    "submit": bundle,
    "verify_into": verify_into,
    "publish": publish_,
    "prepare": prepare,
    "decode": decode,
    "keep_encoded": keep_encoded,
    "fetch": fetch,
    "run": run,
}


def begun(name: str, folder: Path) -> None:
    """``folder`` is where a case begins; beside it, in ``done``, `run` is over."""
    if name in BEGINNINGS:
        BEGINNINGS[name](folder.parent / "done", folder)


CASES = WORK | {f"begin {name}": partial(begun, name) for name in WORK}
