"""Adaptive feature norm."""

import torch
from torch import Tensor, nn

from benchbench import (
    Batch,
    Between,
    Supervised,
    Task,
    is_known,
    mean_where,
    searched,
    supervised_loss,
)


@searched(weight=Between(1e-3, 0.1))
class AFN(Supervised):
    """Adaptive feature norm (Xu et al. 2019, arXiv:1811.07456).

    Stepwise: the norm of every row's features is drawn ``step`` beyond what it is. With ``radius``
    the mean norm is drawn there instead (HAFN). Either is computed for labelled and for unlabelled
    rows by themselves, and each of both weighs ``weight``, as in the authors' code.
    """

    regresses = True

    def __init__(
        self,
        encoder: nn.Module,
        task: Task,
        *,
        weight: float = 0.01,
        step: float = 1.0,
        radius: float | None = None,
    ) -> None:
        super().__init__(encoder, task)
        self.weight, self.step, self.radius = weight, step, radius

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        z = encoder(batch.views[0])
        norms = torch.linalg.vector_norm(z.float(), dim=1)
        known = is_known(batch.labels)
        drawn = sum(self.drawn(norms, rows) for rows in (known, ~known))
        return supervised_loss(self.predict(z), batch.labels) + self.weight * drawn

    def drawn(self, norms: Tensor, rows: Tensor) -> Tensor:
        if self.radius is None:
            return stepwise(norms, rows, self.step)
        return to_radius(norms, rows, self.radius)


def stepwise(norms: Tensor, rows: Tensor, step: float) -> Tensor:
    """Mean over ``rows``, bool [B], of (norm − (norm now + step))²; zero if there is none.

    Its value is constant, its gradient is not.
    """
    return mean_where((norms - (norms.detach() + step)).square(), rows)


def to_radius(norms: Tensor, rows: Tensor, radius: float) -> Tensor:
    """(Mean norm of ``rows``, bool [B], − radius)²; zero if there is none."""
    return (mean_where(norms, rows) - radius).square() * rows.any()
