"""Contrastive objectives: what belongs together against everything else in the batch."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchbench import UNKNOWN, BadInput, Batch, Between, Objective, Task, hookimpl, searched


@searched(temperature=Between(0.05, 0.5))
class SimCLR(Objective):
    """Tell each image's other view from all other views (Chen et al. 2020, arXiv:2002.05709).

    A projector of two layers is trained along and dropped afterwards (section 4.2).
    """

    def __init__(
        self, encoder: nn.Module, task: Task, *, width: int = 128, temperature: float = 0.2
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise BadInput(f"simclr: temperature = {temperature} should be positive")
        d = encoder.num_features
        self.projector = nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, width))
        self.temperature = temperature

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        z0, z1 = self.projector(encoder(torch.cat(batch.views))).float().chunk(2)
        return nt_xent(z0, z1, self.temperature)


@searched(temperature=Between(0.05, 0.5))
class SupCon(SimCLR):
    """Supervised contrastive learning (Khosla et al. 2020, arXiv:2004.11362, equation 2, L_out).

    All views of images with the same label belong together; of an image whose label is hidden,
    its two views, as in SimCLR.
    """

    reads = {"labels"}

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        z = self.projector(encoder(torch.cat(batch.views))).float()
        own = UNKNOWN - 1 - torch.arange(len(batch.labels), device=z.device)
        labels = torch.where(batch.labels == UNKNOWN, own, batch.labels)
        return sup_con(z, labels.repeat(2), self.temperature)


def nt_xent(z0: Tensor, z1: Tensor, temperature: float) -> Tensor:
    """Equation 1 of SimCLR, averaged over both views of z0, z1 [B, D]; scale of rows is removed."""
    z = F.normalize(torch.cat([z0, z1]), dim=1)
    with torch.autocast(z.device.type, enabled=False):  # bf16 would round cosines to 1/256
        logits = (z @ z.T / temperature).fill_diagonal_(-torch.inf)
    partner = torch.arange(len(z), device=z.device).roll(len(z0))
    return F.cross_entropy(logits, partner)


def sup_con(z: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Mean over rows of z [N, D] of −(mean over its positives of log share), the log inside.

    A positive is another row with the same label [N]; scale of rows is removed.
    """
    z = F.normalize(z, dim=1)
    with torch.autocast(z.device.type, enabled=False):
        logits = z @ z.T / temperature
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    log_share = logits - logits.masked_fill(itself, -torch.inf).logsumexp(1, keepdim=True)
    positive = (labels[:, None] == labels) & ~itself
    return -(torch.where(positive, log_share, 0.0).sum(1) / positive.sum(1)).mean()


@hookimpl
def benchbench_objectives():
    return {"simclr": SimCLR, "supcon": SupCon}
