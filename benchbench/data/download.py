"""Files that their authors publish at an address: fetched when asked, checked, gone on with."""

import hashlib
import shutil
from collections.abc import Callable
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from benchbench.data.archive import extract
from benchbench.extension.contracts import Download
from benchbench.extension.errors import BadInput
from benchbench.store.atomic_files import writing

CHUNK = 1 << 20  # bytes
TIMEOUT = 30.0  # seconds without a word from the other side


def download(item: Download, root: Path, report: Callable[[int, int], None]) -> Path:
    """Fetch, check and unpack ``item`` below ``root``; what is there and right is left as it is.

    An interrupted download goes on where it stopped. BadInput says what failed, and where the file
    belongs if it is put there by hand.
    """
    target = root / item.path
    if not (target.is_file() and digest(target) == item.md5):
        partial = target.with_name(target.name + ".part")
        with writing(f"data folder {root}"):
            target.parent.mkdir(parents=True, exist_ok=True)
            _fetch(item, target, partial, report)
            if (found := digest(partial)) != item.md5:
                partial.unlink()
                raise BadInput(
                    f"{item.url} is not the published file: its md5 is {found}, not {item.md5}; "
                    f"{by_hand(item, target)}"
                )
            partial.replace(target)
    unpack(target, root / item.unpack if item.unpack is not None else None)
    return target


def by_hand(item: Download, target: Path) -> str:
    return f"get it elsewhere and put it at {target} (md5 {item.md5})"


def _fetch(item: Download, target: Path, partial: Path, report: Callable[[int, int], None]) -> None:
    done = partial.stat().st_size if partial.exists() else 0
    request = Request(item.url, headers={"Range": f"bytes={done}-"} if done else {})  # noqa: S310
    if request.type not in ("http", "https"):
        raise BadInput(f"{item.url} is no address of the web")
    try:
        with urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310
            if answer.status != 206:  # the other side does not go on: from the start
                done = 0
            total = done + int(answer.headers.get("Content-Length") or 0)
            with partial.open("ab" if done else "wb") as file:
                while chunk := answer.read(CHUNK):
                    file.write(chunk)
                    done += len(chunk)
                    report(done, max(total, done))
            if done < total:  # read() does not say so
                raise ConnectionError(f"it broke off after {done:,} of {total:,} bytes")
    except HTTPError as error:
        if error.code == 416:  # nothing is left to send
            return
        said = f"{error.code} {error.reason}"
        raise BadInput(f"{item.url} answers {said}; {by_hand(item, target)}") from None
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise BadInput(
            f"{item.url} cannot be fetched ({reason}); run the same command again to go on, or "
            f"{by_hand(item, target)}"
        ) from None


def digest(path: Path) -> str:
    """md5: what the authors of datasets publish."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def unpack(archive: Path, folder: Path | None) -> None:
    """Into ``folder``, and nowhere else; BadInput if the archive is broken or would.

    What is in it appears there when all of it is unpacked, and nothing under its name by half.
    """
    if folder is None:
        return
    scratch = folder / f".{archive.name}.unpacking"
    try:
        shutil.rmtree(scratch, ignore_errors=True)  # of a process that was killed
        scratch.mkdir(parents=True)
        extract(archive, scratch)
        move_into(folder, scratch)
    except OSError as error:
        raise BadInput(f"{archive} cannot be unpacked: {error}") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def move_into(folder: Path, scratch: Path) -> None:
    """All that is in ``scratch``; folders that are there already get what is new in them."""
    for path in sorted(scratch.iterdir()):
        there = folder / path.name
        if path.is_dir() and not path.is_symlink() and there.is_dir():
            move_into(there, path)
        else:
            path.replace(there)
