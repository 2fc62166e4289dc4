"""Baselines that make statistics of features alike, beside cross-entropy on the labelled rows."""

from collections.abc import Callable

from benchbench import Objective, hookimpl
from benchbench_invariance.covariance import CORAL
from benchbench_invariance.kernels import DAN, JAN
from benchbench_invariance.norms import AFN


@hookimpl
def benchbench_objectives() -> dict[str, Callable[..., Objective]]:
    return {"afn": AFN, "coral": CORAL, "dan": DAN, "jan": JAN}
