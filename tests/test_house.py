"""The house rules, as tests."""

import ast
import inspect
import subprocess
import sys
import tomllib
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


@pytest.mark.parametrize(
    "path", [p for p in CORE if room(p) != "__init__"], ids=lambda p: p.relative_to(ROOT).as_posix()
)
def test_a_module_imports_only_from_floors_below(path):
    floor = next(i for i, rooms in enumerate(FLOORS) if room(path) in rooms)
    below = set().union(*FLOORS[:floor]) | {room(path)}
    used = {m.split(".")[1] for m in imports(path) if m.startswith("benchbench.")}
    assert used <= below


@pytest.mark.parametrize("path", CORE, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_the_core_knows_no_plugin(path):
    assert not {m for m in imports(path) if m.startswith("benchbench_")}


@pytest.mark.parametrize("path", PLUGINS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_plugins_use_only_the_public_interface(path):
    own = path.relative_to(ROOT / "plugins").parts[0]
    assert not {m for m in imports(path) if m.startswith("benchbench.")}
    assert {m.split(".")[0] for m in imports(path) if m.startswith("benchbench_")} <= {own}


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
