"""What the tests share: a catalog with first-party plugins and a tiny dataset, and its plans."""

import os
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # processes that share the cores; before torch is loaded
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from tiny import make_catalog, make_plan

from benchbench.catalog import Catalog

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    return make_catalog()


@pytest.fixture
def plan_of(tmp_path):
    """Makes a plan from the text of a suite; the store is a folder of this test."""

    def make(text: str, store: Path | None = None):
        return make_plan(text, store or tmp_path / "store", tmp_path)

    return make


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images that is not part of this repository."""
    folder = Path(os.environ.get("BENCHBENCH_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no folder of real images at {folder}; set BENCHBENCH_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(build, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture
def fresh(tmp_path) -> Callable[..., Path]:
    """Makes an empty environment, installs wheels or folders into it, and returns its ``bin``."""

    def make(*projects: Path) -> Path:
        environment = tmp_path / "environment"
        subprocess.run([sys.executable, "-m", "venv", environment], check=True)
        python = environment / "bin" / "python"
        (site,) = environment.glob("lib/python*/site-packages")
        # The dependencies, some gigabytes, are those of this environment; its own come first.
        (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
        install = [
            python,
            "-m",
            "pip",
            "install",
            "--no-deps",
            "--no-index",
            "--no-build-isolation",
        ]
        subprocess.run([*install, *projects], check=True, capture_output=True)
        return environment / "bin"

    return make
