"""Work kept under its key, so that none is done twice."""

import contextlib
import hashlib
import json
import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from operator import index
from pathlib import Path
from typing import IO, Any, TypeVar, cast
from uuid import uuid4

import torch
from torch import Tensor

from benchbench.extension.errors import BadInput
from benchbench.store.atomic_files import place, placing, writing
from benchbench.store.keys import key_of
from benchbench.store.locks import Claims
from benchbench.store.records import Record, Status, read_many, read_record, read_status

Told = TypeVar("Told")
SETTLED_AFTER = 2_000_000_000  # nanoseconds, more than clocks of file systems are coarse


@dataclass(frozen=True)
class Artifact:
    """Tensors, and what is said of them."""

    tensors: dict[str, Tensor]
    note: Any
    sha256: str  # of the tensors alone


@dataclass(frozen=True)
class State:
    """What the names, sizes and times of a suite's records and their predictions tell."""

    digest: str
    stems: tuple[str, ...]
    settled: bool  # whether another change would show


class Store:
    """A folder: ``stages``, ``features``, ``diagnostics``, ``connectivity``, ``pseudo`` (labels),
    ``checkpoints``, ``packs``, ``records``, ``claims``, ``summaries`` (of records).

    ``diverged`` says of stages that had no end, so that none is tried again for another cell.

    A file appears under its name complete or not at all. An artifact is one safetensors file whose
    header holds the note and the sha256 of both. Tensors are hashed while they are written and
    read, one after the other: beside them, and what is read, nothing of their size is in memory.
    """

    def __init__(self, root: Path, *, writes: bool = True) -> None:
        self.root, self.writes = root, writes  # of processes that train together, one writes
        self.claims = Claims(root)

    def check(self, needed: int = 0) -> None:
        """BadInput if nothing can be written here, or fewer than ``needed`` bytes are free."""
        probe = self.root / f".probe-{uuid4().hex}"
        with writing(f"store {self.root}"):
            self.root.mkdir(parents=True, exist_ok=True)
            self._place(probe, b"benchbench")
            probe.unlink(missing_ok=True)
            for partial in files_below(str(self.root), ".part"):  # of a process that was killed
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - partial.stat().st_mtime > 3600:
                        Path(partial).unlink()
        self.claims.forget_lost()
        enough_space(self.root, needed)

    def has(self, kind: str, key: str) -> bool:
        return self._path(kind, key).exists()

    def read(self, kind: str, key: str) -> Artifact | None:
        """What was written under the key; None if nothing was. A damaged file is set aside."""
        path = self._path(kind, key)
        try:
            with path.open("rb") as file:
                artifact = artifact_of(file)
        except FileNotFoundError:
            return None
        if artifact is None:
            with contextlib.suppress(FileNotFoundError):  # another reader was as quick
                path.replace(path.with_name(path.name + ".damaged"))
            warnings.warn(f"{path} is damaged: set aside, and made anew", stacklevel=2)
        return artifact

    def write(self, kind: str, key: str, tensors: Mapping[str, Tensor], note: Any = None) -> str:
        """Keep tensors under the key; return their sha256."""
        told = json.dumps(note, allow_nan=False)
        if not self.writes:
            return sha256_of(tensors)
        with writing(f"store {self.root}"), placing(self._path(kind, key)) as file:
            return write_artifact(file, tensors, told)

    def once(
        self, kind: str, key: str, work: str, make: Callable[[], tuple[Mapping[str, Tensor], Any]]
    ) -> Artifact:
        """What is kept under the key; if nothing is, tensors and a note are made, and kept.

        Of processes that want it, one makes it and the others wait; ``work`` says what it is at.
        """
        if kept := self.read(kind, key):
            return kept
        with self.claims.held(key, work) if self.writes else contextlib.nullcontext():
            if kept := self.read(kind, key):  # of another process, that this one waited for
                return kept
            tensors, note = make()
            return Artifact({**tensors}, note, self.write(kind, key, tensors, note))

    def take_in(self, kind: str, key: str, content: IO[bytes]) -> bool:
        """Keep a file of another store under the key; False if it is damaged."""
        if artifact_of(content) is None:
            return False
        content.seek(0)
        if self.writes:
            with writing(f"store {self.root}"), placing(self._path(kind, key)) as file:
                shutil.copyfileobj(content, file, BLOCK)
        return True

    def remove(self, kind: str, key: str) -> None:
        if self.writes:
            self._path(kind, key).unlink(missing_ok=True)

    def records(self, suite: str) -> Path:
        return self.root / "records" / suite

    def stems(self, suite: str) -> set[str]:
        """How the names of the suite's records begin, in no order."""
        with contextlib.suppress(FileNotFoundError), os.scandir(self.records(suite)) as found:
            return {e.name.removesuffix(".json") for e in found if e.name.endswith(".json")}
        return set()

    def record(self, suite: str, stem: str) -> Record | None:
        path = self.records(suite) / f"{stem}.json"
        return read_record(path) if path.exists() else None

    def every_record(self, suite: str, stems: Iterable[str]) -> list[Record | None]:
        """Of these that are there; of many, that is faster, and takes less memory."""
        there, folder, wanted = self.stems(suite), self.records(suite), [*stems]
        here = [stem for stem in wanted if stem in there]
        found = dict(zip(here, read_many(f"{folder}/{stem}.json" for stem in here), strict=True))
        return [found.get(stem) for stem in wanted]

    def state(self, suite: str) -> State:
        """Of the suite's records and predictions, without opening one."""
        facts: list[tuple[str, int, int, int]] = []
        with contextlib.suppress(FileNotFoundError), os.scandir(self.records(suite)) as found:
            for entry in found:
                if entry.name.endswith((".json", ".safetensors")):
                    told = entry.stat()
                    facts.append((entry.name, told.st_size, told.st_mtime_ns, told.st_ino))
        newest = max((changed for _, _, changed, _ in facts), default=0)
        records = (name for name, _, _, _ in facts if name.endswith(".json"))
        stems = tuple(sorted(name.removesuffix(".json") for name in records))
        digest = hashlib.sha256(repr(sorted(facts)).encode()).hexdigest()
        return State(digest, stems, time.time_ns() - newest > SETTLED_AFTER)

    def recalled(
        self, name: str, of: Mapping[str, Any], state: State, tell: Callable[[], Told]
    ) -> Told:
        """What was told under the name, where it was told of the same; else it is told, and kept.

        It is JSON; ``of`` is all that it follows from, beside the state. Not kept where the store
        cannot be written, nor of records so new that their time might not show another change.
        """
        if not state.settled:
            return tell()
        key, digest = key_of({"name": name}), key_of({"of": of, "state": state.digest})
        kept = self.read("summaries", key)
        if kept and kept.note["of"] == digest:
            return cast(Told, kept.note["told"])
        told = tell()
        with contextlib.suppress(BadInput):
            self.write("summaries", key, {}, {"of": digest, "told": told})
        return told

    def statuses(self, suite: str, state: State) -> dict[str, Status]:
        """What became of every cell that has a record, by the stem of its name."""

        def others() -> dict[str, Status]:
            """All that are not scored."""
            told = ((stem, self.status(suite, stem)) for stem in state.stems)
            return {stem: status for stem, status in told if status and status != "scored"}

        scored: dict[str, Status] = dict.fromkeys(state.stems, "scored")
        return scored | self.recalled(f"statuses of {suite}", {}, state, others)

    def status(self, suite: str, stem: str) -> Status | None:
        """That of a record, without reading all of it; None if there is none."""
        return read_status(f"{self.root}/records/{suite}/{stem}.json")

    def write_record(self, record: Record, predictions: bytes | None = None) -> bool:
        """Keep a record and, beside it, its predictions; False if there is a scored one already.

        That is never replaced.
        """
        path = self.records(record.suite) / record.file_name
        with writing(f"store {self.root}"):
            if path.exists() and read_record(path).status == "scored":
                return False
            if predictions is not None:
                self._place(path.with_suffix(".safetensors"), predictions)
            self._place(path, record.text().encode())
        return True

    def _path(self, kind: str, key: str) -> Path:
        return self.root / kind / f"{key}.safetensors"

    def _place(self, path: Path, content: bytes) -> None:
        if self.writes:
            place(path, content)


