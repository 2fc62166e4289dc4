"""Objects in the place of names: classes, functions and modules of a script or a notebook.

Each becomes an entry of a plugin of its own, whose digest is of what the object does: of its
compiled body, of what that body refers to in the user's own code, and of its weights. Where
something cannot be told apart from something else, such as an open file or a generator, there is
no digest.
"""

import dis
import inspect
import re
import sys
import sysconfig
from collections.abc import Callable, Mapping, Set
from dataclasses import MISSING, dataclass, is_dataclass
from dataclasses import fields as fields_of
from functools import partial
from hashlib import sha256
from importlib import import_module
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import Any
from uuid import uuid4

from benchbench.extension.catalog import NOTHING, Catalog, Entry, Plugin
from benchbench.extension.errors import BadInput

OBJECT = "object"  # stands for the distribution of what was given as an object
UNREGISTERED = "unregistered object"  # of one whose behaviour has no digest
STANDARD = tuple(Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib"))
INSTALLED = {"site-packages", "dist-packages"}  # folders of what pip installs
HERE = Path(__file__).resolve().parents[1]
LOOK_UP = {"LOAD_GLOBAL", "LOAD_NAME"}  # instructions
PLAIN = (type(None), bool, int, float, complex, str, bytes, range, type(Ellipsis))


HIDING = {"eval", "exec", "compile", "globals", "import_module", "__import__"}


class Unknown(Exception):
    """What an object does cannot be told from its code and state."""


@dataclass(frozen=True)
class Given:
    """An object, and the name by which suites and records call it."""

    kind: str  # dataset, encoder, augmentation or objective
    name: str
    factory: Callable[..., Any]
    digest: str
    why_unknown: str = ""  # what of it has no digest

    @property
    def plugin(self) -> Plugin:
        distribution = UNREGISTERED if self.why_unknown else OBJECT
        return Plugin(self.name, distribution, "none", self.kind, self.digest)

    @property
    def entry(self) -> Entry:
        return Entry(self.kind, self.name, self.factory, self.plugin)

    @property
    def sentence(self) -> str:
        """Whether what is made with it is kept, and why not."""
        if self.why_unknown:
            return (
                f"{self.kind} {self.name} is unregistered, as {self.why_unknown}: what is made "
                "with it is not kept in the store, and cannot be published"
            )
        return (
            f"{self.kind} {self.name} is known by its code and weights (sha256 "
            f"{self.digest[:12]}): what is made with it is kept, and made again when these change"
        )


class Objects:
    """The objects of one call, each under a name that nothing in the catalog has."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.every: dict[tuple[str, int], Given] = {}
        self.things: list[Any] = []  # kept, so that no other object gets their place in memory

    def named(self, kind: str, thing: Any) -> str:
        """The text by which a suite calls it: a text is that itself. BadInput if it cannot be."""
        if isinstance(thing, str):
            return thing
        if (kind, id(thing)) not in self.every:
            factory, known_by = _adapted(kind, thing)
            try:
                digest, why = digest_of(known_by), ""
            except Unknown as reason:
                digest, why = sha256(uuid4().bytes).hexdigest(), str(reason)
            name = self._free(kind, _name_of(thing, digest), digest)
            self.every[kind, id(thing)] = Given(kind, name, factory, digest, why)
            self.things.append(thing)
        return self.every[kind, id(thing)].name

    def _free(self, kind: str, name: str, digest: str) -> str:
        taken = {NOTHING} | {n for k, n in self.catalog.entries if k == kind}
        taken |= {one.name for (k, _), one in self.every.items() if k == kind}
        return f"{name}_{digest[:8]}" if name in taken else name

    @property
    def given(self) -> tuple[Given, ...]:
        return tuple(self.every.values())

    @property
    def unregistered(self) -> tuple[Given, ...]:
        """Those that have no digest."""
        return tuple(one for one in self.given if one.why_unknown)

    @property
    def whole(self) -> Catalog:
        """The catalog with all of them."""
        return self.catalog.having(one.entry for one in self.given)


def _adapted(kind: str, thing: Any) -> tuple[Callable[..., Any], Any]:
    """What builds it, and what of it decides what that is."""
    from benchbench.extension import object_adapters as adapters
    from benchbench.extension.contracts import DomainData

    if kind == "objective":
        return adapters.objective_factory(thing), thing
    if kind == "dataset":
        if isinstance(thing, tuple) and len(thing) == 3:
            thing = adapters.domain_data(*thing)
        elif (
            not isinstance(thing, DomainData | Mapping)
            and hasattr(thing, "__getitem__")
            and hasattr(thing, "__len__")
        ):
            thing = adapters.of_torch(thing)
        if not isinstance(thing, DomainData):
            raise BadInput(
                f"the dataset is {type(thing).__name__}, and should be a name, DomainData, a torch "
                "Dataset of (image, label, domain), or arrays (images, labels, domains)"
            )
        return adapters.dataset_factory(thing), _columns(thing)
    if takes_task(thing):
        return thing, thing
    if not callable(thing):
        raise BadInput(
            f"the {kind} is {type(thing).__name__}, and should be a name, a module, or a function "
            "of a batch"
        )
    wrap = adapters.encoder_factory if kind == "encoder" else adapters.augmentation_factory
    return wrap(thing), thing


def _columns(data: Any) -> Any:
    """Of DomainData, what its fields hold; images in files are read when they are prepared."""
    return {field.name: getattr(data, field.name) for field in fields_of(data)}


def _name_of(thing: Any, digest: str) -> str:
    while isinstance(thing, partial):
        thing = thing.func
    named = thing if isinstance(thing, type | FunctionType | MethodType) else type(thing)
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", named.__name__)
    name = words.lower().strip("_")
    return name if name.isidentifier() else f"{name.strip('<>')}_{digest[:8]}"


def digest_of(thing: Any) -> str:
    """sha256 of what an object does; Unknown says what of it cannot be told.

    Comments, names of files and line numbers do not count.
    """
    return sha256(_Reader().text_of(thing, "it").encode()).hexdigest()


class _Reader:
    """Writes an object as text, what it refers to included, everything once."""

    def __init__(self) -> None:
        self.met: dict[int, str] = {}
        self.kept: list[Any] = []  # so that no id is given to another object

    def text_of(self, thing: Any, where: str) -> str:
        if isinstance(thing, PLAIN):
            return f"{type(thing).__name__}:{thing!r}"
        if id(thing) in self.met:
            return self.met[id(thing)]
        self.met[id(thing)] = f"again:{len(self.met)}"
        self.kept.append(thing)
        return self._written(thing, where)

    def _written(self, thing: Any, where: str) -> str:
        if isinstance(thing, CodeType):
            return self._code(thing, where)
        if isinstance(thing, ModuleType):
            return self._module(thing, where)
        if isinstance(thing, type | FunctionType | BuiltinFunctionType) and (
            installed := _installed(thing)
        ):
            return installed
        if isinstance(thing, FunctionType):
            return self._function(thing, where)
        if isinstance(thing, MethodType):
            return f"method:{self.many([thing.__func__, thing.__self__], where)}"
        if isinstance(thing, partial):
            return f"partial:{self.many([thing.func, thing.args, thing.keywords], where)}"
        if isinstance(thing, type):
            return self._class(thing, where)
        if isinstance(thing, staticmethod | classmethod):
            return f"{type(thing).__name__}:{self.text_of(thing.__func__, where)}"
        if isinstance(thing, property):
            return f"property:{self.many([thing.fget, thing.fset, thing.fdel], where)}"
        if isinstance(thing, tuple | list):
            return f"{type(thing).__name__}:{self.many(thing, where)}{self._more(thing, where)}"
        if isinstance(thing, set | frozenset):
            return f"set:{sorted(self.text_of(member, where) for member in thing)}"
        if isinstance(thing, Mapping):
            pairs = (f"{self.text_of(k, where)}={self.text_of(v, where)}" for k, v in thing.items())
            return f"{type(thing).__name__}:{{{', '.join(pairs)}}}{self._more(thing, where)}"
        if isinstance(thing, Path):
            return f"path:{thing}"
        if bytes_of := _numbers(thing):
            return bytes_of
        return self._instance(thing, where)

    def _more(self, thing: Any, where: str) -> str:
        """What a user's subclass of a list or dict adds to what is in it."""
        if _installed(type(thing)):
            return ""
        return f":{self.many([type(thing), getattr(thing, '__dict__', {})], where)}"

    def many(self, things: Any, where: str) -> str:
        return f"[{', '.join(self.text_of(thing, where) for thing in things)}]"

    def _code(self, code: CodeType, where: str) -> str:
        consts = self.many(code.co_consts, where)
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_flags)
        return f"code:{code.co_code.hex()}:{consts}:{names}"

    def _function(self, function: FunctionType, where: str) -> str:
        where = function.__qualname__
        parts: list[Any] = [function.__code__, function.__defaults__, function.__kwdefaults__]
        parts += [_content(cell, where) for cell in function.__closure__ or ()]
        parts += [vars(function)] if vars(function) else []
        known, code = function.__globals__, function.__code__
        called = _names_in(code)
        if hidden := sorted(called & HIDING):
            raise Unknown(f"{where} calls {hidden[0]}, which may run anything")
        asked = _attributes_in(code)
        text = self.many(parts, where)
        for name in sorted(called & known.keys()):
            value = known[name]
            told = (
                self._module(value, where, asked)
                if isinstance(value, ModuleType)
                else self.text_of(value, where)
            )
            text += f", {name}={told}"
        for name in sorted(_imports_in(code)):
            text += f", import {name}={self._module(_imported(name, where), where, asked)}"
        return f"function:{text}"

    def _class(self, cls: type, where: str) -> str:
        own = {
            name: value
            for name, value in vars(cls).items()
            if name not in ("__module__", "__doc__", "__dict__", "__weakref__", "__qualname__")
            and name not in ("__dataclass_fields__", "__dataclass_params__", "__slotnames__")
            and name != "__match_args__"
            and not _is_generated(cls, value)
            and name not in ("__firstlineno__", "__static_attributes__", "_abc_impl")
            and name not in ("__annotations__", "__annotate__", "__annotate_func__")
            and name not in ("__parameters__", "__orig_bases__", "__abstractmethods__")
        }
        defaults = [
            (field.name, field.default_factory if field.default is MISSING else field.default)
            for field in (fields_of(cls) if is_dataclass(cls) else ())
        ]
        plain = [(name, None if value is MISSING else value) for name, value in defaults]
        return f"class:{self.many([cls.__bases__, own, *plain], cls.__qualname__)}"

    def _module(self, module: ModuleType, where: str, asked: Set[str] | None = None) -> str:
        """Of what is installed its name and version; of the user's own what is ``asked`` of it.

        That is what it has now, whatever its file says.
        """
        file = getattr(module, "__file__", None)
        if (file is not None and _is_installed(Path(file))) or (
            file is None and not _is_new(module.__name__) and module.__name__ != "__main__"
        ):
            return f"module:{module.__name__}:{_version_of(module.__name__)}"
        held = vars(module)
        names = (
            sorted(name for name in held if not name.startswith("__"))
            if asked is None
            else (sorted(asked & held.keys()))
        )
        told = []
        for name in names:
            value = held[name]
            told.append(
                f"{name}={self._module(value, where, asked)}"
                if isinstance(value, ModuleType)
                else f"{name}={self.text_of(value, where)}"
            )
        return f"module:{', '.join(told)}"

    def _instance(self, thing: Any, where: str) -> str:
        """Its class, and its state, where all of that is one of these kinds."""
        cls, where = type(thing), f"{where}'s {type(thing).__name__}"
        if hasattr(thing, "__dict__") and all(map(_is_python, cls.__mro__[:-1])):
            state: Any = {name: value for name, value in vars(thing).items() if name != "training"}
            slots = [vars(base).get("__slots__", ()) for base in cls.__mro__]
            names = [n for told in slots for n in ([told] if isinstance(told, str) else told)]
            kept = {n for n in names if n not in ("__dict__", "__weakref__")}
            state |= {name: getattr(thing, name) for name in sorted(kept) if hasattr(thing, name)}
        else:
            state = _reduced(thing, where)
        return f"instance:{self.text_of(cls, where)}:{self.text_of(state, where)}"


