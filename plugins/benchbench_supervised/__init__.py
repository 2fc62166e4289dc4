"""Objectives that read labels and nothing else: training and fine-tuning with cross-entropy."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchbench import (
    UNKNOWN,
    BadInput,
    Batch,
    Between,
    Objective,
    Supervised,
    Task,
    hookimpl,
    searched,
    supervised_loss,
)


class CrossEntropy(Supervised):
    """Cross-entropy of a linear head on the labelled rows, or the squared error of numbers."""

    regresses = True

    def __init__(self, encoder: nn.Module, task: Task, encoder_lr: float) -> None:
        super().__init__(encoder, task)
        self.encoder_lr = encoder_lr

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        return supervised_loss(self.predict(encoder(batch.views[0])), batch.labels)


@searched(encoder_lr=Between(0.1, 1.0))
class LPFT(CrossEntropy):
    """Linear probing, then fine-tuning (Kumar et al. 2022, arXiv:2202.10054).

    The head begins as the readout `linear` on the encoder as the stage before left it. Encoder and
    normalisation stay in evaluation mode, so that the statistics of pre-training are kept.
    """

    begins = "probe"

    def __init__(self, encoder: nn.Module, task: Task, *, encoder_lr: float = 1.0) -> None:
        check_encoder_lr("lp_ft", encoder_lr)
        super().__init__(encoder, task, encoder_lr)

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        return super().forward(encoder.eval(), batch)


@searched(alpha=Between(0.05, 2.0))
class Mixup(Supervised):
    """Convex combinations of two images and of their labels (Zhang et al. 2018, arXiv:1710.09412).

    λ ~ Beta(``alpha``, ``alpha``), one for a batch as in the authors' code. A row whose label is
    hidden counts for nothing, alone or as a partner: let it see the source only.
    """

    modalities = {"image"}

    def __init__(self, encoder: nn.Module, task: Task, *, alpha: float = 0.2) -> None:
        if alpha < 0.01:  # in 32 bits both of the draws it is made of may be zero, and it then is ½
            raise BadInput(f"mixup: alpha = {alpha} should be at least 0.01")
        super().__init__(encoder, task)
        self.alpha = alpha

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        images, labels = batch.views[0], batch.labels
        share = torch.distributions.Beta(self.alpha, self.alpha).sample().item()  # on the CPU
        partner = torch.randperm(len(images), device=images.device)
        logits = self.predict(encoder(share * images + (1 - share) * images[partner]))
        return mixed_cross_entropy(logits.float(), labels, labels[partner], share)


def mixed_cross_entropy(logits: Tensor, first: Tensor, second: Tensor, share: float) -> Tensor:
    """Mean of share · CE(first) + (1 − share) · CE(second), over the label weight that is known."""
    total = weight = 0.0
    for labels, part in ((first, share), (second, 1 - share)):
        rows = F.cross_entropy(logits, labels, ignore_index=UNKNOWN, reduction="sum")
        total = total + part * rows
        weight = weight + part * (labels != UNKNOWN).sum()
    return total / weight.clamp(min=1e-12)


def erm(encoder: nn.Module, task: Task) -> Objective:
    """Empirical risk minimisation: the baseline that the rest must beat."""
    return CrossEntropy(encoder, task, encoder_lr=1.0)


@searched(encoder_lr=Between(0.1, 1.0))
def finetune(encoder: nn.Module, task: Task, *, encoder_lr: float = 1.0) -> Objective:
    """Go on from a trained encoder, which moves ``encoder_lr`` times as fast as the new head."""
    check_encoder_lr("finetune", encoder_lr)
    return CrossEntropy(encoder, task, encoder_lr)


def check_encoder_lr(owner: str, encoder_lr: float) -> None:
    if encoder_lr < 0:
        raise BadInput(f"{owner}: encoder_lr = {encoder_lr} should not be negative")


@hookimpl
def benchbench_objectives():
    return {"erm": erm, "finetune": finetune, "lp_ft": LPFT, "mixup": Mixup}