def files_below(folder: str, end: str) -> Iterator[os.DirEntry[str]]:
    """Every file whose name ends so, of a folder and all in it; links are not followed."""
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as found:
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                yield from files_below(entry.path, end)
            elif entry.name.endswith(end):
                yield entry


def enough_space(root: Path, needed: int) -> None:
    """BadInput if fewer than ``needed`` bytes are free."""
    free = shutil.disk_usage(root).free
    if free < needed:
        raise BadInput(
            f"no space left in store {root}: about {needed / 1e6:,.0f} MB are needed, "
            f"{free / 1e6:,.0f} MB are free"
        )


# The format of artifacts: https://github.com/huggingface/safetensors#format

BLOCK = 1 << 20  # bytes that are hashed, and written or read, at a time
DTYPES = {  # in the order in which tensors lie in a file, and of one type by name
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float64: "F64",
    torch.complex64: "C64",
    torch.float32: "F32",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e8m0fnu: "F8_E8M0",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
NAMES = {name: dtype for dtype, name in DTYPES.items()}
ORDER = {dtype: number for number, dtype in enumerate(DTYPES)}


@dataclass(frozen=True)
class Slot:
    """A tensor of a file."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    nbytes: int


def slots_of(tensors: Mapping[str, Tensor]) -> list[Slot]:
    """In the order in which they lie in a file. TypeError of a type that no file holds."""
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPES:
            raise TypeError(f"tensor {name} is {tensor.dtype}, which no safetensors file can hold")
    named = sorted(tensors.items(), key=lambda each: (ORDER[each[1].dtype], each[0]))
    return [Slot(name, t.dtype, tuple(t.shape), t.nbytes) for name, t in named]


def head_of(slots: Iterable[Slot], said: Mapping[str, str] | None = None) -> bytes:
    """All that comes before the values: the length of the header, and the header."""
    told: dict[str, Any] = {} if said is None else {"__metadata__": said}
    start = 0
    for slot in slots:
        offsets = [start, start := start + slot.nbytes]
        named = {"dtype": DTYPES[slot.dtype], "shape": slot.shape, "data_offsets": offsets}
        told[slot.name] = named
    header = json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header


def blocks_of(tensors: Mapping[str, Tensor], slots: Iterable[Slot]) -> Iterator[memoryview]:
    """The values, a block at a time. A tensor that lies on a device, or in another order, is
    copied when its turn comes.
    """
    for slot in slots:
        values = memory_of(tensors[slot.name].detach().cpu().contiguous())
        for start in range(0, len(values), BLOCK):
            yield values[start : start + BLOCK]


def memory_of(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous tensor of the CPU, to read or to write to."""
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def write_artifact(file: IO[bytes], tensors: Mapping[str, Tensor], note: str) -> str:
    """Write tensors and a note, as `artifact_of` reads them; return the tensors' sha256."""
    slots = slots_of(tensors)
    unknown = "0" * 64  # until all is written
    file.write(head_of(slots, header_of(note, unknown)))
    digest = hashlib.sha256(head_of(slots))
    for block in blocks_of(tensors, slots):
        digest.update(block)
        file.write(block)
    file.seek(0)
    file.write(head_of(slots, header_of(note, digest.hexdigest())))
    return digest.hexdigest()


def artifact_of(file: IO[bytes]) -> Artifact | None:
    """What a file of the store says; None if it is damaged. OSError if it cannot be read."""
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    try:
        if size < 8 + length:
            return None
        header = json.loads(file.read(length))
        said = header.pop("__metadata__")
        slots = [slot_of(name, told) for name, told in header.items()]
        # its offsets are no more than what follows from types and shapes
        offsets = json.loads(head_of(slots)[8:])
        if offsets != header or size != 8 + length + sum(slot.nbytes for slot in slots):
            return None
        note = said["note"]
        json.loads(note)
    except Exception as error:  # a broken header raises half a dozen types
        if isinstance(error, OSError | MemoryError):
            raise
        return None
    digest, tensors = hashlib.sha256(head_of(slots)), {}
    for slot in slots:
        tensors[slot.name] = torch.empty(slot.shape, dtype=slot.dtype)
        values = memory_of(tensors[slot.name])
        for start in range(0, len(values), BLOCK):
            content = file.read(min(BLOCK, len(values) - start))
            digest.update(content)
            if start + len(content) < min(start + BLOCK, len(values)):  # it was cut meanwhile
                return None
            values[start : start + BLOCK] = content
    intact = said == header_of(note, digest.hexdigest())
    return Artifact(tensors, json.loads(note), digest.hexdigest()) if intact else None


def slot_of(name: str, told: Mapping[str, Any]) -> Slot:
    """What a header says of a tensor; some error if it says something else."""
    dtype, shape = NAMES[told["dtype"]], tuple(map(index, told["shape"]))
    if any(count < 0 for count in shape):
        raise ValueError(f"{name} has a negative shape")
    return Slot(name, dtype, shape, prod(shape) * dtype.itemsize)


def packed(tensors: Mapping[str, Tensor], said: dict[str, str] | None = None) -> bytes:
    """Tensors as a safetensors file."""
    slots = slots_of(tensors)
    return b"".join([head_of(slots, said), *blocks_of(tensors, slots)])


def header_of(note: str, sha256: str) -> dict[str, str]:
    """The note, its sha256, and that of the tensors' names, types, shapes and values."""
    return {
        "note": note,
        "note_sha256": hashlib.sha256(note.encode()).hexdigest(),
        "sha256": sha256,
    }


def sha256_of(tensors: Mapping[str, Tensor]) -> str:
    """Of their names, types, shapes and values."""
    slots = slots_of(tensors)
    digest = hashlib.sha256(head_of(slots))
    for block in blocks_of(tensors, slots):
        digest.update(block)
    return digest.hexdigest()
