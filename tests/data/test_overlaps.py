"""Equal rows and whole units that are on several sides are counted, as a loop over pairs counts."""

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from tiny import tiny

from benchbench.cli import main
from benchbench.data.overlaps import digests_of, overlaps
from benchbench.data.pack import in_memory
from benchbench.extension.conformance.fixtures import sentences
from benchbench.extension.constants import TEST, TRAIN, VAL

WITHIN = r"domain '(\w+)': (\w+) rows .* a (\w+) row: (\d+) of (\d+),"
BETWEEN = r"domains '(\w+)' and '(\w+)': .*?(\d+),"
LEAK = r"of '(\w+)' that are training rows of '(\w+)': (\d+)"
SIDES = {TRAIN: "training", VAL: "validation", TEST: "test"}


def planted(data, seed):
    """Copies of 12 rows in the places of 40 others."""
    g = torch.Generator().manual_seed(seed)
    inputs = data.inputs.clone()
    places = torch.randperm(len(inputs), generator=g)[:40]
    inputs[places] = data.inputs[torch.randint(0, 12, (40,), generator=g)]
    return in_memory(replace(data, inputs=inputs))


def looked_up(pack):
    """By a loop over all pairs of rows: what `overlaps` should count."""
    rows, equal = range(len(pack.labels)), {}
    flat = pack.inputs.flatten(1)
    for row in rows:
        equal[row] = (flat == flat[row]).all(1).nonzero().flatten().tolist()
    domain, split = pack.domains.tolist(), pack.split.tolist()
    within, between, leaks = {}, {}, {}
    for number, name in enumerate(pack.domain_names):
        for held, other in ((TEST, TRAIN), (TEST, VAL), (VAL, TRAIN)):
            count = sum(
                domain[r] == number
                and split[r] == held
                and any(domain[e] == number and split[e] == other for e in equal[r])
                for r in rows
            )
            if count:
                within[name, SIDES[held], SIDES[other]] = count
        for number_2, name_2 in enumerate(pack.domain_names):
            images = {flat[r].numpy().tobytes() for r in rows if domain[r] == number
                      and any(domain[e] == number_2 for e in equal[r])}  # fmt: skip
            if images and number < number_2:
                between[name, name_2] = len(images)
            count = sum(
                domain[r] == number
                and split[r] == TEST
                and any(domain[e] == number_2 and split[e] == TRAIN for e in equal[r])
                for r in rows
            )
            if count and number != number_2:
                leaks[name, name_2] = count
    return within, between, leaks, equal


@pytest.mark.parametrize("make", [tiny, lambda _: sentences()], ids=["images", "texts"])
@pytest.mark.parametrize("seed", [0, 1])
def test_equal_rows_are_counted_between_splits_and_domains(make, seed):
    pack = planted(make(None), seed)
    _, digests = digests_of(pack.inputs)
    told = overlaps(pack, None, digests)
    within, between, leaks, equal = looked_up(pack)
    assert within and between and leaks, "the test is of something"
    found, shared, leaked = {}, {}, {}
    for text in told:
        if said := re.match(WITHIN, text):
            name, held, other, count, size = said.groups()
            found[name, held, other] = int(count)
            side = {word: split for split, word in SIDES.items()}[held]
            assert int(size) == len(pack.rows(name, side))
        else:
            one, other, count = re.match(BETWEEN, text).groups()
            shared[one, other] = int(count)
            for tests, trains, rows in re.findall(LEAK, text):
                leaked[tests, trains] = int(rows)
        first, second = map(int, re.findall(r"row (\d+)", text))
        assert second in equal[first] and first != second
    assert (found, shared, leaked) == (within, between, leaks)
    kinds = [next((n for n, w in enumerate(("test rows with .* training", "test rows with .* valid",
                                            "validation rows with", "domains"))
                   if re.search(w, text)), 9) for text in told]  # fmt: skip
    assert kinds == sorted(kinds), "the worst first"


def test_rows_that_differ_in_a_byte_are_not_equal():
    data = tiny(None)
    inputs = torch.randint(0, 256, data.inputs.shape, dtype=torch.uint8)
    inputs[7] = inputs[200]
    inputs[7, 0, 0, 0] ^= 1
    pack = in_memory(replace(data, inputs=inputs))
    whole, digests = digests_of(pack.inputs)
    assert overlaps(pack, None, digests) == []
    assert len(np.unique(digests, axis=0)) == len(inputs)


def test_units_on_several_sides_are_counted():
    data = tiny(None)
    inputs = torch.randint(0, 256, data.inputs.shape, dtype=torch.uint8)
    units = torch.full((len(inputs),), -1)
    pack = in_memory(replace(data, inputs=inputs))
    trains, tests = (pack.rows("left", side) for side in (TRAIN, TEST))
    units[trains[:6]] = torch.tensor([5, 5, 5, 8, 8, 9])
    units[tests[:4]] = torch.tensor([5, 8, 8, 7])
    _, digests = digests_of(pack.inputs)
    (told,) = overlaps(pack, units, digests)
    assert told == (
        "groups that are divided between test and training: 2, of 3 and 5 rows, such as that of "
        f"row {tests[0]} and row {trains[0]}"
    )


def test_verify_tells_of_copies_by_their_paths_and_ends_with_zero(tmp_path):
    rng = np.random.default_rng(0)
    for domain in ("a", "b"):
        for side in ("train", "val", "test"):
            folder = tmp_path / "mine" / domain / side / "cat"
            folder.mkdir(parents=True)
            for number in range(3):
                pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    words = ["data", "verify", "folder(path='mine', size=8)", "--data", str(tmp_path)]
    alone = CliRunner().invoke(main, [*words, "--store", str(tmp_path / "one")])
    assert alone.exit_code == 0 and alone.stdout.endswith(
        "; no image is in two splits or domains\n"
    )
    mine = tmp_path / "mine"
    shutil.copy(mine / "a/train/cat/0.png", mine / "a/test/cat/0.png")
    with Image.open(mine / "a/train/cat/1.png") as image:  # another file, the same pixels
        image.save(mine / "b/test/cat/x.bmp")
    result = CliRunner().invoke(main, [*words, "--store", str(tmp_path / "other")])
    assert result.exit_code == 0
    first, second, last = result.stdout.splitlines()
    assert first == (
        "domain 'a': test rows with the same pixels as a training row: 1 of 3, such as row 0 "
        "(a/test/cat/0.png) and row 3 (a/train/cat/0.png)"
    )
    assert second == (
        "domains 'a' and 'b': the same images in both: 1, such as row 4 (a/train/cat/1.png) and "
        "row 12 (b/test/cat/x.bmp); test rows of 'b' that are training rows of 'a': 1"
    )
    assert "19 rows, unchanged since prepared" in last and "is in two splits" not in last
