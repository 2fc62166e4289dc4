"""What writes files: each case finds its beginning in a folder, and leaves its end there."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from tiny import SUITE, make_catalog, quiet, tiny

import benchbench.publish
from benchbench.board.bundle import Credits, narrowed, opened, submission_of, write_bundle
from benchbench.board.verify import Verdict, take_in
from benchbench.claims import Claims
from benchbench.contracts import DomainData, Download, ImageFiles
from benchbench.data import download as downloads
from benchbench.data import prepare as preparing
from benchbench.data.pack import in_memory
from benchbench.gather import everything, export_files, import_store
from benchbench.launch.local import run_cells
from benchbench.plan import Plan
from benchbench.publish import publish
from benchbench.record import read_records
from benchbench.store import Store
from benchbench.suite import Suite
from benchbench.upkeep import clean

KEY = "c" * 64
QUICK = SUITE.replace("steps = 6", "steps = 2")
CATALOG = make_catalog()  # once, before there are forks
CREDITS = Credits(submitter="A. Person")


class Silent:
    """An audience that is told nothing."""

    def cell_starts(self, cell):
        return quiet

    def cell_fails(self, trace):
        pass

    def cell_ends(self, record):
        pass


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
    submit(plan_in(done), folder / "x.tar")


def images(done: Path, folder: Path) -> None:
    (folder / "images").mkdir(parents=True)
    for row, image in enumerate(tiny(None).inputs[:6]):
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


def submit(plan: Plan, out: Path) -> None:
    names = [method.name for method in plan.suite.methods()]
    records = [plan.record(cell) for cell in plan.cells]
    write_bundle(out, narrowed(plan.suite, names), records, plan.store, CREDITS)


def bundle(folder: Path) -> None:
    submit(plan_in(folder), folder / "out.tar")


def verify_into(folder: Path) -> None:
    with opened(folder / "x.tar") as archive:
        submission = submission_of(archive)
        verdict = Verdict("consistent", "consistent", submission.manifest.methods)
        take_in(submission, verdict, folder / "board")


def publish_(folder: Path) -> None:
    """With short texts in place of tables and pages, which take longer to make than to write."""
    texts = {"README.md": "a table", "board.csv": "rows", "site/index.html": "a page"}
    benchbench.publish.generated = lambda folder: texts
    publish(plan_in(folder), QUICK, folder / "board")


def rows(folder: Path) -> DomainData:
    """Six images that are files."""
    plain = in_memory(tiny(None))
    files = ImageFiles(folder / "images", [f"{row}.png" for row in range(6)], 16)
    columns = (plain.labels[:6], plain.domains[:6], plain.class_names, plain.domain_names)
    return DomainData(files, *columns, plain.split[:6])


def prepare(folder: Path) -> None:
    preparing.prepared({"dataset": "mine"}, lambda: tiny(None), Store(folder / "store"), 0, counted)


def decode(folder: Path) -> None:
    preparing.BLOCK, preparing.SYNC_EVERY = 2, 0
    preparing.prepared({"dataset": "mine"}, lambda: rows(folder), Store(folder / "store"), 0, counted)


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


CASES = {**WORK, **{f"begin {name}": lambda folder, name=name: begun(name, folder) for name in WORK}}
