"""Frozen features: what an encoder makes of images, unaugmented."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from benchbench.contracts import floats


@dataclass(frozen=True)
class Features:
    """Features and labels of the same rows."""

    z: Tensor  # float32 [N, num_features]
    labels: Tensor  # int64 [N]


@torch.no_grad()
def extract(encoder: nn.Module, images: Tensor, device: torch.device, chunk: int = 512) -> Tensor:
    """float32 [N, num_features] on the CPU, from uint8 images [N, C, H, W].

    In evaluation mode and float32: no statistic of the evaluated batch enters, and the result
    does not depend on the precision that trained.
    """
    encoder.eval()
    parts = [encoder(floats(part.to(device))).float().cpu() for part in images.split(chunk)]
    return torch.cat(parts)
