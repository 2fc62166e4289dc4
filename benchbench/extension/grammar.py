"""The grammar ``name(key=value)``: how everything that can be chosen is spelled."""

import ast
import hashlib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import cache
from math import inf
from pathlib import Path
from typing import Any

from benchbench.extension.errors import BadInput

SPANS = {"s": 1, "min": 60, "h": 3600, "d": 86400}
MOST_SECONDS = 36525 * 86400


def seconds_of(text: str) -> float | None:
    """Of ``45s``, ``90min``, ``1.5h`` or ``2d``; None if it is no time, or more than a century."""
    told = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|h|d)", text)
    span = float(told[1]) * SPANS[told[2]] if told else 0.0
    return span if 0 < span < MOST_SECONDS else None


def options_of(factory: Callable[..., Any]) -> dict[str, Any]:
    parameters = inspect.signature(factory).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def settle(owner: str, options: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults and choices together; an unknown name or a value of another type is refused.

    A whole number for a float, a list for a tuple, and a single word for a tuple of words become
    what the default is, so that one choice has one spelling.
    """
    settled = dict(options)
    for name, value in chosen.items():
        if name not in options:
            raise BadInput(f"{owner} has no option {name!r}; {instead(name, options)}")
        default = options[name]
        if not all(map(_is_number, _members(value))):
            raise BadInput(f"{owner}: {name} has to be finite, and of at most 64 bits")
        value = _alike(value, default)
        fits = default is None or type(value) is type(default)
        if fits and type(default) is tuple and default:
            fits = all(type(member) is type(default[0]) for member in value)
        if not fits:
            wanted = type(default).__name__
            raise BadInput(
                f"{owner}: {name} = {value!r} should be of type {wanted}, as {default!r}"
            )
        settled[name] = value
    return settled


def pinned(owner: str, options: Mapping[str, Any], option: str) -> dict[str, Any]:
    """The options, with the sha256 of the file or folder that ``option`` names as ``sha256``.

    BadInput if another was asked for. What is neither file nor folder stays as it is.
    """
    named, asked = options[option], options["sha256"]
    place = Path(named or "")
    if not named or not place.exists():
        if asked:
            raise BadInput(
                f"{owner}: there is no file {named!r} here whose sha256 could be compared"
            )
        return dict(options)
    if place.is_dir():
        found = digest_of(place, sorted(path for path in place.rglob("*") if path.is_file()))
    else:
        found = _sha256(place, place.stat().st_size, place.stat().st_mtime_ns)
    if asked not in ("", found):
        raise BadInput(f"{owner}: {place} is not the file of this sha256")
    return {**options, "sha256": found}


def digest_of(folder: Path, files: Iterable[Path]) -> str:
    """sha256 over the files, by their paths from the folder."""
    total = hashlib.sha256()
    for path in files:
        content = _sha256(path, path.stat().st_size, path.stat().st_mtime_ns)
        total.update(f"{path.relative_to(folder).as_posix()} {content}\n".encode())
    return total.hexdigest()


@cache
def _sha256(path: Path, size: int, changed: int) -> str:
    """Of the file's content, read again only if size or time of change is another."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _members(value: Any) -> list[Any]:
    """The value, or all that is in it where it is a list, a tuple or a set."""
    if isinstance(value, list | tuple | set):
        return [one for member in value for one in _members(member)]
    return [value]


def _is_number(value: Any) -> bool:
    """Whether it is none, or one that every library can take."""
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return not isinstance(value, float | complex) or abs(value) < inf


def _alike(value: Any, default: Any) -> Any:
    if type(default) is float and type(value) is int:
        return float(value)
    if type(default) is tuple and type(value) is str and type((*default, "")[0]) is str:
        return (value,)
    if type(default) is tuple and type(value) in (tuple, list):
        return tuple(_alike(member, default[0]) if default else member for member in value)
    return value


def instead(name: str, known: Iterable[str]) -> str:
    """The end of a sentence that refuses ``name``: the nearest known name, and all of them."""
    known = sorted(known)
    near = get_close_matches(name, known, n=1)
    return (
        f"did you mean {near[0]!r}? " if near else ""
    ) + f"there is {', '.join(known) or 'none'}"


def spell(name: str, options: Mapping[str, Any]) -> str:
    inside = ", ".join(f"{key}={value!r}" for key, value in options.items())
    return f"{name}({inside})" if inside else name


def parse(text: str) -> tuple[str, dict[str, Any]]:
    """Split ``name(key=literal)`` into its name and keyword arguments."""
    node = _expression(text)
    if isinstance(node, ast.Name):
        return node.id, {}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.args:
        try:
            pairs = [(k.arg, ast.literal_eval(k.value)) for k in node.keywords]
        except (ValueError, TypeError, MemoryError, RecursionError):
            pairs = [(None, None)]
        if all(key for key, _ in pairs):
            return node.func.id, {str(key): value for key, value in pairs}
    raise BadInput(f"expected name or name(key=value), with plain values, but got {text!r}")


def split_pipeline(text: str) -> list[str]:
    """The parts of ``a | b(key=value)``."""
    node, parts = _expression(text), []
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        parts.append(node.right)
        node = node.left
    return [_written(part) for part in (node, *reversed(parts))]


def split_chain(text: str) -> list[str]:
    """The parts of ``a > b(key=value)``; none for an empty text."""
    if not text.strip():
        return []
    node = _expression(text)
    if isinstance(node, ast.Compare) and all(isinstance(op, ast.Gt) for op in node.ops):
        return [_written(part) for part in (node.left, *node.comparators)]
    return [_written(node)]


def _written(node: ast.expr) -> str:
    try:
        return ast.unparse(node)
    except RecursionError:
        raise BadInput("expected names such as name(key=value), but got one in another") from None


def _expression(text: str) -> ast.expr:
    try:
        if len(text) > 2000:
            raise ValueError
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise BadInput(f"expected names such as name(key=value), but got {text[:80]!r}") from None
