"""A new plugin's package works as it is written."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner
from tiny import Text

from benchbench.cli import main
from benchbench.extension.catalog import HOOKS, Wanted, load
from benchbench.suites.suite import Suite


def new(*words):
    result = CliRunner().invoke(main, ["new", *map(str, words)])
    assert isinstance(result.exception, SystemExit | None)
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize("kind", HOOKS)
def test_a_package_is_complete_and_named_throughout(kind, tmp_path):
    status, out, _ = new(kind, "great-idea", "--into", tmp_path)
    folder = tmp_path / "great-idea"
    assert status == 0 and f"{folder} holds {kind} great_idea" in out
    files = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert files == {
        "README.md",
        "pyproject.toml",
        "suite.toml",
        "benchbench_great_idea.py",
        "tests/test_conformance.py",
    }
    for name in files:
        text = (folder / name).read_text().lower()
        assert not any(word in text for word in ("my_idea", "my-idea", "myidea")), name

    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["name"] == "benchbench-shift-great-idea"
    assert project["entry-points"]["benchbench"] == {"great_idea": "benchbench_great_idea"}
    module = str(folder / "benchbench_great_idea.py")
    catalog = load(Wanted(files=(module,), allowed=()))
    assert (kind, "great_idea") in catalog.entries

    suite = Suite.read(str(folder / "suite.toml"))
    base = Suite.read("quickstart")
    assert suite.name == "great-idea"
    names = [method.name for method in suite.methods()]
    assert set(names) > {m.name for m in base.methods()} or kind == "dataset", "it has its own"
    text = (folder / "suite.toml").read_text()
    assert "great_idea" in text and suite.baseline == "erm"


@pytest.mark.parametrize(
    ("kind", "name", "sentence"),
    [
        ("objective", "../x", "cannot name a plugin; use small letters, digits and hyphens"),
        ("objective", "MyIdea", "as in my-idea"),
        ("objective", "1st", "cannot name a plugin"),
        ("objective", "simclr", "there is objective simclr already"),
        ("objective", "digits", "there is a plugin digits already"),
        ("objectiv", "x", "is not one of 'dataset', 'encoder', 'augmentation', 'objective'"),
    ],
)
def test_a_name_that_cannot_be_is_refused(kind, name, sentence, tmp_path):
    status, _, err = new(kind, name, "--into", tmp_path)
    assert status == 2 and sentence in err.replace("\n", " ")
    assert not list(tmp_path.iterdir())


def test_nothing_is_overwritten(tmp_path):
    assert new("encoder", "mine", "--into", tmp_path)[0] == 0
    (tmp_path / "mine" / "suite.toml").write_text("changed")
    status, _, err = new("objective", "mine", "--into", tmp_path)
    assert status == 2 and "exists; choose another name, or another folder with --into" in err
    assert (tmp_path / "mine" / "suite.toml").read_text() == "changed"
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_a_file_where_the_folder_should_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    status, _, err = new("objective", "mine", "--into", tmp_path / "file" / "below")
    assert status == 2 and "cannot be used: Not a directory" in err
    assert (tmp_path / "file").read_text() == ""


@pytest.mark.slow
@pytest.mark.parametrize("kind", HOOKS)
def test_from_nothing_to_a_row_of_the_table(kind, wheel, fresh, tmp_path):
    assert new(kind, "great-idea", "--into", tmp_path)[0] == 0
    folder = tmp_path / "great-idea"
    binaries = fresh(wheel, folder)

    def call(*words: str | Path) -> str:
        done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    told = call(binaries / "python", "-m", "pytest")
    assert "passed" in told and "failed" not in told
    suite, found = re.subn("steps *= 260", "steps = 3", (folder / "suite.toml").read_text())
    assert found == (kind != "dataset")  # the row of a dataset has the steps of its table
    suite = Text(suite).replace('extends = "quickstart"', 'extends = "quickstart"\nseeds = [0]')
    if kind == "dataset":
        suite += "[stage]\nsteps = 3\n"
    (folder / "suite.toml").write_text(suite)
    only = "seed=0" if kind == "dataset" else "great_idea"
    board = call(binaries / "benchbench", "run", "suite.toml", "--only", only)
    assert "great_idea" in board and "failed" not in board
