"""Datasets of one's own without code, and benchmarks that lie in folders of images."""

from collections.abc import Callable

from benchbench import DomainData, hookimpl
from benchbench_files.arrays import arrays
from benchbench_files.layouts import LAYOUTS
from benchbench_files.table import table
from benchbench_files.tree import folder


@hookimpl
def benchbench_datasets() -> dict[str, Callable[..., DomainData]]:
    own = {"arrays": arrays, "folder": folder, "table": table}
    return own | {factory.__name__: factory for factory in LAYOUTS}
