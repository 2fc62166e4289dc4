"""Keys: under what work is kept. Another value of anything that can change it is another key."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def key_of(parts: Mapping[str, Any]) -> str:
    """sha256 of the parts as JSON."""
    return hashlib.sha256(ENCODER.encode(parts).encode()).hexdigest()


def keys_with(parts: Mapping[str, Any], *told: str) -> Callable[..., str]:
    """`key_of` the same parts and some more, of these names, whose values are told each time.

    Of many keys that differ in few values, that is faster.
    """
    marks = {name: f"\0{name}\0" for name in told}
    text = ENCODER.encode({**parts, **marks})
    order = sorted(told)  # as they come in the text
    pieces = re.split("|".join(re.escape(ENCODER.encode(marks[name])) for name in order), text)
    if len(pieces) != len(told) + 1:
        raise ValueError("a part has a mark in it")

    def key(**values: Any) -> str:
        filled = [pieces[0]]
        for name, piece in zip(order, pieces[1:], strict=True):
            value = values[name]
            filled += (str(value) if type(value) is int else ENCODER.encode(value), piece)
        return hashlib.sha256("".join(filled).encode()).hexdigest()

    return key


def first_key(
    encoder: tuple[str, str],
    task: Mapping[str, Any],
    seed: int,
    protocol: str,
    versions: Mapping[str, str],
    weights: str | None = None,
) -> str:
    """Of an encoder before any stage: its spelling and its plugin's digest, and what it is told.

    With the sha256 of its weights, where they are somebody's.
    """
    words = task.get("vocabulary")
    facts = {name: value for name, value in task.items() if name != "vocabulary"}
    return key_of(
        {
            "encoder": encoder,
            "task": facts | ({"vocabulary": key_of({"words": words})} if words else {}),
            "seed": seed,
            "protocol": protocol,
            "versions": versions,
            **({"weights": weights} if weights else {}),
        }
    )


def snapshot_key(stage_key: str, step: int) -> str:
    """Of a stage's state after so many steps."""
    return key_of({"stage": stage_key, "step": step})


def features_key(encoder_key: str, domain: str, fingerprint: str) -> str:
    """Of the features of all rows of a domain, of the data of that fingerprint."""
    return key_of({"encoder": encoder_key, "domain": domain, "data": fingerprint})


def part_key(
    encoder_key: str, domains: tuple[str, ...], fingerprint: str, part: str, drawn: int
) -> str:
    """Of what is kept of a part of the rows of some domains, where it takes a draw of so many."""
    about = {"encoder": encoder_key, "domains": domains, "data": fingerprint}
    return key_of({**about, "part": part, "drawn": drawn})
