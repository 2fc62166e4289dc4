"""A dataset as the core uses it: checked, split and fingerprinted."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchbench.contracts import DomainData, ImageFiles, Task
from benchbench.data.encoded import Encoded
from benchbench.data.splits import draw_split
from benchbench.metrics import resolve_metric
from benchbench.terms import TEST, TRAIN, UNKNOWN, VAL, BadInput


@dataclass(frozen=True)
class Pack:
    """Rows of images and what is known of each."""

    images: Tensor | Encoded  # uint8 [N, C, H, W]; memory-mapped where they lie in a store
    labels: Tensor  # int64 [N]
    domains: Tensor  # int64 [N]
    split: Tensor  # int64 [N]
    groups: Tensor | None  # int64 [N]; −1: in none
    class_names: tuple[str, ...]
    domain_names: tuple[str, ...]
    group_names: tuple[str, ...]
    metric: str  # the dataset's own
    licence: str
    fingerprint: str  # sha256 over everything above that decides a score, but the metric

    @property
    def task(self) -> Task:
        c, h, w = self.images.shape[1:]
        return Task((c, h, w), len(self.class_names), len(self.domain_names))

    def rows(self, domain: str, split: int) -> Tensor:
        """int64 indices of a domain's rows in one split, ascending."""
        number = self.domain_names.index(domain)
        return ((self.domains == number) & (self.split == split)).nonzero().flatten()


def pack_of(data: DomainData, split_seed: int, images: Tensor | Encoded, digest: str) -> Pack:
    """The data with these pixels, whose sha256 is ``digest``; a split is drawn if there is none.

    BadInput names what breaks the contract of DomainData.
    """
    count, names = len(images), data.domain_names
    for column in ("labels", "domains", "split", "units", "groups"):
        values = getattr(data, column)
        if values is not None and (values.dtype != torch.int64 or values.shape != (count,)):
            raise BadInput(f"the dataset's {column} must be int64 of shape [{count}]")
    _check_range("labels", data.labels, UNKNOWN, len(data.class_names))
    _check_range("domains", data.domains, 0, len(names))
    if data.groups is not None:
        _check_range("groups", data.groups, -1, len(data.group_names))
    resolve_metric(data.metric, data.groups)
    split = data.split
    if split is None:
        split = draw_split(data.labels, data.domains, data.units, names, split_seed)
    _check_range("split", split, TRAIN, TEST + 1)
    fingerprint = hashlib.sha256(digest.encode())
    fingerprint.update(json.dumps([images.shape, data.class_names, names]).encode())
    for values in (data.labels, data.domains, split, data.groups):
        if values is not None:
            fingerprint.update(values.contiguous().numpy().data)
    return Pack(
        images,
        data.labels,
        data.domains,
        split,
        data.groups,
        data.class_names,
        names,
        data.group_names,
        data.metric,
        data.licence,
        fingerprint.hexdigest(),
    )


def in_memory(data: DomainData, split_seed: int = 0) -> Pack:
    """The pack of data whose images are a tensor."""
    assert not isinstance(data.images, ImageFiles), "files are prepared in a store"
    return pack_of(data, split_seed, data.images, digest_of(data.images))


def digest_of(images: Tensor) -> str:
    """sha256 of the pixels; BadInput if they are no images."""
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise BadInput("the dataset's images must be uint8 of shape [N, C, H, W]")
    return hashlib.sha256(images.contiguous().numpy().data).hexdigest()


def _check_range(column: str, values: Tensor, low: int, end: int) -> None:
    if len(values) and not (low <= int(values.min()) and int(values.max()) < end):
        raise BadInput(f"the dataset's {column} must lie in [{low}, {end - 1}]")


def check_shift(pack: Pack, labelled: Sequence[str], targets: Sequence[str], shift: str) -> None:
    """BadInput if the shift cannot be learned or scored at all."""
    known = {name: set(pack.labels[pack.rows(name, TRAIN)].tolist()) for name in labelled}
    classes = set().union(*known.values()) - {UNKNOWN}
    for name in labelled:
        for split, word in ((TRAIN, "training"), (VAL, "validation")):
            if not (pack.labels[pack.rows(name, split)] != UNKNOWN).any():
                raise BadInput(f"shift {shift}: domain {name!r} has no labelled {word} rows")
    for name in targets:
        if not (pack.labels[pack.rows(name, TEST)] != UNKNOWN).any():
            raise BadInput(f"shift {shift}: domain {name!r} has no labelled test rows")
        wanted = set(pack.labels[pack.rows(name, TEST)].tolist()) - {UNKNOWN}
        if not wanted & classes:
            mine = ", ".join(pack.class_names[label] for label in sorted(wanted)) or "none"
            theirs = ", ".join(pack.class_names[label] for label in sorted(classes))
            raise BadInput(
                f"shift {shift}: domain {name!r} has no class in common with the labelled "
                f"domains; it has {mine}, they have {theirs}"
            )