def _reduced(thing: Any, where: str) -> Any:
    """The state of what is not Python's own, such as a date or a Decimal, as pickle has it."""
    try:
        told = thing.__reduce_ex__(4)
    except Exception:
        raise Unknown(f"{where} has a state that cannot be read") from None
    if isinstance(told, str):
        return told
    made, arguments, *rest = told
    state, members, pairs = [*rest, None, None, None][:3]
    return [made, arguments, state, list(members or ()), list(pairs or ())]


def _is_generated(cls: type, value: Any) -> bool:
    """Whether it is a method that `dataclasses` has written."""
    code = getattr(value, "__code__", None)
    return is_dataclass(cls) and code is not None and code.co_filename == "<string>"


def _attributes_in(code: CodeType) -> set[str]:
    """All names in a body, and in what is defined in it, that something may be asked for."""
    inner = [const for const in code.co_consts if isinstance(const, CodeType)]
    return set(code.co_names).union(*map(_attributes_in, inner))


def _imports_in(code: CodeType) -> set[str]:
    """The modules that a body, and what is defined in it, imports when it runs."""
    own = {i.argval for i in dis.get_instructions(code) if i.opname == "IMPORT_NAME"}
    inner = [const for const in code.co_consts if isinstance(const, CodeType)]
    return own.union(*map(_imports_in, inner))


