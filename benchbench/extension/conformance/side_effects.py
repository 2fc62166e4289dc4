"""What a plugin does to the world while a check runs it: network, files, programs, and its judge.

Python tells an audit hook before it does such a thing (PEP 578), and the hook can refuse. What is
done below Python, in a C library, is not seen.

A plugin runs in the process that judges it, and could replace what judges. `tampered` compares
every function of the core with its source, and some of torch and the standard library with where
they come from. Who replaces `tampered` itself, or makes another source, is not seen: a result that
matters is measured again, in a process of its own (`benchbench verify`).
"""

import builtins
import copy
import hashlib
import json
import os
import random
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, cached_property
from os import PathLike, fsdecode
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np
import safetensors.torch
import torch

NETWORK = {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"}
PROGRAMS = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn"}
CHANGES = {"os.mkdir", "os.remove", "os.rmdir", "os.rename", "os.truncate", "os.link", "os.symlink"}
WRITING = ("w", "a", "x", "+")


class NotAllowed(RuntimeError):
    """No OSError, which libraries that download take for a passing fault and try again."""


@dataclass
class Watch:
    """What was tried and refused, as sentences."""

    folder: Path | None  # writing below it is allowed
    network: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)


_watches: list[Watch | None] = [None]  # the last is in force, in every thread


@contextmanager
def guarded(folder: Path | None) -> Iterator[Watch]:
    """Refuse the network, other programs, and writing anywhere but below ``folder``."""
    _install()
    watch = Watch(folder.resolve() if folder else None)
    _watches.append(watch)
    try:
        yield watch
    finally:
        _watches.pop()


@contextmanager
def unguarded() -> Iterator[None]:
    """For what a check itself does."""
    _watches.append(None)
    try:
        yield
    finally:
        _watches.pop()


@cache
def _install() -> None:
    """Once: an audit hook cannot be taken away."""
    sys.addaudithook(_audit)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in NETWORK | PROGRAMS | CHANGES | {"open"}:
        return
    watch = _watches[-1]
    if watch is None:
        return
    if event in NETWORK:
        address = arguments[1] if event in ("socket.connect", "socket.sendto") else arguments[0]
        if not isinstance(address, str | bytes) or event not in ("socket.connect", "socket.sendto"):
            _refuse(watch.network, f"it reaches for the network: {event} {address!r}")
    elif event in PROGRAMS:
        _refuse(watch.outside, f"it starts a program: {arguments[0]!r}")
    elif event != "open" or any(letter in str(arguments[1]) for letter in WRITING):
        path = arguments[1] if event == "os.rename" else arguments[0]
        if isinstance(path, str | bytes | PathLike) and not _allowed(fsdecode(path), watch.folder):
            _refuse(watch.outside, f"it writes to {fsdecode(path)}")


def _allowed(path: str, folder: Path | None) -> bool:
    """Below the folder; a device; or Python's own cache of compiled modules."""
    place = Path(path).absolute()
    if place.is_relative_to("/dev") or "__pycache__" in place.parts:
        return True
    return folder is not None and place.resolve().is_relative_to(folder)


def _refuse(seen: list[str], sentence: str) -> None:
    seen.append(sentence)
    raise NotAllowed(f"refused in a check: {sentence}")


CORE = "benchbench"
FOREIGN: tuple[tuple[object, str, tuple[str, ...]], ...] = (  # what judges, beside the core
    (
        builtins,
        "builtins",
        ("abs", "all", "any", "isinstance", "len", "max", "min", "sorted", "sum"),
    ),
    (copy, "copy", ("deepcopy",)),
    (hashlib, "hashlib", ("sha256",)),
    (json, "json", ("dumps", "loads")),
    (safetensors.torch, "safetensors.torch", ("load", "save")),
    (torch, "torch", ("allclose", "argmax", "cat", "equal", "isfinite", "isin", "manual_seed")),
    (torch, "torch", ("set_num_threads", "use_deterministic_algorithms")),
    (torch.Tensor, "torch.Tensor", ("__eq__", "all", "any", "argmax", "backward", "eq", "equal")),
    (torch.Tensor, "torch.Tensor", ("double", "isfinite", "item", "mean", "sum", "tolist")),
    (torch.nn.functional, "torch.nn.functional", ("cross_entropy", "normalize")),
    (torch.nn.Module, "torch.nn.Module", ("__call__", "eval", "load_state_dict", "parameters")),
    (torch.nn.Module, "torch.nn.Module", ("state_dict", "train")),
    (np.random, "numpy.random", ("seed",)),
    (random, "random", ("seed",)),
)
WRAPPERS = (CORE, "contextlib", "functools", "torch", "click")  # whose decorators the core uses


def settings() -> dict[str, object]:
    """What holds for the whole process, and no plugin changes; libraries change no such thing."""
    return {
        "the number of torch's threads": torch.get_num_threads(),
        "torch's default dtype": torch.get_default_dtype(),
        "whether torch keeps gradients": torch.is_grad_enabled(),
        "torch's deterministic mode": torch.are_deterministic_algorithms_enabled(),
        "the working directory": os.getcwd(),  # noqa: PTH109
    }


def tampered() -> str | None:
    """The name of a function that judges and is not what its source says; None if all are."""
    return next(_replaced(), None)


