"""Who works on what: of processes that share a store, one at a time trains a stage."""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

from filelock import FileLock

from benchbench.store.atomic_files import writing

BEAT_EVERY, LOST_AFTER, LOOK_EVERY = 5.0, 60.0, 0.5  # seconds


@dataclass(frozen=True)
class Sign:
    """What a process says of its work. It is kept in the store while it lasts, and published never.

    ``seen`` is how long ago the process was last heard of, in seconds.
    """

    work: str  # the cell or stage, in words
    step: int
    steps: int  # 0 where none are counted
    since: float  # Unix time at which the work began
    began_at: int  # the step at which it began
    host: str
    pid: int
    seen: float = 0.0

    @property
    def lost(self) -> bool:
        """Whether whoever gave it is dead, as far as can be told from here."""
        if self.seen > LOST_AFTER:
            return True  # here, too: its number may be another process's by now
        if self.host != socket.gethostname():
            return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            pass
        return False

    @property
    def seconds_left(self) -> float | None:
        """As far as the pace of the steps so far tells."""
        done = self.step - self.began_at
        if done < 1:
            return None
        return (time.time() - self.since) / done * (self.steps - self.step)


class Claims:
    """The folder ``claims`` of a store: a file, named by a key, for whatever is being worked on.

    A file that nobody has touched for a minute, or whose process on this machine is gone, is lost,
    and what it claims is free.
    """

    def __init__(self, root: Path) -> None:
        self.folder = root / "claims"
        self._ahead: dict[tuple[Path, float], float] = {}

    def take(self, key: str, work: str) -> "Claim | None":
        """None if a living process has it. BadInput if the store cannot be written."""
        with self._alone():
            held = self._sign(self._path(key))
            if held is not None and not held.lost:
                return None
            return Claim(self._path(key), work)

    @contextmanager
    def held(self, key: str, work: str) -> Iterator["Claim"]:
        """Waits until nobody else has it."""
        while (claim := self.take(key, work)) is None:
            time.sleep(LOOK_EVERY)
        with claim:
            yield claim

    @contextmanager
    def paused(self) -> Iterator[dict[str, Sign]]:
        """While it lasts, nobody takes a claim; it tells, by key, what living processes hold.

        BadInput if the store cannot be written.
        """
        with self._alone():
            yield {key: sign for key, sign in self.signs().items() if not sign.lost}

    def living(self, key: str) -> bool:
        sign = self._sign(self._path(key))
        return sign is not None and not sign.lost

    def signs(self) -> dict[str, Sign]:
        """All that were given and not taken back, by key: of what is worked on, and what died."""
        found = {path.stem: self._sign(path) for path in sorted(self.folder.glob("*.json"))}
        return {key: sign for key, sign in found.items() if sign is not None}

    def forget_lost(self) -> None:
        """Take back what the dead gave: whoever goes on with their work gives a sign of its own."""
        if any(sign.lost for sign in self.signs().values()):
            with self._alone():
                for key, sign in self.signs().items():
                    if sign.lost:
                        self._path(key).unlink(missing_ok=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        with writing(f"store {self.folder.parent}"):
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / ".lock"):
                yield

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.json"

    def _sign(self, path: Path) -> Sign | None:
        try:
            fields, touched = json.loads(path.read_text()), path.stat().st_mtime
        except (OSError, json.JSONDecodeError):
            return None
        seen = time.time() - touched
        if seen < 0:  # a clock was put back, or is another machine's: since we first saw it so
            now = time.monotonic()
            seen = now - self._ahead.setdefault((path, touched), now)
        return Sign(**fields, seen=seen)


@dataclass
class Claim:
    """Held until it is left; meanwhile a thread says now and then how far the work is."""

    path: Path
    work: str
    step: int = 0
    steps: int = 0
    began_at: int | None = None
    since: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        self._over = threading.Event()
        self._write()

    def tell(self, step: int, steps: int) -> None:
        if self.began_at is None:
            self.began_at, self.since = step, time.time()
        self.step, self.steps = step, steps

    def __enter__(self) -> "Claim":
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        try:
            self._thread.join()
        finally:  # also where a signal ends the process while it waits
            self.path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._over.wait(BEAT_EVERY):
            with suppress(OSError):  # a full disk stops the work itself, not the word of it
                self._write()

    def _write(self) -> None:
        said = {
            "work": self.work,
            "step": self.step,
            "steps": self.steps,
            "since": self.since,
            "began_at": self.began_at or 0,
            "host": socket.gethostname(),
            "pid": os.getpid(),
        }
        partial = self.path.with_suffix(f".{uuid4().hex}.part")
        partial.write_text(json.dumps(said))
        partial.replace(self.path)
