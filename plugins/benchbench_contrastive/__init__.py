"""Contrastive objectives: they see views of images and nothing else."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchbench import BadInput, Batch, Objective, Task, hookimpl


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


def nt_xent(z0: Tensor, z1: Tensor, temperature: float) -> Tensor:
    """Equation 1 of SimCLR, averaged over both views of z0, z1 [B, D]; scale of rows is removed."""
    z = F.normalize(torch.cat([z0, z1]), dim=1)
    with torch.autocast(z.device.type, enabled=False):  # bf16 would round cosines to 1/256
        logits = (z @ z.T / temperature).fill_diagonal_(-torch.inf)
    partner = torch.arange(len(z), device=z.device).roll(len(z0))
    return F.cross_entropy(logits, partner)


@hookimpl
def benchbench_objectives():
    return {"simclr": SimCLR}
