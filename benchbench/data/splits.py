"""Train, validation and test rows, for data that come without."""

import torch
from torch import Tensor

from benchbench.terms import TEST, TRAIN, VAL, derive_seed

HELD_OUT = 0.2  # the share of a stratum that tests; the same share of the rest validates


def draw_split(
    labels: Tensor, domains: Tensor, units: Tensor | None, names: tuple[str, ...], seed: int
) -> Tensor:
    """int64 [N] of TRAIN, VAL, TEST, drawn within each domain and, if there are any, class.

    With units, whole units are drawn, each within the domain where it first occurs: none is on two
    sides, in whatever domains it has rows. A row of unit −1 is one of its own.
    """
    if units is None:
        units = torch.arange(len(labels))
        numbers = labels.dtype.is_floating_point
        strata = torch.stack([domains, torch.zeros_like(domains) if numbers else labels], 1)
    else:
        alone = int(units.max()) + 1 + torch.arange(len(units))
        units = torch.where(units < 0, alone, units).unique(return_inverse=True)[1]
        first = torch.full((int(units.max()) + 1,), len(names))
        first = first.scatter_reduce(0, units, domains, "amin")
        strata = torch.stack([first[units], torch.zeros_like(units)], 1)
    split = torch.full_like(domains, TRAIN)
    for domain, label in strata.unique(dim=0).tolist():
        here = (strata == torch.tensor([domain, label])).all(1)
        generator = torch.Generator().manual_seed(derive_seed(seed, "split", names[domain], label))
        members = units[here].unique()
        members = members[torch.randperm(len(members), generator=generator)]
        tests = round(HELD_OUT * len(members))
        validates = round(HELD_OUT * (len(members) - tests))
        split[here & torch.isin(units, members[:tests])] = TEST
        split[here & torch.isin(units, members[tests : tests + validates])] = VAL
    return split
