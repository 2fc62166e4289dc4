"""Two datasets: ``digits``, which every installation can make, and ``folder``, for one's own."""

from collections.abc import Callable

from benchbench import DomainData, hookimpl
from benchbench_digits.bundled import digits
from benchbench_digits.tree import folder


@hookimpl
def benchbench_datasets() -> dict[str, Callable[..., DomainData]]:
    return {"digits": digits, "folder": folder}
