"""Shifts of ImageNet: its subclasses (BREEDS), and its classes drawn, sketched and misread."""

from collections.abc import Callable

from benchbench import DomainData, hookimpl
from benchbench_imagenet import subclasses, variants

OFFERED = (
    subclasses.entity13,
    subclasses.entity30,
    subclasses.living17,
    subclasses.nonliving26,
    variants.imagenet_a,
    variants.imagenet_r,
    variants.imagenet_sketch,
)


@hookimpl
def benchbench_datasets() -> dict[str, Callable[..., DomainData]]:
    return {factory.__name__: factory for factory in OFFERED}
