import torch
import torch.nn.functional as F
from torch import nn

from benchbench import Objective, hookimpl

benchbench_api = ">=1.0,<2"


class MyIdea(Objective):
    """Views of an image close, all images apart (Wang and Isola 2020, arXiv:2005.10242)."""

    def __init__(self, encoder, task, *, width=64, weight=1.0):
        super().__init__()
        self.projector = nn.Linear(encoder.num_features, width)
        self.weight = weight

    def forward(self, encoder, batch):
        z0, z1 = (F.normalize(self.projector(encoder(v)).float(), dim=1) for v in batch.views)
        alignment = (z0 - z1).square().sum(1).mean()
        uniformity = torch.pdist(torch.cat([z0, z1])).square().mul(-2).exp().mean().log()
        return alignment + self.weight * uniformity


@hookimpl
def benchbench_objectives():
    return {"my_idea": MyIdea}
