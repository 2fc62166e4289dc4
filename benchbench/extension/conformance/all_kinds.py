"""Checks for every kind of entry: its signature, its words, what it does to the world."""

import ast
import inspect
import os
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchbench.extension.conformance.fixtures import (
    TASK,
    TEXTS,
    Broken,
    CannotBuild,
    Skip,
    Subject,
    texts,
    told,
)
from benchbench.extension.conformance.pretended_gpu import Seen
from benchbench.extension.conformance.side_effects import settings
from benchbench.extension.contracts import Batch, Task
from benchbench.extension.errors import BadInput
from benchbench.extension.grammar import parse, spell

SEED = 20_221_214  # that no author would choose

SUPPLIED = {  # what the core hands to a factory
    "dataset": ("root",),
    "encoder": ("task",),
    "augmentation": ("task",),
    "objective": ("encoder", "task"),
}


def signature(subject: Subject) -> None:
    """What the core supplies is positional; what a user chooses is keyword-only with a default."""
    entry = subject.entry
    supplied = SUPPLIED[entry.kind]
    parameters = list(inspect.signature(entry.factory).parameters.values())
    positional = [p for p in parameters if p.kind is not p.KEYWORD_ONLY]
    wanted = f"{entry.name}({', '.join(supplied)}, *, option=default)"
    for p in parameters:
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD):
            raise Broken(f"it takes *{p.name}; name every option, as in {wanted}")
        if p.kind is p.KEYWORD_ONLY and p.default is p.empty:
            raise Broken(f"option {p.name!r} has no default; give it one, as in {wanted}")
    if len(positional) != len(supplied):
        names = ", ".join(p.name for p in positional) or "nothing"
        raise Broken(f"it takes {names} by position; it should read {wanted}, with the star")


def plain_defaults(subject: Subject) -> None:
    """Every default is a number, a text, a truth value, None or a tuple: it can be spelled."""
    for name, default in subject.entry.options.items():
        if isinstance(default, list | dict | set):
            kind = type(default).__name__
            raise Broken(f"the default of {name!r} is a {kind}, which all calls share; use a tuple")
        try:
            plain = ast.literal_eval(repr(default)) == default
        except (ValueError, SyntaxError):
            plain = False
        if not plain:
            raise Broken(
                f"the default of {name!r}, {default!r}, cannot be spelled in a suite; use a "
                "number, a text, a truth value, None or a tuple"
            )
    text = spell(subject.entry.name, subject.entry.options)
    if parse(text) != (subject.entry.name, subject.entry.options):
        raise Broken(f"{text!r} is not read back as it was written; use plain values")


def documented(subject: Subject) -> None:
    """A docstring says what it is: its first line stands in ``benchbench list``."""
    if not (getattr(subject.entry.factory, "__doc__", None) or "").strip():
        raise Broken("it has no docstring; say in a line what it is, and name the paper")


def source_present(subject: Subject) -> None:
    """Its source is a file: the record keeps a digest of it."""
    try:
        found = inspect.getsourcefile(inspect.unwrap(subject.entry.factory))
    except TypeError:
        found = None
    if found is None or not Path(found).is_file():
        raise Broken("its source is no file; define it in a module, with def or class")


def travels(subject: Subject) -> None:
    """The factory can be pickled by its name: it runs in other processes, on other machines."""
    factory = subject.entry.factory
    try:
        back = pickled(factory)
    except Exception as error:
        raise Broken(
            f"it cannot be pickled ({told(error)}); define it at the top level of a module"
        ) from None
    if back is not factory and type(factory) is not type(back):
        raise Broken("pickling it gives another object; define it at the top level of a module")


def pickled(value: Any) -> Any:
    """What comes back, as from another process. The only place that unpickles anything."""
    return pickle.loads(pickle.dumps(value))  # noqa: S301  what was pickled in the same line


def builds(subject: Subject) -> None:
    """It can be built from its defaults."""
    try:
        use(subject)
    except CannotBuild as error:
        if subject.lacks_files(error):
            raise Skip(f"its files are not here: {error}") from None
        if subject.lacks_package(error):
            raise Skip(f"its package is not here: {error}") from None
        raise Broken(f"it cannot be built from its defaults: {error}") from None


def options_build(subject: Subject) -> None:
    """Every option takes another value of its type, or refuses it with BadInput."""
    for name, default in subject.entry.options.items():
        for value in others(default):
            try:
                use(subject, **{name: value})
            except CannotBuild as error:
                if isinstance(error.__cause__, BadInput):
                    continue
                raise Broken(
                    f"{name}={value!r} ends in {error}; support the value or refuse it with "
                    "BadInput and a sentence"
                ) from None
            except Skip:
                raise
            except Exception as error:
                raise Broken(
                    f"{name}={value!r} is taken, but then {told(error)}; refuse it with BadInput"
                ) from None


def others(default: object) -> list[Any]:
    """Values beside a default, of the same type; none for texts, whose meaning is unknown."""
    if isinstance(default, bool):
        return [not default]
    if isinstance(default, int):
        return [default + 1]
    if isinstance(default, float):
        return [0.5 * default or 0.25]
    if isinstance(default, tuple) and all(isinstance(v, float) for v in default):
        return [tuple(0.9 * v for v in default)]
    return []


