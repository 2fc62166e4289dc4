"""sha256 of what decides a score."""

import hashlib
import json

import torch
from torch import Tensor

from benchbench.extension.contracts import DomainData
from benchbench.extension.errors import BadInput

INPUTS = {(4, torch.uint8), (4, torch.float16), (2, torch.int32)}  # dimensions and dtypes


def digest_of(inputs: Tensor) -> str:
    """sha256 of the bytes; BadInput if they are neither images nor texts."""
    if (inputs.ndim, inputs.dtype) not in INPUTS:
        raise BadInput(
            "the dataset's images must be uint8 or float16 of shape [N, C, H, W], and its texts "
            "int32 of shape [N, L]"
        )
    if inputs.dtype == torch.float16 and not inputs.isfinite().all():
        raise BadInput("the dataset's images hold NaN or infinity")
    return hashlib.sha256(inputs.contiguous().numpy().data).hexdigest()


def fingerprint_of(data: DomainData, split: Tensor, shape: tuple[int, ...], digest: str) -> str:
    """sha256 over all of prepared data that decides a score, but the metric.

    ``digest`` is that of the inputs, which are of ``shape``.
    """
    fingerprint = hashlib.sha256(digest.encode())
    about: list[object] = [shape, data.class_names, data.domain_names]
    if data.vocabulary:
        about.append(data.vocabulary)
    fingerprint.update(json.dumps(about).encode())
    for values in (data.labels, data.domains, split, data.groups):
        if values is not None:
            fingerprint.update(values.contiguous().numpy().data)
    return fingerprint.hexdigest()
