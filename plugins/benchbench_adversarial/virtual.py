"""The least change of the input that changes a prediction most: virtual adversarial training."""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchbench import UNKNOWN, Batch, Between, Supervised, Task, mean_where, searched, untracked
from benchbench_adversarial.domains import DANN
from benchbench_adversarial.reversal import check_positive

Classify = Callable[[Tensor], Tensor]  # images to logits


@searched(weight=Between(1e-3, 0.1), target=Between(1e-3, 0.1))
class VADA(DANN):
    """Virtual adversarial domain adaptation (Shu et al. 2018, arXiv:1802.08735).

    Cross-entropy and DANN, weighed ``weight``; on labelled rows virtual adversarial training,
    weighed ``source``; on the others the same and the entropy of predictions, weighed ``target``.
    ``radius`` is that of the change for images in [0, 1]; the authors' 3.5 is for [−1, 1].
    """

    modalities = {"image"}
    regresses = False

    def __init__(
        self,
        encoder: nn.Module,
        task: Task,
        *,
        weight: float = 0.01,
        source: float = 1.0,
        target: float = 0.01,
        radius: float = 1.75,
        width: int = 256,
    ) -> None:
        check_positive("vada", radius=radius)
        super().__init__(encoder, task, weight=weight, width=width)
        self.source, self.target, self.radius = source, target, radius

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        loss = super().forward(encoder, batch)
        divergence, entropy = smoothness(self, encoder, batch.views[0], self.radius)
        unlabelled = batch.labels == UNKNOWN
        loss = loss + self.source * mean_where(divergence, ~unlabelled)
        return loss + self.target * mean_where(divergence + entropy, unlabelled)


@searched(target=Between(1e-3, 0.1))
class DIRTT(Supervised):
    """Refine a model on unlabelled rows alone (Shu et al. 2018, arXiv:1802.08735).

    After `vada`: entropy and virtual adversarial training, weighed ``target``, without straying
    from a teacher, weighed ``stay``: the model as it was at the start of each of ``rounds`` equal
    parts of the stage. Let it see the target.
    """

    begins = "head"
    modalities = {"image"}
    reads = frozenset()

    def __init__(
        self,
        encoder: nn.Module,
        task: Task,
        *,
        target: float = 0.01,
        stay: float = 0.01,
        radius: float = 1.75,
        rounds: int = 4,
    ) -> None:
        check_positive("dirt_t", radius=radius, rounds=rounds)
        super().__init__(encoder, task)
        self.target, self.stay, self.radius, self.rounds = target, stay, radius, rounds
        self.teacher = copy.deepcopy(nn.Sequential(encoder, self.classifier)).requires_grad_(False)
        self.register_buffer("round", torch.zeros((), dtype=torch.int64))

    def begin(self, head: nn.Linear) -> None:
        super().begin(head)
        self.teacher[1].load_state_dict(head.state_dict())

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        images = batch.views[0]
        self.renew(encoder, int(batch.progress * self.rounds))
        with torch.no_grad():
            wanted = self.teacher.eval()(images).float().softmax(1)
        strayed = divergence_from(wanted, self.predict(encoder(images)).float())
        divergence, entropy = smoothness(self, encoder, images, self.radius)
        return (self.stay * strayed + self.target * (divergence + entropy)).mean()

    @torch.no_grad()
    def renew(self, encoder: nn.Module, number: int) -> None:
        """The student becomes the teacher where a round begins; nothing waits for the device."""
        student = [*encoder.state_dict().values(), *self.classifier.state_dict().values()]
        starts = self.round != number
        for old, new in zip(self.teacher.state_dict().values(), student, strict=True):
            old.copy_(torch.where(starts, new, old))
        self.round.fill_(number)


def smoothness(
    objective: Supervised, encoder: nn.Module, images: Tensor, radius: float
) -> tuple[Tensor, Tensor]:
    """How far a small change of each image moves its prediction, and its entropy, [B] each."""
    with untracked(encoder), torch.autocast(images.device.type, enabled=False):

        def classify(changed: Tensor) -> Tensor:
            return objective.predict(encoder(changed)).float()

        logits = classify(images)
        log_p = logits.log_softmax(1)
        entropy = -(log_p.exp() * log_p).sum(1)
        return virtual_adversarial(classify, images, logits.detach(), radius), entropy


def virtual_adversarial(
    classify: Classify, images: Tensor, logits: Tensor, radius: float, step: float = 1e-3
) -> Tensor:
    """max over ‖r‖ ≤ radius of KL(p(x) ‖ p(x + r)), [B]; ``logits`` are those of the images.

    Miyato et al. 2018, arXiv:1704.03976: one step of power iteration from a random
    direction. Its finite step is 1e-3, where float32 still resolves a difference.
    """
    p = logits.softmax(1)
    direction = (step * unit(torch.randn_like(images))).requires_grad_()
    away = divergence_from(p, classify(images + direction)).sum()
    (gradient,) = torch.autograd.grad(away, direction)
    return divergence_from(p, classify(images + radius * unit(gradient)))


def divergence_from(p: Tensor, logits: Tensor) -> Tensor:
    """KL(p ‖ softmax(logits)), [B]."""
    return F.kl_div(logits.log_softmax(1), p, reduction="none").sum(1)


def unit(rows: Tensor) -> Tensor:
    """Every row of the batch with norm 1; a row of zeros stays one."""
    return F.normalize(rows.flatten(1), dim=1, eps=1e-30).view_as(rows)
