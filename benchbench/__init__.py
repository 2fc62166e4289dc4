"""Benchmark how well encoders trained on unlabelled domains carry a classifier across a shift.

What a program calls, such as `run` and `evaluate`, and all that a plugin needs, is importable from
here, and is loaded when first asked for: ``import benchbench`` and the command line start without
torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchbench.extension.constants import NO_CLASS, PADDING, TEST, TRAIN, UNKNOWN, UNLABELLED, VAL
from benchbench.extension.errors import BadInput
from benchbench.extension.hookspecs import API, hookimpl

if TYPE_CHECKING:
    from benchbench.api import (
        advise,
        board,
        catalog,
        check,
        connectivity,
        diagnose_features,
        evaluate,
        export_model,
        load_board,
        load_encoder,
        load_model,
        predict,
        preview,
        publish,
        run,
        search,
        shipped_suites,
        status,
        theory,
    )
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
    from benchbench.extension.object_adapters import domain_data
    from benchbench.leaderboard.results import Board, Results
    from benchbench.suites.suite import Suite
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
    "Board",
    "DomainData",
    "Download",
    "ImageFiles",
    "Objective",
    "Results",
    "Suite",
    "Supervised",
    "Task",
    "advise",
    "board",
    "catalog",
    "check",
    "check_links",
    "checked_size",
    "connectivity",
    "decode_images",
    "diagnose_features",
    "domain_data",
    "evaluate",
    "export_model",
    "for_text",
    "hookimpl",
    "is_hidden",
    "is_known",
    "load_board",
    "load_encoder",
    "load_model",
    "mean_where",
    "parametrize_with_checks",
    "predict",
    "preview",
    "publish",
    "published",
    "reads_file",
    "run",
    "search",
    "searched",
    "shipped_suites",
    "status",
    "supervised_loss",
    "tell_skipped",
    "theory",
    "tokenized",
    "untracked",
]
CALLS = (  # of `benchbench.api`
    "advise",
    "board",
    "catalog",
    "check",
    "connectivity",
    "diagnose_features",
    "evaluate",
    "export_model",
    "load_board",
    "load_encoder",
    "load_model",
    "predict",
    "preview",
    "publish",
    "run",
    "search",
    "shipped_suites",
    "status",
    "theory",
)
HOMES = {  # of the rest: extension.contracts
    "Board": "leaderboard.results",
    "Results": "leaderboard.results",
    "Suite": "suites.suite",
    "domain_data": "extension.object_adapters",
    **dict.fromkeys(CALLS, "api"),
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


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
