"""The house rules, as tests."""

import ast
import inspect
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from benchbench import hookspecs

ROOT = Path(__file__).parent.parent
FLOORS = (  # a module imports only from the floors above it in this list
    {"interrupts", "terms", "trial"},
    {"spelling"},
    {"contracts"},
    {"hookspecs", "features", "suite", "record", "spread", "disk", "keys"},
    {"claims"},
    {"train"},
    {"catalog", "footprint", "machine", "metrics", "readout", "scaffold", "store"},
    {"data"},
    {"datasets", "tune"},
    {"plan", "board", "gather"},
    {"diagnose"},
    {"validators"},
    {"run", "checks"},
    {"estimate", "publish", "upkeep"},
    {"launch"},
    {"bench", "finalists"},
    {"progress"},
    {"cli"},
    {"__main__"},
)
TEMPLATES = sorted((ROOT / "benchbench" / "templates").glob("*.py"))  # of others' packages
CORE = sorted(set((ROOT / "benchbench").rglob("*.py")) - set(TEMPLATES))
PLUGINS = sorted((ROOT / "plugins").rglob("*.py"))


def imports(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = {alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names}
    froms = [n for n in nodes if isinstance(n, ast.ImportFrom) and n.module]
    members = {f"benchbench.{a.name}" for n in froms if n.module == "benchbench" for a in n.names}
    rooms = {f"benchbench.{room(path)}" for path in CORE}
    return plain | {n.module for n in froms} | (members & rooms)


def room(path: Path) -> str:
    """The top-level module or folder of the core that a file is in."""
    return path.relative_to(ROOT / "benchbench").parts[0].removesuffix(".py")


def offenders(paths: list[Path], wrong: Callable[[Path], set[str]]) -> dict[str, list[str]]:
    """What is wrong with each file that there is something wrong with."""
    assert len(paths) > 20
    found = {path.relative_to(ROOT).as_posix(): sorted(wrong(path)) for path in paths}
    return {name: faults for name, faults in found.items() if faults}


def test_a_module_imports_only_from_floors_below():
    def above(path):
        floor = next(i for i, rooms in enumerate(FLOORS) if room(path) in rooms)
        below = set().union(*FLOORS[:floor]) | {room(path)}
        ours = {m for m in imports(path) if m.startswith("benchbench.")}
        return {m for m in ours if m.split(".")[1] not in below}

    assert offenders([p for p in CORE if room(p) != "__init__"], above) == {}


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
        ("import benchbench.board.table", {"torch"}),
        ("import benchbench.run", {"timm", "torchvision", "sklearn", "matplotlib", "wilds"}),
    ],
)
def test_nothing_heavy_is_imported_before_it_is_needed(statement, banned):
    script = f"{statement}; import sys; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert loaded.returncode == 0, loaded.stderr
    assert not {name.split(".")[0] for name in loaded.stdout.split()} & banned
