"""What plugins offer, and what objects become."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchbench.api.opening import Where, data_place, wanted_of
from benchbench.extension.errors import BadInput

if TYPE_CHECKING:
    from benchbench.extension.catalog import Catalog, Entry
    from benchbench.extension.conformance import Check, Outcome


def shipped_suites() -> list[str]:
    """The names of the suites that are shipped."""
    from benchbench.suites.suite import shipped_suites as names

    return names()


def catalog(
    *,
    plugins: Sequence[str | Path] = (),
    without_plugins: Sequence[str] = (),
    strict_plugins: bool = False,
) -> Catalog:
    """What installed plugins offer, and the ``plugins`` in files.

    BadInput if a file cannot be loaded, with ``strict_plugins`` if any plugin cannot.
    """
    from benchbench.extension.catalog import load

    return load(wanted_of(plugins, without_plugins, strict_plugins))


def offers(kind: str | None = None, **plugins: Any) -> Offers:
    """What installed plugins offer of a kind, such as "objectives", or of all; and the suites.

    ``plugins`` are those of `catalog`.
    """
    known = catalog(**plugins)
    chosen = tuple(e for e in known.entries.values() if kind is None or f"{e.kind}s" == kind)
    return Offers(known, chosen, tuple(shipped_suites()) if kind in (None, "suites") else ())


@dataclass(frozen=True)
class Offers:
    """What can be named in a suite."""

    catalog: Catalog
    entries: tuple[Entry, ...]
    suites: tuple[str, ...]

    def told(self) -> dict[str, Any]:
        """All of it, for programs."""
        entries = [
            {
                "kind": entry.kind,
                "name": entry.name,
                "options": {name: repr(value) for name, value in entry.options.items()},
                "summary": entry.summary,
                "plugin": vars(entry.plugin),
            }
            for entry in self.entries
        ]
        return {"offers": entries, "suites": list(self.suites), **plugins_told(self.catalog)}

    def __str__(self) -> str:
        from benchbench.extension.catalog import KINDS
        from benchbench.extension.grammar import spell

        lines: list[str] = []
        for kind in KINDS:
            members = sorted((e for e in self.entries if e.kind == kind), key=lambda e: e.name)
            lines += [f"{kind}s"] if members else []
            for entry in members:
                lines.append(f"  {spell(entry.name, entry.options)}")
                lines.append(f"      {entry.summary} [{entry.plugin.distribution}]")
        if self.suites:
            lines += ["suites", *(f"  {name}" for name in self.suites)]
        return "\n".join(lines)

    __repr__ = __str__


def plugins_told(known: Catalog) -> dict[str, Any]:
    """Every plugin that was found, for programs."""
    from benchbench.extension.hookspecs import API

    return {
        "api": ".".join(map(str, API)),
        "plugins": [
            {
                **vars(plugin),
                "offers": [f"{entry.kind} {entry.name}" for entry in known.offered_by(plugin)],
            }
            for plugin in known.plugins
        ],
        "set_aside": [{**vars(aside.plugin), "reason": aside.reason} for aside in known.aside],
    }


def new_plugin(kind: str, name: str, into: str | Path = ".", **plugins: Any) -> Path:
    """Write the package of a new plugin into a folder: a method that works, its test, a suite.

    BadInput if something has the name already.
    """
    from benchbench.extension.scaffold import write_package

    snake = name.replace("-", "_")
    known = catalog(**plugins)
    if (kind, snake) in known.entries:
        raise BadInput(f"there is {kind} {snake} already; choose another name")
    if any(plugin.name == snake for plugin in known.plugins):
        raise BadInput(f"there is a plugin {snake} already; choose another name")
    return write_package(kind, name, Path(into))


def check(
    names: Sequence[str] = (), *, data: Where = None, **plugins: Any
) -> Iterator[tuple[Entry, list[tuple[Check, Outcome]]]]:
    """Run the conformance kit: for each entry of a plugin, its checks and their outcomes.

    Checked are the plugins called ``names``, else those in files, else all that are installed.
    ``plugins`` are the arguments of `catalog`. BadInput if no plugin has the name.
    """
    from itertools import groupby
    from tempfile import TemporaryDirectory

    from benchbench.extension.catalog import LOCAL_FILE
    from benchbench.extension.conformance import checks_of

    known = catalog(**plugins)
    files = [p for p in known.plugins if p.distribution == LOCAL_FILE]
    chosen = [known.named(name) for name in names] or files or list(known.plugins)
    place = data_place(data)
    with TemporaryDirectory() as scratch, TemporaryDirectory() as empty:
        root = place if place.is_dir() else Path(empty)
        every = checks_of(known, chosen, root, Path(scratch))
        for entry, checks in groupby(every, lambda check: check.entry):
            yield entry, [(check, check.run()) for check in checks]


@dataclass(frozen=True)
class System:
    """This machine and its packages, without host or user name."""

    facts: Mapping[str, Any]
    catalog: Catalog

    def __str__(self) -> str:
        names = ("benchbench", "python", "platform", "device", "threads", "precision")
        lines = [f"{name:12} {self.facts[name]}" for name in names]
        lines += [f"{name:12} {version}" for name, version in self.facts["packages"].items()]
        lines += [f"plugin       {p}, source {p.digest[:12]}" for p in self.catalog.plugins]
        return "\n".join([*lines, *map(str, self.catalog.aside)])

    __repr__ = __str__


def sysinfo(device: str = "auto", **plugins: Any) -> System:
    """This machine and its packages, for a bug report."""
    from benchbench.training.device import Machine

    machine, known = Machine.choose(device, "auto"), catalog(**plugins)
    facts = {
        **machine.environment().model_dump(),
        "precision": machine.precision,
        **plugins_told(known),
    }
    return System(facts, known)
