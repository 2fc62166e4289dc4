"""Adaptive feature norm."""

import torch
from torch import Tensor, nn

from benchbench import Batch, Between, Supervised, Task, searched, supervised_loss


@searched(weight=Between(1e-3, 0.1))
class AFN(Supervised):
    """Adaptive feature norm (Xu et al. 2019, arXiv:1811.07456).

    Stepwise: the norm of every row's features, labelled or not, is drawn ``step``
    beyond what it is. With ``radius`` the mean norm is drawn there instead.
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
        if self.radius is None:
            drawn = stepwise(norms, self.step)
        else:
            drawn = (norms.mean() - self.radius).square()
        return supervised_loss(self.predict(z), batch.labels) + self.weight * drawn


def stepwise(norms: Tensor, step: float) -> Tensor:
    """Mean of (norm − (norm now + step))²: its value is constant, its gradient is not."""
    return (norms - (norms.detach() + step)).square().mean()
