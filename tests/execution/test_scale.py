"""A suite of 10,000 cells that is finished: what commands open and parse, and what they say.

No clock: how often a file is read is a number that is the same on every machine.
"""

import hashlib
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from audiences import quiet
from click.testing import CliRunner, Result
from tiny import Text, make_plan

from benchbench.cli import main
from benchbench.execution.cell import describe, execute
from benchbench.execution.job import Job
from benchbench.execution.store_cleanup import sorted_out
from benchbench.extension.catalog import Catalog
from benchbench.extension.constants import TEST
from benchbench.store.artifacts import packed
from benchbench.store.records import Measured, Record, Score, read_record
from benchbench.suites.plan import Plan, Settled

pytestmark = pytest.mark.slow
METHODS, SEEDS, SHIFTS = 12, 140, 6
CELLS = METHODS * SEEDS * SHIFTS
SUITE = Text(
    f"""
name = "big"
dataset = "tiny"
shifts = "all"
seeds = {[*range(SEEDS)]}
encoder = "small_cnn(width=4)"
precision = "fp32"
baseline = "m0"
stage = {{ steps = 2, batch_size = 12, lr = 0.01, augmentation = "noise" }}
"""
    + "".join(
        f'[[method]]\nname = "m{n}"\nchain = "simclr(temperature={0.1 + n / 100:.2f})"\n'
        for n in range(METHODS)
    )
)
TUNED = SUITE.replace(f"{[*range(SEEDS)]}", "[0, 1, 2]").replace("[[method]]", """
[tune]
draws = 5
[[method]]""", 1)  # fmt: skip

opened: Counter[str] = Counter()  # files below a store, while somebody counts
counting: list[str] = []


def hook(event: str, args: tuple) -> None:
    if counting and event == "open" and str(args[0]).startswith(counting[0]):
        opened[str(args[0])] += 1


sys.addaudithook(hook)  # for good: there is no way to take one back


