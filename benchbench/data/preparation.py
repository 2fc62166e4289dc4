"""From a dataset's files to a pack in the store, once.

Pixels lie under ``packs/pixels``, named after the files they were decoded from, as one array that
is memory-mapped, or as the files' bytes where they would not fit. The columns and the note beside
them are an artifact of the store. Opening what was prepared reads no image and does not ask the
dataset's plugin.
"""

import hashlib
import inspect
import io
import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from benchbench.data.decoding import pixels_of, quiet, read_image, tell_of_twelve_bits
from benchbench.data.encoded_images import SUFFIX, Encoded, starts_of
from benchbench.data.fingerprint import digest_of
from benchbench.data.overlaps import digests_of, overlaps
from benchbench.data.pack import Pack, pack_of
from benchbench.data.splits import DRAWN
from benchbench.extension.contracts import DomainData, ImageFiles
from benchbench.extension.errors import BadInput
from benchbench.store import atomic_files
from benchbench.store.artifacts import Store, enough_space
from benchbench.store.atomic_files import writing
from benchbench.store.keys import key_of

Report = Callable[[int, int], None]  # rows decoded, rows in all
Stat = tuple[str, int, int]  # a path, its size in bytes, its time of change in nanoseconds

LOOKED_AT = 5000  # image files whose size and time are compared whenever a pack is opened
BLOCK = 64  # rows that are decoded, and written, before anybody is told
SYNC_EVERY = 8_000_000  # bytes after which what was written is made to reach the disk, and noted


def prepared(
    identity: Mapping[str, Any],
    build: Callable[[], DomainData],
    store: Store,
    split_seed: int,
    report: Report,
) -> Pack:
    """The pack of a dataset: opened if it was prepared before, else prepared.

    ``identity`` is all that decides what ``build`` returns, but for the files it reads; if these
    have changed since, the data are prepared anew, with a warning that names one.
    """
    key = _key(identity, split_seed)
    kept = store.read("packs", key)
    if kept is not None:
        pack, changed = _opened(kept.tensors, kept.note, store), changed_file(kept.note["files"])
        if pack is not None and changed is None:
            return pack
        why = f"{changed} has changed since" if changed else "pixels are gone"
        warnings.warn(f"{identity['dataset']} is prepared anew: {why}", stacklevel=2)
    data = build()
    pack, pixels = prepare(data, store, split_seed, report)
    columns = {"labels": pack.labels, "domains": pack.domains, "split": pack.split}
    if pack.groups is not None:
        columns["groups"] = pack.groups
    short = {name: shortened(column) for name, column in columns.items()}
    note = {
        **{name: getattr(pack, name) for name in NOTED},
        "dataset": identity["dataset"],
        "pixels": pixels.name,
        "files": _stats(data),
    }
    store.write("packs", key, short, note)
    return pack


def shortened(column: Tensor) -> Tensor:
    """In half the bytes, if its numbers are so small."""
    if column.dtype != torch.int64 or (len(column) and int(column.abs().max()) >= 2**31):
        return column
    return column.to(torch.int32)


def verified(
    identity: Mapping[str, Any], data: DomainData, store: Store, split_seed: int
) -> tuple[list[str], list[str]]:
    """What is no longer as it was when the dataset was prepared, a sentence each.

    And what is told of rows and units that are in several splits or domains, as `overlaps` does.
    """
    kept = store.read("packs", _key(identity, split_seed))
    assert kept is not None, "it was opened before"
    place = pixels_in(store) / kept.note["pixels"]
    pack = _opened(kept.tensors, kept.note, store)
    assert pack is not None
    if isinstance(data.inputs, ImageFiles):
        if listed(data.inputs, place.parent).stem != place.stem:
            return [f"files of {identity['dataset']} have changed since it was prepared"], []
        digest = json.loads(place.with_suffix(".json").read_text())["sha256"]
    else:
        digest = digest_of(data.inputs)
    faults = []
    found, digests = digests_of(pack.inputs)
    if found != digest:
        faults.append(f"the pixels in {place} are not those that were decoded; delete it")
    if pack_of(data, split_seed, pack.inputs, digest).fingerprint != pack.fingerprint:
        faults.append(f"labels, domains or splits of {identity['dataset']} have changed")
    if faults:
        return faults, []
    paths = data.inputs.paths if isinstance(data.inputs, ImageFiles) else ()
    return [], overlaps(pack, data.units, digests, paths)


