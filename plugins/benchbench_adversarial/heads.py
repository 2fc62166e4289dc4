"""Two heads that disagree on unlabelled rows; the encoder learns that they cannot."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchbench import (
    UNKNOWN,
    Batch,
    Between,
    Objective,
    Supervised,
    Task,
    mean_where,
    searched,
    supervised_loss,
)
from benchbench_adversarial.domains import warm_up
from benchbench_adversarial.reversal import ReverseGradient, check_positive, mlp


@searched(weight=Between(0.1, 3.0))
class MCD(Objective):
    """Maximum classifier discrepancy (Saito et al. 2018, arXiv:1712.02560).

    Two heads fit the labelled rows and differ as much as they can on the others, the encoder as
    little: the steps B and C of the paper in one, by a reversed gradient whose scale warms up as
    DANN's, so that an image counts once for every method. The sum of both heads predicts.
    """

    n_views = 1
    reads = {"labels"}

    def __init__(
        self, encoder: nn.Module, task: Task, *, weight: float = 1.0, width: int = 256
    ) -> None:
        super().__init__()
        sizes = encoder.num_features, width, task.num_classes
        self.one, self.other, self.weight = mlp(*sizes), mlp(*sizes), weight

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        z = encoder(batch.views[0])
        fit = sum(supervised_loss(head(z), batch.labels) for head in (self.one, self.other))
        reversed_z = ReverseGradient.apply(z, self.weight * warm_up(batch.progress))
        p, q = (head(reversed_z).float().softmax(1) for head in (self.one, self.other))
        return fit - mean_where(discrepancy(p, q), batch.labels == UNKNOWN)

    def predict(self, z: Tensor) -> Tensor:
        return self.one(z) + self.other(z)


def discrepancy(p: Tensor, q: Tensor) -> Tensor:
    """Mean over classes of |p − q|, [B]."""
    return (p - q).abs().mean(1)


@searched(weight=Between(0.01, 1.0), margin=Between(1.0, 8.0))
class MDD(Supervised):
    """Margin disparity discrepancy (Zhang et al. 2019, arXiv:1904.05801).

    An adversarial head agrees with the classifier's choice on labelled rows, weighed ``margin``,
    and contradicts it on the others. Its gradient reaches the encoder reversed, scaled by
    ``weight`` times a warm-up as DANN's; 0.1 is that of the authors' code.
    """

    def __init__(
        self,
        encoder: nn.Module,
        task: Task,
        *,
        weight: float = 0.1,
        margin: float = 4.0,
        width: int = 256,
    ) -> None:
        check_positive("mdd", margin=margin)
        super().__init__(encoder, task)
        self.adversary = mlp(encoder.num_features, width, task.num_classes)
        self.weight, self.margin = weight, margin

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        z = encoder(batch.views[0])
        logits = self.predict(z)
        reversed_z = ReverseGradient.apply(z, self.weight * warm_up(batch.progress))
        unlabelled = batch.labels == UNKNOWN
        agree, contradict = disparity(logits.detach(), self.adversary(reversed_z).float())
        play = self.margin * mean_where(agree, ~unlabelled) + mean_where(contradict, unlabelled)
        return supervised_loss(logits, batch.labels) + play


def disparity(logits: Tensor, adversary: Tensor) -> tuple[Tensor, Tensor]:
    """−log σ and −log(1 − σ), [B] each, of the adversary's share σ of the class chosen."""
    choice = logits.argmax(1)
    log_p = adversary.log_softmax(1)
    others = log_p.masked_fill(F.one_hot(choice, log_p.shape[1]).bool(), -torch.inf)
    return -log_p.gather(1, choice[:, None])[:, 0], -others.logsumexp(1)
