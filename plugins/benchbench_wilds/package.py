"""The package `wilds` 2.0.0, made to work with today's pandas and without a word to the network.

Its classes read csv files and know the official splits; nothing else of it is used. Its own
metrics want torch_scatter, so benchbench's are used, and tests compare the two.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any
from warnings import catch_warnings, simplefilter

import numpy as np

from benchbench import BadInput


def read(module: str, name: str, root: Path, *objects: str, **options: Any) -> Any:
    """The dataset of class ``name``, as `wilds` reads it below ``root``; see pandas_of_2022.

    BadInput if its files are not as their authors published them.
    """
    with quiet_import():
        found = import_module(f"wilds.datasets.{module}")
    try:
        with pandas_of_2022(*objects), redirect_stdout(sys.stderr), catch_warnings():
            simplefilter("ignore")  # of empty groups and read-only arrays, which do no harm here
            return getattr(found, name)(root_dir=str(root), download=False, **options)
    except (OSError, LookupError, ValueError, TypeError, AssertionError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        raise BadInput(f"wilds cannot read {name} below {root}: {reason}") from error


@contextmanager
def quiet_import() -> Iterator[None]:
    """`import wilds` asks the package index for newer versions, from a thread without time limit.

    It does so through the module `outdated`, and does without if that does not import.
    """
    if "wilds" in sys.modules:
        yield
        return
    before: dict[str, ModuleType] = {n: m for n, m in sys.modules.items() if n == "outdated"}
    sys.modules["outdated"] = None  # type: ignore[assignment]
    try:
        import_module("wilds")
    finally:
        del sys.modules["outdated"]
        sys.modules.update(before)
    yield


@contextmanager
def pandas_of_2022(*objects: str) -> Iterator[None]:
    """What wilds 2.0.0 expects of pandas, while a dataset is read.

    fmow: timestamps with and without fractions of seconds in one column, which `to_datetime`
    refuses since pandas 2 (p-lambda/wilds issue 146). rxrx1: it writes to `Series.values`, which
    is read-only since pandas 3. civilcomments: it writes numbers into a column of texts, which
    is no longer of objects since pandas 3; ``objects`` names columns that shall be.
    """
    import pandas as pd

    values, to_datetime, read_csv = pd.Series.values, pd.to_datetime, pd.read_csv

    def writable(series: Any) -> Any:
        array = values.fget(series)
        return array.copy() if isinstance(array, np.ndarray) else array

    pd.Series.values = property(writable)
    pd.to_datetime = partial(to_datetime, format="ISO8601")
    if objects:
        pd.read_csv = partial(read_csv, dtype=dict.fromkeys(objects, object))
    try:
        yield
    finally:
        pd.Series.values, pd.to_datetime, pd.read_csv = values, to_datetime, read_csv
