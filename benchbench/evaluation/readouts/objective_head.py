"""The head that a supervised objective has trained."""

import torch
from torch import Tensor

from benchbench.evaluation.features import Features
from benchbench.evaluation.readouts.interface import Fit, Fitted, Scores, Unlabelled


def head(predict: Scores) -> Fit:
    """The objective's own head, as the last step left it."""

    @torch.no_grad()
    def scores(z: Tensor) -> Tensor:
        return predict(z)

    def fit(train: Features, val: Features, unlabelled: Unlabelled, num_classes: int) -> Fitted:
        return Fitted(scores, "last", log_odds=bool(num_classes))

    return fit
