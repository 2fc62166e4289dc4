"""The wheel holds core, plugins and suites, and runs without the repository."""

import subprocess
import zipfile
from pathlib import Path

from benchbench.suites.suite import Suite, shipped_suites

ROOT = Path(__file__).parent.parent
SUITE = """
name = "wheel"
dataset = "digits"
shifts = ["scans > photos"]
seeds = [0]
encoder = "small_cnn(width=4)"
stage = { steps = 2, batch_size = 16, lr = 0.01 }
[[method]]
chain = "simclr > finetune"
readout = "head"
"""


def test_the_wheel_holds_everything_that_runs_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        (metadata,) = (n for n in archive.namelist() if n.endswith("/METADATA"))
        described = archive.read(metadata).decode()
    sources = [(ROOT / "benchbench", ROOT), *((p, p.parent) for p in (ROOT / "plugins").iterdir())]
    wanted = {
        path.relative_to(base).as_posix()
        for folder, base in sources
        for path in folder.rglob("*")
        if path.suffix in (".py", ".toml", ".typed", ".md", ".json", ".txt", ".html")
    }
    board = "benchbench/leaderboard/boards/digits"
    shipped = {
        f"{board}/records/{p.name}" for p in (ROOT / "leaderboards/digits/records").iterdir()
    }
    others = ("curves.json", "stale.json", "suite.toml", "truth.safetensors")
    assert names == wanted | shipped | {f"{board}/{name}" for name in others}
    assert {f"benchbench/suites/shipped/{n}.toml" for n in ("quickstart", "u-wilds/common")} < names
    assert "Name: benchbench-shift" in described and "License-Expression: Apache-2.0" in described


def test_installed_into_an_empty_environment_it_runs(wheel, fresh, tmp_path):
    binaries = fresh(wheel)
    (tmp_path / "suite.toml").write_text(SUITE)

    def call(*words: str) -> str:
        return subprocess.run(
            [*words], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout

    where = "import benchbench, benchbench_digits as d; print(benchbench.__file__, d.__file__)"
    paths = call(binaries / "python", "-c", where).split()
    assert all(path.startswith(str(binaries.parent)) for path in paths)
    assert call(binaries / "benchbench", "--version").strip() == "benchbench, version 0.1.0"
    each = "from benchbench.suites.suite import *; "
    each += "print([Suite.read(n).name for n in shipped_suites()])"
    here = [Suite.read(name).name for name in shipped_suites()]
    assert call(binaries / "python", "-c", each).strip() == str(here)
    words = (binaries / "benchbench", "run", "u-wilds/camelyon17", "--dry-run")
    beside = "import benchbench; print(benchbench.load_board('digits').render('csv'))"
    assert "simclr" in call(binaries / "python", "-c", beside)
    dry = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert dry.returncode == 2 and "missing: camelyon17_v1.0" in dry.stdout.replace("data/", "")
    board = call(binaries / "benchbench", "run", "suite.toml")
    assert "| simclr > finetune |" in board and "failed" not in board
