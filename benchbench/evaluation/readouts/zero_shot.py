"""Zero-shot classification by text embeddings."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from benchbench.evaluation.features import Features
from benchbench.evaluation.readouts.interface import Affine, Fit, Fitted, Unlabelled
from benchbench.evaluation.readouts.row_blocks import blockwise
from benchbench.extension.errors import BadInput
from benchbench.extension.grammar import pinned


def zero_shot(*, embeddings: str = "", sha256: str = "") -> Fit:
    """The class whose text is nearest (CLIP, Radford et al. 2021, arXiv:2103.00020, section 3.1.2).

    ``embeddings`` is an .npy file of floats [num_classes, D], a row for each class in the dataset's
    order, from the text tower that belongs to the encoder, which must keep its projection. The
    record holds the file's ``sha256``.
    """
    text = torch.from_numpy(read_embeddings(embeddings)).double()

    def fit(train: Features, val: Features, unlabelled: Unlabelled, num_classes: int) -> Fitted:
        if text.shape != (num_classes, train.z.shape[1]):
            raise BadInput(
                f"readout zero_shot: {embeddings} is of shape {list(text.shape)}, but there are "
                f"{num_classes} classes and {train.z.shape[1]} features"
            )
        directions = F.normalize(text, dim=1).T
        affine = Affine(directions, directions.new_zeros(num_classes), unit=True)
        scores = blockwise(lambda z: F.normalize(z, dim=1) @ directions, directions.device)
        return Fitted(scores, "last", affine=affine)

    return fit


def read_embeddings(path: str) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise BadInput(
            f"readout zero_shot: embeddings = {path!r} cannot be read: {error}"
        ) from None
    if array.ndim != 2 or array.dtype.kind != "f" or not np.isfinite(array).all():
        raise BadInput(f"readout zero_shot: {path} should hold finite floats [num_classes, D]")
    return array


def with_digest(options: dict[str, Any]) -> dict[str, Any]:
    """The options with the sha256 of the file they name; BadInput if another was asked for."""
    read_embeddings(options["embeddings"])
    return pinned("readout zero_shot", options, "embeddings")
