"""Predictions on unlabelled rows should be certain and of many classes."""

import torch
from torch import Tensor, nn

from benchbench import (
    UNKNOWN,
    BadInput,
    Batch,
    Between,
    Supervised,
    Task,
    searched,
    supervised_loss,
)


@searched(weight=Between(0.1, 3.0), temperature=Between(1.0, 4.0))
class MCC(Supervised):
    """Minimum class confusion (Jin et al. 2020, arXiv:1912.03699)."""

    def __init__(
        self, encoder: nn.Module, task: Task, *, weight: float = 1.0, temperature: float = 2.5
    ) -> None:
        if temperature <= 0:
            raise BadInput(f"mcc: temperature = {temperature} should be positive")
        super().__init__(encoder, task)
        self.weight, self.temperature = weight, temperature

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        logits = self.predict(encoder(batch.views[0])).float()
        with torch.autocast(logits.device.type, enabled=False):
            confused = class_confusion(logits, batch.labels == UNKNOWN, self.temperature)
        return supervised_loss(logits, batch.labels) + self.weight * confused


def class_confusion(logits: Tensor, chosen: Tensor, temperature: float) -> Tensor:
    """How much probability pairs of different classes share on the ``chosen`` rows of [B, K].

    Rows count 1 + exp(−entropy), with mean 1; each class's row of the confusion has sum 1.
    """
    p = (logits / temperature).softmax(1)
    weight = (1 + (p * p.clamp(min=1e-12).log()).sum(1).exp()) * chosen
    weight = (chosen.sum() * weight / weight.sum().clamp(min=1e-12)).detach()
    confusion = p.T @ (weight[:, None] * p)
    confusion = confusion / confusion.sum(1, keepdim=True).clamp(min=1e-12)
    return (confusion.sum() - confusion.trace()) / p.shape[1]


@searched(weight=Between(0.1, 3.0))
class BNM(Supervised):
    """Batch nuclear-norm maximisation (Cui et al. 2020, arXiv:2003.12237)."""

    def __init__(self, encoder: nn.Module, task: Task, *, weight: float = 1.0) -> None:
        super().__init__(encoder, task)
        self.weight = weight

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        logits = self.predict(encoder(batch.views[0])).float()
        norm = batch_nuclear_norm(logits, batch.labels == UNKNOWN)
        return supervised_loss(logits, batch.labels) - self.weight * norm


def batch_nuclear_norm(logits: Tensor, chosen: Tensor) -> Tensor:
    """The sum of singular values of the probabilities of the n ``chosen`` rows, over n.

    It is the inner product with the polar factor, which is its gradient, too (Watson 1992,
    doi:10.1016/0024-3795(92)90407-2).
    """
    p = logits.softmax(1) * chosen[:, None]
    return (p * polar_factor(p.detach())).sum() / chosen.sum().clamp(min=1)


def polar_factor(p: Tensor) -> Tensor:
    """U Vᵀ of p = U S Vᵀ [B, K], without what belongs to a singular value of zero.

    From the eigenvectors of the smaller of pᵀp and ppᵀ, in float64: of float32 they keep all the
    digits, and take a GPU far less time than singular vectors do.
    """
    tall = (p if p.shape[0] >= p.shape[1] else p.T).double()
    squares, vectors = torch.linalg.eigh(tall.T @ tall)
    noise = squares[-1] * len(squares) * torch.finfo(torch.float64).eps
    inverse = torch.where(squares > noise, squares.clamp(min=1e-300).rsqrt(), 0.0)
    polar = (tall @ (vectors * inverse) @ vectors.T).to(p.dtype)
    return polar if p.shape[0] >= p.shape[1] else polar.T