def read_from(identity: Mapping[str, Any], store: Store, split_seed: int) -> list[Path]:
    """Files and folders that a prepared dataset was read from; of many images, some."""
    kept = store.read("packs", _key(identity, split_seed))
    return [Path(path) for path, _, _ in kept.note["files"]] if kept else []


def _key(identity: Mapping[str, Any], split_seed: int) -> str:
    return key_of({**identity, "split_seed": split_seed, "drawn": DRAWN})


NOTED = (
    *("class_names", "domain_names", "group_names", "metric", "licence", "fingerprint"),
    "vocabulary",
)


def prepare(data: DomainData, store: Store, split_seed: int, report: Report) -> tuple[Pack, Path]:
    """A pack whose pixels lie in the store, and where.

    BadInput names images that cannot be decoded, or what breaks the contract of DomainData.
    """
    folder = pixels_in(store)
    if isinstance(data.inputs, ImageFiles):
        place, digest = decoded(data.inputs, folder, report)
    else:
        digest = digest_of(data.inputs)
        place = folder / f"{digest[:32]}.npy"
        if not place.exists():
            with writing(f"store {store.root}"):
                folder.mkdir(parents=True, exist_ok=True)
                partial = place.with_suffix(f".{os.getpid()}.part")
                try:
                    pixels = np.ascontiguousarray(data.inputs.numpy())
                    with partial.open("wb") as file:  # np.save says nothing of a full disk
                        file.write(_header(pixels.dtype, pixels.shape))
                        file.write(pixels.data)
                    partial.replace(place)
                finally:
                    partial.unlink(missing_ok=True)
    return replace(pack_of(data, split_seed, opened(place), digest), crop=crop_of(place)), place


def pixels_in(store: Store) -> Path:
    return store.root / "packs" / "pixels"