def _imported(name: str, where: str) -> ModuleType:
    try:
        return import_module(name)
    except Exception as error:
        raise Unknown(f"{where} imports {name}, which fails: {error}") from None


def _content(cell: Any, where: str) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return f"{where} refers to itself before it is there"


def _names_in(code: CodeType) -> set[str]:
    """The global names that a body, and what is defined in it, look up; attributes are none."""
    own = {i.argval for i in dis.get_instructions(code) if i.opname in LOOK_UP}
    inner = [const for const in code.co_consts if isinstance(const, CodeType)]
    return own.union(*map(_names_in, inner))


def _installed(thing: Any) -> str | None:
    """The name and version of what is not the user's own; None of what is."""
    module = getattr(thing, "__module__", None) or "builtins"
    source = getattr(sys.modules.get(module), "__file__", None)
    own = module == "__main__" or (source is not None and not _is_installed(Path(source)))
    if own or (source is None and module not in sys.builtin_module_names and _is_new(module)):
        return None
    return f"installed:{module}.{thing.__qualname__}:{_version_of(module)}"


def _is_new(module: str) -> bool:
    """Whether a module without a file is one that somebody made at run time, as notebooks do."""
    return getattr(sys.modules.get(module), "__spec__", None) is None


def _is_python(cls: type) -> bool:
    """Whether a class is written in Python, so that its instances hold all that they know."""
    module = sys.modules.get(cls.__module__)
    source = getattr(module, "__file__", None)
    if source is None:
        return cls.__module__ == "__main__" or _is_new(cls.__module__)
    return str(source).endswith(".py")


