"""Datasets of WILDS (Koh et al. 2021; with unlabelled data Sagawa et al. 2022), through `wilds`.

globalwheat is left out: it is a detection task, and no readout here predicts boxes.
"""

from collections.abc import Callable

from benchbench import DomainData, hookimpl
from benchbench_wilds.groups import celeba, waterbirds
from benchbench_wilds.images import camelyon17, domainnet, fmow, iwildcam, rxrx1
from benchbench_wilds.poverty import poverty
from benchbench_wilds.texts import amazon, civilcomments


@hookimpl
def benchbench_datasets() -> dict[str, Callable[..., DomainData]]:
    return {
        "amazon": amazon,
        "camelyon17": camelyon17,
        "celeba": celeba,
        "civilcomments": civilcomments,
        "domainnet": domainnet,
        "fmow": fmow,
        "iwildcam": iwildcam,
        "poverty": poverty,
        "rxrx1": rxrx1,
        "waterbirds": waterbirds,
    }
