"""An objective: SimCLR with negatives from the anchor's own domain only."""

import torch
import torch.nn.functional as F
from torch import nn

from benchbench import Objective, hookimpl


class SameDomainSimCLR(Objective):
    """SimCLR that tells an image from others of its domain, so that domain is no shortcut."""

    reads = {"domains"}

    def __init__(self, encoder, task, *, width=64, temperature=0.2):
        super().__init__()
        self.projector = nn.Linear(encoder.num_features, width)
        self.temperature = temperature

    def forward(self, encoder, batch):
        z0, z1 = (F.normalize(self.projector(encoder(v)).float(), dim=1) for v in batch.views)
        foreign = batch.domains[:, None] != batch.domains
        logits = (z0 @ z1.T).float().masked_fill(foreign, -torch.inf) / self.temperature
        return F.cross_entropy(logits, torch.arange(len(z0), device=z0.device))


@hookimpl
def benchbench_objectives():
    return {"same_domain_simclr": SameDomainSimCLR}
