"""What the documentation says is what the program does today."""

import inspect
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import get_args

import api_page
import click
import notebooks
import pytest
from losses import CASES

import benchbench
from benchbench.cli import main
from benchbench.evaluation.readouts.registry import HEAD, READOUTS
from benchbench.extension import hookspecs
from benchbench.extension.catalog import HOOKS, Wanted, load
from benchbench.extension.conformance import CHECKS, all_kinds, checks_of
from benchbench.extension.constants import Rule
from benchbench.extension.grammar import spell

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
PLUGINS = (ROOT / "docs" / "plugins.md").read_text()
BOARDS = (ROOT / "docs" / "boards.md").read_text()
FIRST_GPU = (ROOT / "docs" / "first-gpu.md").read_text()


def commands(text: str) -> list[str]:
    """Every line that starts with `benchbench` in a console block, without its prompt."""
    blocks = re.findall(r"```(?:console|sh|bash)\n(.*?)```", text, re.S)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    return [part for line in lines for part in re.split(r" && ", line)
            if part.startswith("benchbench ")]  # fmt: skip


def test_every_command_in_the_documentation_exists_with_its_options():
    found = commands(README) + commands(PLUGINS) + commands(BOARDS) + commands(FIRST_GPU)
    assert len(found) >= 10
    for line in found:
        name, *words = shlex.split(line, comments=True)[1:]
        assert name in main.commands, line
        command = main.commands[name]
        if isinstance(command, click.Group):
            assert words[0] in command.commands, line
            command = command.commands[words.pop(0)]
        known = {option for p in command.params for option in p.opts}
        assert {w.split("=")[0] for w in words if w.startswith("-")} <= known, line


def test_every_command_is_in_the_readme():
    told = {shlex.split(line, comments=True)[1] for line in commands(README)}
    assert told == set(main.commands)
    for command in main.commands.values():
        assert isinstance(command, click.Command) and command.help


def test_every_rule_of_selection_is_explained():
    assert {*re.findall(r"^\| `(\w+)` \|", BOARDS, re.M)} == {*get_args(Rule)}


def test_everything_on_offer_is_in_the_readme():
    entries = load(Wanted(allowed=())).entries
    assert len(entries) > 60
    for kind, name in entries:
        assert f"`{name}`" in README, f"{kind} {name}"


def test_ci_runs_the_test_command_that_the_readme_prints():
    ci = (ROOT / ".ci" / "run").read_text().splitlines()
    (command,) = [line for line in ci if line.startswith("pip install")]
    assert command in README


def examples() -> dict[str, str]:
    """By hook, the code of docs/plugins.md that has it."""
    blocks = re.findall(r"```python\n(.*?)```", PLUGINS, re.S)
    found = {h: [b for b in blocks if f"def {h}(" in b] for h in HOOKS.values()}
    return {hook: block for hook, (block,) in found.items()}


@pytest.mark.parametrize("kind", HOOKS)
def test_the_example_of_a_hook_is_short_and_what_the_new_command_writes(kind):
    example = examples()[HOOKS[kind]]
    assert len(example.splitlines()) <= 30
    assert example == (ROOT / "benchbench" / "extension" / "templates" / f"{kind}.py").read_text()


@pytest.mark.parametrize("kind", HOOKS)
def test_the_example_of_a_hook_passes_every_check(kind, tmp_path):
    path = tmp_path / "example.py"
    path.write_text(examples()[HOOKS[kind]])
    catalog = load(Wanted(files=(str(path),), allowed=()))
    plugin = catalog.named("example")
    assert [(e.kind, e.name) for e in catalog.offered_by(plugin)] == [(kind, "my_idea")]
    for check in checks_of(catalog, [plugin], tmp_path, tmp_path):
        assert check.run().status in ("passed", "skipped"), f"{check.name}: {check.run()}"


def test_every_hook_has_documentation_a_stranger_and_checks():
    strangers = "".join(p.read_text() for p in (ROOT / "tests" / "strangers").rglob("*.py"))
    declared = {name for name in vars(hookspecs) if name.startswith("benchbench_")}
    assert declared == set(HOOKS.values())
    for kind, hook in HOOKS.items():
        assert f"### `{hook}`: `factory(" in PLUGINS
        assert f"def {hook}():" in strangers
        assert len(CHECKS[kind]) > len(all_kinds.CHECKS)


