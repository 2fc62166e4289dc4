"""Stores are measured, checked, cleaned, and moved to other machines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchbench.extension.errors import BadInput

if TYPE_CHECKING:
    from benchbench.execution.store_cleanup import Piece

from benchbench.api.opening import (
    Where,
    chosen_cells,
    counting,
    opened,
    store_place,
    wanted_of,
)

WEEK = 7 * 24 * 3600.0  # seconds


@dataclass(frozen=True)
class Inspection:
    """What a check has found; printed, a sentence a line."""

    faults: tuple[str, ...]
    notes: tuple[str, ...]  # which are no faults
    conclusion: str  # where there are no faults

    def __str__(self) -> str:
        end = () if self.faults else (self.conclusion,)
        return "\n".join([*self.faults, *self.notes, *end])

    __repr__ = __str__


@dataclass(frozen=True)
class StoreSizes:
    """What a store holds; printed, a table with the largest kind first."""

    kinds: Mapping[str, tuple[int, int]]  # files and bytes

    def __str__(self) -> str:
        from tabulate import tabulate

        from benchbench.execution.store_cleanup import KINDS
        from benchbench.suites.cost import sized

        words = {**KINDS, "records": "scores, with predictions", "claims": "who works on what"}
        found = sorted(self.kinds.items(), key=lambda pair: -pair[1][1])
        rows = [[kind, n, sized(size), words.get(kind, "")] for kind, (n, size) in found]
        whole = [sum(told[part] for _, told in found) for part in (0, 1)]
        rows.append(["all", whole[0], sized(whole[1]), ""])
        form = ("left", "right", "right", "left")
        return tabulate(rows, ["kind", "files", "size", ""], "github", intfmt=",", colalign=form)

    __repr__ = __str__


def store_list(store: Where = None) -> StoreSizes:
    """How many files and bytes a store has of every kind. BadInput if there is no such store."""
    from benchbench.execution.store_cleanup import existing, sizes

    return StoreSizes(sizes(existing(store_place(store))))


def store_verify(
    store: Where = None,
    *,
    set_aside: bool = False,
    tell: Callable[[str], None] | None = None,
    progress: bool = True,
) -> Inspection:
    """Read all that a store holds, and compare artifacts and predictions with their sha256.

    With ``set_aside`` damaged artifacts are moved aside, so that they are made anew when they are
    needed; records and predictions stay. ``tell`` gets each fault when it is found. The pixels of
    datasets are checked by `data_verify`.

    BadInput if there is no such store.
    """
    from benchbench.execution.store_cleanup import existing, faults

    place = store_place(store)
    found = []
    for fault in faults(existing(place), counting("reading", "B", progress), set_aside=set_aside):
        found.append(fault)
        if tell:
            tell(fault)
    return Inspection(tuple(found), (), f"store {place} is as it was written")


@dataclass(frozen=True)
class Cleaned:
    """Files that no record needs; printed, how many there are of what."""

    store: Path
    dry_run: bool
    waste: tuple[Piece, ...]  # what was removed, or would be
    young: tuple[Piece, ...]  # left, as a suite may be about to need it
    busy: tuple[Piece, ...]  # left, as a living process may be

    def __str__(self) -> str:
        kinds = dict.fromkeys(piece.kind for piece in self.waste)
        lines = [f"{kind}: {_told([p for p in self.waste if p.kind == kind])}" for kind in kinds]
        verb = "would go" if self.dry_run else "removed"
        lines.append(f"{verb}: {_told(self.waste)}, of store {self.store}")
        if self.young:
            lines.append(f"left, as younger than --older-than: {_told(self.young)}")
        if self.busy:
            lines.append(f"left, as a process is at work: {_told(self.busy)}")
        return "\n".join(lines)

    __repr__ = __str__


def store_clean(store: Where = None, *, older_than: float = WEEK, dry_run: bool = False) -> Cleaned:
    """Remove stages, snapshots, features, diagnostics and checkpoints that no record needs.

    What was written in the last ``older_than`` seconds stays, and so do records, predictions, and
    what a living process works on: see ``benchbench store gc --help``. With ``dry_run`` nothing is
    removed. Whenever it is stopped, all that records need is there.

    BadInput if there is no such store, a record cannot be read, or a file not removed.
    """
    from benchbench.execution.store_cleanup import clean, existing, sorted_out

    place = store_place(store)
    kept = existing(place)
    if dry_run:
        living = {key for key, sign in kept.claims.signs().items() if not sign.lost}
        found = sorted_out(kept, older_than, living)
    else:
        found = clean(kept, older_than)
    return Cleaned(place, dry_run, tuple(found.waste), tuple(found.young), tuple(found.busy))


@dataclass(frozen=True)
class StoreExported:
    """An archive of a store."""

    archive: Path
    files: int
    size: int  # bytes

    def __str__(self) -> str:
        from benchbench.suites.cost import sized

        return f"{self.archive}: {self.files:,} files, {sized(self.size)}"

    __repr__ = __str__


def store_export(
    archive: str | Path,
    *,
    suite: Any = None,
    only: str = "",
    records_only: bool = False,
    store: Where = None,
    data: Where = None,
    device: str = "auto",
    plugins: Sequence[str | Path] = (),
    without_plugins: Sequence[str] = (),
    strict_plugins: bool = False,
    progress: bool = True,
) -> StoreExported:
    """Put what a store has finished into a tar file, for `store_import` on another machine.

    These are records with their predictions and, unless ``records_only``, the trained stages. With
    a ``suite`` only the files of its cells are taken, or of those that ``only`` chooses: both are
    as in `run`. Only then ``data``, ``device`` and plugins are used.

    BadInput if there is no such store, or it has nothing to export.
    """
    from benchbench.execution.store_cleanup import existing, files_of
    from benchbench.store.merge import everything, export_files

    if only and suite is None:
        raise BadInput("only the cells of a suite can be chosen among; say which suite, too")
    place, target = store_place(store).absolute(), Path(archive)
    kept = existing(place)
    if suite is None:
        files = everything(kept, records_only=records_only)
    else:
        wanted = wanted_of(plugins, without_plugins, strict_plugins)
        with opened(suite, place, data, device, wanted=wanted, progress=progress) as made:
            cells = chosen_cells(made.plan, only)
            files = files_of(made.plan, cells, records_only=records_only)
    export_files(kept, target, files)
    return StoreExported(target, len(files), target.stat().st_size)


@dataclass(frozen=True)
class StoreImported:
    """What came out of an archive of a store."""

    archive: Path
    records: int  # that are new
    stages: int  # likewise, with their snapshots
    known: int  # files that were there
    refused: tuple[str, ...]  # a reason for each file that was left out

    def __str__(self) -> str:
        return (
            f"{self.archive}: {self.records} records and {self.stages} stages are new, "
            f"{self.known} were here"
        )

    __repr__ = __str__


def store_import(archive: str | Path, *, store: Where = None) -> StoreImported:
    """Take in what `store_export` wrote. What the store has is neither replaced nor done again.

    What is damaged is left out. BadInput if the file is no archive of a store.
    """
    from benchbench.store.artifacts import Store
    from benchbench.store.merge import import_store

    taken = import_store(Store(store_place(store)), Path(archive))
    return StoreImported(Path(archive), taken.records, taken.stages, taken.known, taken.refused)


def _told(pieces: Sequence[Piece]) -> str:
    from benchbench.suites.cost import sized

    return f"{len(pieces):,} files, {sized(sum(piece.size for piece in pieces))}"
