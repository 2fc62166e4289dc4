"""Images that torchvision read, brought to one size and one DomainData."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchbench import TRAIN, VAL, BadInput, DomainData, decode_images


@dataclass(frozen=True)
class Part:
    """Rows of one domain and one split."""

    images: Sequence[Path] | Sequence[np.ndarray] | np.ndarray  # each uint8 [H, W] or [H, W, 3]
    labels: np.ndarray  # int [N], −1 where unknown
    domain: int
    split: int
    where: str = "torchvision's images"  # for sentences about one of them


def read(reader: Any, root: Path, **options: Any) -> Any:
    """A torchvision dataset, never downloaded; BadInput if it does not find or trust its files."""
    try:
        return reader(str(root), download=False, **options)
    except (RuntimeError, OSError, ValueError, KeyError) as error:
        reason = str(error).partition(". You can")[0]
        raise BadInput(
            f"torchvision cannot read {reader.__name__} below {root}: {reason}"
        ) from None


def joined(
    parts: Iterable[Part],
    size: int,
    class_names: Sequence[str],
    domain_names: Sequence[str],
    licence: str,
    sources: Sequence[Path],
    seed: int,
) -> DomainData:
    """RGB of ``size`` × ``size``, bilinear; a fifth of each domain's training rows validates."""
    parts = list(parts)
    images = np.concatenate([decode_images(part.images, size, part.where) for part in parts])
    labels = np.concatenate([part.labels for part in parts]).astype(np.int64)
    domains = np.concatenate([np.full(len(part.labels), part.domain) for part in parts])
    split = np.concatenate([np.full(len(part.labels), part.split) for part in parts])
    for domain in range(len(domain_names)):
        rng = np.random.Generator(np.random.PCG64([seed, domain]))
        for label in range(len(class_names)):
            rows = ((split == TRAIN) & (domains == domain) & (labels == label)).nonzero()[0]
            split[rng.permutation(rows)[: (len(rows) + 2) // 5]] = VAL
    return DomainData(
        torch.from_numpy(images),
        torch.from_numpy(labels),
        torch.from_numpy(domains),
        tuple(class_names),
        tuple(domain_names),
        torch.from_numpy(split),
        licence=licence,
        sources=tuple(sources),
    )
