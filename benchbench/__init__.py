"""Benchmark how well encoders trained on unlabelled domains carry a classifier across a shift.

All that a plugin needs is importable from here, and is loaded when first asked for: the command
line starts without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchbench.extension.constants import NO_CLASS, PADDING, TEST, TRAIN, UNKNOWN, UNLABELLED, VAL
from benchbench.extension.errors import BadInput
from benchbench.extension.hookspecs import API, hookimpl

if TYPE_CHECKING:
    from benchbench.data.decoding import decode_images
    from benchbench.data.folders import check_links, is_hidden, tell_skipped
    from benchbench.data.tokens import tokenized
    from benchbench.extension.conformance import parametrize_with_checks
    from benchbench.extension.contracts import (
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
    from benchbench.training.distributed import untracked

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
HOMES = {  # of the rest: extension.contracts
    "check_links": "data.folders",
    "decode_images": "data.decoding",
    "is_hidden": "data.folders",
    "parametrize_with_checks": "extension.conformance",
    "tell_skipped": "data.folders",
    "tokenized": "data.tokens",
    "untracked": "training.distributed",
}


def __getattr__(name: str) -> Any:
    if name in __all__:
        home = HOMES.get(name, "extension.contracts")
        return getattr(import_module(f"benchbench.{home}"), name)
    raise AttributeError(f"module 'benchbench' has no attribute {name!r}")
