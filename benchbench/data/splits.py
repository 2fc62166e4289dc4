"""Train, validation and test rows, for data that come without."""

import torch
from torch import Tensor

from benchbench.extension.constants import TEST, TRAIN, VAL
from benchbench.extension.contracts import is_known
from benchbench.training.seeds import derive_seed

DRAWN = 2  # the version of the draw: a pack with the split of another is prepared anew
HELD_OUT = 0.2  # the share of a stratum that tests; the same share of the rest validates


def draw_split(
    labels: Tensor, domains: Tensor, units: Tensor | None, names: tuple[str, ...], seed: int
) -> Tensor:
    """int64 [N] of TRAIN, VAL, TEST, drawn within each domain and, if there are any, class.

    With units, whole units are drawn, each within the domain where it first occurs: none is on two
    sides, in whatever domains it has rows. A row of unit −1 is one of its own. A row without a
    label is in TRAIN, as it can neither validate nor test, unless it is of a unit that has labelled
    rows; shares are of what has labels.
    """
    known = is_known(labels)
    if units is None:
        units, homes = torch.arange(len(labels)), domains
        classes = torch.zeros_like(domains) if labels.dtype.is_floating_point else labels
    else:
        alone = int(units.max()) + 1 + torch.arange(len(units))
        units = torch.where(units < 0, alone, units).unique(return_inverse=True)[1]
        homes = torch.full((int(units.max()) + 1,), len(names))
        homes = homes.scatter_reduce(0, units, domains, "amin")
        known = torch.zeros_like(homes).scatter_reduce(0, units, known.long(), "amax") > 0
        classes = torch.zeros_like(homes)
    members = known.nonzero().flatten()
    strata, of, sizes = torch.stack([homes, classes], 1)[members].unique(
        dim=0, return_inverse=True, return_counts=True
    )
    members = members[of.argsort(stable=True)]
    side, generator = torch.full_like(homes, TRAIN), torch.Generator()
    for (domain, label), mine in zip(strata.tolist(), members.split(sizes.tolist()), strict=True):
        generator.manual_seed(derive_seed(seed, "split", names[domain], label))
        mixed = mine[torch.randperm(len(mine), generator=generator)]
        tests = round(HELD_OUT * len(mine))
        validates = round(HELD_OUT * (len(mine) - tests))
        side[mixed[:tests]] = TEST
        side[mixed[tests : tests + validates]] = VAL
    return side[units]
