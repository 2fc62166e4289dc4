"""Baselines that make features alike across domains, beside cross-entropy on the labelled rows."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchbench import Batch, Objective, Task, hookimpl, known_cross_entropy


class DANN(Objective):
    """Domain-adversarial training (Ganin et al. 2016, arXiv:1505.07818).

    A discriminator tells domains apart; its gradient reaches the encoder reversed, scaled by
    ``weight`` times 2 / (1 + exp(-10 progress)) - 1 (section 5.2.2).
    """

    n_views = 1
    reads = {"labels", "domains"}

    def __init__(
        self, encoder: nn.Module, task: Task, *, weight: float = 1.0, width: int = 256
    ) -> None:
        super().__init__()
        d = encoder.num_features
        self.classifier = nn.Linear(d, task.num_classes)
        self.discriminator = nn.Sequential(
            nn.Linear(d, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, task.num_domains),
        )
        self.weight = weight

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        z = encoder(batch.views[0])
        reversal = self.weight * (2 / (1 + math.exp(-10 * batch.progress)) - 1)
        domain_logits = self.discriminator(ReverseGradient.apply(z, reversal)).float()
        loss = known_cross_entropy(self.predict(z), batch.labels)
        return loss + F.cross_entropy(domain_logits, batch.domains)

    def predict(self, z: Tensor) -> Tensor:
        return self.classifier(z)


class ReverseGradient(torch.autograd.Function):
    """The identity, whose gradient is multiplied by minus ``scale``."""

    @staticmethod
    def forward(ctx, z: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return z.view_as(z)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return -ctx.scale * gradient, None


class CORAL(Objective):
    """Deep CORAL (Sun and Saenko 2016, arXiv:1607.01719): align the domains' covariances.

    Equation 1, averaged over the pairs of domains in the batch, times ``weight``.
    """

    n_views = 1
    reads = {"labels", "domains"}

    def __init__(self, encoder: nn.Module, task: Task, *, weight: float = 1.0) -> None:
        super().__init__()
        self.classifier = nn.Linear(encoder.num_features, task.num_classes)
        self.num_domains = task.num_domains
        self.weight = weight

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        z = encoder(batch.views[0])
        loss = known_cross_entropy(self.predict(z), batch.labels)
        with torch.autocast(z.device.type, enabled=False):  # it subtracts what is nearly equal
            return loss + self.weight * coral(z.float(), batch.domains, self.num_domains)

    def predict(self, z: Tensor) -> Tensor:
        return self.classifier(z)


def coral(z: Tensor, domains: Tensor, num_domains: int) -> Tensor:
    """Mean over pairs of domains in the batch of ‖C_a − C_b‖²_F / 4 d², C with n − 1."""
    member = F.one_hot(domains, num_domains).to(z.dtype)  # [B, M]
    count = member.sum(0)
    mean = (member.T @ z) / count.clamp(min=1)[:, None]
    centred = z - mean[domains]
    covariances = torch.einsum("bm,bi,bj->mij", member, centred, centred)
    covariances = covariances / (count - 1).clamp(min=1)[:, None, None]
    flat = covariances.flatten(1)
    squares = (flat**2).sum(1)
    distance = squares[:, None] + squares - 2 * flat @ flat.T  # [M, M]
    pair = torch.triu((count > 1)[:, None] & (count > 1), 1)
    total = torch.where(pair, distance, 0.0).sum() / pair.sum().clamp(min=1)
    return total / (4 * z.shape[1] ** 2)


@hookimpl
def benchbench_objectives():
    return {"coral": CORAL, "dann": DANN}
