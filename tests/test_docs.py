"""What the documentation says is what the program does today."""

import re
import shlex
from pathlib import Path

import click

from benchbench.catalog import load
from benchbench.cli import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def commands(text: str) -> list[str]:
    """Every line that starts with `benchbench` in a console block, without its prompt."""
    blocks = re.findall(r"```(?:console|sh|bash)\n(.*?)```", text, re.S)
    lines = [line.removeprefix("$ ") for block in blocks for line in block.splitlines()]
    return [part for line in lines for part in re.split(r" && ", line)
            if part.startswith("benchbench ")]  # fmt: skip


def test_every_command_in_the_readme_exists_with_its_options():
    found = commands(README)
    assert len(found) >= 5
    for line in found:
        name, *words = shlex.split(line, comments=True)[1:]
        assert name in main.commands, line
        known = {option for p in main.commands[name].params for option in p.opts}
        assert {w.split("=")[0] for w in words if w.startswith("-")} <= known, line


def test_every_command_is_in_the_readme():
    told = {shlex.split(line)[1] for line in commands(README)}
    assert told == set(main.commands)
    for command in main.commands.values():
        assert isinstance(command, click.Command) and command.help


def test_everything_on_offer_is_in_the_readme():
    for kind, name in load().entries:
        assert f"`{name}`" in README, f"{kind} {name}"


def test_ci_runs_the_test_command_that_the_readme_prints():
    ci = (ROOT / ".ci" / "run").read_text().splitlines()
    (command,) = [line for line in ci if line.endswith("pytest")]
    assert command in README
