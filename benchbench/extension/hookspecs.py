"""The whole plugin interface: four hooks, each returning ``{name: factory}``.

What the core supplies is positional; what the user may choose is keyword-only and has a
default. So a factory's signature is its documentation and its configuration schema at once:
``simclr(temperature=0.1)`` is spelled the same in a suite, in a record and in a table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:  # the command line reads this file, and must start without torch
    from torch import Tensor, nn

    from benchbench.extension.contracts import DomainData, Objective

API = (1, 0)  # the second number grows with what is added, the first with what breaks a plugin

hookspec = pluggy.HookspecMarker("benchbench")
hookimpl = pluggy.HookimplMarker("benchbench")


@hookspec
def benchbench_datasets() -> Mapping[str, Callable[..., DomainData]]:  # type: ignore[empty-body]
    """Datasets: ``factory(root, *, ...)`` describes the data it finds in the folder ``root``.

    It never downloads. Where files are missing it raises BadInput, naming them and where their
    authors publish them. Images may be given as a tensor or, for the core to decode once, as
    ImageFiles.
    """


@hookspec
def benchbench_encoders() -> Mapping[str, Callable[..., nn.Module]]:  # type: ignore[empty-body]
    """Encoders: ``factory(task, *, ...)`` returns a module with an attribute ``num_features``.

    It maps a float batch in [0, 1] of shape [B, C, H, W] to [B, num_features], and normalises
    its input itself where it needs that.
    """


@hookspec
def benchbench_augmentations() -> Mapping[str, Callable[..., Callable[[Tensor], Tensor]]]:  # type: ignore[empty-body]
    """Augmentations: ``factory(task, *, ...)`` returns a function from a batch to its view.

    The batch is float32 in [0, 1] of shape [B, C, H, W], on the device; so is the view. Each
    row gets parameters of its own, drawn from torch's default generator and from nothing else:
    the core seeds it with (seed, step). The batch is not changed in place.
    """


@hookspec
def benchbench_objectives() -> Mapping[str, Callable[..., Objective]]:  # type: ignore[empty-body]
    """Objectives: ``factory(encoder, task, *, ...)`` returns what a stage minimises."""