def _replaced() -> Iterator[str]:
    for owner, place, names in FOREIGN:
        for name in names:
            if not _genuine(getattr(owner, name, None), name, place.partition(".")[0]):
                yield f"{place}.{name}"
    for name, module in [*sys.modules.items()]:
        if name.partition(".")[0] != CORE or not (code := _source(name)):
            continue
        if name in _found and _found[name].holds():
            continue
        facts = _found[name] = Facts()
        wrong = [
            *_differing(name, vars(module), code, facts),
            *_strangers(name, module, code, facts),
        ]
        if wrong:
            del _found[name]
        yield from wrong


@dataclass
class Facts:
    """What a module's names were found to mean; to see that they still do is fast."""

    names: list[tuple[Mapping[str, Any], str, object]] = field(default_factory=list)
    codes: list[tuple[FunctionType, CodeType]] = field(default_factory=list)
    tables: list[tuple[object, list[object]]] = field(default_factory=list)

    def add(self, space: Mapping[str, Any], name: str, value: object) -> None:
        self.names.append((space, name, value))
        self.codes += [(function, function.__code__) for function in _layers(value)]
        if members := _members(value):
            self.tables.append((value, members))

    def holds(self) -> bool:
        return (
            all(space.get(name) is value for space, name, value in self.names)
            and all(function.__code__ is code for function, code in self.codes)
            and all([*map(id, _members(t))] == [*map(id, kept)] for t, kept in self.tables)
        )


_found: dict[str, Facts] = {}  # of every module whose functions are those of its source


def _members(value: object, depth: int = 2) -> list[object]:
    """What is in a table, and in tables in it."""
    if isinstance(value, dict):
        value = [*value.values()]
    if not isinstance(value, tuple | list) or not depth:
        return []
    return [one for member in value for one in (member, *_members(member, depth - 1))]


def _genuine(found: object, name: str, package: str) -> bool:
    """Whether a function has its name and, where it is of Python, code from the package."""
    if isinstance(found, FunctionType):
        return _within(found.__code__, package)
    return callable(found) and getattr(found, "__name__", "").removeprefix("openssl_") == name


def _within(code: CodeType, package: str) -> bool:
    return code.co_filename.startswith(_folder(package))


@cache
def _folder(package: str) -> str:
    file = getattr(sys.modules.get(package), "__file__", None)
    return file.removesuffix("__init__.py") if file else "<nowhere>"


@cache
def _source(module: str) -> CodeType | None:
    """The module as its file has it, which Python keeps compiled."""
    loader = getattr(sys.modules[module], "__loader__", None)
    get_code = getattr(loader, "get_code", None)
    code: CodeType | None = get_code(module) if get_code else None
    return code


@cache
def _defined(body: CodeType) -> Mapping[str, tuple[CodeType, ...]]:
    """The functions and classes of a body, by name; an overloaded one has several."""
    found: dict[str, tuple[CodeType, ...]] = {}
    for part in body.co_consts:
        if isinstance(part, CodeType) and not part.co_name.startswith("<"):
            found[part.co_name] = (*found.get(part.co_name, ()), part)
    return found


def _differing(place: str, found: Mapping[str, Any], body: CodeType, facts: Facts) -> Iterator[str]:
    """Functions of a module or class that are not those of its source."""
    for name, codes in _defined(body).items():
        value = found.get(name)
        if isinstance(value, type):
            for code in codes:
                yield from _differing(f"{place}.{name}", vars(value), code, facts)
        elif value is not None and not _same(value, codes):
            yield f"{place}.{name}"
        facts.add(found, name, value)


def _same(value: object, codes: tuple[CodeType, ...]) -> bool:
    """Whether it is one of these functions, perhaps in wrappers that the core uses."""
    layers = [function.__code__ for function in _layers(value)]
    return (
        bool(layers)
        and layers[-1] in codes
        and all(any(_within(code, name) for name in WRAPPERS) for code in layers[:-1])
    )


def _layers(value: Any) -> Iterator[FunctionType]:
    """A function, after every wrapper around it."""
    while value is not None:
        if isinstance(value, FunctionType):
            yield value
        inner = [getattr(value, name, None) for name in ("__wrapped__", "__func__", "fget")]
        inner.append(value.func if isinstance(value, cached_property) else None)
        inner.append(getattr(value, "callback", None))  # of a command of click
        value = next((one for one in inner if one is not None), None)


def _strangers(place: str, module: ModuleType, body: CodeType, facts: Facts) -> Iterator[str]:
    """Functions that a module did not import, under its names or among the values of its tables."""
    imported = {CORE, *(name.partition(".")[0] for name in body.co_names)}
    for name, value in [*vars(module).items()]:
        members = [] if name.startswith("__") else [value, *_members(value)]
        functions = [member for member in members if isinstance(member, FunctionType)]
        if not all(_from_one_of(imported, function) for function in functions):
            yield f"{place}.{name}"
        if functions:
            facts.add(vars(module), name, value)


def _from_one_of(packages: set[str], function: FunctionType) -> bool:
    """Whether it says that it is of one of them, and its code is."""
    module = sys.modules.get(function.__module__ or "")
    *_, innermost = _layers(function)
    if module is None or module.__name__.partition(".")[0] not in packages:
        return False
    file = innermost.__code__.co_filename
    return file.startswith("<frozen") or file == module.__file__
