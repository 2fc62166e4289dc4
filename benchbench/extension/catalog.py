"""Find plugins, and build what they offer from ``name(key=value)`` text.

pluggy alone stops at the first plugin that does not import, takes one of two that share a name,
and passes over a misspelt hook. Here each such plugin is set aside with its reason, and the
others work.
"""

import hashlib
import inspect
import os
import sys
from bdb import BdbQuit
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

import pluggy
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet

from benchbench import __version__
from benchbench.extension import hookspecs
from benchbench.extension.errors import BadInput
from benchbench.extension.grammar import (
    digest_of,
    instead,
    options_of,
    parse,
    pinned,
    settle,
    spell,
    split_pipeline,
)
from benchbench.extension.process_isolation import what_ends

if TYPE_CHECKING:
    from benchbench.extension.contracts import Between, Published

KINDS = ("dataset", "encoder", "augmentation", "objective")
NOTHING = "none"  # what suites call no augmentation
HOOKS = {kind: f"benchbench_{kind}s" for kind in KINDS}
Failures = Mapping[str, Mapping[str, str]]  # of an entry, its checks that fail, and why

EXPECTED = "benchbench_expected_failures"  # what a plugin says of checks that it cannot pass
DISTRIBUTION = "benchbench-shift"
# What a package's behaviour is written in.
SOURCES = (".py", ".csv", ".json", ".toml", ".txt", ".yaml")
LOCAL_FILE = "local file"  # stands for the distribution of a plugin that is a file
FILE_MODULE = "benchbench_file_"  # how the names of modules made of such files start


@dataclass(frozen=True)
class Plugin:
    """Where entries come from."""

    name: str
    distribution: str
    version: str
    entry_point: str  # the module that is loaded, or the name of a local file
    digest: str  # sha256 over the sources of the module's top-level package

    def __str__(self) -> str:
        return f"{self.name} ({self.distribution} {self.version})"


@dataclass(frozen=True)
class Aside:
    """A plugin that is installed, but does not take part."""

    plugin: Plugin
    reason: str

    def __str__(self) -> str:
        return f"plugin {self.plugin} was set aside: {self.reason}"


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
    def published(self) -> "Published | None":
        """Of a dataset: where it comes from, if it says so."""
        return getattr(self.factory, "published", None)

    @property
    def modalities(self) -> frozenset[str]:
        """Of an encoder or augmentation: whether it is for images or for texts."""
        return frozenset(getattr(self.factory, "modalities", ("image",)))

    @property
    def searched(self) -> "Mapping[str, Between]":
        """Of an objective: among what a suite that tunes draws its options."""
        return vars(self.factory).get("searched", {})

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
        except (BadInput, BdbQuit):
            raise
        except (Exception, SystemExit) as error:
            reason = f"{type(error).__name__}: {error}"
            raise BadInput(f"{self.entry.kind} {self.text} cannot be built: {reason}") from error

    @property
    def text(self) -> str:
        """The spelling with every default written out."""
        return spell(self.entry.name, self.options)


