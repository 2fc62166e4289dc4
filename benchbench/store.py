"""Work kept under its key, so that none is done twice."""

import contextlib
import hashlib
import json
import os
import shutil
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from benchbench.record import Record, read_record
from benchbench.terms import BadInput


def key_of(parts: Mapping[str, Any]) -> str:
    """sha256 of the parts as JSON: another value anywhere is another key."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Artifact:
    """Tensors, and what is said of them."""

    tensors: dict[str, Tensor]
    note: dict[str, Any]
    sha256: str  # of the file that holds the tensors


class Store:
    """A folder: ``stages``, ``features``, ``checkpoints``, ``packs`` and ``records``.

    A file appears under its name complete or not at all. An artifact is two files: tensors, and a
    note with their sha256, which is written last and makes it valid.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def check(self, needed: int) -> None:
        """BadInput if nothing can be written here, or fewer than ``needed`` bytes are free."""
        probe = self.root / f".probe-{os.getpid()}"
        with _writing(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            self._place(probe, b"benchbench")
            probe.unlink()
            for partial in self.root.rglob("*.part"):  # of a process that was killed
                if time.time() - partial.stat().st_mtime > 3600:
                    partial.unlink(missing_ok=True)
        free = shutil.disk_usage(self.root).free
        if free < needed:
            raise BadInput(
                f"no space left in store {self.root}: the suite needs about "
                f"{needed / 1e6:,.0f} MB, {free / 1e6:,.0f} MB are free"
            )

    def has(self, kind: str, key: str) -> bool:
        return self._note(kind, key).exists()

    def read(self, kind: str, key: str) -> Artifact | None:
        """What was written under the key; None if nothing was. A damaged file is set aside."""
        path, note_path = self._tensors(kind, key), self._note(kind, key)
        try:
            note = json.loads(note_path.read_bytes())
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        except ValueError:
            note, content = {}, b""
        digest = hashlib.sha256(content).hexdigest()
        if note.get("sha256") != digest:
            for damaged in (note_path, path):
                with contextlib.suppress(FileNotFoundError):
                    damaged.replace(damaged.with_name(damaged.name + ".damaged"))
            warnings.warn(f"{path} is damaged: set aside, and made anew", stacklevel=2)
            return None
        return Artifact(safetensors.torch.load(content), note["note"], digest)

    def write(self, kind: str, key: str, tensors: Mapping[str, Tensor], note: Any = None) -> str:
        """Keep tensors under the key; return the sha256 of their file."""
        content = packed(tensors)
        digest = hashlib.sha256(content).hexdigest()
        described = json.dumps({"sha256": digest, "note": note}, allow_nan=False).encode()
        with _writing(self.root):
            self._place(self._tensors(kind, key), content)
            self._place(self._note(kind, key), described)
        return digest

    def remove(self, kind: str, key: str) -> None:
        for path in (self._note(kind, key), self._tensors(kind, key)):
            path.unlink(missing_ok=True)

    def records(self, suite: str) -> Path:
        return self.root / "records" / suite

    def record(self, suite: str, stem: str) -> Record | None:
        path = self.records(suite) / f"{stem}.json"
        return read_record(path) if path.exists() else None

    def write_record(self, record: Record, predictions: bytes | None = None) -> None:
        """Keep a record and, beside it, its predictions. A scored record is never replaced."""
        path = self.records(record.suite) / record.file_name
        with _writing(self.root):
            if path.exists() and read_record(path).status == "scored":
                return
            if predictions is not None:
                self._place(path.with_suffix(".safetensors"), predictions)
            self._place(path, record.text().encode())

    def _tensors(self, kind: str, key: str) -> Path:
        return self.root / kind / f"{key}.safetensors"

    def _note(self, kind: str, key: str) -> Path:
        return self.root / kind / f"{key}.json"

    def _place(self, path: Path, content: bytes) -> None:
        """Write beside, flush to disk, rename: no reader ever meets half a file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}.part")
        try:
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def packed(tensors: Mapping[str, Tensor]) -> bytes:
    """Tensors as safetensors, each with memory of its own, as the format asks."""
    own = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in tensors.items()
    }
    return safetensors.torch.save(own)


@contextlib.contextmanager
def _writing(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BadInput(f"store {root} cannot be written: {error.strerror}") from error
