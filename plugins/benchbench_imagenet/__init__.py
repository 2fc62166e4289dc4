"""Shifts of ImageNet: its subclasses (BREEDS), and its classes drawn, sketched and misread."""

from collections.abc import Callable

from benchbench import DomainData, hookimpl
from benchbench_imagenet.subclasses import BREEDS
from benchbench_imagenet.variants import VARIANTS


@hookimpl
def benchbench_datasets() -> dict[str, Callable[..., DomainData]]:
    return {**BREEDS, **VARIANTS}
