"""The house rules, as tests."""

import ast
import inspect
import subprocess
import sys
import tomllib
from collections.abc import Callable
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from benchbench.extension import hookspecs

ROOT = Path(__file__).parent.parent
FLOORS = (  # a folder imports only from those above it in this list
    {"extension"},  # what everything is written in: contracts, names, errors; without its kit
    {"store"},
    {"training"},
    {"evaluation"},
    {"data"},
    {"suites"},
    {"diagnostics"},
    {"execution", "conformance"},
    {"leaderboard"},
    {"benchmarks"},
    {"api"},
    {"cli"},
    {"__main__"},
)
MOST_ENTRIES = 14  # in the package's folder
ADJECTIVES = {"consistent", "encoded", "fitted", "inert", "prepared", "shared", "steady"}
TEMPLATES = [*(ROOT / "benchbench" / "extension" / "templates").glob("*.py")]  # of others
CORE = sorted(set((ROOT / "benchbench").rglob("*.py")) - set(TEMPLATES))
PLUGINS = sorted((ROOT / "plugins").rglob("*.py"))


def imports(path: Path) -> set[str]:
    """All modules that a file imports: of ``from folder import module`` the module."""
    modules = {dotted(path) for path in CORE}
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            members = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= members & modules
            found |= {node.module} if members - modules else set()
    return found


def dotted(path: Path) -> str:
    """The name under which a file of the core is imported."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room(module: str) -> str:
    """The folder of the core that a module is in; the conformance kit is a room of its own."""
    _, first, *rest = module.split(".")
    return "conformance" if (first, *rest[:1]) == ("extension", "conformance") else first


def offenders(paths: list[Path], wrong: Callable[[Path], set[str]]) -> dict[str, list[str]]:
    """What is wrong with each file that there is something wrong with."""
    assert len(paths) > 20
    found = {path.relative_to(ROOT).as_posix(): sorted(wrong(path)) for path in paths}
    return {name: faults for name, faults in found.items() if faults}


def test_a_module_imports_only_from_floors_below():
    def above(path):
        mine = room(dotted(path))
        floor = next(i for i, rooms in enumerate(FLOORS) if mine in rooms)
        below = set().union(*FLOORS[:floor]) | {mine}
        ours = {m for m in imports(path) if m.startswith("benchbench.")}
        return {m for m in ours if room(m) not in below}

    assert offenders([p for p in CORE if dotted(p) != "benchbench"], above) == {}


def test_no_modules_import_each_other_in_a_circle():
    modules = {*map(dotted, CORE)} - {"benchbench"}  # which imports on demand
    graph = {dotted(path): imports(path) & modules - {dotted(path)} for path in CORE}
    order = [*TopologicalSorter(graph).static_order()]  # CycleError names a circle
    assert {*order} == modules | {"benchbench"}


def test_the_training_loop_knows_no_disk_no_names_and_no_command_line():
    knows = imports(ROOT / "benchbench" / "training" / "loop.py")
    assert {room(m) for m in knows if m.startswith("benchbench.")} == {"extension", "training"}
    assert not knows & {"pathlib", "os", "benchbench.extension.catalog"}


def test_a_thing_is_found_by_its_name():
    """Few folders, none of one file, and no file named by an adjective or like another."""
    entries = {p.name for p in (ROOT / "benchbench").iterdir()} - {"__pycache__", "py.typed"}
    assert len(entries) <= MOST_ENTRIES, sorted(entries)
    names = [path.stem for path in CORE if "cli" not in path.parts and path.stem != "__init__"]
    assert {name for name in names if names.count(name) > 1} == set()
    assert not {*names} & (ADJECTIVES | {"base", "common", "helpers", "manager", "misc", "utils"})
    folders = {path.parent for path in CORE} - {ROOT / "benchbench"}
    assert [f for f in folders if len([*f.glob("[!_]*")]) < 2] == []


def test_every_command_goes_through_the_api():
    """It parses and prints: what it does, a Python program can do as well."""
    allowed = {"api", "cli", "extension.errors", "extension.constants", "extension.grammar"}
    allowed |= {"leaderboard.escaping"}  # by which strangers' words are made harmless to print

    def elsewhere(path):
        tree = ast.parse(path.read_text())
        typing = {
            id(node)
            for block in ast.walk(tree)
            if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
            for node in ast.walk(block)
        }
        found = {
            node.module.removeprefix("benchbench.")
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and id(node) not in typing
            if (node.module or "").startswith("benchbench.")
        }
        return {name for name in found if name.split(".")[0] not in allowed} - allowed

    paths = sorted((ROOT / "benchbench" / "cli").glob("*.py"))
    assert len(paths) > 10 and {p.name: elsewhere(p) for p in paths if elsewhere(p)} == {}


def test_the_core_knows_no_plugin():
    def known(path):
        return {m for m in imports(path) if m.startswith("benchbench_")}

    assert offenders(CORE, known) == {}


def test_plugins_use_only_the_public_interface():
    def private(path):
        own = path.relative_to(ROOT / "plugins").parts[0]
        others = {m for m in imports(path) if m.startswith("benchbench_")}
        inside = {m for m in imports(path) if m.startswith("benchbench.")}
        return inside | {m for m in others if m.split(".")[0] != own}

    assert offenders(PLUGINS, private) == {}


def test_every_hook_is_documented_and_takes_nothing():
    hooks = [f for name, f in vars(hookspecs).items() if name.startswith("benchbench_")]
    assert len(hooks) == 4
    for hook in hooks:
        assert hook.__doc__ and not inspect.signature(hook).parameters


def test_every_plugin_folder_is_an_entry_point_and_in_the_wheel():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    folders = {p.name for p in (ROOT / "plugins").iterdir() if p.name.startswith("benchbench_")}
    assert set(project["project"]["entry-points"]["benchbench"].values()) == folders
    packages = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert packages == ["benchbench", *(f"plugins/{name}" for name in sorted(folders))]


@pytest.mark.parametrize(
    ("statement", "banned"),
    [
        ("import benchbench.cli", {"torch", "numpy", "pydantic", "tabulate"}),
        ("import benchbench.api", {"torch", "numpy", "pydantic", "tabulate"}),
        ("import benchbench.leaderboard.table", {"torch"}),
        (
            "import benchbench.execution.cell",
            {"timm", "torchvision", "sklearn", "matplotlib", "wilds"},
        ),
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(statement, banned):
    script = f"{statement}; import sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert loaded.returncode == 0, loaded.stderr
    assert not {name.split(".")[0] for name in loaded.stdout.split()} & banned
