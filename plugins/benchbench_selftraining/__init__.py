"""Objectives that learn from their own predictions on unlabelled rows, beside cross-entropy."""

from collections.abc import Callable

from benchbench import Objective, hookimpl
from benchbench_selftraining.certainty import BNM, MCC
from benchbench_selftraining.pseudo_labels import SENTRY, FixMatch, NoisyStudent, PseudoLabel


@hookimpl
def benchbench_objectives() -> dict[str, Callable[..., Objective]]:
    return {
        "bnm": BNM,
        "fixmatch": FixMatch,
        "mcc": MCC,
        "noisy_student": NoisyStudent,
        "pseudo_label": PseudoLabel,
        "sentry": SENTRY,
    }


benchbench_expected_failures = {
    "bnm": {"no_waits": "eigenvectors are found by an iteration that says whether it converged"}
}
