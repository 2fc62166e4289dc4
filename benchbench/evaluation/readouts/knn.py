"""k nearest neighbours."""

import torch
import torch.nn.functional as F
from torch import Tensor

from benchbench.evaluation.features import Features
from benchbench.evaluation.readouts.interface import Fit, Fitted, Unlabelled, goodness, targets
from benchbench.extension.errors import BadInput

ALIKE = 1e-3  # rows whose mean 1 − cosine is below are compared in float64: float32 resolves 1e-7


def knn(*, k: tuple[int, ...] = (1, 5, 10, 20, 50), temperature: float = 0.07) -> Fit:
    """k nearest neighbours by cosine, votes weighted by exp(cosine / temperature).

    Wu et al. 2018, section 3.4; k chosen on source validation. Of numbers, the mean so weighted.
    """
    if min(k, default=0) < 1 or temperature <= 0:
        raise BadInput(f"readout knn needs k ≥ 1 and temperature > 0, not {k} and {temperature}")

    def fit(train: Features, val: Features, unlabelled: Unlabelled, num_classes: int) -> Fitted:
        keys = F.normalize(train.z, dim=1)
        exact = keys.dtype
        if 1 - keys.double().mean(0).square().sum() < ALIKE:
            exact = torch.float64
            keys = F.normalize(train.z.to(exact), dim=1)
        votes = targets(train.labels, num_classes).float()
        sizes = [size for size in k if size <= len(keys)] or [len(keys)]

        def scores(z: Tensor, size: int) -> Tensor:
            parts = []
            for part in F.normalize(z.to(exact), dim=1).split(1024):
                near, index = (part @ keys.T).topk(size)
                weights = ((near - 1) / temperature).exp()[:, :, None]
                share = 1 if num_classes else weights.sum(1)
                parts.append((weights * votes[index]).sum(1) / share)
            return torch.cat(parts)

        right = [goodness(scores(val.z, size), val.labels) for size in sizes]
        best = sizes[right.index(max(right))]
        return Fitted(
            lambda z: scores(z, best), "source-val", {"k": float(best)}, votes=bool(num_classes)
        )

    return fit
