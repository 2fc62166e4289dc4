"""What the tests share: a catalog with first-party plugins and a tiny dataset, and its plans."""

import os
from pathlib import Path

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
