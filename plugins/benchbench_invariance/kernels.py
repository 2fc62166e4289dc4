"""Maximum mean discrepancy between labelled and unlabelled rows."""

import torch
from torch import Tensor, nn

from benchbench import Batch, Between, Supervised, Task, is_known, searched, supervised_loss

BANDWIDTHS = (0.125, 0.25, 0.5, 1.0, 2.0)  # multiples of the mean squared distance in the batch
OF_PREDICTIONS = 0.92 * 2**0.5  # the width that the authors' code of JAN takes for probabilities


@searched(weight=Between(0.1, 10.0))
class DAN(Supervised):
    """Deep adaptation network (Long et al. 2015, arXiv:1502.02791): MK-MMD of features.

    The squared distance of mean embeddings of labelled and unlabelled rows (all pairs,
    none left out), for a sum of five Gaussians whose squared widths are multiples of the batch's
    mean squared distance, as in the authors' code, times ``weight``.
    """

    regresses = True

    def __init__(self, encoder: nn.Module, task: Task, *, weight: float = 1.0) -> None:
        super().__init__(encoder, task)
        self.weight = weight

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        z = encoder(batch.views[0])
        logits = self.predict(z)
        loss = supervised_loss(logits, batch.labels)
        with torch.autocast(z.device.type, enabled=False):  # it subtracts what is nearly equal
            similarity = self.similarity(z.float(), logits.float())
            return loss + self.weight * mmd(similarity, ~is_known(batch.labels))

    def similarity(self, z: Tensor, logits: Tensor) -> Tensor:
        return gaussians(z)


@searched(weight=Between(0.1, 10.0))
class JAN(DAN):
    """Joint adaptation network (Long et al. 2017, arXiv:1605.06636).

    The MMD of features and predictions together: as `dan`, with the kernel of features times one of
    predicted probabilities.
    """

    regresses = False

    def similarity(self, z: Tensor, logits: Tensor) -> Tensor:
        p = logits.softmax(1)
        return gaussians(z) * (-squared_distances(p) / OF_PREDICTIONS**2).exp()


def gaussians(rows: Tensor) -> Tensor:
    """Sum over ``BANDWIDTHS`` b of exp(−d² / (2 b m)), [B, B], m the mean of d² over the batch.

    The scale of rows does not matter. Where all rows are the same, each value is 5.
    """
    distance = squared_distances(rows)
    mean = distance.detach().mean()
    typical = torch.where(mean > 0, mean, 1.0)
    return sum((-distance / (2 * b * typical)).exp() for b in BANDWIDTHS)


def squared_distances(rows: Tensor) -> Tensor:
    """[B, B], never negative."""
    rows = rows - rows.mean(0)
    squares = (rows**2).sum(1)
    return (squares[:, None] + squares - 2 * rows @ rows.T).clamp(min=0)


def mmd(similarity: Tensor, second: Tensor) -> Tensor:
    """‖mean embedding of the first − of the second‖², from kernel values [B, B]; zero if one lacks.

    ``second``, bool [B], says which rows are of the second sample.
    """
    here = torch.stack([~second, second]).to(similarity.dtype)
    count = here.sum(1)
    weight = here[0] / count[0].clamp(min=1) - here[1] / count[1].clamp(min=1)
    return (weight @ similarity @ weight) * (count > 0).all()
