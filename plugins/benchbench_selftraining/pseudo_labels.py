"""The most probable class of an unlabelled row as its label."""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchbench import (
    UNKNOWN,
    BadInput,
    Batch,
    Between,
    Supervised,
    Task,
    is_known,
    mean_where,
    searched,
    supervised_loss,
)


class FromHead(Supervised):
    """An objective that may go on from a model that already predicts.

    With ``start = "head"`` it takes over the head of the stage before, or a probe if that has none.
    """

    def __init__(self, encoder: nn.Module, task: Task, start: str) -> None:
        if start not in ("fresh", "head"):
            raise BadInput(f"start = {start!r} should be 'fresh' or 'head'")
        super().__init__(encoder, task)
        self.begins = start


@searched(weight=Between(0.3, 3.0), threshold=Between(0.5, 0.98, log=False))
class PseudoLabel(FromHead):
    """Pseudo-labels (Lee 2013), as WILDS trains them (Sagawa et al. 2022, arXiv:2112.05090).

    Of the view itself, where the model gives its class at least ``threshold``. Their weight rises
    linearly to ``weight`` over the first 40 % of the stage.
    """

    def __init__(
        self,
        encoder: nn.Module,
        task: Task,
        *,
        weight: float = 1.0,
        threshold: float = 0.7,
        start: str = "fresh",
    ) -> None:
        check_threshold("pseudo_label", threshold)
        super().__init__(encoder, task, start)
        self.weight, self.threshold = weight, threshold

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        logits = self.predict(encoder(batch.views[0])).float()
        rows = confident_cross_entropy(logits, logits.detach(), self.threshold)
        weight = self.weight * min(batch.progress / 0.4, 1.0)
        loss = supervised_loss(logits, batch.labels)
        return loss + weight * mean_where(rows, batch.labels == UNKNOWN)


@searched(weight=Between(0.3, 3.0), threshold=Between(0.6, 0.98, log=False))
class FixMatch(FromHead):
    """FixMatch (Sohn et al. 2020, arXiv:2001.07685, equations 3 and 4).

    A pseudo-label from the weak view, where that is at least ``threshold`` certain, for the view by
    the stage's augmentation, which should be strong. Labelled rows are seen strong, as in WILDS.
    ``start = "head"`` is for a stage after another (Garg et al. 2023, arXiv:2312.03318, after
    contrastive pre-training).
    """

    n_weak = 1

    def __init__(
        self,
        encoder: nn.Module,
        task: Task,
        *,
        weight: float = 1.0,
        threshold: float = 0.95,
        start: str = "fresh",
    ) -> None:
        check_threshold("fixmatch", threshold)
        super().__init__(encoder, task, start)
        self.weight, self.threshold = weight, threshold

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        both = torch.cat([batch.views[0], batch.weak[0]])
        strong, weak = self.predict(encoder(both)).float().chunk(2)
        rows = confident_cross_entropy(strong, weak.detach(), self.threshold)
        loss = supervised_loss(strong, batch.labels)
        return loss + self.weight * mean_where(rows, batch.labels == UNKNOWN)


@searched(dropout=Between(0.2, 0.7, log=False))
class NoisyStudent(Supervised):
    """Noisy Student (Xie et al. 2020, arXiv:1911.04252), one round of it.

    A teacher, the model as the stage before left it, labels the weak view; the student, which goes
    on from the teacher's weights as in WILDS, learns these labels for the view by the stage's
    augmentation, with ``dropout`` before its head. WILDS takes two rounds:
    ``erm > noisy_student > noisy_student``.
    """

    n_weak = 1
    begins = "head"
    regresses = True

    def __init__(self, encoder: nn.Module, task: Task, *, dropout: float = 0.5) -> None:
        if not 0 <= dropout < 1:
            raise BadInput(f"noisy_student: dropout = {dropout} should be in [0, 1)")
        super().__init__(encoder, task)
        self.dropout = nn.Dropout(dropout)
        self.teacher = copy.deepcopy(nn.Sequential(encoder, self.classifier)).requires_grad_(False)

    def begin(self, head: nn.Linear) -> None:
        super().begin(head)
        self.teacher[1].load_state_dict(head.state_dict())

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        with torch.no_grad():
            told = self.teacher.eval()(batch.weak[0])
        scores, known = self.predict(encoder(batch.views[0])), is_known(batch.labels)
        if batch.labels.is_floating_point():
            wanted = told[:, 0].masked_fill(known, torch.nan)
        else:
            wanted = told.argmax(1).masked_fill(known, UNKNOWN)
        return supervised_loss(scores, batch.labels) + supervised_loss(scores, wanted)

    def predict(self, z: Tensor) -> Tensor:
        return super().predict(self.dropout(z))


