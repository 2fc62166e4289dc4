"""What plugins and core hand to each other."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchbench.extension.constants import UNKNOWN
from benchbench.extension.errors import BadInput
from benchbench.extension.grammar import options_of

Factory = TypeVar("Factory", bound=Callable[..., object])

Modality = Literal["image", "text"]

LARGEST = 65_535  # pixels of an image's side, as of JPEG


@dataclass(frozen=True)
class Task:
    """What a model must know about the data before it has seen any."""

    input_shape: tuple[int, ...]  # C, H, W of an image; L, the tokens of a text
    num_classes: int  # 0: labels are numbers, and a regression learns them
    num_domains: int
    vocabulary: tuple[str, ...] = ()  # of texts: what a token is an index into

    @property
    def modality(self) -> Modality:
        return "text" if self.vocabulary else "image"

    @property
    def num_outputs(self) -> int:
        """How many scores a head gives a row."""
        return self.num_classes or 1

    def blank(self, rows: int) -> Tensor:
        """Inputs as an encoder reads them, of zeros."""
        kind = torch.int64 if self.modality == "text" else torch.float32
        return torch.zeros(rows, *self.input_shape, dtype=kind)


@dataclass(frozen=True)
class ImageFiles:
    """Images on disk, for the core to decode, once, to RGB of ``size`` × ``size`` pixels.

    Both sides are resized to ``size``, as DomainBed does; with ``crop`` the shorter side is resized
    to size / crop and the centre is cut out, as ImageNet is evaluated (0.875). Files that are no
    pictures, as of sensors, come with a ``reader`` from a path to floats [channels, H, W], mostly
    in [0, 1]; they are kept as float16. It is a function at the top level of its module.
    """

    root: Path
    paths: Sequence[str]  # relative to root, with forward slashes
    size: int
    crop: float | None = None
    reader: Callable[[Path], np.ndarray] | None = None
    channels: int = 3

    def __post_init__(self) -> None:
        checked_size(self.size)

    def __len__(self) -> int:
        return len(self.paths)


def checked_size(size: int) -> int:
    """The side of images in pixels; BadInput if it is not between 1 and LARGEST."""
    if not 1 <= size <= LARGEST:
        raise BadInput(f"size = {size} must lie between 1 and {LARGEST:,}: it is a side in pixels")
    return size


@dataclass(frozen=True)
class DomainData:
    """Images or texts, each from one named domain: what a dataset plugin returns."""

    inputs: Tensor | ImageFiles  # uint8 or float16 [N, C, H, W]; of texts int32 [N, L], PADDING
    labels: Tensor  # int64 [N], an index into class_names, or UNKNOWN; or float32 [N], or NaN
    domains: Tensor  # int64 [N], an index into domain_names
    class_names: tuple[str, ...]  # none where labels are numbers
    domain_names: tuple[str, ...]
    split: Tensor | None = None  # int64 [N] of TRAIN, VAL, TEST; None: the core draws it
    units: Tensor | None = None  # int64 [N]: a patient, a camera; a drawn split keeps each whole
    licence: str = "unknown"
    groups: Tensor | None = None  # what a score is told apart by: int64 [N], −1 in none, or bool
    # [N, G] where groups overlap
    group_names: tuple[str, ...] = ()  # none: groups count, but are not listed
    metric: str = "accuracy"  # the dataset's own, of evaluation/metrics.py, such as "macro_f1"
    sources: tuple[Path, ...] = ()  # files and folders, but images, that the above was read from
    vocabulary: tuple[str, ...] = ()  # of texts: what a token is an index into


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

    inputs: Tensor  # as in the pack: [B, C, H, W] or [B, L]
    labels: Tensor  # int64 [B], or float32 [B]
    domains: Tensor  # int64 [B]


@dataclass(frozen=True)
class Batch:
    """One training step's input. What the objective does not read is None."""

    views: tuple[Tensor, ...]  # each float32 [B, C, H, W] in [0, 1]; of texts int64 [B, L]
    labels: Tensor | None  # int64 [B], UNKNOWN where the row's domain is not the labelled one; or
    # float32 [B], NaN there
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
    modalities: frozenset[str] | set[str] = frozenset({"image", "text"})  # whose views it can use
    regresses: bool = False  # whether it can read labels that are numbers
    looks_inside: bool = False  # whether it uses more of the encoder than the features it returns;
    # then batches pass through whole, on every process, and nothing is compiled

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

    def trained_encoder(self, encoder: nn.Module) -> nn.Module:
        """The encoder that features are read off from, and that the next stage starts from.

        It has the state dict of ``encoder``, which is the one that was trained, and which is
        returned unless an objective says otherwise, such as a teacher. The core calls it after the
        last step and at snapshots, copies that state and trains on as before.
        """
        return encoder

    def predict(self, z: Tensor) -> Tensor:
        """Scores [N, num_outputs] from features [N, num_features], where there is a head."""
        raise NotImplementedError

    @property
    def has_head(self) -> bool:
        """Whether `predict` is there, so that the readout may be ``head``."""
        return type(self).predict is not Objective.predict


