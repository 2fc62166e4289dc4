"""What plugins and core hand to each other."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

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
    """Images on disk, for the core to decode, once, to RGB of ``size`` × ``size`` pixels.

    Both sides are resized to ``size``, as DomainBed does; with ``crop`` the shorter side is resized
    to size / crop and the centre is cut out, as ImageNet is evaluated (0.875).
    """

    root: Path
    paths: Sequence[str]  # relative to root, with forward slashes
    size: int
    crop: float | None = None

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
    units: Tensor | None = None  # int64 [N]: a patient, a camera; a drawn split keeps each whole
    licence: str = "unknown"
    groups: Tensor | None = None  # int64 [N], what a score is told apart by; −1: in none
    group_names: tuple[str, ...] = ()
    metric: str = "accuracy"  # the dataset's own, of benchbench.metrics, such as "macro_f1"
    sources: tuple[Path, ...] = ()  # files and folders, but images, that the above was read from


@dataclass(frozen=True)
class Download:
    """A file that a dataset's authors publish at an address."""

    url: str
    path: str  # where it belongs, below the data folder
    md5: str
    unpack: str | None = None  # the folder, below the data folder, that gets what is in it


@dataclass(frozen=True)
class Published:
    """Where a dataset comes from, and what its authors say is in it."""

    home: str  # the page where they publish it
    licence: str
    files: Callable[..., Sequence[str]]  # options to what must lie below the root
    rows: Callable[..., Mapping[str, int]]  # options to how many images each domain has
    downloads: Callable[..., Sequence[Download]]  # options to what can be fetched; perhaps nothing


def published(
    *,
    home: str,
    licence: str,
    files: Sequence[str] | Callable[..., Sequence[str]],
    rows: Mapping[str, int] | Callable[..., Mapping[str, int]] | None = None,
    downloads: Callable[..., Sequence[Download]] | None = None,
) -> Callable[[Callable[..., DomainData]], Callable[..., DomainData]]:
    """Say of a dataset's factory what `benchbench data` needs to know without reading it.

    ``files``, paths below the root, are looked for before the factory is called; ``rows`` are what
    `benchbench data verify` counts by; ``downloads`` are what `benchbench data download` fetches.
    Each may be a function of the factory's options.
    """

    def mark(factory: Callable[..., DomainData]) -> Callable[..., DomainData]:
        wanted = files if callable(files) else lambda **options: files
        counted = rows if callable(rows) else lambda **options: rows or {}
        fetched = downloads or (lambda **options: ())
        source = Published(home, licence, wanted, counted, fetched)
        factory.published = source  # type: ignore[attr-defined]
        return factory

    return mark


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
    weak: tuple[Tensor, ...] = ()  # of the stage's weak augmentation, each as in views
    small: tuple[Tensor, ...] = ()  # of its small one, each float32 [B, C, h, w]


class Objective(nn.Module, ABC):
    """What a stage minimises. Its own parameters are trained with the encoder's.

    ``forward`` runs under autocast: a loss that multiplies matrices in float32 says so with
    ``torch.autocast(device_type, enabled=False)``. What must survive an interruption is a
    parameter or a persistent buffer; a plain attribute is not kept.
    """

    n_views: int = 2  # by the stage's augmentation
    n_weak: int = 0  # by its weak augmentation, which is none unless the suite says more
    n_small: int = 0  # by its small augmentation, which the suite must name
    reads: frozenset[str] | set[str] = frozenset()  # of "labels", "domains"; the rest is hidden
    encoder_lr: float = 1.0  # the encoder's learning rate, as a multiple of the stage's
    begins: Literal["fresh", "probe", "head"] = "fresh"  # whether, and with what, begin is called

    def begin(self, head: nn.Linear) -> None:
        """Take over a head for the encoder that the stage starts from, before the first step.

        With ``begins = "probe"`` that is the readout `linear`, fitted to the labelled rows; with
        ``"head"`` the classifier of the stage before, if that is a Supervised, else the probe.
        """

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


class Supervised(Objective):
    """An objective with a linear head, which most that read labels have."""

    n_views = 1
    reads = frozenset({"labels"})

    def __init__(self, encoder: nn.Module, task: Task) -> None:
        super().__init__()
        num_features: int = encoder.num_features  # type: ignore[assignment]
        self.classifier = nn.Linear(num_features, task.num_classes)

    def predict(self, z: Tensor) -> Tensor:
        scores: Tensor = self.classifier(z)
        return scores

    def begin(self, head: nn.Linear) -> None:
        self.classifier.load_state_dict(head.state_dict())


def known_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy over the rows whose label is known, in float32 or better.

    Zero if there is none.
    """
    exact = logits.to(torch.promote_types(logits.dtype, torch.float32))
    total = F.cross_entropy(exact, labels, ignore_index=UNKNOWN, reduction="sum")
    return total / (labels != UNKNOWN).sum().clamp(min=1)


def begun(objective: Objective, encoder: nn.Module, task: Task) -> Objective:
    """For a trial: the objective with a head of random weights, if it wants one to begin with."""
    if objective.begins != "fresh":
        num_features: int = encoder.num_features  # type: ignore[assignment]
        objective.begin(nn.Linear(num_features, task.num_classes))
    return objective


def mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean of ``values`` [B] over the rows that are ``chosen``, bool [B]; zero if none is."""
    return torch.where(chosen, values, 0.0).sum() / chosen.sum().clamp(min=1)


def floats(images: Tensor) -> Tensor:
    """What an encoder reads, float32 in [0, 1], from uint8 images."""
    return images.to(torch.float32).div_(255) if images.dtype == torch.uint8 else images.float()
