"""What docs/reliability.md says is tested, is."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reliability.md").read_text()
ROWS = re.findall(r"^\| (\d+) \|(.*)\|$", PAGE, re.M)


def names_in(path: Path) -> set[str]:
    nodes = ast.parse(path.read_text()).body
    return {node.name for node in nodes if isinstance(node, ast.FunctionDef)}


def test_every_row_of_the_table_of_faults_is_there_once_and_names_a_test():
    assert [int(number) for number, _ in ROWS] == list(range(1, 23))
    for number, text in ROWS:
        assert "::test_" in text, f"row {number}"


def test_every_test_that_is_named_is_there():
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", PAGE)
    assert len(named) >= 22
    for file, name in named:
        assert name in names_in(ROOT / "tests" / file), f"{file}::{name}"


def test_every_test_of_a_row_is_named_in_it():
    rows = {int(number): text for number, text in ROWS}
    paths = sorted(Path(__file__).parent.glob("test_rows_*.py"))
    assert len(paths) >= 6
    for path in paths:
        for name in names_in(path):
            if number := re.match(r"test_row_(\d\d)_", name):
                assert f"`faults/{path.name}::{name}`" in rows[int(number[1])], name
