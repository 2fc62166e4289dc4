"""Benchmark how well encoders trained on unlabelled domains carry a classifier across a shift.

All that a plugin needs is importable from here, and is loaded when first asked for: the command
line starts without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchbench.hookspecs import API, hookimpl
from benchbench.terms import PADDING, TEST, TRAIN, UNKNOWN, VAL, BadInput

if TYPE_CHECKING:
    from benchbench.checks import parametrize_with_checks
    from benchbench.contracts import (
        Batch,
        Between,
        DomainData,
        Download,
        ImageFiles,
        Objective,
        Supervised,
        Task,
        for_text,
        is_known,
        mean_where,
        published,
        reads_file,
        searched,
        supervised_loss,
    )
    from benchbench.data.text import tokenized
    from benchbench.spread import untracked

__version__ = "0.1.0"
__all__ = [
    "API",
    "PADDING",
    "TEST",
    "TRAIN",
    "UNKNOWN",
    "VAL",
    "BadInput",
    "Batch",
    "Between",
    "DomainData",
    "Download",
    "ImageFiles",
    "Objective",
    "Supervised",
    "Task",
    "for_text",
    "hookimpl",
    "is_known",
    "mean_where",
    "parametrize_with_checks",
    "published",
    "reads_file",
    "searched",
    "supervised_loss",
    "tokenized",
    "untracked",
]
HOMES = {  # of the rest: contracts
    "parametrize_with_checks": "checks",
    "tokenized": "data.text",
    "untracked": "spread",
}


def __getattr__(name: str) -> Any:
    if name in __all__:
        home = HOMES.get(name, "contracts")
        return getattr(import_module(f"benchbench.{home}"), name)
    raise AttributeError(f"module 'benchbench' has no attribute {name!r}")
