"""What the documentation says is what the program does today."""

import inspect
import re
import shlex
from pathlib import Path
from typing import get_args

import click
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


def commands(text: str) -> list[str]:
    """Every line that starts with `benchbench` in a console block, without its prompt."""
    blocks = re.findall(r"```(?:console|sh|bash)\n(.*?)```", text, re.S)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    return [part for line in lines for part in re.split(r" && ", line)
            if part.startswith("benchbench ")]  # fmt: skip


def test_every_command_in_the_documentation_exists_with_its_options():
    found = commands(README) + commands(PLUGINS) + commands(BOARDS)
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
    for name in benchbench.__all__:
        assert name in PLUGINS, name


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
