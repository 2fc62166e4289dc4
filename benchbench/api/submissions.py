"""Methods are submitted to a board, and submissions verified."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchbench.extension.errors import BadInput

if TYPE_CHECKING:
    from benchbench.extension.catalog import Wanted
    from benchbench.leaderboard.board_folder import Checked
    from benchbench.leaderboard.bundle import Manifest, Submission
    from benchbench.leaderboard.consistency import Finding
    from benchbench.leaderboard.verification import Check, Verdict
    from benchbench.store.records import Record
    from benchbench.suites.plan import Plan

from benchbench.api.opening import (
    Where,
    check_one_of,
    counting,
    data_place,
    opened,
    store_place,
    wanted_of,
)


@dataclass(frozen=True)
class Submitted:
    """A bundle that was written."""

    path: Path
    manifest: Manifest
    records: int
    size: int  # bytes
    signed: bool

    def __str__(self) -> str:
        return (
            f"{self.path}: {', '.join(self.manifest.methods)}; {self.records} records, "
            f"{self.size / 1e6:.1f} MB{', signed' if self.signed else ''}"
        )

    __repr__ = __str__


def submit(
    suite: Any,
    out: str | Path,
    *,
    methods: Sequence[str] = (),
    submitter: str | None = None,
    paper: str | None = None,
    code: str | None = None,
    encoders: bool = True,
    key: str | Path | None = None,
    store: Where = None,
    data: Where = None,
    device: str = "auto",
    plugins: Sequence[str | Path] = (),
    without_plugins: Sequence[str] = (),
    strict_plugins: bool = False,
    progress: bool = True,
) -> Submitted:
    """Pack methods of a suite for a board: records, predictions and encoders, in one tar file.

    ``methods`` are all that train something unless they are named. Every cell of theirs needs a
    record, of every seed; one that failed is told as it is. Without ``encoders`` the file is
    smaller, and nobody can re-probe it. ``key`` is the file of an SSH key, which signs the
    manifest by ssh-keygen. The file holds no host, no user and no path.

    BadInput if a cell has no record, or predictions or encoders are not in the store.
    """
    from benchbench.leaderboard.bundle import credited, narrowed, write_bundle

    credits, path = credited(submitter, paper, code), Path(out)
    wanted = wanted_of(plugins, without_plugins, strict_plugins)
    with opened(suite, store, data, device, wanted=wanted, progress=progress) as made:
        plan = made.plan
        names = tuple(methods) or tuple(m.name for m in plan.suite.methods() if m.chain)
        chosen = narrowed(plan.suite, names)
        records = recorded(plan, names)
        manifest = write_bundle(
            path,
            chosen,
            records,
            plan.store,
            credits,
            encoders=encoders,
            key=Path(key) if key is not None else None,
        )
    return Submitted(path, manifest, len(records), path.stat().st_size, key is not None)


def recorded(plan: Plan, methods: Sequence[str]) -> list[Record]:
    """The records of some methods. BadInput if one is missing, of whatever seed or shift."""
    cells = [cell for cell in plan.cells if cell.method.name in methods]
    found = [(cell, plan.record(cell)) for cell in cells]
    if missing := [cell for cell, record in found if record is None]:
        raise BadInput(
            f"{len(missing)} of {len(cells)} cells have no record, such as {missing[0]}; run the "
            "suite first, or choose other methods"
        )
    return [record for _, record in found if record is not None]


@dataclass(frozen=True)
class Verified:
    """How far the claims of a bundle hold, and what a board took of it."""

    verdict: Verdict
    taken: int | None  # records that are new to the board; None: it was not accepted, or not asked

    def __str__(self) -> str:
        return self.verdict.text().removesuffix("\n")

    __repr__ = __str__


def verify(
    bundle: str | Path,
    *,
    board: str | Path | None = None,
    level: Checked = "consistent",
    allowed_signers: str | Path | None = None,
    seed: int | None = None,
    into: str | Path | None = None,
    store: Where = None,
    data: Where = None,
    device: str = "auto",
    plugins: Sequence[str | Path] = (),
    without_plugins: Sequence[str] = (),
    strict_plugins: bool = False,
    progress: bool = True,
) -> Verified:
    """Find out how far the claims of a bundle hold, by comparison with a ``board``'s folder.

    The levels "claimed", "consistent", "re-probed" and "reproduced" are those of
    ``benchbench verify --help``: the first two load no plugin and run nothing of the bundle's, and
    the last two run what it names. ``seed`` is that of "reproduced", the one after those submitted
    unless it is said. ``allowed_signers`` is a file as in ssh-keygen(1). What is accepted is added
    to the board ``into``.

    A malformed bundle has a verdict without level. BadInput if there is no such file, or something
    is missing that a check needs, such as the board.
    """
    from benchbench.leaderboard.bundle import Malformed, submission_of
    from benchbench.leaderboard.bundle import opened as unpacked
    from benchbench.leaderboard.consistency import Board
    from benchbench.leaderboard.verification import LEVELS, Verdict, take_in, verdict_on

    check_one_of("level", level, LEVELS)
    signers = Path(allowed_signers) if allowed_signers is not None else None
    if signers and not signers.exists():
        raise BadInput(f"there is no file {signers}, which should say whose signatures count")
    taken = None
    known = Board.read(Path(board)) if board is not None else None
    wanted = wanted_of(plugins, without_plugins, strict_plugins)
    further = _checks_with_plugins(seed, store, data, device, wanted, progress)
    try:
        with unpacked(Path(bundle)) as archive:
            submission = submission_of(archive)
            verdict = verdict_on(submission, known, level, signers=signers, further=further)
            if into is not None and not verdict.status:
                taken = take_in(submission, verdict, Path(into))
    except Malformed as error:
        verdict = Verdict(level, None, problems=(str(error),))
    return Verified(verdict, taken)


def _checks_with_plugins(
    seed: int | None, store: Where, data: Where, device: str, wanted: Wanted, progress: bool
) -> Mapping[Checked, Check]:
    """What the upper levels do; plugins are loaded when one of them is asked for."""

    def plan_of(submission: Submission) -> Plan:
        from benchbench.extension.catalog import load
        from benchbench.leaderboard.reproduction import plan_for
        from benchbench.store.artifacts import Store

        home, report = store_place(store).absolute(), counting("decoding", "image", progress)
        return plan_for(submission, load(wanted), data_place(data), Store(home), device, report)

    def probe(submission: Submission) -> Iterator[Finding]:
        from benchbench.leaderboard.reproduction import reprobed

        return reprobed(submission, plan_of(submission))

    def train(submission: Submission) -> Iterator[Finding]:
        from benchbench.execution.progress import Progress, Silence
        from benchbench.leaderboard.reproduction import reproduced

        audience = Progress if progress else lambda cells: Silence()
        return reproduced(submission, plan_of(submission), seed, audience)

    return {"re-probed": probe, "reproduced": train}