def _is_installed(file: Path) -> bool:
    """Whether it is of the standard library, of an installed package, or of this one."""
    place = file.resolve()
    if INSTALLED & {*file.parts, *place.parts}:
        return True
    return any(place.is_relative_to(folder) for folder in (*STANDARD, HERE))


def _version_of(module: str) -> str:
    top = module.partition(".")[0]
    try:
        return version((_distributions().get(top) or [top])[0])
    except PackageNotFoundError:
        return f"{sys.version_info.major}.{sys.version_info.minor}"


_found: dict[str, list[str]] = {}


def _distributions() -> Mapping[str, list[str]]:
    if not _found:
        _found.update(packages_distributions())
    return _found


def _numbers(thing: Any) -> str | None:
    """Of a tensor or an array its shape, dtype and bytes; None of anything else."""
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if torch and isinstance(thing, torch.Tensor):
        array = thing.detach().cpu().contiguous()
        raw = array.view(torch.uint8) if array.ndim else array[None].view(torch.uint8)
        frozen = "" if thing.requires_grad else ":frozen"
        content = sha256(raw.numpy().data).hexdigest()
        return f"tensor:{thing.dtype}:{list(thing.shape)}:{content}{frozen}"
    if torch and isinstance(thing, torch.dtype | torch.device | torch.Size | torch.memory_format):
        return f"{thing!r}"
    if numpy and isinstance(thing, numpy.ndarray) and thing.dtype != object:
        raw = sha256(numpy.ascontiguousarray(thing).data).hexdigest()
        return f"array:{thing.dtype}:{thing.shape}:{raw}"
    if numpy and isinstance(thing, numpy.generic):
        return f"{thing.dtype}:{thing!r}"
    return None


def takes_task(function: Any) -> bool:
    """Whether it is a factory: a class, or a function whose first argument is called ``task``."""
    if isinstance(function, type):
        return True
    try:
        names = [*inspect.signature(function).parameters]
    except (TypeError, ValueError):
        return False
    return names[:1] == ["task"]
