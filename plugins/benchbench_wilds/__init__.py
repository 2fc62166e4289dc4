"""Datasets of WILDS (Koh et al. 2021; with unlabelled data Sagawa et al. 2022), through `wilds`.

globalwheat is left out: it is a detection task, and no readout here predicts boxes.
"""

from collections.abc import Callable

from benchbench import DomainData, hookimpl
from benchbench_wilds.groups import celeba, waterbirds
from benchbench_wilds.images import camelyon17, domainnet, fmow, iwildcam, rxrx1


@hookimpl
def benchbench_datasets() -> dict[str, Callable[..., DomainData]]:
    return {
        "camelyon17": camelyon17,
        "celeba": celeba,
        "domainnet": domainnet,
        "fmow": fmow,
        "iwildcam": iwildcam,
        "rxrx1": rxrx1,
        "waterbirds": waterbirds,
    }
