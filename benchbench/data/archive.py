"""The one way in which an archive that somebody made is unpacked."""

import gzip
import posixpath
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchbench.extension.errors import BadInput

MOST_FILES = 5_000_000
MOST_GROWTH, FREELY = 100, 10 << 20  # times its own size, and bytes that are always granted
CHUNK = 1 << 20  # bytes


@dataclass(frozen=True)
class Member:
    """What an archive says of something in it."""

    name: str
    size: int  # bytes, unpacked
    folder: bool
    oddity: str = ""  # what it is, if it is neither file nor folder


def extract(archive: Path, folder: Path) -> None:
    """A zip, a tar or a compressed file, into ``folder`` and nowhere else.

    BadInput, before anything is written, if a member would lie elsewhere or twice in one place, is
    a link or a device, or if there is suspiciously much of it; or if the archive is broken.
    """
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                check(archive, folder, map(of_zip, zipped.infolist()))
                zipped.extractall(folder)  # noqa: S202  all of it was checked
        elif tarfile.is_tarfile(archive):
            with tarfile.open(archive) as tarred:
                check(archive, folder, map(of_tar, tarred))
                tarred.extractall(folder, filter="data")
        else:
            expand(archive, folder)
    except (OSError, EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error) as error:
        raise BadInput(f"{archive} cannot be unpacked: {error}") from None
    except (RuntimeError, NotImplementedError, ValueError) as error:  # as zipfile and tarfile raise
        raise BadInput(f"{archive} cannot be unpacked: {error}") from None


def of_zip(info: zipfile.ZipInfo) -> Member:
    kind = stat.S_IFMT(info.external_attr >> 16)
    odd = kind not in (0, stat.S_IFREG, stat.S_IFDIR)
    return Member(info.filename, info.file_size, info.is_dir(), "a link or device" if odd else "")


def of_tar(info: tarfile.TarInfo) -> Member:
    plain = info.isreg() or info.isdir()
    return Member(info.name, info.size, info.isdir(), "" if plain else "a link or device")


def check(archive: Path, folder: Path, members: Iterable[Member]) -> None:
    """BadInput at the first member that is not as it should be; later ones are not looked at."""
    most, total, seen = room_for(archive, folder), 0, set()
    for count, member in enumerate(members, 1):
        for fault in faults(member):
            raise BadInput(f"{archive} is not unpacked: {member.name!r} in it {fault}")
        place = posixpath.normpath(member.name)
        if place in seen and not member.folder:
            raise BadInput(f"{archive} is not unpacked: {member.name!r} is in it twice")
        seen.add(place)
        total += member.size
        if count > MOST_FILES or total > most:
            raise BadInput(
                f"{archive} is not unpacked: it would be more than {most:,} bytes or "
                f"{MOST_FILES:,} files"
            )


def faults(member: Member) -> Iterator[str]:
    """Why something cannot be unpacked."""
    parts = member.name.removesuffix("/").split("/")
    if member.oddity:
        yield f"is {member.oddity}"
    if member.size < 0:
        yield "has no size"
    if ".." in parts or not parts[0] or re.search(r"^[A-Za-z]:|[\\\0]", member.name):
        yield "would lie elsewhere"


def room_for(archive: Path, folder: Path) -> int:
    """The bytes that it may become: what is free, and not a hundred times what it is."""
    grown = max(FREELY, MOST_GROWTH * archive.stat().st_size)
    return min(grown, shutil.disk_usage(folder).free)


def expand(archive: Path, folder: Path) -> None:
    """A single file that gzip made, named as the archive without its suffix."""
    left, place = room_for(archive, folder), folder / archive.stem
    with gzip.open(archive) as zipped, place.open("wb") as file:
        while chunk := zipped.read(min(CHUNK, left + 1)):
            left -= len(chunk)
            if left < 0:
                place.unlink()
                raise BadInput(f"{archive} is not unpacked: it becomes suspiciously large")
            file.write(chunk)