def offline(subject: Subject) -> None:
    """It does not reach for the network: nothing is downloaded behind a user's back."""
    tried(subject)


def own_folder(subject: Subject) -> None:
    """It writes no file, but for a dataset below its root, and starts no program."""
    tried(subject)


def tried(subject: Subject) -> None:
    """Build it and use it, whatever comes of that; the guard keeps the account."""
    try:
        use(subject)
    except Skip:
        raise
    except Exception:  # noqa: S110  `builds` tells of it
        pass


def leaves_the_world_alone(subject: Subject) -> None:
    """It neither draws from nor seeds the generators of random and NumPy, nor changes settings."""
    before = world()
    use(subject)
    for what, value in world().items():
        if before[what] != value:
            raise Broken(
                f"it changes {what}; draw random numbers with torch alone, and leave settings "
                "to the user"
            )
    if torch.initial_seed() != SEED:
        raise Broken("it seeds torch's generator; leave that to the core, which knows the seed")


def world() -> dict[str, object]:
    name, words, *position = np.random.get_state(legacy=True)
    return {
        "the state of Python's random": random.getstate(),
        "the state of numpy.random": (name, bytes(np.asarray(words)), position),
        **settings(),
        "the environment": tuple(sorted(os.environ.items())),
    }


def use(subject: Subject, **options: Any) -> None:
    """Build the entry and let it do what it is for, once."""
    torch.manual_seed(SEED)
    kind = subject.entry.kind
    if kind == "dataset":
        subject.build(subject.root, **options)
    elif kind == "encoder" or kind == "augmentation":
        subject.build(task_for(subject), **options)(inputs_for(subject))
    else:
        encoder = subject.probe()
        objective = subject.build(encoder, TASK, **options)
        objective(encoder, batch_for(objective)).backward()
        objective.after_step(encoder)


def task_for(subject: Subject) -> Task:
    """Texts for what is for texts alone, else images.

    Encoders get the images of 32 × 32 that small-image benchmarks use; the rest is cheaper.
    """
    if subject.of_texts:
        return TEXTS
    side = 32 if subject.entry.kind == "encoder" else TASK.input_shape[1]
    return Task((3, side, side), TASK.num_classes, TASK.num_domains)


def inputs_for(subject: Subject, rows: int = 4, channels: int = 3, seed: int = 0) -> Tensor:
    """As an encoder reads them."""
    if subject.of_texts:
        return texts(rows, seed).long()
    side = task_for(subject).input_shape[1]
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(rows, channels, side, side, generator=generator)


def batch_for(
    objective: Any, rows: int = 12, channels: int = 3, seed: int = 0, task: Task = TASK
) -> Batch:
    """Rows of two domains, labels of the first, and what the objective does not read hidden."""
    generator = torch.Generator().manual_seed(seed)
    side = task.input_shape[1]
    kinds = int(objective.n_views), int(objective.n_weak), int(objective.n_small)
    shape = rows, channels, side, side
    views, weak, small = (torch.rand(n, *shape, generator=generator) for n in kinds)
    index = torch.arange(rows)
    domains = index % min(2, task.num_domains)
    labels = (index // 2 % task.num_classes).masked_fill(domains == 1, -1)
    return Batch(
        views=tuple(views),
        labels=labels if "labels" in objective.reads else None,
        domains=domains if "domains" in objective.reads else None,
        progress=0.5,
        weak=tuple(weak),
        small=tuple(small[..., ::2, ::2]),
    )


def rebuilt(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """The batch with each of its tensors changed."""
    return Batch(
        views=tuple(map(change, batch.views)),
        labels=None if batch.labels is None else change(batch.labels),
        domains=None if batch.domains is None else change(batch.domains),
        progress=batch.progress,
        weak=tuple(map(change, batch.weak)),
        small=tuple(map(change, batch.small)),
    )


def any_channels(attempt: Callable[[int], object], remedy: str) -> None:
    """Try images of 1, 3 and 4 channels; Skip if building for some is refused with BadInput."""
    refused = []
    for count in (1, 3, 4):
        try:
            attempt(count)
        except CannotBuild as error:
            if not isinstance(error.__cause__, BadInput):
                raise
            refused.append(f"{count} channels: {error}")
        except Exception as error:
            raise Broken(f"with {count} channels {told(error)}; {remedy}") from None
    if refused:
        raise Skip("; ".join(refused))


def on_one_device(seen: Seen) -> None:
    """Broken if something was left on the CPU."""
    for finding in seen.mixes:
        raise Broken(
            f"{finding}: a tensor stays on the CPU; make it with device=images.device, or keep it "
            "with register_buffer"
        )


def without_waits(seen: Seen) -> None:
    """Broken if the host waits for the device, which then idles."""
    for finding in seen.waits:
        raise Broken(
            f"it waits for the device ({finding}); leave values in tensors, choose with "
            "torch.where, and keep constants with register_buffer"
        )


CHECKS = (
    signature,
    plain_defaults,
    documented,
    source_present,
    travels,
    offline,
    own_folder,
    builds,
    options_build,
    leaves_the_world_alone,
)
