"""Benchmark how well encoders trained on unlabelled domains carry a classifier across a shift.

All that a plugin needs is importable from here, and is loaded when first asked for: the command
line starts without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchbench.hookspecs import API, hookimpl
from benchbench.terms import (
    NO_CLASS,
    PADDING,
    TEST,
    TRAIN,
    UNKNOWN,
    UNLABELLED,
    VAL,
    BadInput,
)

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
        checked_size,
        for_text,
        is_known,
        mean_where,
        published,
        reads_file,
        searched,
        supervised_loss,
    )
    from benchbench.data.folders import check_links, is_hidden, tell_skipped
    from benchbench.data.images import decode_images
    from benchbench.data.text import tokenized
    from benchbench.spread import untracked

__version__ = "0.1.0"
__all__ = [
    "API",
    "NO_CLASS",
    "PADDING",
    "TEST",
    "TRAIN",
    "UNKNOWN",
    "UNLABELLED",
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
    "check_links",
    "checked_size",
    "decode_images",
    "for_text",
    "hookimpl",
    "is_hidden",
    "is_known",
    "mean_where",
    "parametrize_with_checks",
    "published",
    "reads_file",
    "searched",
    "supervised_loss",
    "tell_skipped",
    "tokenized",
    "untracked",
]
HOMES = {  # of the rest: contracts
    "check_links": "data.folders",
    "decode_images": "data.images",
    "is_hidden": "data.folders",
    "parametrize_with_checks": "checks",
    "tell_skipped": "data.folders",
    "tokenized": "data.text",
    "untracked": "spread",
}


def __getattr__(name: str) -> Any:
    if name in __all__:
        home = HOMES.get(name, "contracts")
        return getattr(import_module(f"benchbench.{home}"), name)
    raise AttributeError(f"module 'benchbench' has no attribute {name!r}")
