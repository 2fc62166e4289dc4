"""Whether what a bundle claims holds, in levels: each one asks more than the one before.

*claimed*: the file is safe, and says what a bundle says. *consistent*: hashes, the board's suite,
all of its seeds, and every score, computed again from the predictions. Neither loads a plugin.
*re-probed* and *reproduced* build and run what the bundle names: see
`benchbench.leaderboard.reproduction`. Labels of test rows are public, so only those two tell
anything of predictions that were made up.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryDirectory

from benchbench.extension.errors import BadInput
from benchbench.leaderboard import board_folder
from benchbench.leaderboard.board_folder import LEVEL_OF, Checked, read_if_there
from benchbench.leaderboard.bundle import MANIFEST, NAMESPACE, SIGNATURE, Submission, ssh_keygen
from benchbench.leaderboard.consistency import Board, Finding, inconsistencies
from benchbench.store.atomic_files import place, place_new
from benchbench.store.records import read_records

LEVELS: tuple[Checked, ...] = ("claimed", "consistent", "re-probed", "reproduced")
Check = Callable[[Submission], Iterable[Finding]]


@dataclass(frozen=True)
class Verdict:
    """How far a bundle can be trusted."""

    asked: Checked
    level: Checked | None  # reached; None if the file is malformed
    methods: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # by method
    notes: tuple[str, ...] = ()
    signer: str | None = None

    @property
    def status(self) -> int:
        """Of the command: 0 accepted, 1 refused, 2 malformed."""
        return 2 if self.level is None else int(self.level != self.asked)

    def text(self) -> str:
        outcome = ("accepted", "refused", "malformed")[self.status]
        lines = [f"{outcome}: asked for {self.asked}, reached {self.level or 'nothing'}"]
        if self.methods:
            lines.append(f"methods: {', '.join(self.methods)}")
        lines += [f"signed by {self.signer}"] if self.signer else []
        lines += [f"note: {text}" for text in self.notes]
        lines += [f"flag: {m}: {text}" for m, texts in self.flags.items() for text in texts]
        lines += [f"problem: {text}" for text in self.problems[:20]]
        if len(self.problems) > 20:
            lines.append(f"and {len(self.problems) - 20} problems more")
        return "\n".join(lines) + "\n"

    def json(self) -> str:
        return json.dumps(asdict(self), indent=1) + "\n"


def verdict_on(
    submission: Submission,
    board: Board | None,
    level: Checked,
    *,
    signers: Path | None = None,
    further: Mapping[Checked, Check] | None = None,
) -> Verdict:
    """Climb the levels up to ``level``, or to the first with a problem.

    ``signers`` is a file of ssh-keygen's allowed signers, ``further`` has the levels that need
    plugins. BadInput if something is missing that a check needs.
    """
    reached: Checked = "claimed"
    findings: list[Finding] = []
    signer: str | None = None
    for step in LEVELS[1 : LEVELS.index(level) + 1]:
        if step == "consistent":
            if board is None:
                raise BadInput(f"level {level} needs a board to compare with: --board DIR")
            found = inconsistencies(submission, board)
            signer, said = signer_of(submission, signers)
            found += said
        else:
            found = list((further or {})[step](submission))
        findings += found
        if any(finding.kind == "problem" for finding in found):
            break
        reached = step
    return Verdict(
        level,
        reached,
        submission.manifest.methods,
        tuple(f.text for f in findings if f.kind == "problem"),
        {
            method: tuple(f.text for f in mine)
            for method, mine in groupby(
                sorted((f for f in findings if f.kind == "flag"), key=lambda f: f.method),
                key=lambda f: f.method,
            )
        },
        tuple(f.text for f in findings if f.kind == "note"),
        signer,
    )


def signer_of(submission: Submission, signers: Path | None) -> tuple[str | None, list[Finding]]:
    """Who signed the manifest, of those that ``signers`` allows; and what there is to say."""
    bundle = submission.bundle
    if SIGNATURE not in bundle.places:
        return None, [Finding("problem" if signers else "note", "it is not signed")]
    if signers is None:
        return None, [Finding("note", "its signature was not checked: --allowed-signers says how")]
    said = bundle.read(MANIFEST)
    with TemporaryDirectory() as scratch:  # ssh-keygen reads signatures from files
        file = Path(scratch) / SIGNATURE
        file.write_bytes(bundle.read(SIGNATURE))
        where = ("-f", str(signers), "-s", str(file))
        found = ssh_keygen("-Y", "find-principals", *where, said=b"")
        who = found.stdout.decode(errors="replace").partition("\n")[0].strip()
        if found.returncode or not who:
            return None, [Finding("problem", f"it is signed by nobody whom {signers} allows")]
        done = ssh_keygen("-Y", "verify", "-n", NAMESPACE, "-I", who, *where, said=said)
    if done.returncode:
        return None, [Finding("problem", f"its signature is not one of {who} on this {MANIFEST}")]
    return who, []


def take_in(submission: Submission, verdict: Verdict, folder: Path) -> int:
    """Add the records and predictions of an accepted bundle to a board; how many records are new.

    Nothing that is there is replaced. BadInput, with nothing written, if the board has other
    records of the methods, or the verdict does not say that the bundle is consistent.
    """
    if verdict.status or verdict.level in (None, "claimed"):
        raise BadInput("only what is accepted at level consistent or above is taken in")
    if not (folder / "suite.toml").is_file():
        raise BadInput(f"{folder} is no board: it has no suite.toml")
    records = folder / "records"
    new = _new_files(submission, records)
    placed: list[Path] = []
    try:
        records.mkdir(parents=True, exist_ok=True)
        for name in sorted(new, key=lambda name: name.endswith(".json")):  # predictions first
            path = folder / name
            place_new(path, _content(submission, name))
            placed.append(path)
        _note_levels(submission, verdict, folder / board_folder.LEVELS)
    except OSError as error:
        for path in placed:
            path.unlink(missing_ok=True)
        raise BadInput(f"{folder} cannot be written: {error.strerror}") from None
    return sum(path.suffix == ".json" for path in placed)


def _new_files(submission: Submission, records: Path) -> list[str]:
    """The bundle's records and predictions that the folder has not."""
    wanted = [name for name in submission.manifest.files if name.startswith("records/")]
    mine = {Path(name).name for name in submission.records}
    for record in read_records(records):
        if record.method in submission.manifest.methods and record.file_name not in mine:
            raise BadInput(
                f"{records} has other records of {record.method}; give the method another name"
            )
    for name in wanted:
        path = records.parent / name
        if path.exists() and path.read_bytes() != _content(submission, name):
            raise BadInput(f"{path} is there already, with other content; nothing was taken in")
    return [name for name in wanted if not (records.parent / name).exists()]


def _content(submission: Submission, name: str) -> bytes:
    """Of a record what was read of it, whatever else its file may hold."""
    record = submission.records.get(name)
    return record.text().encode() if record else submission.bundle.read(name)


def _note_levels(submission: Submission, verdict: Verdict, path: Path) -> None:
    """Say of every method which level it reached; the highest that it ever did."""
    levels = read_if_there(path, LEVEL_OF)
    manifest = submission.manifest
    assert verdict.level is not None, "only what was accepted is noted"
    for method in manifest.methods:
        before = levels[method].level if method in levels else verdict.level
        levels[method] = board_folder.Level(
            level=max(before, verdict.level, key=LEVELS.index),
            flags=verdict.flags.get(method, ()),
            submitter=manifest.submitter or "",
            paper=manifest.paper or "",
            code=manifest.code or "",
            benchbench=version("benchbench-shift"),
        )
    said = {method: level.model_dump(mode="json") for method, level in levels.items()}
    place(path, (json.dumps(said, indent=1, sort_keys=True) + "\n").encode())
