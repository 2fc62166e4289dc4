"""What plugins and core hand to each other."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchbench.terms import UNKNOWN


@dataclass(frozen=True)
class Task:
    """What a model must know about the data before it has seen any."""

    image_shape: tuple[int, int, int]  # C, H, W
    num_classes: int
    num_domains: int


@dataclass(frozen=True)
class ImageFiles:
    """Images on disk, for the core to decode, once, to RGB of ``size`` × ``size`` pixels."""

    root: Path
    paths: tuple[str, ...]  # relative to root, with forward slashes
    size: int

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True)
class DomainData:
    """Images, each from one named domain: what a dataset plugin returns."""

    images: Tensor | ImageFiles  # a tensor is uint8 [N, C, H, W]
    labels: Tensor  # int64 [N], an index into class_names, or UNKNOWN
    domains: Tensor  # int64 [N], an index into domain_names
    class_names: tuple[str, ...]
    domain_names: tuple[str, ...]
    split: Tensor | None = None  # int64 [N] of TRAIN, VAL, TEST; None: the core draws it
    groups: Tensor | None = None  # int64 [N]; a drawn split keeps each group on one side
    licence: str = "unknown"


@dataclass(frozen=True)
class Rows:
    """Some rows of the data, gathered onto the device."""

    images: Tensor  # uint8 [B, C, H, W]
    labels: Tensor  # int64 [B]
    domains: Tensor  # int64 [B]


@dataclass(frozen=True)
class Batch:
    """One training step's input. What the objective does not read is None."""

    views: tuple[Tensor, ...]  # each float32 [B, C, H, W] in [0, 1]
    labels: Tensor | None  # int64 [B]; UNKNOWN where the row's domain is not the labelled one
    domains: Tensor | None  # int64 [B]
    progress: float  # the share of the stage's steps already done, in [0, 1)


class Objective(nn.Module, ABC):
    """What a stage minimises. Its own parameters are trained with the encoder's.

    ``forward`` runs under autocast: a loss that multiplies matrices in float32 says so with
    ``torch.autocast(device_type, enabled=False)``. What must survive an interruption is a
    parameter or a persistent buffer; a plain attribute is not kept.
    """

    n_views: int = 2
    reads: frozenset[str] | set[str] = frozenset()  # of "labels", "domains"; the rest is hidden
    encoder_lr: float = 1.0  # the encoder's learning rate, as a multiple of the stage's

    @abstractmethod
    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        """The loss of one batch, a scalar."""

    def after_step(self, encoder: nn.Module) -> None:
        """Called after every optimizer step, e.g. to move a momentum encoder."""

    def predict(self, z: Tensor) -> Tensor:
        """Scores [N, num_classes] from features [N, num_features], where there is a head."""
        raise NotImplementedError

    @property
    def has_head(self) -> bool:
        return type(self).predict is not Objective.predict


def known_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy over the rows whose label is known, in float32; zero if there is none."""
    total = F.cross_entropy(logits.float(), labels, ignore_index=UNKNOWN, reduction="sum")
    return total / (labels != UNKNOWN).sum().clamp(min=1)


def floats(images: Tensor) -> Tensor:
    """What an encoder reads, float32 in [0, 1], from uint8 images."""
    return images.to(torch.float32).div_(255) if images.dtype == torch.uint8 else images.float()
