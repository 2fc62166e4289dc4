"""The board of a store, and what it becomes as a folder."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from benchbench.execution.cell import describe
from benchbench.extension.catalog import source_digest
from benchbench.extension.constants import Rule
from benchbench.extension.errors import BadInput
from benchbench.leaderboard.board_folder import (
    CURVES,
    LEVEL_OF,
    LEVELS,
    STALE,
    Source,
    expected_by,
    of_folder,
    read_if_there,
    read_predictions,
)
from benchbench.leaderboard.consistency import wrong_scores
from benchbench.leaderboard.model_card import card
from benchbench.leaderboard.page import Evidence, page, picture_files
from benchbench.leaderboard.table import board, checked_board
from benchbench.leaderboard.table_formats import as_csv, as_json, latex, markdown, render
from benchbench.leaderboard.true_labels import NAME, Truth
from benchbench.store.artifacts import State
from benchbench.store.atomic_files import NOTHING, drafted, place, writing
from benchbench.store.records import Record, nothing_collected, read_record
from benchbench.suites.plan import Plan
from benchbench.suites.suite import Suite

BELOW = "<!-- What follows is written by `benchbench publish`. -->"
POINTS = 64  # of a learning curve
PARTS = ("records", "site", "cards")  # the folders of a board


def of_plan(plan: Plan) -> Source:
    """Of what a store has of a suite, with what is stale in place of what is missing."""
    records, stale = [], {}
    older = plan.older_records()
    for cell, record in zip(plan.cells, plan.records(), strict=True):
        if record:
            records.append(record)
        elif old := older.get(cell):
            records.append(old)
            stale[old.cell_id] = "; ".join(differences(old, describe(cell, plan)))
    folder = plan.store.records(plan.suite.name)
    return Source(
        plan.suite.name,
        expected_by(plan.suite, plan.suite.ranked_shifts(plan.cells)),
        tuple(records),
        stale,
        Truth.of(plan.pack),
        lambda record: read_predictions(folder / record.file_name, record),
    )


def board_of_plan(
    plan: Plan,
    state: State,
    form: str = "markdown",
    columns: Sequence[str] = (),
    rule: Rule | None = None,
) -> str:
    """The board of a store as text; where nothing has changed, as it was told before.

    BadInput if predictions are damaged.
    """
    cells = "\n".join(plan.stems).encode()
    follows_from = {
        "suite": plan.suite.model_dump_json(),
        "cells": hashlib.sha256(cells).hexdigest(),
        "code": source_digest("benchbench"),
        "versions": [version("numpy"), version("scipy")],
    }

    def told() -> str:
        source = of_plan(plan)
        if rule:
            source = replace(source, expected=replace(source.expected, rule=rule))
        return render(checked_board(source, columns), form)

    name = f"board of {plan.suite.name} as {form}, {', '.join(columns)}, {rule}"
    with nothing_collected():
        return plan.store.recalled(name, follows_from, state, told)


def differences(old: Record, today: Record) -> list[str]:
    """Why a record is not what a run of its cell would be today."""
    mine, its = ({p.name: p.digest for p in r.plugins if p.used} for r in (today, old))
    said = [
        (old.protocol != today.protocol, f"protocol {old.protocol}"),
        (old.data.fingerprint != today.data.fingerprint, "other data"),
        (old.spec != today.spec, "other settings"),
        (old.seeds != today.seeds, "other seeds of the split or of the draws"),
    ]
    changed = sorted(name for name, digest in mine.items() if its.get(name) != digest)
    said.append((bool(changed), f"other code of plugin {', '.join(changed)}"))
    found = [words for differs, words in said if differs]
    return found or ["other versions of torch or timm, or other snapshots"]


def publish(plan: Plan, suite_text: str, folder: Path) -> Source:
    """Write the board of a store into a folder; what others have sent to it stays.

    BadInput if nothing was scored yet, or the folder is of another suite or cannot be written.
    """
    source = of_plan(plan)
    if not source.records:
        raise BadInput(f"nothing of suite {plan.suite.name} was run yet; `benchbench run` does it")
    theirs = plan.store.records(plan.suite.name)
    mine: set[str] = set()
    if wrong := contradictions(source, theirs):
        raise refused(wrong)
    what = f"board {folder}"
    with drafted(folder, PARTS, what) as draft:
        keep_suite(plan.suite, suite_text, draft)
        sent = read_if_there(draft / LEVELS, LEVEL_OF)
        records = draft / "records"
        with writing(what):
            for record in source.records:
                beside = Path(record.file_name).with_suffix(".safetensors")
                mine |= {record.file_name, str(beside)}
                place(records / record.file_name, record.text().encode())
                if (theirs / beside).exists():
                    place(records / beside, (theirs / beside).read_bytes())
            for path in sorted(records.glob("*.json")):
                if path.name not in mine and read_record(path).method not in sent:
                    path.with_suffix(".safetensors").unlink(missing_ok=True)
                    path.unlink()
            place(draft / NAME, truth_of(plan, source).content())
            place(draft / STALE, told(source.stale))
            place(draft / CURVES, told(curves_of(plan, source)))
        write_generated(draft, what)
    return of_folder(folder)


def regenerate(folder: Path) -> None:
    """Write what follows from a folder's records.

    BadInput, with nothing written, if it cannot be, or a record has other scores than its
    predictions give.
    """
    with drafted(folder, PARTS, f"board {folder}") as draft:
        write_generated(draft, f"board {folder}")


def write_generated(draft: Path, what: str) -> None:
    if wrong := contradictions(of_folder(draft), draft / "records"):
        raise refused(wrong)
    with writing(what):
        for name, text in generated(draft).items():
            place(draft / name, text.encode())


def refused(wrong: Sequence[str]) -> BadInput:
    more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
    return BadInput(f"{wrong[0]}{more}; {NOTHING}")


def contradictions(source: Source, folder: Path) -> list[str]:
    """Where records in a folder, their predictions and the labels of test rows do not agree."""
    found: list[str] = []
    for record in source.records:
        truth = source.truth
        try:
            predictions = source.predictions(record)
        except BadInput as error:
            found.append(str(error))
            continue
        if predictions and truth is not None and truth.fingerprint == record.data.fingerprint:
            wrong = wrong_scores(record, predictions, truth)
            found += [f"{folder / record.file_name}: {text}" for text in wrong]
    return found


def generated(folder: Path) -> dict[str, str]:
    """The files of a board that are a function of the others, by name."""
    made = board(of_folder(folder))
    readme, above = folder / "README.md", f"# {made.source.name}\n\n"
    if readme.exists():
        above, mark, _ = readme.read_text(encoding="utf-8").partition(BELOW)
        if not mark:
            raise BadInput(
                f"{readme} has no line {BELOW!r}, below which tables would be written; add it"
            )
    named = Evidence.of(made).anchors
    cards = {
        f"cards/{named[row.group, row.method]}.md": card(made, row.method)
        for row in made.rows
        if row.complete and row.group == "method"
    }
    pictures = {f"site/{name}": svg for name, svg in picture_files(made).items()}
    return {
        "README.md": f"{above}{BELOW}\n\n{markdown(made)}",
        "board.csv": as_csv(made),
        "board.json": as_json(made),
        "board.tex": latex(made),
        "site/index.html": page(made),
        **pictures,
        **cards,
    }


def keep_suite(suite: Suite, text: str, folder: Path) -> None:
    """Copy the suite into the folder, unless it is there. BadInput if another is."""
    path = folder / "suite.toml"
    if path.exists():
        if Suite.read(str(path)) != suite:
            raise BadInput(
                f"{path} is another suite than the one that is published; remove it, or "
                "publish into another folder"
            )
        return
    with writing(f"board {folder}"):
        place(path, text.encode())
    try:
        same = Suite.read(str(path)) == suite
    except BadInput:
        same = False
    if not same:
        path.unlink()
        raise BadInput(
            f"the suite extends a file, and would mean something else in {folder}; "
            f"put one of the same meaning at {path} first"
        )


def truth_of(plan: Plan, source: Source) -> Truth:
    """Of the domains that some record predicts."""
    truth = Truth.of(plan.pack)
    used = {d for r in source.records for d in (*r.data.sources, *r.data.targets)}
    return truth.of_domains(used)


def curves_of(plan: Plan, source: Source) -> dict[str, list[float]]:
    """Losses of every stage of a record, by its key, averaged to a few points."""
    keys = {key for record in source.records if record.artifacts for key in record.artifacts.stages}
    kept = {key: plan.store.read("stages", key) for key in sorted(keys)}
    return {key: thinned(stage.note["losses"]) for key, stage in kept.items() if stage}


def thinned(losses: Sequence[float]) -> list[float]:
    count = min(POINTS, len(losses))
    ends = [len(losses) * part // count for part in range(count + 1)] if count else [0]
    return [float(f"{fmean(losses[a:b]):.4g}") for a, b in pairwise(ends)]


def told(fields: Mapping[str, Any]) -> bytes:
    return (json.dumps(fields, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
