"""The feed against a slow model: an endless walk of lists, of which each step takes the next rows.

The model's walk is read off a feed of one row a step; what a walk must be is asserted of it alone.
"""

from dataclasses import replace
from itertools import islice

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from benchbench.data.batches import Feed
from benchbench.data.pack import in_memory
from benchbench.extension.constants import TEST, TRAIN, UNKNOWN, VAL
from benchbench.extension.contracts import DomainData
from benchbench.extension.errors import BadInput

CPU = torch.device("cpu")
NAMES = ("a", "b", "c")


def pack_of(sizes: tuple[int, ...], unknown_every: int = 0):
    """Domains of so many training rows each, among rows of the other splits.

    An image is the number of its row, and its label is the number's remainder.
    """
    domains, split = [], []
    for domain, size in enumerate(sizes):
        kinds = [TRAIN] * size + [VAL, TEST] * 2
        split += kinds[::-1] if domain % 2 else kinds
        domains += [domain] * len(kinds)
    n = len(domains)
    index = torch.arange(n)
    images = torch.stack([index // 256, index % 256], 1).to(torch.uint8).view(n, 1, 1, 2)
    labels = index % 5
    if unknown_every:
        labels = labels.masked_fill(index % unknown_every == 0, UNKNOWN)
    return in_memory(
        DomainData(images, labels, torch.tensor(domains), tuple("vwxyz"), NAMES[: len(sizes)],
                   torch.tensor(split))
    )  # fmt: skip


def numbers(rows) -> list[int]:
    return (rows.inputs[:, 0, 0, 0].int() * 256 + rows.inputs[:, 0, 0, 1]).tolist()


def walk(pack, domain: str, seed: int, labelled=()):
    """The rows of a domain, one at a time, without end."""
    feed, step = Feed(pack, pack.inputs, (domain,), labelled, 1, seed, CPU), 0
    while True:
        (row,) = numbers(feed(step))
        yield row
        step += 1


def epochs(pack, domain: str, seed: int, count: int, labelled=()) -> list[list[int]]:
    rows = walk(pack, domain, seed, labelled)
    size = len(pack.rows(domain, TRAIN))
    if domain in labelled:
        size = len(pack.with_label(pack.rows(domain, TRAIN)))
    return [list(islice(rows, size)) for _ in range(count)]


SIZES = st.integers(7, 31)


@settings(max_examples=12, deadline=None, derandomize=True, database=None, phases=[Phase.generate])
@given(sizes=st.tuples(SIZES, SIZES), seed=st.integers(0, 2**40), unknown=st.sampled_from([0, 3]))
def test_every_epoch_is_another_permutation_of_the_training_rows(sizes, seed, unknown):
    pack = pack_of(sizes, unknown)
    for domain in NAMES[:2]:
        rows = pack.rows(domain, TRAIN)
        for labelled in ((), (domain,)):
            wanted = [r for r in rows.tolist() if not labelled or pack.labels[r] != UNKNOWN]
            found = epochs(pack, domain, seed, 3, labelled)
            assert [sorted(epoch) for epoch in found] == [wanted] * 3
            if len(wanted) > 6:  # of fewer rows two orders are often the same
                assert len({tuple(epoch) for epoch in found}) == 3


@settings(max_examples=25, deadline=None, derandomize=True, database=None, phases=[Phase.generate])
@given(
    sizes=st.tuples(SIZES, SIZES, SIZES),
    batch=st.integers(3, 20),
    seed=st.integers(0, 2**40),
    steps=st.lists(st.integers(0, 9), min_size=1, max_size=4),
    seen=st.permutations(range(3)).flatmap(lambda p: st.sampled_from([p[:1], p[:2], p])),
)
def test_a_step_is_the_next_rows_of_each_domains_walk(sizes, batch, seed, steps, seen):
    """Whatever was asked before, whatever the batch and the other domains: so a run that goes on
    from any step meets what it would have met."""
    pack, domains = pack_of(sizes), [NAMES[i] for i in seen]
    shares = [len(range(i, batch, len(domains))) for i in range(len(domains))]
    if any(share > sizes[NAMES.index(d)] for share, d in zip(shares, domains, strict=True)):
        return  # refused, as `shares` is tested to
    feed = Feed(pack, pack.inputs, domains, (), batch, seed, CPU)
    walks = {d: list(islice(walk(pack, d, seed), (max(steps) + 1) * batch)) for d in domains}
    for step in steps:
        rows = feed(step)
        wanted = [
            row
            for domain, share in zip(domains, shares, strict=True)
            for row in walks[domain][step * share : (step + 1) * share]
        ]
        assert len(wanted) == batch
        assert numbers(rows) == wanted
        assert torch.equal(rows.domains, pack.domains[wanted])


def test_two_domains_and_two_seeds_are_walked_in_different_orders():
    pack = pack_of((23, 23))
    starts = [int(pack.rows(domain, TRAIN)[0]) for domain in NAMES[:2]]
    orders = {
        (domain, seed): tuple(row - start for row in epochs(pack, domain, seed, 1)[0])
        for domain, start in zip(NAMES, starts, strict=False)
        for seed in (0, 1)
    }
    assert {tuple(sorted(order)) for order in orders.values()} == {tuple(range(23))}
    assert len(set(orders.values())) == 4


def test_labels_are_shown_of_labelled_domains_alone_and_are_those_of_their_rows():
    pack = pack_of((11, 13, 17), unknown_every=4)
    feed = Feed(pack, pack.inputs, NAMES, ("b",), 16, 5, CPU)
    for step in range(8):
        rows = feed(step)
        assert len(rows.labels) == 16
        for number, domain, label in zip(
            numbers(rows), rows.domains.tolist(), rows.labels.tolist(), strict=True
        ):
            assert label == (number % 5 if domain == 1 else UNKNOWN)


def test_a_seeds_order_is_what_it_was_when_boards_were_measured():
    """Committed boards rest on it. The name of a domain decides, not its number."""
    pack = pack_of((7, 9))
    assert epochs(pack, "a", 0, 3) == [
        [3, 5, 1, 2, 6, 0, 4],
        [4, 1, 5, 3, 0, 2, 6],
        [0, 5, 4, 3, 1, 2, 6],
    ]
    assert epochs(pack, "b", 12, 1) == [[23, 22, 21, 17, 16, 18, 19, 20, 15]]
    renamed = replace(pack, domain_names=("z", "b"))
    assert epochs(renamed, "z", 0, 1) != epochs(pack, "a", 0, 1)
    assert epochs(renamed, "b", 12, 1) == epochs(pack, "b", 12, 1)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_batch_smaller_than_the_domains_is_refused(batch):
    pack = pack_of((7, 7, 7))
    with pytest.raises(BadInput, match=f"batch_size = {batch} is less than one row of 3 domains"):
        Feed(pack, pack.inputs, NAMES, (), batch, 0, CPU)