def test_every_check_and_public_name_is_documented():
    for tests in CHECKS.values():
        for test in tests:
            promise = (inspect.getdoc(test) or "").partition("\n")[0]
            assert f"| `{test.__name__}` | {promise} |" in PLUGINS
    assert {*benchbench.CALLS} < api_page.names()
    for name in {*benchbench.__all__} - api_page.names():
        assert name in PLUGINS, name


def test_the_reference_of_the_api_is_what_the_code_says():
    text = api_page.PAGE.read_text()
    assert text == api_page.page(text), "run python tests/helpers/api_page.py"


def blocks(text: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", text, re.S)


def test_the_python_of_the_readme_is_the_first_of_the_api_page():
    assert blocks(README) == blocks(api_page.PAGE.read_text())[:1]


@pytest.mark.slow
def test_the_code_of_the_api_page_is_one_program_that_runs(tmp_path):
    (tmp_path / "page.py").write_text("\n".join(blocks(api_page.written_by_hand())))
    done = subprocess.run(
        [sys.executable, "page.py"], cwd=tmp_path, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ")[0].strip("| ") for line in done.stdout.splitlines()]
    for method in ("Sequential + linear (reference)", "Sequential + knn (reference)", "info_nce"):
        assert method in rows
    assert "is unregistered, as" in done.stdout and "turned: cannot tell" in done.stdout
    assert (tmp_path / "my-board" / "site" / "index.html").is_file()
    predicted = (tmp_path / "predictions.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in predicted] == ["file", "0.png", "1.png", "2.png"]


def test_the_notebooks_are_small_and_show_what_they_do_without_noise():
    read = {path.name: json.loads(path.read_text()) for path in notebooks.PATHS}
    assert len(read) == 4 and sum(path.stat().st_size for path in notebooks.PATHS) < 400_000
    for name, notebook in read.items():
        assert f"notebooks/{name}" in README and f"notebooks/{name}" in api_page.PAGE.read_text()
        code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        assert [cell["execution_count"] for cell in code] == [*range(1, len(code) + 1)], name
        shown = [output for cell in code for output in cell["outputs"]]
        assert {output["output_type"] for output in shown} <= {
            "display_data",
            "execute_result",
            "stream",
        }
        assert {output.get("name", "stdout") for output in shown} == {"stdout"}, "progress is noise"
        assert not re.findall(r"(?<![\w.)])/(?:tmp|home|root|work|usr|Users)\b", str(shown))


@pytest.mark.slow
@pytest.mark.parametrize("path", notebooks.PATHS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_what_is_kept_in_it(path, tmp_path):
    pytest.importorskip("nbclient", reason="the extra notebooks is not installed")
    kept = notebooks.tables(json.loads(path.read_text()))
    shown = notebooks.tables(notebooks.executed(path, tmp_path))
    assert kept and shown == kept


METHODS = (ROOT / "docs" / "methods.md").read_text()
ROWS = re.findall(r"^\| `([^`]+)` \|(.*)\|$", METHODS, re.M)


def test_every_objective_stands_in_the_methods_with_its_options_of_today():
    offered = load(Wanted(allowed=())).entries
    spelled = {spell(n, e.options) for (kind, n), e in offered.items() if kind == "objective"}
    told = {text for text, _ in ROWS}
    assert spelled - told == set()
    assert told - spelled == {*READOUTS, HEAD}


@pytest.mark.parametrize("name", CASES)
def test_a_loss_is_as_near_to_its_formula_as_the_methods_say(name):
    for objective in name.split(", "):
        (row,) = [
            rest for text, rest in ROWS if text.partition("(")[0] == objective.partition("(")[0]
        ]
        (bound,) = re.findall(r"\| (1e-\d\d) \|", row)
        assert CASES[name].difference <= float(bound)


def test_every_augmentation_of_a_paper_stands_in_the_methods():
    offered = load(Wanted(allowed=())).entries
    presets = [n for kind, n in offered if kind == "augmentation" and n.endswith("_views")]
    assert len(presets) == 4
    assert all(f"`{name}`" in METHODS for name in (*presets, "wilds_strong"))


def test_every_dataset_is_in_its_page():
    page = (ROOT / "docs" / "datasets.md").read_text()
    datasets = {n for kind, n in load(Wanted(allowed=())).entries if kind == "dataset"}
    assert len(datasets) > 10
    assert {name for name in datasets - {"digits"} if f"`{name}" not in page} == set()
