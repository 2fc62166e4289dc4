"""What adversaries share."""

from itertools import pairwise

import torch
from torch import Tensor, nn

from benchbench import BadInput


class ReverseGradient(torch.autograd.Function):
    """The identity, whose gradient is multiplied by minus ``scale``."""

    @staticmethod
    def forward(ctx, z: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return z.view_as(z)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.scale * gradient, None


def mlp(*sizes: int) -> nn.Sequential:
    """Linear maps with ReLU between them."""
    layers: list[nn.Module] = []
    for inside, outside in pairwise(sizes):
        layers += [nn.Linear(inside, outside), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def check_positive(owner: str, **options: float) -> None:
    for name, value in options.items():
        if value <= 0:
            raise BadInput(f"{owner}: {name} = {value} should be positive")