@dataclass(frozen=True)
class Catalog:
    """Everything on offer, by kind and name; the plugins it is from, and those set aside."""

    entries: Mapping[tuple[str, str], Entry]
    plugins: tuple[Plugin, ...]
    aside: tuple[Aside, ...] = ()
    expected_failures: Mapping[Plugin, Failures] = field(default_factory=dict)

    def resolve(self, kind: str, text: str) -> Choice:
        """The entry that ``text`` names, with its options; BadInput says what there is instead."""
        name, chosen = parse(text)
        known = [n for k, n in self.entries if k == kind]
        if name not in known:
            missed = "".join(f"; {aside}" for aside in self.aside)
            raise BadInput(f"no {kind} is named {name!r}; {instead(name, known)}{missed}")
        entry, owner = self.entries[kind, name], f"{kind} {name}"
        options = settle(owner, entry.options, chosen)
        option = getattr(entry.factory, "reads_file", None)
        return Choice(entry, pinned(owner, options, option) if option else options)

    def pipeline(self, text: str) -> list[Choice]:
        """The augmentations of ``a | b(key=value)``; none for ``none``."""
        steps = split_pipeline(text)
        return [] if steps == [NOTHING] else [self.resolve("augmentation", step) for step in steps]

    def named(self, name: str) -> Plugin:
        """The loaded plugin of that name; BadInput says why it is not there."""
        for plugin in self.plugins:
            if plugin.name == name:
                return plugin
        for aside in self.aside:
            if aside.plugin.name == name:
                raise BadInput(str(aside))
        known = instead(name, [plugin.name for plugin in self.plugins])
        raise BadInput(f"no plugin is named {name!r}; {known}")

    def having(self, entries: Iterable[Entry]) -> "Catalog":
        """With these entries, too, each of a plugin of its own. BadInput if a name is taken."""
        known, plugins = dict(self.entries), list(self.plugins)
        for entry in entries:
            if (entry.kind, entry.name) in known:
                raise BadInput(f"there is {entry.kind} {entry.name} already; choose another name")
            known[entry.kind, entry.name] = entry
            plugins.append(entry.plugin)
        return replace(self, entries=known, plugins=tuple(plugins))

    def offered_by(self, plugin: Plugin) -> list[Entry]:
        return [entry for entry in self.entries.values() if entry.plugin == plugin]


@dataclass(frozen=True)
class Wanted:
    """Which plugins to load."""

    files: tuple[str, ...] = ()  # local files, beside what is installed
    without: tuple[str, ...] = ()  # names of plugins to leave out
    allowed: tuple[str, ...] | None = None  # names of others' plugins; None: every installed one
    strict: bool = False  # raise what a plugin raises, instead of setting it aside

    @classmethod
    def here(
        cls, files: Sequence[str] = (), without: Sequence[str] = (), strict: bool = False
    ) -> "Wanted":
        """With what BENCHBENCH_PLUGINS and BENCHBENCH_STRICT_PLUGINS say."""
        listed = os.environ.get("BENCHBENCH_PLUGINS")
        allowed = None if listed is None else tuple(filter(None, map(str.strip, listed.split(","))))
        strict = strict or os.environ.get("BENCHBENCH_STRICT_PLUGINS", "") not in ("", "0")
        return cls(tuple(files), tuple(without), allowed, strict)


class Refused(Exception):
    """Why a plugin cannot take part."""


def load(wanted: Wanted | None = None) -> Catalog:
    """What the wanted plugins offer; one that does not load is set aside, with its reason.

    BadInput if a local file does not load, or a name that is wanted or not wanted is unknown.
    """
    wanted = wanted or Wanted.here()
    points = sorted(entry_points(group="benchbench"), key=lambda p: (p.name, p.value))
    names = {point.name for point in points}
    for where, listed in (
        ("--no-plugin", wanted.without),
        ("BENCHBENCH_PLUGINS", wanted.allowed or ()),
    ):
        for name in listed:
            if name not in names:
                raise BadInput(f"{where} names {name!r}, but {instead(name, names)}")

    loader = Loader(wanted.strict)
    for point in points:
        plugin = _plugin_at(point)
        if point.name in wanted.without:
            loader.set_aside(plugin, "--no-plugin names it")
        elif wanted.allowed is not None and not _may_load(plugin, wanted.allowed):
            loader.set_aside(plugin, "BENCHBENCH_PLUGINS does not name it")
        else:
            loader.add(plugin, lambda point=point: _loaded(point))  # type: ignore[misc]
    for file in wanted.files:
        path = Path(file)
        if not path.is_file():
            raise BadInput(f"--plugin {file}: there is no such file")
        loader.add(_plugin_in(path), lambda path=path: module_of(path))  # type: ignore[misc]
    catalog = loader.catalog()
    for aside in catalog.aside:
        if aside.plugin.distribution == LOCAL_FILE:
            raise BadInput(f"--plugin {aside.plugin.entry_point}: {aside.reason}")
    return catalog


