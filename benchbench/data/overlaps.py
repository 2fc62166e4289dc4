"""What is on several sides of a split, or in several domains: equal rows, and units."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from itertools import combinations

import numpy as np
import torch
from torch import Tensor

from benchbench.data.encoded_images import Encoded
from benchbench.data.pack import Pack
from benchbench.extension.constants import TEST, TRAIN, VAL

WORDS = {TRAIN: "training", VAL: "validation", TEST: "test"}
PAIRS = ((TEST, TRAIN), (TEST, VAL), (VAL, TRAIN))  # of sides, the worst first
MOST = 10  # pairs of domains that are told
BLOCK = 64  # rows that are read at once


def digests_of(inputs: Tensor | Encoded) -> tuple[str, np.ndarray]:
    """sha256 of all bytes; and of each row, uint64 [N, 2], equal where its bytes are."""
    whole, rows = hashlib.sha256(), np.empty((len(inputs), 2), np.uint64)
    for index in torch.arange(len(inputs)).split(BLOCK):
        block = inputs[index].contiguous().numpy()
        whole.update(block.data)
        for row, values in zip(index.tolist(), block, strict=True):
            rows[row] = np.frombuffer(hashlib.blake2b(values, digest_size=16).digest(), np.uint64)
    return whole.hexdigest(), rows


def overlaps(
    pack: Pack, units: Tensor | None, digests: np.ndarray, paths: Sequence[str] = ()
) -> list[str]:
    """A sentence for each kind of overlap, the worst first: equal rows, then units.

    ``digests`` are those of `digests_of`, ``units`` int64 [N], −1 in none, those of DomainData.
    Rows are named by their number, from 0, and by their path where there are ``paths``.
    """
    _, ids, counts = np.unique(digests, axis=0, return_inverse=True, return_counts=True)
    ids = ids.reshape(-1)
    rows = (counts[ids] > 1).nonzero()[0]  # of which each has an equal
    return [
        *_between_splits(pack, ids, rows, paths),
        *_between_domains(pack, ids, rows, paths),
        *([] if units is None else _units_on_sides(pack, units.numpy(), paths)),
    ]


def _between_splits(
    pack: Pack, ids: np.ndarray, rows: np.ndarray, paths: Sequence[str]
) -> list[str]:
    domains, split, told = pack.domains.numpy(), pack.split.numpy(), []
    what = "tokens" if pack.vocabulary else "pixels"
    for held, other in PAIRS:
        for number, name in enumerate(pack.domain_names):
            mine = rows[domains[rows] == number]
            held_rows, other_rows = (mine[split[mine] == side] for side in (held, other))
            both = held_rows[np.isin(ids[held_rows], ids[other_rows])]
            if len(both):
                equal = other_rows[ids[other_rows] == ids[both[0]]][0]
                size = ((domains == number) & (split == held)).sum()
                told.append(
                    f"domain {name!r}: {WORDS[held]} rows with the same {what} as a "
                    f"{WORDS[other]} row: {len(both):,} of {size:,}, such as "
                    f"{_row(both[0], paths)} and {_row(equal, paths)}"
                )
    return told


def _between_domains(
    pack: Pack, ids: np.ndarray, rows: np.ndarray, paths: Sequence[str]
) -> list[str]:
    domains, split = pack.domains.numpy(), pack.split.numpy()
    rows = rows[np.lexsort((rows, ids[rows]))]
    shared: Counter[tuple[int, int]] = Counter()
    leaks: Counter[tuple[int, int]] = Counter()  # test rows of the one that train in the other
    examples: dict[tuple[int, int], tuple[int, int]] = {}
    for alike in np.split(rows, np.flatnonzero(np.diff(ids[rows])) + 1):
        if not len(alike) or (domains[alike] == domains[alike[0]]).all():
            continue
        by_domain = {int(d): alike[domains[alike] == d] for d in np.unique(domains[alike])}
        for one, other in combinations(by_domain, 2):
            shared[one, other] += 1
            examples.setdefault((one, other), (by_domain[one][0], by_domain[other][0]))
            for tests, trains in ((one, other), (other, one)):
                if (split[by_domain[trains]] == TRAIN).any():
                    leaks[tests, trains] += int((split[by_domain[tests]] == TEST).sum())
    what, told = "texts" if pack.vocabulary else "images", []
    names = pack.domain_names
    for (one, other), count in shared.most_common(MOST):
        first, second = (_row(row, paths) for row in examples[one, other])
        leaked = "".join(
            f"; test rows of {names[tests]!r} that are training rows of {names[trains]!r}: "
            f"{leaks[tests, trains]:,}"
            for tests, trains in ((one, other), (other, one))
            if leaks[tests, trains]
        )
        told.append(
            f"domains {names[one]!r} and {names[other]!r}: the same {what} in both: {count:,}, "
            f"such as {first} and {second}{leaked}"
        )
    if len(shared) > MOST:
        told.append(f"pairs of domains with the same {what} beside these: {len(shared) - MOST:,}")
    return told


def _units_on_sides(pack: Pack, units: np.ndarray, paths: Sequence[str]) -> list[str]:
    split, told = pack.split.numpy(), []
    within = units >= 0
    for held, other in PAIRS:
        mine, theirs = (np.unique(units[within & (split == side)]) for side in (held, other))
        if len(both := np.intersect1d(mine, theirs)):
            inside = np.isin(units, both)
            rows = [(inside & (split == side)).nonzero()[0] for side in (held, other)]
            first, second = ((part[units[part] == both[0]])[0] for part in rows)
            told.append(
                f"groups that are divided between {WORDS[held]} and {WORDS[other]}: {len(both):,}, "
                f"of {len(rows[0]):,} and {len(rows[1]):,} rows, such as that of "
                f"{_row(first, paths)} and {_row(second, paths)}"
            )
    return told


def _row(row: int, paths: Sequence[str]) -> str:
    return f"row {row:,} ({paths[row]})" if paths else f"row {row:,}"
