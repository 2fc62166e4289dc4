"""Objectives that keep images apart by statistics of the batch, not by negatives."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchbench import BadInput, Batch, Between, Objective, Task, hookimpl, searched


class TwoViews(Objective):
    """A loss of two views' projections, each float32 [B, width].

    The views pass one after the other through encoder and projector, so that batch norm takes its
    statistics of each view, as in the authors' code.
    """

    def __init__(self, encoder: nn.Module, hidden: int, width: int) -> None:
        super().__init__()
        if min(hidden, width) < 2:
            raise BadInput(f"hidden = {hidden} and width = {width} should be at least 2")
        self.projector = nn.Sequential(
            nn.Linear(encoder.num_features, hidden, bias=False),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, width),
        )

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        z0, z1 = (self.projector(encoder(view)).float() for view in batch.views)
        with torch.autocast(z0.device.type, enabled=False):  # sums of products of 2 B rows
            return self.loss(z0, z1)

    def loss(self, z0: Tensor, z1: Tensor) -> Tensor:
        raise NotImplementedError


@searched(off_diagonal=Between(1e-3, 0.05))
class BarlowTwins(TwoViews):
    """The views' cross-correlation towards the identity (Zbontar et al. 2021, arXiv:2103.03230).

    Equation 1; ``off_diagonal`` is its λ. The projector has two layers, not three.
    """

    def __init__(
        self,
        encoder: nn.Module,
        task: Task,
        *,
        off_diagonal: float = 5e-3,
        hidden: int = 512,
        width: int = 256,
    ) -> None:
        super().__init__(encoder, hidden, width)
        self.off_diagonal = off_diagonal

    def loss(self, z0: Tensor, z1: Tensor) -> Tensor:
        return barlow_twins(z0, z1, self.off_diagonal)


def barlow_twins(z0: Tensor, z1: Tensor, off_diagonal: float) -> Tensor:
    """Σ (1 − C_ii)² + λ Σ_{i≠j} C_ij², C the correlation of features over the batch (n, not n − 1).

    A feature without variance correlates with nothing.
    """
    correlation = standardised(z0).T @ standardised(z1) / len(z0)
    squares = correlation.square()
    diagonal = correlation.diagonal()
    return (1 - diagonal).square().sum() + off_diagonal * (squares.sum() - diagonal.square().sum())


def standardised(z: Tensor) -> Tensor:
    """Every feature with mean 0 and variance 1 over the batch, up to 1e-5 as in batch norm."""
    return (z - z.mean(0)) * (z.var(0, correction=0) + 1e-5).rsqrt()


@searched(invariance=Between(5.0, 50.0), covariance=Between(0.3, 3.0))
class VICReg(TwoViews):
    """Variance, invariance, covariance (Bardes et al. 2022, arXiv:2105.04906, equation 6).

    As in the paper, variance terms of both views are added; the authors' code takes their mean. The
    projector has two layers, not three.
    """

    def __init__(
        self,
        encoder: nn.Module,
        task: Task,
        *,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
        hidden: int = 512,
        width: int = 256,
    ) -> None:
        super().__init__(encoder, hidden, width)
        self.weights = invariance, variance, covariance

    def loss(self, z0: Tensor, z1: Tensor) -> Tensor:
        return vicreg(z0, z1, *self.weights)


def vicreg(z0: Tensor, z1: Tensor, invariance: float, variance: float, covariance: float) -> Tensor:
    """λ s(Z, Z') + μ (v(Z) + v(Z')) + ν (c(Z) + c(Z')), equations 1 to 6, on [B, D]."""
    value = invariance * F.mse_loss(z0, z1)
    for z in (z0, z1):
        deviation = (z.var(0) + 1e-4).sqrt()
        value = value + variance * (1 - deviation).relu().mean()
        centred = z - z.mean(0)
        product = centred.T @ centred / (len(z) - 1)
        off_diagonal = product.square().sum() - product.diagonal().square().sum()
        value = value + covariance * off_diagonal / z.shape[1]
    return value


class Spectral(TwoViews):
    """The spectral contrastive loss (HaoChen et al. 2021, arXiv:2106.04156).

    Its minimiser are the top eigenvectors of the augmentation graph. ``norm`` projects features
    onto a sphere of that radius, the authors' √μ, where their code projects longer ones alone; None
    leaves them free, as the theory has it.
    """

    def __init__(
        self,
        encoder: nn.Module,
        task: Task,
        *,
        norm: float | None = None,
        hidden: int = 512,
        width: int = 128,
    ) -> None:
        super().__init__(encoder, hidden, width)
        if norm is not None and norm <= 0:
            raise BadInput(f"spectral: norm = {norm} should be positive, or None")
        self.norm = norm

    def loss(self, z0: Tensor, z1: Tensor) -> Tensor:
        if self.norm is not None:
            z0, z1 = (self.norm * F.normalize(z, dim=1) for z in (z0, z1))
        return spectral(z0, z1)


def spectral(z0: Tensor, z1: Tensor) -> Tensor:
    """−2 mean_i z_i·z'_i + mean_{i≠j} (z_i·z'_j)², an unbiased estimate from pairs [N, D]."""
    products = z0 @ z1.T
    n, diagonal = len(z0), products.diagonal()
    apart = (products.square().sum() - diagonal.square().sum()) / max(n * (n - 1), 1)
    return apart - 2 * diagonal.mean()


@hookimpl
def benchbench_objectives():
    return {"barlow_twins": BarlowTwins, "spectral": Spectral, "vicreg": VICReg}
