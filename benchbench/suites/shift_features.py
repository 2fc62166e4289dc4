"""The frozen features of a shift: of which rows they are extracted, and under which keys kept.

Everything reads test and validation rows, and training rows whose label is known. Of training rows
without their labels, validators and diagnostics read a fixed draw, which is `SAMPLE` rows of a side
at most, and a readout may read the moments of all. So rows that none of these reads are neither
encoded nor kept, but where a readout asks for moments: then they are encoded once, and summed.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from operator import add
from typing import Literal

import torch
from torch import Tensor, nn

from benchbench.data.pack import Pack
from benchbench.evaluation.criteria import ROWS as SAMPLE
from benchbench.evaluation.feature_statistics import drawn
from benchbench.evaluation.features import Features, Moments, extract, moments_of
from benchbench.extension.constants import TRAIN
from benchbench.extension.contracts import is_known
from benchbench.store.artifacts import Store
from benchbench.store.keys import features_key, part_key
from benchbench.suites.plan import Plan

Sides = Sequence[tuple[str, ...]]  # of the shift: domains whose training rows are drawn together
Made = Callable[[], dict[str, Tensor]]
Once = Callable[[str, str, Made], Mapping[str, Tensor]]  # what is kept under a key, or is made
Part = Literal["all", "read", "drawn", "moments"]


@dataclass(frozen=True)
class Share:
    """Rows of some domains that are encoded together, and what is kept of them.

    That are the features of all rows of a domain; or, in the part "read", of those that are read
    wherever the domain is in a shift; or, in "drawn", of those that the draw of a side of several
    domains has beside; or, in "moments", the moments of the training rows that are in none of them.
    """

    part: Part
    domains: tuple[str, ...]
    rows: Tensor  # int64, of the pack

    def key(self, encoder_key: str, fingerprint: str) -> str:
        return share_key(self.part, encoder_key, self.domains, fingerprint)


def share_key(part: Part, encoder_key: str, domains: tuple[str, ...], fingerprint: str) -> str:
    """Under which it is kept."""
    if part == "all":
        (domain,) = domains
        return features_key(encoder_key, domain, fingerprint)
    return part_key(encoder_key, domains, fingerprint, part, SAMPLE)


def every_key(encoder_key: str, sides: Sides, fingerprint: str) -> set[str]:
    """Under which something may be kept of a shift, whatever its rows are."""
    parts: tuple[Part, ...] = ("all", "read", "moments")
    alone = [(part, (domain,)) for part in parts for domain in domains_of(sides)]
    drawn_together: list[tuple[Part, tuple[str, ...]]] = [("drawn", side) for side in sides]
    every = (*alone, *drawn_together)
    return {share_key(part, encoder_key, domains, fingerprint) for part, domains in every}


def domains_of(sides: Sides) -> tuple[str, ...]:
    return tuple(dict.fromkeys(domain for side in sides for domain in side))


def shares_of(sides: Sides, pack: Pack) -> list[Share]:
    """What is extracted of a shift, of every domain first."""
    found = []
    for domain in domains_of(sides):
        rows = (pack.domains == pack.domain_names.index(domain)).nonzero().flatten()
        read = rows[always_read(domain, rows, pack)]
        found.append(Share("all" if len(read) == len(rows) else "read", (domain,), read))
    for side in sides:
        beyond = drawn_of(side, SAMPLE, pack)
        beyond = beyond[~torch.isin(beyond, torch.cat([share.rows for share in found]))]
        if len(beyond):
            found.append(Share("drawn", tuple(side), beyond))
    return found


def always_read(domain: str, rows: Tensor, pack: Pack) -> Tensor:
    """bool: which of all rows of a domain are read wherever the domain is in a shift."""
    sampled = torch.isin(rows, drawn_of((domain,), SAMPLE, pack))
    return (pack.split[rows] != TRAIN) | is_known(pack.labels[rows]) | sampled


def unread(sides: Sides, pack: Pack) -> list[Share]:
    """The training rows of each domain of which there are moments alone, where it has such."""
    found = []
    for domain in domains_of(sides):
        rows = pack.rows(domain, TRAIN)
        rows = rows[~always_read(domain, rows, pack)]
        found += [Share("moments", (domain,), rows)] if len(rows) else []
    return found


def drawn_of(side: tuple[str, ...], most: int, pack: Pack) -> Tensor:
    """The fixed draw of the training rows of a side; one of fewer rows is in it."""
    rows = torch.cat([pack.rows(domain, TRAIN) for domain in side])
    return rows[drawn(len(rows), most)]


@dataclass(frozen=True)
class Kept:
    """The features of some rows."""

    rows: Tensor  # int64 [N], of the pack, ascending within each domain
    z: Tensor  # float32 [N, D]


@dataclass(frozen=True)
class ShiftFeatures:
    """What is read of the features of a shift."""

    pack: Pack
    parts: tuple[Kept, ...]
    moments: Callable[[], Moments]  # of all training rows of the shift

    def known(self, domains: tuple[str, ...], split: int) -> Features:
        """Of the rows of a split of some domains whose label is known."""
        rows = torch.cat([self.pack.rows(domain, split) for domain in domains])
        return self.of(self.pack.with_label(rows))

    def held_out(self, domains: tuple[str, ...], split: int) -> Features:
        """Of all rows of the validation split, or of the test split, of some domains."""
        return self.of(torch.cat([self.pack.rows(domain, split) for domain in domains]))

    def sample(self, side: tuple[str, ...], most: int = SAMPLE) -> Features:
        """Of the fixed draw of at most so many training rows of a side, `SAMPLE` at most."""
        return self.of(drawn_of(side, most, self.pack))

    def of(self, rows: Tensor) -> Features:
        """Of these rows; KeyError if those of one are not kept."""
        place = torch.full((len(self.pack.labels),), -1)
        z, seen = torch.empty(len(rows), self.parts[0].z.shape[1]), 0
        for part in self.parts:
            place.fill_(-1)[part.rows] = torch.arange(len(part.rows))
            at = place[rows]
            mine = (at >= 0).nonzero().flatten()
            if len(mine) == len(rows):
                return Features(part.z[at], self.pack.labels[rows])
            for block in mine.split(8192):
                z[block] = part.z[at[block]]
            seen += len(mine)
        if seen < len(rows):
            raise KeyError(f"the features of {len(rows) - seen} rows are not kept")
        return Features(z, self.pack.labels[rows])


class NotKept(LookupError):
    """The store has not all features of a shift."""


def shift_features(
    encoder: nn.Module, encoder_key: str, sides: Sides, plan: Plan, once: Once | None = None
) -> ShiftFeatures:
    """The features of a shift; what was extracted before is taken from the store.

    ``once`` is in place of the store: it returns what is kept under a key, or makes it.
    """
    pack, keep = plan.pack, once or partial(from_store, plan.store)

    def kept(share: Share) -> Kept:
        def made() -> dict[str, Tensor]:
            return {"z": extract(encoder, plan.inputs, share.rows, plan.machine.device)}

        work = f"features of {' + '.join(share.domains)}"
        return Kept(share.rows, keep(share.key(encoder_key, pack.fingerprint), work, made)["z"])

    def summed(share: Share) -> Moments:
        def made() -> dict[str, Tensor]:
            found = moments_of(encoder, plan.inputs, share.rows, plan.machine.device)
            count = torch.tensor(found.count)
            return {"count": count, "mean": found.mean, "scatter": found.scatter}

        work = f"moments of the features of {' + '.join(share.domains)}"
        told = keep(share.key(encoder_key, pack.fingerprint), work, made)
        return Moments(int(told["count"]), told["mean"], told["scatter"])

    def moments() -> Moments:
        others = unread(sides, pack)
        rows = torch.cat([pack.rows(domain, TRAIN) for domain in domains_of(sides)])
        for share in others:
            rows = rows[~torch.isin(rows, share.rows)]
        return reduce(add, map(summed, others), Moments.of(found.of(rows).z))

    found = ShiftFeatures(pack, tuple(map(kept, shares_of(sides, pack))), moments)
    return found


def stored_features(encoder_key: str, sides: Sides, plan: Plan) -> ShiftFeatures | None:
    """The features of a shift, if the store has all of them."""

    def only_read(key: str, work: str, made: Made) -> Mapping[str, Tensor]:
        if kept := plan.store.read("features", key):
            return kept.tensors
        raise NotKept(work)

    try:
        return shift_features(nn.Identity(), encoder_key, sides, plan, only_read)
    except NotKept:
        return None


def from_store(store: Store, key: str, work: str, made: Made) -> Mapping[str, Tensor]:
    """What the store has under the key; if it has nothing, it is made, and kept."""
    return store.once("features", key, work, lambda: (made(), None)).tensors
