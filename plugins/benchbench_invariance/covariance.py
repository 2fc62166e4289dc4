"""Correlation alignment."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchbench import Batch, Between, Supervised, Task, searched, supervised_loss


@searched(weight=Between(0.1, 1000.0))
class CORAL(Supervised):
    """Deep CORAL (Sun and Saenko 2016, arXiv:1607.01719): align the domains' covariances.

    Equation 1, averaged over the pairs of domains in the batch, times ``weight``. With ``means``
    what the code of DomainBed and WILDS computes instead: the mean squared difference of means and
    that of covariances, added, so that a weight does not carry over from one to the other.
    """

    reads = {"labels", "domains"}
    regresses = True

    def __init__(
        self, encoder: nn.Module, task: Task, *, weight: float = 1.0, means: bool = False
    ) -> None:
        super().__init__(encoder, task)
        self.num_domains = task.num_domains
        self.weight, self.means = weight, means

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        z = encoder(batch.views[0])
        loss = supervised_loss(self.predict(z), batch.labels)
        with torch.autocast(z.device.type, enabled=False):  # it subtracts what is nearly equal
            distance = coral(z.float(), batch.domains, self.num_domains, self.means)
        return loss + self.weight * distance


def coral(z: Tensor, domains: Tensor, num_domains: int, means: bool = False) -> Tensor:
    """Mean over pairs of domains in the batch of ‖C_a − C_b‖²_F / 4 d², C with n − 1.

    With ``means``, of ‖C_a − C_b‖²_F / d² + ‖m_a − m_b‖² / d.
    """
    member = F.one_hot(domains, num_domains).to(z.dtype)  # [B, M]
    count = member.sum(0)
    mean = (member.T @ z) / count.clamp(min=1)[:, None]
    centred = z - mean[domains]
    covariances = torch.einsum("bm,bi,bj->mij", member, centred, centred)
    covariances = covariances / (count - 1).clamp(min=1)[:, None, None]
    distance = squared_distances(covariances.flatten(1)) / z.shape[1] ** 2  # [M, M]
    distance = distance + squared_distances(mean) / z.shape[1] if means else distance / 4
    pair = torch.triu((count > 1)[:, None] & (count > 1), 1)
    return torch.where(pair, distance, 0.0).sum() / pair.sum().clamp(min=1)


def squared_distances(rows: Tensor) -> Tensor:
    squares = (rows**2).sum(1)
    return squares[:, None] + squares - 2 * rows @ rows.T
