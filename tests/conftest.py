"""What the tests share: a catalog with first-party plugins and a tiny dataset, and its plans.

What is tested is this checkout, also by the processes that tests start. Where CI is set, a skip
that `skips.toml` does not expect fails the run.
"""

import os
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Callable
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # processes that share the cores; before torch is loaded
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import checkout  # before ours are imported
import counting
import pytest
import torch
from audiences import Silent
from suites import TUNED
from tiny import make_catalog, make_plan

import benchbench
from benchbench.execution.local import run_cells
from benchbench.extension.catalog import Catalog
from benchbench.extension.conformance.pretended_gpu import PretendedGpu, works

ROOT = checkout.ROOT
EXPECTED_SKIPS = tomllib.loads((ROOT / "tests" / "skips.toml").read_text())["skip"]
unexpected: list[str] = []  # skips of this run


def pytest_configure(config):
    config.pluginmanager.register(counting)
    if not Path(benchbench.__file__).is_relative_to(ROOT):
        raise pytest.UsageError(f"{benchbench.__file__} would be tested, and not {ROOT}")


def pytest_runtest_logreport(report):
    note_skip(report)


def pytest_collectreport(report):
    note_skip(report)


def note_skip(report) -> None:
    if not report.skipped or hasattr(report, "wasxfail"):
        return
    said = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if not any(report.nodeid.startswith(s["test"]) and s["said"] in said for s in EXPECTED_SKIPS):
        unexpected.append(f"{report.nodeid}: {said}")


def pytest_sessionfinish(session):
    if unexpected and os.environ.get("CI") and "PYTEST_XDIST_WORKER" not in os.environ:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter):
    if unexpected and os.environ.get("CI"):
        terminalreporter.section("skips that tests/skips.toml does not expect")
        for line in unexpected:
            terminalreporter.line(line)


@pytest.fixture(autouse=True)
def rehearsed(request):
    """Where there is no GPU, one is pretended for a test that needs it, and must mix nothing.

    What the marker is given says why a test cannot be rehearsed.
    """
    marker = request.node.get_closest_marker("gpu")
    if marker is None or torch.cuda.is_available():
        yield
        return
    if marker.args:
        pytest.skip(f"no CUDA device, and none can be pretended: {marker.args[0]}")
    if not works():
        pytest.skip(f"no CUDA device, and none can be pretended with torch {torch.__version__}")
    with PretendedGpu() as gpu:
        yield
    assert not gpu.seen.mixes, "; ".join(map(str, gpu.seen.mixes))


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    return make_catalog()


@pytest.fixture
def plan_of(tmp_path):
    """Makes a plan from the text of a suite; the store is a folder of this test."""

    def make(text: str, store: Path | None = None):
        return make_plan(text, store or tmp_path / "store", tmp_path)

    return make


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A plan with two draws, two states of each, and two sources that are left out in turn."""
    folder = tmp_path_factory.mktemp("tuned")
    plan = make_plan(TUNED, folder / "store", folder)
    records = run_cells(plan, plan.cells, Silent())
    assert {record.status for record in records} == {"scored"}
    return plan, records


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
def fresh(tmp_path, monkeypatch) -> Callable[..., Path]:
    """Makes an empty environment, installs wheels or folders into it, and returns its ``bin``."""
    monkeypatch.delenv("PYTHONPATH")  # what is installed is tested, and not the checkout

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