@searched(weight=Between(0.3, 3.0))
class SENTRY(FromHead):
    """Selective entropy optimisation via committee consistency (Prabhu et al. 2021, 2012.11460).

    Where most of three views by the stage's augmentation agree with the weak view, the entropy of
    the last that agrees is lowered; elsewhere that of the last that does not is raised. The sum of
    p log q̂, q̂ the shares of the last ``memory`` pseudo-labels, weighed ``balance``, keeps classes
    apart. The authors start from a model of the source, `erm > sentry(start='head')` here, and draw
    batches balanced by (pseudo-)label, where here all methods get the same.
    """

    n_views = 3
    n_weak = 1

    def __init__(
        self,
        encoder: nn.Module,
        task: Task,
        *,
        weight: float = 1.0,
        balance: float = 0.1,
        memory: int = 256,
        start: str = "fresh",
    ) -> None:
        if memory < 1:
            raise BadInput(f"sentry: memory = {memory} should be at least 1")
        super().__init__(encoder, task, start)
        self.weight, self.balance = weight, balance
        k = task.num_classes
        self.register_buffer("recent", torch.arange(memory) % k)  # at first as many of each class
        self.register_buffer("next", torch.zeros((), dtype=torch.int64))

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        views = torch.cat([*batch.weak, *batch.views])
        weak, *committee = self.predict(encoder(views)).float().chunk(4)
        chosen = batch.labels == UNKNOWN
        self.latest = torch.where(chosen, weak.argmax(1), UNKNOWN)
        shares = F.one_hot(self.recent, weak.shape[1]).float().mean(0)
        spread = (weak.softmax(1) * (shares + 1e-6).log()).sum(1)
        selective = selective_entropy(weak.detach(), torch.stack(committee))
        loss = supervised_loss(committee[0], batch.labels)
        loss = loss + self.balance * mean_where(spread, chosen)
        return loss + self.weight * mean_where(selective, chosen)

    @torch.no_grad()
    def after_step(self, encoder: nn.Module) -> None:
        """Put the pseudo-labels of unlabelled rows into the ring; no shape depends on how many."""
        size = len(self.recent)
        new = self.latest != UNKNOWN
        rank = new.long().cumsum(0) - 1
        place = torch.where(new, (self.next + rank) % size, size)  # one past the end for the rest
        ring = torch.cat([self.recent, self.recent[:1]])
        self.recent.copy_(ring.scatter(0, place, self.latest)[:size])
        self.next.add_(new.sum()).remainder_(size)


def selective_entropy(weak: Tensor, committee: Tensor) -> Tensor:
    """± the entropy of one member's prediction, [B], from logits [B, K] and [3, B, K]."""
    agrees = committee.argmax(2) == weak.argmax(1)  # [3, B]
    consistent = agrees.sum(0) >= 2
    members = torch.arange(1, 4, device=weak.device)[:, None]
    last = (members * (agrees == consistent)).argmax(0)  # of those on the side that is meant
    log_p = committee.log_softmax(2)
    entropies = -(log_p.exp() * log_p).sum(2)
    entropy = entropies.gather(0, last[None])[0]
    return torch.where(consistent, entropy, -entropy)


def confident_cross_entropy(logits: Tensor, teacher: Tensor, threshold: float) -> Tensor:
    """Cross-entropy with the teacher's class where its probability reaches ``threshold``, [B]."""
    probability, label = teacher.softmax(1).max(1)
    rows = F.cross_entropy(logits, label, reduction="none")
    return torch.where(probability >= threshold, rows, 0.0)


def check_threshold(owner: str, threshold: float) -> None:
    if not 0 <= threshold <= 1:
        raise BadInput(f"{owner}: threshold = {threshold} should be between 0 and 1")
