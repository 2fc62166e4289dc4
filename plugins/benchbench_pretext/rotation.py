"""Rotation prediction."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchbench import BadInput, Batch, Objective, Task


class RotNet(Objective):
    """Tell by how many quarters an image was turned (Gidaris et al. 2018, arXiv:1803.07728).

    A control without positive pairs. Each image is turned one way, drawn anew at every step, where
    the paper shows all four, so that an image counts once for every objective.
    """

    modalities = {"image"}
    n_views = 1

    def __init__(self, encoder: nn.Module, task: Task) -> None:
        _, height, width = task.input_shape
        if height != width:
            raise BadInput(f"rotnet needs square images, not {height} × {width}")
        super().__init__()
        self.quarters = nn.Linear(encoder.num_features, 4)

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        images = batch.views[0]
        quarters = torch.randint(4, (len(images),), device=images.device)
        return F.cross_entropy(self.quarters(encoder(turned(images, quarters))).float(), quarters)


def turned(images: Tensor, quarters: Tensor) -> Tensor:
    """Each image turned counter-clockwise by as many quarters of a circle."""
    ways = torch.stack([torch.rot90(images, k, (2, 3)) for k in range(4)])
    return ways[quarters, torch.arange(len(images), device=images.device)]
