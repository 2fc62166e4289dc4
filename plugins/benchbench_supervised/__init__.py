"""Objectives that read labels and nothing else: training and fine-tuning with cross-entropy."""

from torch import Tensor, nn

from benchbench import BadInput, Batch, Objective, Task, hookimpl, known_cross_entropy


class CrossEntropy(Objective):
    """Cross-entropy of a linear head on the labelled rows."""

    n_views = 1
    reads = {"labels"}

    def __init__(self, encoder: nn.Module, task: Task, encoder_lr: float) -> None:
        super().__init__()
        self.classifier = nn.Linear(encoder.num_features, task.num_classes)
        self.encoder_lr = encoder_lr

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        return known_cross_entropy(self.predict(encoder(batch.views[0])), batch.labels)

    def predict(self, z: Tensor) -> Tensor:
        return self.classifier(z)


def erm(encoder: nn.Module, task: Task) -> Objective:
    """Empirical risk minimisation: the baseline that the rest must beat."""
    return CrossEntropy(encoder, task, encoder_lr=1.0)


def finetune(encoder: nn.Module, task: Task, *, encoder_lr: float = 1.0) -> Objective:
    """Go on from a trained encoder, which moves ``encoder_lr`` times as fast as the new head."""
    if encoder_lr < 0:
        raise BadInput(f"finetune: encoder_lr = {encoder_lr} should not be negative")
    return CrossEntropy(encoder, task, encoder_lr)


@hookimpl
def benchbench_objectives():
    return {"erm": erm, "finetune": finetune}