class Loader:
    """Takes plugins one by one; `catalog` says what came of them."""

    def __init__(self, strict: bool = False) -> None:
        self.strict = strict
        self.manager = pluggy.PluginManager("benchbench")
        self.manager.add_hookspecs(hookspecs)
        self.found: list[tuple[Plugin, Callable[[], object]]] = []
        self.aside: list[Aside] = []
        self.failures: dict[Plugin, Failures] = {}

    def add(self, plugin: Plugin, get: Callable[[], object]) -> None:
        """``get`` returns what has the hooks: a module or an object."""
        self.found.append((plugin, get))

    def set_aside(self, plugin: Plugin, reason: str) -> None:
        self.aside.append(Aside(plugin, reason))

    def catalog(self) -> Catalog:
        """Of plugins that share a name, and of those that offer the same, none is taken."""
        offers: list[Entry] = []
        first_party = [one for one in self.found if one[0].distribution == DISTRIBUTION]
        others = [one for one in self.found if one not in first_party]
        for found in (first_party, others):  # what ours import, others need not import again
            ends = self._tried(found) if found is others else {}
            for plugin, get in found:
                rivals = [other for other, _ in self.found if other.name == plugin.name]
                with self._guarded(plugin):
                    if len(rivals) > 1:
                        origins = " and ".join(f"{r.distribution} {r.version}" for r in rivals)
                        raise Refused(f"{origins} both claim the plugin name {plugin.name!r}")
                    if plugin in ends:
                        raise Refused(f"a process that loads it {ends[plugin]}")
                    offers += self._offers(plugin, get())
        for entry in offers:
            for rival in offers:
                if rival.plugin != entry.plugin and (rival.kind, rival.name) == (
                    entry.kind,
                    entry.name,
                ):
                    with self._guarded(entry.plugin):
                        raise Refused(
                            f"{entry.kind} {entry.name!r} is offered by plugin {rival.plugin} too; "
                            "leave one out with --no-plugin"
                        )
        out = {aside.plugin for aside in self.aside}
        kept = [entry for entry in offers if entry.plugin not in out]
        plugins = tuple(plugin for plugin, _ in self.found if plugin not in out)
        reasons = {aside.plugin: aside for aside in reversed(self.aside)}  # the first of each
        asides = tuple(sorted(reasons.values(), key=lambda aside: str(aside.plugin)))
        entries = {(entry.kind, entry.name): entry for entry in kept}
        return Catalog(entries, plugins, asides, self.failures)

    def _tried(self, found: Sequence[tuple[Plugin, Callable[[], object]]]) -> dict[Plugin, str]:
        """Which of them would end this process, or never return, and how."""
        works = [lambda p=p, get=get: self._offers(p, get()) for p, get in found]
        turns: list[int] = []
        try:
            ends = what_ends(works, turns.append)
        except KeyboardInterrupt:
            plugin, _ = found[turns[-1]]
            raise KeyboardInterrupt(f"plugin {plugin} was being loaded") from None
        return {found[number][0]: how for number, how in ends.items()}

    @contextmanager
    def _guarded(self, plugin: Plugin) -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt:  # it may be one that never ends
            raise KeyboardInterrupt(f"plugin {plugin} was being loaded") from None
        except Refused as refusal:
            if self.strict:
                raise BadInput(f"plugin {plugin}: {refusal}") from None
            self.set_aside(plugin, str(refusal))
        except BaseException as error:  # sys.exit and pytest.skip are no Exception
            if self.strict and isinstance(error, Exception):
                raise
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            if self.strict:
                raise RuntimeError(f"plugin {plugin} raised {reason}") from error
            self.set_aside(plugin, reason)

    def _offers(self, plugin: Plugin, holder: object) -> list[Entry]:
        """What the hooks return; Refused if they, or their names, are not what they should be."""
        check_api(getattr(holder, "benchbench_api", None))
        check_hooks(holder)
        self.failures[plugin] = checked_failures(getattr(holder, EXPECTED, {}))
        self.manager.register(holder, name=plugin.name)
        offers = []
        for kind, hook in HOOKS.items():
            for impl in getattr(self.manager.hook, hook).get_hookimpls():
                if impl.plugin_name == plugin.name:
                    offers += [
                        Entry(kind, name, factory, plugin)
                        for name, factory in checked_offers(hook, impl.function()).items()
                    ]
        if not offers:
            raise Refused(f"it offers nothing; a plugin has one of {', '.join(HOOKS.values())}")
        return offers


