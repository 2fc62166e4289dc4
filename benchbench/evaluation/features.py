"""Frozen features: what an encoder makes of rows, unaugmented."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from benchbench.extension.contracts import as_read
from benchbench.training.device import full_fp32

RESOLUTION = 1e-6  # of float32: features that vary less around their mean are constant


@dataclass(frozen=True)
class Features:
    """Features and labels of the same rows."""

    z: Tensor  # float32 [N, num_features]
    labels: Tensor  # int64 [N], or float32 [N] of numbers


class Inputs(Protocol):
    """What rows are taken from: a tensor, or what decodes them when asked."""

    @property
    def device(self) -> torch.device: ...

    def __getitem__(self, rows: Tensor, /) -> Tensor: ...


@full_fp32()
@torch.no_grad()
def extract(
    encoder: nn.Module, inputs: Inputs, rows: Tensor, device: torch.device, chunk: int = 512
) -> Tensor:
    """float32 [N, num_features] on the CPU, of the N ``rows`` of a pack's inputs.

    In evaluation mode and float32: no statistic of the evaluated batch enters, and the result
    does not depend on the precision that trained.
    """
    encoder.eval()
    parts = [
        encoder(as_read(inputs[part.to(inputs.device)].to(device))).float().cpu()
        for part in rows.split(chunk)
    ]
    return torch.cat(parts)
