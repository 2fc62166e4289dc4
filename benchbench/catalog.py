"""Find plugins, and build what they offer from ``name(key=value)`` text."""

import hashlib
import inspect
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pluggy

from benchbench import hookspecs
from benchbench.spelling import instead, options_of, parse, settle, spell, split_pipeline
from benchbench.terms import BadInput

KINDS = ("dataset", "encoder", "augmentation", "objective")


@dataclass(frozen=True)
class Plugin:
    """Where an entry comes from."""

    name: str
    distribution: str
    version: str
    entry_point: str  # the module that is loaded
    digest: str  # sha256 over the Python files of the module's top-level package


@dataclass(frozen=True)
class Entry:
    """One thing a plugin offers."""

    kind: str
    name: str
    factory: Callable[..., Any]
    plugin: Plugin

    @property
    def options(self) -> dict[str, Any]:
        """Keyword-only arguments and their defaults: all that a user may choose."""
        return options_of(self.factory)

    @property
    def summary(self) -> str:
        return (inspect.getdoc(self.factory) or "").partition("\n")[0]


@dataclass(frozen=True)
class Choice:
    """An entry with every option settled."""

    entry: Entry
    options: Mapping[str, Any]

    def build(self, *supplied: Any) -> Any:
        """BadInput if the factory raises, whatever it raises."""
        try:
            return self.entry.factory(*supplied, **self.options)
        except BadInput:
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise BadInput(f"{self.entry.kind} {self.text} cannot be built: {reason}") from error

    @property
    def text(self) -> str:
        """The spelling with every default written out."""
        return spell(self.entry.name, self.options)


@dataclass(frozen=True)
class Catalog:
    """Everything on offer, by kind and name, and the plugins that were set aside, with reasons."""

    entries: Mapping[tuple[str, str], Entry]
    aside: Mapping[str, str] = field(default_factory=dict)

    def resolve(self, kind: str, text: str) -> Choice:
        """The entry that ``text`` names, with its options; BadInput says what there is instead."""
        name, chosen = parse(text)
        known = [n for k, n in self.entries if k == kind]
        if name not in known:
            broken = "".join(f"; plugin {p} was set aside: {why}" for p, why in self.aside.items())
            raise BadInput(f"no {kind} is named {name!r}; {instead(name, known)}{broken}")
        entry = self.entries[kind, name]
        return Choice(entry, settle(f"{kind} {name}", entry.options, chosen))

    def pipeline(self, text: str) -> list[Choice]:
        """The augmentations of ``a | b(key=value)``; none for ``none``."""
        steps = split_pipeline(text)
        return [] if steps == ["none"] else [self.resolve("augmentation", step) for step in steps]


@cache
def load() -> Catalog:
    """What every installed plugin offers. One that does not load is set aside, with its reason."""
    points = sorted(entry_points(group="benchbench"), key=lambda p: (p.name, p.value))
    twice = {name for name, count in Counter(p.name for p in points).items() if count > 1}
    manager = pluggy.PluginManager("benchbench")
    manager.add_hookspecs(hookspecs)
    plugins, aside = {}, {}
    for point in points:
        if point.name in twice:
            rivals = " and ".join(_origin(p) for p in points if p.name == point.name)
            aside[point.name] = f"{rivals} both claim this plugin name"
            continue
        try:
            manager.register(point.load(), name=point.name)
            manager.check_pending()  # a misspelt hook is an error, not a silent no-op
            plugins[point.name] = _plugin(point)
        except (Exception, SystemExit) as error:
            if manager.has_plugin(point.name):
                manager.unregister(name=point.name)
            aside[point.name] = f"{type(error).__name__}: {error}"
    entries, more = collect(manager, plugins)
    return Catalog(entries, aside | more)


def collect(
    manager: pluggy.PluginManager, plugins: Mapping[str, Plugin]
) -> tuple[dict[tuple[str, str], Entry], dict[str, str]]:
    """Ask every plugin what it offers. Of two that offer one name, neither is taken."""
    offers: list[Entry] = []
    aside: dict[str, str] = {}
    for kind in KINDS:
        for impl in getattr(manager.hook, f"benchbench_{kind}s").get_hookimpls():
            try:
                offered = dict(impl.function())
            except (Exception, SystemExit) as error:
                aside[impl.plugin_name] = f"{type(error).__name__}: {error}"
                continue
            offers += [Entry(kind, n, f, plugins[impl.plugin_name]) for n, f in offered.items()]
    count = Counter((entry.kind, entry.name) for entry in offers)
    for entry in offers:
        if count[entry.kind, entry.name] > 1:
            reason = f"{entry.kind} {entry.name!r} is offered by another plugin too"
            aside[entry.plugin.name] = reason
    kept = [entry for entry in offers if entry.plugin.name not in aside]
    return {(entry.kind, entry.name): entry for entry in kept}, aside


def _plugin(point: EntryPoint) -> Plugin:
    name, version = (point.dist.name, point.dist.version) if point.dist else ("none", "none")
    return Plugin(point.name, name, version, point.value, source_digest(point.module))


def _origin(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def source_digest(module: str) -> str:
    """sha256 over the Python files of a module's top-level package, by relative path."""
    spec = find_spec(module.partition(".")[0])
    if spec is None or spec.origin is None:
        return "none"
    origin = Path(spec.origin)
    folder = origin.parent
    files = sorted(folder.rglob("*.py")) if spec.submodule_search_locations else [origin]
    total = hashlib.sha256()
    for path in files:
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        total.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return total.hexdigest()