def check_api(needed: object) -> None:
    """Refused if ``benchbench_api``, such as ">=1.0,<2", leaves out today's interface."""
    api = ".".join(map(str, hookspecs.API))
    if needed is None:
        return
    try:
        fits = isinstance(needed, str) and api in SpecifierSet(needed)
    except InvalidSpecifier:
        raise Refused(f"benchbench_api = {needed!r} is no range such as '>=1.0,<2'") from None
    if not fits:
        raise Refused(f"it is made for benchbench_api {needed}, and here is {api}")


def check_hooks(holder: object) -> None:
    """Refused if a hook is misspelt or not marked, which pluggy passes over, or takes arguments."""
    for name in dir(holder):
        member = getattr(holder, name, None)
        if not name.startswith("benchbench_") or not inspect.isroutine(member):
            continue
        if name not in HOOKS.values():
            raise Refused(f"{name} is no hook; {instead(name, HOOKS.values())}")
        if not hasattr(member, "benchbench_impl"):
            raise Refused(f"{name} is not marked; put @hookimpl above it")
        if inspect.signature(member).parameters:
            raise Refused(
                f"{name} takes arguments; a hook takes none: factories get what they need"
            )


def checked_failures(failures: object) -> Failures:
    """Refused if ``benchbench_expected_failures`` is not {entry: {check: reason}}."""
    right = isinstance(failures, Mapping) and all(
        isinstance(reasons, Mapping) and all(isinstance(w, str) and w for w in reasons.values())
        for reasons in failures.values()
    )
    if not right:
        raise Refused(f"{EXPECTED} should read {{entry: {{check: reason}}}}")
    return cast(Failures, failures)


def checked_offers(hook: str, offers: object) -> Mapping[str, Callable[..., Any]]:
    if not isinstance(offers, Mapping):
        raise Refused(f"{hook} returns {type(offers).__name__}, not a dict of name: factory")
    for name, factory in offers.items():
        if not (isinstance(name, str) and name.isidentifier()):
            raise Refused(f"{hook} offers {name!r}, which is no name; use letters, digits and _")
        if name == NOTHING:
            raise Refused(f"{hook} offers {name!r}, by which suites say that there is nothing")
        if not callable(factory):
            kind = type(factory).__name__
            raise Refused(f"{hook} offers {name!r} as {kind}, which cannot be called")
    return offers


def _plugin_at(point: EntryPoint) -> Plugin:
    name, version = (point.dist.name, point.dist.version) if point.dist else ("none", "none")
    return Plugin(point.name, name, version, point.value, source_digest(point.module))


def _plugin_in(path: Path) -> Plugin:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Plugin(path.stem, LOCAL_FILE, "none", path.name, digest)


def _may_load(plugin: Plugin, allowed: Sequence[str]) -> bool:
    return plugin.distribution == DISTRIBUTION or plugin.name in allowed


def _loaded(point: EntryPoint) -> object:
    """The module of an entry point; Refused if its distribution asks for another benchbench."""
    for line in (point.dist.requires or []) if point.dist else []:
        try:
            need = Requirement(line)
        except InvalidRequirement:
            continue
        if need.name == DISTRIBUTION and not need.specifier.contains(__version__, prereleases=True):
            raise Refused(f"it needs {DISTRIBUTION} {need.specifier}, and here is {__version__}")
    return point.load()


def module_of(path: Path) -> ModuleType:
    """A file as a module, known under a name of its own so that what it defines can be pickled."""
    name = FILE_MODULE + path.stem
    spec = spec_from_file_location(name, path.resolve())
    if spec is None or spec.loader is None:
        raise Refused("it is no Python file; its name should end in .py")
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def source_digest(module: str) -> str:
    """sha256 over the sources of a module's top-level package, by relative path."""
    spec = find_spec(module.partition(".")[0])
    if spec is None or spec.origin is None:
        return "none"
    origin = Path(spec.origin)
    folder = origin.parent
    if not spec.submodule_search_locations:
        return digest_of(folder, [origin])
    return digest_of(folder, sorted(p for p in folder.rglob("*") if p.suffix in SOURCES))
