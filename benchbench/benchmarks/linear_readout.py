"""The linear readout beside scikit-learn's logistic regression."""

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchbench.evaluation.readouts.interface import accuracy, with_bias
from benchbench.evaluation.readouts.linear_probe import logistic_path
from benchbench.training.device import keep_freed_memory


def compare_readout(
    rows: int = 10_000, width: int = 512, classes: int = 10, penalties: int = 45
) -> dict[str, Any]:
    """The readout `linear` beside scikit-learn's LogisticRegression, a fit for each penalty.

    On overlapping classes of correlated features; both objectives are evaluated in float64. At the
    penalty chosen, predictions are also compared with scikit-learn's at a tolerance of 1e-9.
    """
    from warnings import catch_warnings, simplefilter

    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]

    keep_freed_memory()  # as a suite does; for both
    generator = torch.Generator().manual_seed(0)
    spectrum = torch.arange(1, width + 1, dtype=torch.float32) ** -0.5
    turn = torch.linalg.qr(torch.randn(width, width, generator=generator)).Q
    centres = torch.randn(classes, width, generator=generator)

    def drawn(count: int) -> tuple[Tensor, Tensor]:
        labels = torch.randint(classes, (count,), generator=generator)
        noise = 9 * torch.randn(count, width, generator=generator)
        return ((centres[labels] + noise) * spectrum) @ turn, labels

    (z, labels), (val_z, val_labels) = drawn(rows), drawn(rows // 5)
    path = torch.logspace(-6, 5, penalties, dtype=torch.float64).tolist()
    start = time.perf_counter()
    ours = list(logistic_path(z, labels, classes, path, max_iter=200))
    mine = time.perf_counter() - start

    def fitted(c: float, **options: float) -> Tensor:
        with catch_warnings():
            simplefilter("ignore")  # of iterations that were not enough
            model = LogisticRegression(C=c, **options).fit(z.double().numpy(), labels.numpy())
        return torch.from_numpy(np.vstack([model.coef_.T, model.intercept_]))

    start = time.perf_counter()
    theirs = [fitted(c, max_iter=1000) for c in path]
    peer = time.perf_counter() - start

    def value(weight: Tensor, c: float) -> float:
        log_p = (with_bias(z) @ weight).log_softmax(1)
        decay = weight[:-1].square().sum() / (2 * rows * c)
        return float(decay - log_p.gather(1, labels[:, None]).mean())

    excess = [value(a, c) / value(b, c) - 1 for a, b, c in zip(ours, theirs, path, strict=True)]
    right = [accuracy(with_bias(val_z) @ weight, val_labels) for weight in ours]
    right_theirs = [accuracy(with_bias(val_z) @ weight, val_labels) for weight in theirs]
    best = right.index(max(right))
    converged = fitted(path[best], max_iter=20_000, tol=1e-9)
    told, as_timed, at_the_end = (
        (with_bias(val_z) @ weight).argmax(1) for weight in (ours[best], theirs[best], converged)
    )
    return {
        "rows": rows,
        "width": width,
        "classes": classes,
        "penalties": penalties,
        "seconds": mine,
        "scikit_learn_seconds": peer,
        "ratio": mine / peer,
        "penalties_above_scikit_learn": sum(e > 1e-9 for e in excess),
        "largest_excess": max(excess),
        "smallest_excess": min(excess),
        "chosen_c": path[best],
        "scikit_learn_chosen_c": path[right_theirs.index(max(right_theirs))],
        "equal_predictions": (told == at_the_end).double().mean().item(),
        "equal_predictions_as_timed": (told == as_timed).double().mean().item(),
        "validation_accuracy": max(right),
    }
