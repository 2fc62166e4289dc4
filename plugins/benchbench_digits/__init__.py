"""The dataset ``digits``, which every installation can make."""

from collections.abc import Callable

from benchbench import DomainData, hookimpl
from benchbench_digits.bundled import digits


@hookimpl
def benchbench_datasets() -> dict[str, Callable[..., DomainData]]:
    return {"digits": digits}