class Big:
    """A finished suite, and a way to give commands about it."""

    def __init__(self, folder: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.text, self.store = folder, text, folder / "store"
        monkeypatch.setattr(Job, "plan_with", lambda job, catalog, store, report: self.plan())
        (folder / "big.toml").write_text(text)
        self.records = fill(self.plan())

    def plan(self) -> Plan:
        return make_plan(self.text, self.store, self.folder)

    def settle(self) -> None:
        """As if no record had been written for an hour."""
        shutil.rmtree(self.store / "summaries", ignore_errors=True)
        for path in (self.store / "records" / "big").iterdir():
            os.utime(path, (time.time() - 3600,) * 2)

    def invoke(self, *words: str) -> Result:
        suite = str(self.folder / "big.toml")
        options = ["--store", str(self.store), "--device", "cpu"]
        return CliRunner().invoke(main, [*words, suite, *options], catch_exceptions=False)

    def opening(self, act: Callable[[], Result]) -> tuple[Result, Counter[str]]:
        """What it returns, and how often which kinds of file were opened for it, at most."""
        opened.clear()
        counting.append(str(self.store / "records"))
        try:
            result = act()
        finally:
            counting.clear()
        most: Counter[str] = Counter()
        for path, count in opened.items():
            kind = Path(path).suffix
            most[kind] = max(most[kind], count)
            most[f"{kind} files"] += 1
        return result, most


def fill(plan: Plan) -> dict[str, Record]:
    """Records of all cells, of which one is real and the others vary it."""
    real = execute(plan.cells[0], plan, quiet)
    folder, written = plan.store.records("big"), {}
    labels = {d: plan.pack.labels[plan.pack.rows(d, TEST)].int() for d in plan.pack.domain_names}
    alike: dict[tuple, Record] = {}
    for number, cell in enumerate(plan.cells):
        kind = (cell.method.name, cell.shift)
        about = alike.get(kind) or alike.setdefault(kind, describe(cell, plan))
        predicted = {d: labels[d].roll(number % 7) for d in cell.shift.sources + cell.shift.targets}
        content = packed(predicted)
        right = {d: float((labels[d] == predicted[d]).float().mean()) for d in predicted}
        scores = tuple(
            Score(domain=domain, role=role, accuracy=right[domain], per_class_mean=right[domain],
                  value=right[domain], n=len(labels[domain]))
            for role, domains in (("source", cell.shift.sources), ("target", cell.shift.targets))
            for domain in domains
        )  # fmt: skip
        (link,) = plan.links(cell)
        sha256 = hashlib.sha256(content).hexdigest()
        record = about.model_copy(
            update={
                **{n: getattr(real, n) for n in ("selection", "diagnostics", "cost")},
                "cell_id": plan.cell_id(cell),
                "draw": cell.draw,
                "seeds": about.seeds.model_copy(update={"train": cell.seed}),
                "scores": scores,
                "validators": real.validators.model_copy(update={"source_val": number % 11 / 11}),
                "artifacts": real.artifacts.model_copy(
                    update={"stages": (link.key,), "predictions_sha256": sha256}
                ),
            }
        )
        place = folder / record.file_name
        place.write_text(record.text())
        place.with_suffix(".safetensors").write_bytes(content)
        written[record.cell_id] = record
    return written


@pytest.fixture(scope="module")
def patch():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def big(tmp_path_factory, patch) -> Big:
    return Big(tmp_path_factory.mktemp("big"), SUITE, patch)


@pytest.fixture
def counts(monkeypatch) -> Counter[str]:
    """How often records are parsed, and names looked up in the catalog."""
    found: Counter[str] = Counter()
    parse, resolve = Measured.model_validate_json, Catalog.resolve

    def parsed(cls, *args):
        found["parsed"] += 1
        return parse.__func__(cls, *args)

    def resolved(*args):
        found["resolved"] += 1
        return resolve(*args)

    monkeypatch.setattr(Measured, "model_validate_json", classmethod(parsed))
    monkeypatch.setattr(Catalog, "resolve", resolved)
    return found


def test_status_opens_every_record_once_and_then_none(big, counts):
    big.settle()
    first, most = big.opening(lambda: big.invoke("status"))
    assert most == {".json": 1, ".json files": CELLS}
    again, most = big.opening(lambda: big.invoke("status"))
    assert first.stdout == again.stdout == f"big: {CELLS} cells: {CELLS} scored\n"
    assert most == {}
    assert counts["parsed"] == 0
    assert counts["resolved"] < 100 * METHODS, "not by cell"


def test_status_tells_why_a_cell_failed(big, counts):
    path = min((big.store / "records" / "big").glob("*.json"))
    text = path.read_text()
    record = read_record(path)
    other = record.model_copy(update={"status": "failed", "reason": "a reason", "artifacts": None})
    path.write_text(other.text())
    counts.clear()
    try:
        told = big.invoke("status").stdout.splitlines()
    finally:
        path.write_text(text)
    assert told == [
        f"big: {CELLS} cells: 1 failed, {CELLS - 1} scored",
        f"  {record.cell}: failed: a reason",
    ]
    assert counts["parsed"] == 1


@pytest.mark.parametrize("command", ["run", "leaderboard"])
def test_a_board_parses_every_record_once_and_then_none(big, counts, command):
    big.settle()
    result, most = big.opening(lambda: big.invoke(command))
    assert result.exit_code == 0
    assert most[".json"] <= (2 if command == "run" else 1)
    assert (most[".json files"], most[".safetensors files"]) == (CELLS, CELLS)
    assert most[".safetensors"] == 1
    assert counts["parsed"] == CELLS and counts["resolved"] < 50 * METHODS
    again, most = big.opening(lambda: big.invoke(command))
    assert again.stdout == result.stdout and most == {}
    table = [line for line in result.stdout.splitlines() if line.startswith("| ")]
    assert sum(f" m{n} " in line for line in table for n in range(METHODS)) >= METHODS


def test_a_board_of_what_was_drawn_reads_every_file_once(tmp_path, monkeypatch, counts):
    big = Big(tmp_path, TUNED, monkeypatch)
    assert len(big.records) == 5 * METHODS * 3 * SHIFTS
    counts.clear()
    result, most = big.opening(lambda: big.invoke("leaderboard"))
    assert result.exit_code == 0
    files = {kind: len(big.records) for kind in (".json files", ".safetensors files")}
    assert most == {".json": 1, ".safetensors": 1, **files}
    assert counts["parsed"] == len(big.records)


def test_what_is_worked_out_for_a_stage_is_not_worked_out_by_cell(big, monkeypatch):
    made: list[Settled] = []
    noted = lambda *args: made.append(Settled(*args)) or made[-1]  # noqa: E731
    monkeypatch.setattr("benchbench.suites.plan.Settled", noted)
    plan = big.plan()
    assert {plan.cell_id(cell) for cell in plan.cells} == big.records.keys()
    assert len(made) == METHODS


def test_gc_reads_every_record_once_and_keeps_what_they_need(big):
    plan = big.plan()
    stages = {link.key for cell in plan.cells[::97] for link in plan.links(cell)}
    for key in stages | {"f" * 64}:
        (big.store / "stages").mkdir(exist_ok=True)
        (big.store / "stages" / f"{key}.safetensors").write_bytes(b"x")
    found, most = big.opening(lambda: sorted_out(plan.store, 0, set()))
    assert [piece.key for piece in found.waste if piece.kind == "stages"] == ["f" * 64]
    assert most == {".json": 1, ".json files": CELLS}