def opened(place: Path) -> Tensor | Encoded:
    """The pixels that lie at ``place``."""
    if place.suffix == SUFFIX:
        note = json.loads(place.with_suffix(".json").read_text())
        return Encoded(place, note["size"], note["crop"])
    # read-only: of memory that could be written the system wants to have as much as the file is
    pixels = np.load(place, mmap_mode="r", allow_pickle=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        return torch.from_numpy(pixels)


def crop_of(place: Path) -> float | None:
    """The ``crop`` of ImageFiles with which pixels were decoded; None of a dataset's own tensor."""
    note = place.with_suffix(".json")
    crop: float | None = json.loads(note.read_text()).get("crop") if note.exists() else None
    return crop


def _opened(columns: Mapping[str, Tensor], note: Any, store: Store) -> Pack | None:
    """None if the pixels are gone."""
    place = pixels_in(store) / note["pixels"]
    if not place.exists():
        return None
    tensors: dict[str, Any] = {"groups": None}
    tensors |= {n: c.long() if c.dtype == torch.int32 else c for n, c in columns.items()}
    words = {name: note.get(name, ()) for name in NOTED}
    words = {n: tuple(word) if isinstance(word, list) else word for n, word in words.items()}
    return Pack(opened(place), **tensors, **words, crop=crop_of(place))


def _stats(data: DomainData) -> list[Stat]:
    """Of everything the data were read from; of many images, of some that are evenly spread."""
    paths = [str(path.resolve()) for path in data.sources]
    if isinstance(data.inputs, ImageFiles):
        root, every = data.inputs.root.resolve(), data.inputs.paths
        chosen = every[:: max(1, -(-len(every) // LOOKED_AT))]
        paths += [f"{root}{os.sep}{path}" for path in chosen]
    return [_stat(path) for path in paths]


def _stat(path: str) -> Stat:
    status = os.stat(path)  # noqa: PTH116 (a Path for each of millions would double the time)
    return path, status.st_size, status.st_mtime_ns


def changed_file(files: Sequence[Sequence[Any]]) -> str | None:
    """The first file that is not as it was."""
    for path, size, changed in files:
        try:
            same = _stat(path) == (path, size, changed)
        except OSError:
            same = False
        if not same:
            return str(path)
    return None


def decoded(files: ImageFiles, folder: Path, report: Report) -> tuple[Path, str]:
    """Where the pixels [N, channels, size, size] lie, and their sha256.

    They are decoded again only if a file's place, name, size or time of change is another. A
    second process that wants the same waits for the first.
    """
    target = listed(files, folder)
    note = target.with_suffix(".json")
    if (found := _found(note)) is None:
        with writing(f"store {folder.parents[1]}"):
            folder.mkdir(parents=True, exist_ok=True)
        with alone(target):
            if (found := _found(note)) is None:
                (_keep if too_large(files, folder) else _decode)(files, target, note, report)
                found = _found(note)
    assert found is not None, "it was just written"
    return found


def _found(note: Path) -> tuple[Path, str] | None:
    """The pixels that a note is about, and their sha256; None if either is gone or broken."""
    try:
        said = json.loads(note.read_text())
        place, digest = note.with_suffix(said["form"]), said["sha256"]
    except (FileNotFoundError, ValueError, KeyError):
        return None
    return (place, digest) if place.exists() else None


def dtype_of(files: ImageFiles) -> np.dtype:
    return np.dtype(np.float16 if files.reader else np.uint8)


def bytes_of(files: ImageFiles) -> int:
    """What the pixels take."""
    return len(files) * files.channels * files.size**2 * dtype_of(files).itemsize


def too_large(files: ImageFiles, folder: Path) -> bool:
    """Whether the pixels would not fit where the files' own bytes would."""
    free = shutil.disk_usage(folder).free
    if files.reader or bytes_of(files) <= free:
        return False
    root = files.root.resolve()
    return sum(_stat(f"{root}{os.sep}{path}")[1] for path in files.paths) < 0.9 * free


def _keep(files: ImageFiles, target: Path, note: Path, report: Report) -> None:
    """The files' bytes one after the other, and the sha256 that their pixels would have."""
    place, store = target.with_suffix(SUFFIX), target.parents[2]
    partial, digest, sizes = place.with_suffix(".part"), hashlib.sha256(), [0]
    broken: dict[int, BadInput] = {}
    deep: list[int] = []

    def read(row: int) -> tuple[bytes, np.ndarray | None]:
        path = files.root / files.paths[row]
        content = path.read_bytes()
        try:
            return content, read_image(path, files.size, files.crop, deep)
        except BadInput as error:
            broken[row] = error
            return content, None

    try:
        with (
            quiet(),
            writing(f"store {store}"),
            partial.open("wb") as file,
            ThreadPoolExecutor(os.cpu_count()) as pool,
        ):
            for start in range(0, len(files), BLOCK):
                end = min(start + BLOCK, len(files))
                for content, pixels in pool.map(read, range(start, end)):
                    file.write(content)
                    sizes.append(len(content))
                    if pixels is not None:
                        digest.update(np.ascontiguousarray(pixels).data)
                report(end, len(files))
        told(broken)
        tell_of_twelve_bits(deep)
        starts = io.BytesIO()
        np.save(starts, np.cumsum(sizes))
        with writing(f"store {store}"):
            atomic_files.place(starts_of(place), starts.getvalue())
            partial.replace(place)
            _say(note, SUFFIX, digest.hexdigest(), files)
    finally:
        partial.unlink(missing_ok=True)


def told(broken: Mapping[int, BadInput]) -> None:
    """BadInput names the image of the first row, and counts the others."""
    if broken:
        more = len(broken) - 1
        others = f"; nor can {more} other{'s' * (more > 1)}" if more else ""
        raise BadInput(f"{broken[min(broken)]}{others}")


def _say(note: Path, form: str, digest: str, files: ImageFiles) -> None:
    said = {"form": form, "sha256": digest, "size": files.size, "crop": files.crop}
    atomic_files.place(note, json.dumps(said).encode())


def listed(files: ImageFiles, folder: Path) -> Path:
    """Where the files' pixels belong: a name made of theirs, their sizes and times of change."""
    how: list[Any] = [files.size] if files.crop is None else [files.size, files.crop]
    if files.reader:
        source = inspect.getsourcefile(files.reader)
        code = hashlib.sha256(Path(source).read_bytes() if source else b"").hexdigest()
        how += [files.reader.__qualname__, code, files.channels]
    root = files.root.resolve()
    listing = hashlib.sha256(os.fsencode(f"{how}\0{root}\n"))
    for path in files.paths:
        try:
            _, size, changed = _stat(f"{root}{os.sep}{path}")
        except OSError as error:
            raise BadInput(f"image {root / path} cannot be read: {error.strerror}") from None
        listing.update(os.fsencode(path) + f"\0{size}\0{changed}\n".encode())
    return folder / f"{listing.hexdigest()[:32]}.npy"


@contextmanager
def alone(target: Path) -> Iterator[None]:
    """No other process decodes to ``target``; says so if it has to wait for one."""
    lock = FileLock(target.with_suffix(".lock"))
    with writing(f"store {target.parents[2]}"):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            warnings.warn("another process prepares the same data; waiting for it", stacklevel=2)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _header(kind: np.dtype, shape: tuple[int, ...]) -> bytes:
    """What an .npy file begins with."""
    buffer = io.BytesIO()
    said = {"descr": kind.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, said)
    return buffer.getvalue()


def _rows_in(partial: Path, progress: Path, head: int, row: int) -> int:
    """How many rows of a killed process are on disk for certain."""
    try:
        done = int(progress.read_text())
        return done if partial.stat().st_size >= head + done * row else 0
    except (FileNotFoundError, ValueError):
        return 0


def _decode(files: ImageFiles, target: Path, note: Path, report: Report) -> None:
    """The pixels, then the note, each under its name only when it is complete.

    A block is decoded while the one before is hashed and written to disk. What a killed process
    had written is kept, and not decoded again.
    """
    partial, progress = target.with_suffix(".decoding"), target.with_suffix(".rows")
    store, count, digest = target.parents[2], len(files), hashlib.sha256()
    shape, kind = (files.channels, files.size, files.size), dtype_of(files)
    head = _header(kind, (count, *shape))
    broken: dict[int, BadInput] = {}
    deep: list[int] = []
    waiting = 0  # bytes that may not be on disk yet

    def read(place: np.ndarray, row: int) -> None:
        try:
            place[:] = pixels_of(files, files.root / files.paths[row], deep)
        except BadInput as error:
            broken[row] = error

    def keep(block: np.ndarray, end: int) -> None:
        nonlocal waiting
        waiting += file.write(block.data)
        digest.update(block.data)
        if waiting >= SYNC_EVERY or end == count:
            file.flush()
            os.fsync(file.fileno())
            scratch = progress.with_suffix(".part")
            scratch.write_text(f"{end}")
            scratch.replace(progress)
            waiting = 0

    try:
        with writing(f"store {store}"):
            done = _rows_in(partial, progress, len(head), prod(shape) * kind.itemsize)
            if not done:
                progress.unlink(missing_ok=True)  # it may be of a file that is gone
                enough_space(store, bytes_of(files))
        with (
            quiet(),
            writing(f"store {store}"),
            partial.open("r+b" if done else "w+b") as file,
            ThreadPoolExecutor(os.cpu_count()) as decoders,
            ThreadPoolExecutor(1) as keeper,
        ):
            file.write(head)
            for _ in range(0, done, BLOCK):
                digest.update(file.read(BLOCK * prod(shape) * kind.itemsize))
            blocks = [np.empty((min(BLOCK, count), *shape), kind) for _ in range(2)]
            keeping = None
            for start in range(done, count, BLOCK):
                blocks.reverse()
                rows = range(start, min(start + BLOCK, count))
                block = blocks[0][: len(rows)]
                list(decoders.map(read, block, rows))
                if keeping is not None:
                    keeping.result()
                if not broken:
                    keeping = keeper.submit(keep, block, rows.stop)
                report(rows.stop, count)
            if keeping is not None:
                keeping.result()
        told(broken)
        tell_of_twelve_bits(deep)
        with writing(f"store {store}"):
            partial.replace(target)
            _say(note, target.suffix, digest.hexdigest(), files)
            progress.unlink(missing_ok=True)
    except BadInput:
        partial.unlink(missing_ok=True)
        progress.unlink(missing_ok=True)
        raise
