"""Stores of machines that share no folder: one file leaves, the other takes it in."""

import hashlib
import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from benchbench.extension.errors import BadInput
from benchbench.store.artifacts import Store
from benchbench.store.atomic_files import writing
from benchbench.store.records import record_of, why_none

ARTIFACT = re.compile(r"(stages|snapshots|diverged)/([0-9a-f]{64})\.safetensors")
RECORD = re.compile(
    r"records/[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9.-]+--[0-9]+--[0-9a-f]{12}\.json"
)


@dataclass
class Taken:
    """How much was new, and what could not be used."""

    records: int = 0
    stages: int = 0  # with their snapshots
    known: int = 0
    refused: tuple[str, ...] = ()


def everything(store: Store, *, records_only: bool) -> list[Path]:
    """What leaves a store: records with their predictions, and stages with their snapshots."""
    kinds = ("records",) if records_only else ("records", "diverged", "snapshots", "stages")
    return [p for kind in kinds for p in sorted((store.root / kind).rglob("*")) if wanted(p)]


def export_files(store: Store, archive: Path, files: Sequence[Path]) -> None:
    """Some files of the store as a tar file, complete or not at all; BadInput if there are none."""
    if not files:
        raise BadInput(f"store {store.root} has nothing to export yet")
    partial = archive.with_name(archive.name + ".part")
    with writing(f"store {archive.parent}"):
        try:
            with tarfile.open(partial, "w") as tar:
                for path in files:
                    tar.add(path, path.relative_to(store.root).as_posix(), filter=anonymous)
            partial.replace(archive)
        finally:
            partial.unlink(missing_ok=True)


def wanted(path: Path) -> bool:
    return path.is_file() and path.suffix in (".json", ".safetensors")


def anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Of the same content the same archive, whoever made it and when."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime, member.mode = 0, 0o644
    return member


def import_store(store: Store, archive: Path) -> Taken:
    """Keep what is new and intact. BadInput if the file is no archive of a store.

    What the store has stays as it is, but for a record without score where the archive has one.
    """
    store.check()
    taken = Taken()
    try:
        with tarfile.open(archive, "r:") as tar:
            members = {member.name: member for member in tar if member.isfile()}
            for name in members:
                take(store, tar, members, name, taken)
    except (OSError, tarfile.TarError) as error:
        raise BadInput(f"{archive} cannot be read as an archive of a store: {error}") from None
    return taken


def take(
    store: Store,
    tar: tarfile.TarFile,
    members: dict[str, tarfile.TarInfo],
    name: str,
    taken: Taken,
) -> None:
    artifact = ARTIFACT.fullmatch(name)
    if artifact:
        if store.has(artifact[1], artifact[2]):
            taken.known += 1
        elif store.take_in(artifact[1], artifact[2], file_of(tar, members[name])):
            taken.stages += 1
        else:
            taken.refused += (f"{name} is damaged",)
    elif RECORD.fullmatch(name):
        try:
            record = record_of(content_of(tar, members[name]))
        except ValueError as error:
            taken.refused += (f"{name} is no record: {why_none(error)}",)
            return
        place = PurePosixPath(name)
        beside = place.with_suffix(".safetensors").as_posix()
        predictions = content_of(tar, members[beside]) if beside in members else None
        if (record.suite, record.file_name) != (place.parent.name, place.name):
            taken.refused += (f"{name} is a record of something else",)
        elif record.artifacts and record.artifacts.predictions_sha256 != sha256(predictions):
            taken.refused += (f"{name} has other predictions than it says",)
        elif record.status != "scored" and store.record(record.suite, place.stem):
            taken.known += 1
        elif store.write_record(record, predictions):
            taken.records += 1
        else:
            taken.known += 1
    elif not (name.startswith("records/") and name.endswith(".safetensors")):
        taken.refused += (f"{name} is nothing that a store exports",)


def sha256(content: bytes | None) -> str:
    return hashlib.sha256(content or b"").hexdigest()


def content_of(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    return file_of(tar, member).read()


def file_of(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    file = tar.extractfile(member)
    assert file is not None, "only files are asked for"
    return file
