"""A warm process from which those fork that are killed, and folders in which they work."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PARTIAL = (".part", ".lock", ".rows", ".decoding")


class Warm:
    """Runs a case in a fork of a process that has imported all."""

    def __init__(self, log: Path) -> None:
        self.log = log
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-W", "ignore", str(HERE / "points.py")]
        pipe = subprocess.PIPE
        with log.open("w") as words:
            self.process = subprocess.Popen(
                command, stdin=pipe, stdout=pipe, stderr=words, text=True, env=environment
            )
        assert self.process.stdout.readline() == "ready\n", log.read_text()

    def run(
        self, case: str, folder: Path, at: int = 0, fault: str = "SIGKILL", copies: int = 1
    ) -> int:
        """How it ended, 0 if all copies did; ``at`` is the call of the fault, or a limit."""
        self.process.stdin.write(json.dumps([case, str(folder), at, fault, copies]) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def said(self) -> str:
        """The last line of standard error."""
        return self.log.read_text().rstrip().rpartition("\n")[2]


@pytest.fixture(scope="session")
def warm(tmp_path_factory):
    warm = Warm(tmp_path_factory.mktemp("warm") / "log")
    yield warm
    warm.process.communicate()


class Place:
    """A folder whose content can be brought back; its path is in what is written."""

    def __init__(self, folder: Path, warm: Warm, name: str) -> None:
        self.warm, self.name = warm, name
        self.folder, self.kept = folder / "at-work", folder / "kept"

    def begin(self) -> None:
        """Make what the case begins with."""
        self.folder.mkdir()
        assert self.warm.run(f"begin {self.name}", self.folder) == 0, self.warm.log.read_text()
        shutil.copytree(self.folder, self.kept)

    def reset(self) -> None:
        shutil.rmtree(self.folder)
        shutil.copytree(self.kept, self.folder)

    def run(self, at: int = 0, fault: str = "SIGKILL") -> int:
        return self.warm.run(self.name, self.folder, at, fault)

    def files(self) -> dict[str, bytes]:
        """What is there under its name, but for claims."""
        found = (p for p in self.folder.rglob("*") if p.is_file() and p.suffix not in PARTIAL)
        named = {p.relative_to(self.folder).as_posix(): p.read_bytes() for p in found}
        hidden = ("claims/", "/.", ".out")
        return {n: content for n, content in named.items() if not any(h in f"/{n}" for h in hidden)}

    def partial(self) -> list[Path]:
        return [path for path in self.folder.rglob("*.part") if path.is_file()]


@pytest.fixture(scope="session")
def place_of(warm):
    """Makes the place of a case, beside one in which a suite was run."""
    base = Path(tempfile.mkdtemp(prefix="faults-"))
    base.chmod(0o755)  # some work there as another user
    (base / "done").mkdir()
    assert warm.run("run", base / "done") == 0, warm.log.read_text()

    def make(name: str) -> Place:
        folder = base / f"{name}-{len(list(base.iterdir()))}"
        folder.mkdir()
        (folder / "done").symlink_to(base / "done")
        return Place(folder, warm, name)

    yield make
    shutil.rmtree(base)
