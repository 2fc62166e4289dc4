"""Train, validation and test rows, for data that come without."""

import torch
from torch import Tensor

from benchbench.terms import TEST, TRAIN, VAL, derive_seed

HELD_OUT = 0.2  # the share of a stratum that tests; the same share of the rest validates


def draw_split(
    labels: Tensor, domains: Tensor, groups: Tensor | None, names: tuple[str, ...], seed: int
) -> Tensor:
    """int64 [N] of TRAIN, VAL, TEST, drawn within each domain and class.

    With groups, whole groups are drawn, within each domain: no group is on two sides.
    """
    split = torch.full_like(labels, TRAIN)
    units = torch.arange(len(labels)) if groups is None else groups
    strata = labels if groups is None else torch.zeros_like(labels)
    for number, name in enumerate(names):
        for stratum in strata[domains == number].unique().tolist():
            here = (domains == number) & (strata == stratum)
            generator = torch.Generator().manual_seed(derive_seed(seed, "split", name, stratum))
            members = units[here].unique()
            members = members[torch.randperm(len(members), generator=generator)]
            tests = round(HELD_OUT * len(members))
            validates = round(HELD_OUT * (len(members) - tests))
            split[here & torch.isin(units, members[:tests])] = TEST
            split[here & torch.isin(units, members[tests : tests + validates])] = VAL
    return split
