"""A board as a folder: what it is made of, and all that follows from it."""

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from benchbench.board.site import page
from benchbench.board.sources import (
    CURVES,
    LEVEL_OF,
    LEVELS,
    STALE,
    Source,
    of_folder,
    of_plan,
    read_if_there,
)
from benchbench.board.table import board
from benchbench.board.text import as_csv, as_json, latex, markdown
from benchbench.board.truth import NAME, Truth
from benchbench.disk import place, writing
from benchbench.suite import Suite
from benchbench.terms import BadInput

if TYPE_CHECKING:
    from benchbench.plan import Plan

BELOW = "<!-- What follows is written by `benchbench publish`. -->"
POINTS = 64  # of a learning curve


def publish(plan: "Plan", suite_text: str, folder: Path) -> Source:
    """Write the board of a store into a folder; what others have sent to it stays.

    BadInput if nothing was scored yet, or the folder is of another suite or cannot be written.
    """
    source = of_plan(plan)
    if not source.records:
        raise BadInput(f"nothing of suite {plan.suite.name} was run yet; `benchbench run` does it")
    keep_suite(plan.suite, suite_text, folder)
    sent = read_if_there(folder / LEVELS, LEVEL_OF)
    records, theirs = folder / "records", plan.store.records(plan.suite.name)
    mine: set[str] = set()
    with writing(f"board {folder}"):
        for record in source.records:
            beside = Path(record.file_name).with_suffix(".safetensors")
            mine |= {record.file_name, str(beside)}
            place(records / record.file_name, record.text().encode())
            if (theirs / beside).exists():
                place(records / beside, (theirs / beside).read_bytes())
        for path in [*records.iterdir()]:
            method = json.loads(path.with_suffix(".json").read_text())["method"]
            if path.name not in mine and method not in sent:
                path.unlink()
        place(folder / NAME, truth_of(plan, source).content())
        place(folder / STALE, told(source.stale))
        place(folder / CURVES, told(curves_of(plan, source)))
    regenerate(folder)
    return of_folder(folder)


def regenerate(folder: Path) -> None:
    """Write what follows from a folder's records. BadInput if it cannot be written."""
    with writing(f"board {folder}"):
        for name, text in generated(folder).items():
            place(folder / name, text.encode())


def generated(folder: Path) -> dict[str, str]:
    """The files of a board that are a function of the others, by name."""
    made = board(of_folder(folder))
    readme = folder / "README.md"
    above = (
        readme.read_text(encoding="utf-8").partition(BELOW)[0]
        if readme.exists()
        else (f"# {made.source.name}\n\n")
    )
    return {
        "README.md": f"{above}{BELOW}\n\n{markdown(made)}",
        "board.csv": as_csv(made),
        "board.json": as_json(made),
        "board.tex": latex(made),
        "site/index.html": page(made),
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


def truth_of(plan: "Plan", source: Source) -> Truth:
    """Of the domains that some record predicts."""
    truth = Truth.of(plan.pack)
    used = {d for r in source.records for d in (*r.data.sources, *r.data.targets)}
    return truth.of_domains(used)


def curves_of(plan: "Plan", source: Source) -> dict[str, list[float]]:
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
