"""A split is drawn as it always was; what has no label is trained on."""

from dataclasses import replace

import pytest
import torch
from tiny import tiny

from benchbench.data.pack import in_memory
from benchbench.data.splits import HELD_OUT, draw_split
from benchbench.extension.constants import TEST, TRAIN, UNKNOWN, VAL
from benchbench.training.seeds import derive_seed


def scanned(labels, domains, units, names, seed):
    """The draw as it was in 2026-10: a scan of all rows per stratum; all rows have labels."""
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
        tests = round(0.2 * len(members))
        validates = round(0.2 * (len(members) - tests))
        split[here & torch.isin(units, members[:tests])] = TEST
        split[here & torch.isin(units, members[tests : tests + validates])] = VAL
    return split


def planted(number: int):
    """Random columns: few or many strata, classes or numbers, units or none, rows without unit."""
    g = torch.Generator().manual_seed(number)
    rows, classes, domains = (int(torch.randint(1, top, (), generator=g)) for top in (400, 30, 8))
    labels = torch.randint(classes, (rows,), generator=g)
    if number % 3 == 2:
        labels = torch.randn(rows, generator=g)
    units = None
    if number % 2:
        units = 3 * torch.randint(-1, max(1, rows // 4), (rows,), generator=g)
        units = units.clamp(min=-1)
    return labels, torch.randint(domains, (rows,), generator=g), units, tuple("abcdefgh"), number


@pytest.mark.parametrize("number", range(24))
def test_where_all_rows_have_labels_the_draw_is_the_one_it_always_was(number):
    assert torch.equal(draw_split(*planted(number)), scanned(*planted(number)))


@pytest.mark.parametrize("number", range(12))
def test_rows_without_a_label_are_trained_on_and_move_no_class(number):
    labels, domains, _, names, seed = planted(number)
    hidden = torch.rand(len(labels), generator=torch.Generator().manual_seed(seed)) < 0.4
    numbers = labels.dtype.is_floating_point
    labels[hidden] = torch.nan if numbers else UNKNOWN
    split = draw_split(labels, domains, None, names, seed)
    assert (split[hidden] == TRAIN).all()
    kept = scanned(labels[~hidden], domains[~hidden], None, names, seed)
    assert torch.equal(split[~hidden], kept), "as if the others were not there"
    if not numbers:  # whose classes were strata of their own
        before = scanned(labels, domains, None, names, seed)
        assert torch.equal(split[~hidden], before[~hidden])


def test_a_unit_is_drawn_if_one_of_its_rows_has_a_label():
    units, rows = 30, 6
    of = torch.arange(units).repeat_interleave(rows)
    labels = torch.full((units * rows,), UNKNOWN)
    labels[: 20 * rows : rows] = 1  # one row of each of the first 20
    of[-rows:], labels[-rows:] = -1, torch.tensor([UNKNOWN] * 5 + [0])  # of no unit
    split = draw_split(labels, torch.zeros_like(of), of, ("a",), 0)
    sides = split.view(units, rows)
    assert (sides[:29] == sides[:29, :1]).all(), "units are whole"
    assert (sides[20:29] == TRAIN).all() and (sides[29, :5] == TRAIN).all()
    drawn = torch.cat([sides[:20, 0], sides[29, 5:]])
    tests = round(HELD_OUT * 21)
    assert (drawn == TEST).sum() == tests and (drawn == VAL).sum() == round(HELD_OUT * (21 - tests))


def test_a_split_of_many_strata_is_the_same_for_those_of_some_domains():
    """Of 20,000 rows in 14,600 strata, whose scan one by one took half a minute."""
    rows = 20_000
    g = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 100, (rows,), generator=g)
    domains = torch.randint(0, 300, (rows,), generator=g)
    names = tuple(map(str, range(300)))
    split = draw_split(labels, domains, None, names, 0)
    some = domains < 2
    wanted = scanned(labels[some], domains[some], None, names, 0)
    assert torch.equal(split[some], wanted)


def test_data_of_which_no_row_has_a_label_are_training_rows():
    of = torch.tensor([0, 0, 1, -1])
    for labels in (torch.full((4,), UNKNOWN), torch.full((4,), torch.nan)):
        for units in (None, of):
            split = draw_split(labels, torch.zeros(4, dtype=torch.int64), units, ("a",), 0)
            assert split.tolist() == [TRAIN] * 4


def test_a_domain_without_labels_gives_no_row_to_validation_or_test():
    data = tiny(None)
    labels = data.labels.clone()
    labels[data.domains == 2] = UNKNOWN
    pack = in_memory(replace(data, labels=labels, split=None))
    assert [len(pack.rows("odd", side)) for side in (TRAIN, VAL, TEST)] == [120, 0, 0]
    whole = in_memory(replace(data, split=None))
    for name in ("left", "right"):
        for side in (TRAIN, VAL, TEST):
            assert torch.equal(pack.rows(name, side), whole.rows(name, side))
