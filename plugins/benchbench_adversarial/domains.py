"""A discriminator tells domains apart; the encoder learns that it cannot."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchbench import Batch, Between, Supervised, Task, searched, supervised_loss
from benchbench_adversarial.reversal import ReverseGradient, mlp

LARGEST = 4096  # of a conditional map; a larger one is projected at random


@searched(weight=Between(0.01, 3.0))
class DANN(Supervised):
    """Domain-adversarial training (Ganin et al. 2016, arXiv:1505.07818).

    A discriminator tells domains apart; its gradient reaches the encoder reversed, scaled by
    ``weight`` times 2 / (1 + exp(-10 progress)) - 1 (section 5.2.2). Its two layers of ``width``
    are as wide as the paper's for its larger problems and those of WILDS.
    """

    reads = {"labels", "domains"}
    regresses = True

    def __init__(
        self, encoder: nn.Module, task: Task, *, weight: float = 1.0, width: int = 1024
    ) -> None:
        super().__init__(encoder, task)
        self.discriminator = mlp(encoder.num_features, width, width, task.num_domains)
        self.weight = weight

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        z = encoder(batch.views[0])
        reversed_z = ReverseGradient.apply(z, self.weight * warm_up(batch.progress))
        domain_logits = self.discriminator(reversed_z).float()
        loss = supervised_loss(self.predict(z), batch.labels)
        return loss + F.cross_entropy(domain_logits, batch.domains)


@searched(weight=Between(0.1, 3.0))
class CDAN(Supervised):
    """Conditional adversarial training (Long et al. 2018, arXiv:1705.10667), schedule as in DANN.

    The discriminator reads the outer product of features and predicted probabilities, of which no
    gradient reaches the latter; where that has more than 4096 entries, the paper's randomised map.
    With ``entropy`` (CDAN+E) rows count 1 + exp(−H) each, H the entropy, with mean 1.
    """

    reads = {"labels", "domains"}

    def __init__(
        self,
        encoder: nn.Module,
        task: Task,
        *,
        weight: float = 1.0,
        width: int = 1024,
        entropy: bool = True,
    ) -> None:
        super().__init__(encoder, task)
        d, k = encoder.num_features, task.num_classes
        self.weight, self.entropy, self.random = weight, entropy, d * k > LARGEST
        if self.random:
            self.register_buffer("of_features", torch.randn(d, 1024))
            self.register_buffer("of_classes", torch.randn(k, 1024))
        self.discriminator = mlp(1024 if self.random else d * k, width, width, task.num_domains)

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        z = encoder(batch.views[0])
        logits = self.predict(z)
        p = logits.detach().float().softmax(1)
        reversed_z = ReverseGradient.apply(z, self.weight * warm_up(batch.progress))
        if self.random:
            joint = (reversed_z @ self.of_features) * (p @ self.of_classes) / math.sqrt(1024)
        else:
            joint = outer(reversed_z, p)
        rows = F.cross_entropy(self.discriminator(joint).float(), batch.domains, reduction="none")
        weight = certainty(p) if self.entropy else torch.ones_like(rows)
        return supervised_loss(logits, batch.labels) + (weight * rows).mean()


def outer(z: Tensor, p: Tensor) -> Tensor:
    """z [B, D] and p [B, K] as [B, K · D]."""
    return (p[:, :, None] * z[:, None]).flatten(1)


def certainty(p: Tensor) -> Tensor:
    """1 + exp(−entropy) of each row of probabilities, with mean 1 over the batch."""
    weight = 1 + (p * p.clamp(min=1e-12).log()).sum(1).exp()
    return weight / weight.mean()


def warm_up(progress: float) -> float:
    """From 0 to nearly 1 (Ganin et al. 2016, section 5.2.2)."""
    return 2 / (1 + math.exp(-10 * progress)) - 1
