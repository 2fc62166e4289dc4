"""Datasets that torchvision reads, joined to shifts."""

from collections.abc import Callable

from benchbench import DomainData, hookimpl
from benchbench_vision.corruptions import cifar10_c
from benchbench_vision.pairs import cifar_stl, digits5


@hookimpl
def benchbench_datasets() -> dict[str, Callable[..., DomainData]]:
    return {"cifar10_c": cifar10_c, "cifar_stl": cifar_stl, "digits5": digits5}