class Supervised(Objective):
    """An objective with a linear head, which most that read labels have."""

    n_views = 1
    reads = frozenset({"labels"})

    def __init__(self, encoder: nn.Module, task: Task) -> None:
        super().__init__()
        num_features: int = encoder.num_features  # type: ignore[assignment]
        self.classifier = nn.Linear(num_features, task.num_outputs)

    def predict(self, z: Tensor) -> Tensor:
        scores: Tensor = self.classifier(z)
        return scores

    def begin(self, head: nn.Linear) -> None:
        self.classifier.load_state_dict(head.state_dict())


def supervised_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy over the rows whose label is known, in float32 or better.

    Of labels that are numbers, the mean squared error of ``scores`` [B, 1]. Zero if none is known.
    """
    exact = scores.to(torch.promote_types(scores.dtype, torch.float32))
    if labels.dtype.is_floating_point:
        return mean_where((exact[:, 0] - labels.nan_to_num()).square(), is_known(labels))
    total = F.cross_entropy(exact, labels, ignore_index=UNKNOWN, reduction="sum")
    return total / is_known(labels).sum().clamp(min=1)


def is_known(labels: Tensor) -> Tensor:
    """bool [N]: neither UNKNOWN nor NaN."""
    return ~labels.isnan() if labels.dtype.is_floating_point else labels != UNKNOWN


def begun(objective: Objective, encoder: nn.Module, task: Task) -> Objective:
    """For a trial: the objective with a head of random weights, if it wants one to begin with."""
    if objective.begins != "fresh":
        num_features: int = encoder.num_features  # type: ignore[assignment]
        objective.begin(nn.Linear(num_features, task.num_outputs))
    return objective


def mean_where(values: Tensor, chosen: Tensor) -> Tensor:
    """Mean of ``values`` [B] over the rows that are ``chosen``, bool [B]; zero if none is."""
    return torch.where(chosen, values, 0.0).sum() / chosen.sum().clamp(min=1)


def as_read(inputs: Tensor) -> Tensor:
    """What an encoder reads: float32 [B, C, H, W], of uint8 in [0, 1], or int64 [B, L]."""
    if inputs.dtype == torch.uint8:
        return inputs.to(torch.float32).div_(255)
    return inputs.float() if inputs.dtype.is_floating_point else inputs.long()


def reads_file(option: str) -> Callable[[Factory], Factory]:
    """Say that an option of the factory names a file or folder, whose content decides too.

    Its sha256 becomes the factory's option ``sha256``, so that keys and records hold it.
    """

    def mark(factory: Factory) -> Factory:
        factory.reads_file = option  # type: ignore[attr-defined]
        return factory

    return mark


@dataclass(frozen=True)
class Between:
    """What a search may set an option to: whole numbers where both ends are.

    ``log``: as often within a factor of the low end as of the high one.
    """

    low: float
    high: float
    log: bool = True

    def at(self, share: float) -> float:
        """The value at a share of the way, in [0, 1)."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            ends = Between(self.low - 0.5, self.high + 0.5, self.log)
            return min(max(round(ends.at(share)), self.low), self.high)
        if self.log:
            return float(self.low * (self.high / self.low) ** share)
        return float(self.low + (self.high - self.low) * share)


def searched(**spaces: Between) -> Callable[[Factory], Factory]:
    """Say among what a suite that tunes may draw options of an objective's factory."""

    def mark(factory: Factory) -> Factory:
        if unknown := sorted({*spaces} - {*options_of(factory)}):
            raise TypeError(f"searched names {unknown[0]}, which is no option")
        factory.searched = spaces  # type: ignore[attr-defined]
        return factory

    return mark


def for_text(factory: Factory) -> Factory:
    """Say of an encoder's or augmentation's factory that it is for texts, and not for images."""
    factory.modalities = frozenset({"text"})  # type: ignore[attr-defined]
    return factory
