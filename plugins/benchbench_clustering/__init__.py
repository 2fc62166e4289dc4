"""Objectives in which one view predicts the cluster of another."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchbench import BadInput, Batch, Between, Objective, Task, hookimpl, searched


@searched(temperature=Between(0.05, 0.2), epsilon=Between(0.01, 0.1))
class SwAV(Objective):
    """Swapped assignments between views (Caron et al. 2020, arXiv:2006.09882, equations 1 to 5).

    Codes of the two large views, by ``iterations`` of Sinkhorn-Knopp, are predicted from all other
    views, of which ``small`` are of the stage's small augmentation. ``prototypes`` are 10 per class
    unless named, as in WILDS, have norm 1, and stay as they are for the first ``frozen`` share of
    the stage. From the share ``queue_from`` on, codes are shared with the last ``queue`` large
    views, for batches smaller than the prototypes are many.
    """

    def __init__(
        self,
        encoder: nn.Module,
        task: Task,
        *,
        small: int = 4,
        prototypes: int | None = None,
        temperature: float = 0.1,
        epsilon: float = 0.03,
        iterations: int = 3,
        frozen: float = 0.01,
        queue: int = 0,
        queue_from: float = 0.15,
        hidden: int = 512,
        width: int = 128,
    ) -> None:
        count = (10 * task.num_classes or 1000) if prototypes is None else prototypes
        if min(count, hidden, width, iterations) < 1 or min(small, queue) < 0:
            raise BadInput(
                "swav: sizes and iterations should be positive, small and queue not less"
            )
        if min(temperature, epsilon) <= 0:
            raise BadInput("swav: temperature and epsilon should be positive")
        super().__init__()
        self.n_small = small
        self.projector = nn.Sequential(
            nn.Linear(encoder.num_features, hidden),
            nn.BatchNorm1d(hidden),
            nn.ReLU(),
            nn.Linear(hidden, width),
        )
        self.prototypes = nn.Parameter(torch.randn(count, width))
        self.temperature, self.epsilon, self.iterations = temperature, epsilon, iterations
        self.frozen, self.queue_from = frozen, queue_from
        self.register_buffer("queue", F.normalize(torch.randn(2, queue, width), dim=2))

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        seen = [encoder(torch.cat(kind)) for kind in (batch.views, batch.small) if kind]
        z = F.normalize(self.projector(torch.cat(seen)).float(), dim=1)
        prototypes = F.normalize(self.prototypes, dim=1)
        if batch.progress < self.frozen:
            prototypes = prototypes.detach()
        with torch.autocast(z.device.type, enabled=False):
            scores = (z @ prototypes.T).chunk(len(batch.views + batch.small))
            codes = self.codes(batch, scores, z.detach(), prototypes.detach())
            return swapped(codes, list(scores), self.temperature)

    def codes(
        self, batch: Batch, scores: tuple[Tensor, ...], z: Tensor, prototypes: Tensor
    ) -> list[Tensor]:
        """[B, K] of each large view, its earlier rows from the queue taking part."""
        rows = len(batch.views[0])
        self.latest = z[: 2 * rows].unflatten(0, (2, rows))
        found = []
        for view in range(2):
            mine = scores[view].detach()
            if self.queue.shape[1] and batch.progress >= self.queue_from:
                mine = torch.cat([mine, self.queue[view] @ prototypes.T])
            found.append(sinkhorn(mine, self.epsilon, self.iterations)[:rows])
        return found

    @torch.no_grad()
    def after_step(self, encoder: nn.Module) -> None:
        size = self.queue.shape[1]
        self.queue.copy_(torch.cat([self.latest, self.queue], 1)[:, :size])


def sinkhorn(scores: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Shares [B, K] near exp(scores / epsilon) that use every prototype equally; rows have sum 1.

    In logarithms, which do not overflow. Rows are made equal last, so their sums are exact.
    """
    log_q = scores / epsilon
    for _ in range(iterations):
        log_q = log_q - log_q.logsumexp(0, keepdim=True)
        log_q = log_q - log_q.logsumexp(1, keepdim=True)
    return log_q.exp()


def swapped(codes: list[Tensor], scores: list[Tensor], temperature: float) -> Tensor:
    """Mean over codes and all other views of the cross-entropy with the view's softmax.

    The first views of ``scores`` are those of ``codes``, in the same order.
    """
    pairs = [
        -(code * (score / temperature).log_softmax(1)).sum(1).mean()
        for i, code in enumerate(codes)
        for j, score in enumerate(scores)
        if i != j
    ]
    return torch.stack(pairs).mean()


@hookimpl
def benchbench_objectives():
    return {"swav": SwAV}
