"""Every column of npz and csv files is read without loss, or refused with its file and column."""

import csv
import math
import re
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from benchbench import UNKNOWN, BadInput
from benchbench_files import arrays, table
from benchbench_files.columns import SPLITS, coded, joined

N = 12
NAMES = {"labels": "label_names", "domain": "domain_names", "split": "split_names"}


def columns(**changes):
    """Of N rows, as `arrays` reads them; a column that is changed to None is left out."""
    row = np.arange(N)
    content = {
        "images": np.broadcast_to(row[:, None, None, None], (N, 4, 4, 3)).astype(np.uint8),
        "labels": row % 2,
        "label_names": np.array(["x", "y"]),
        "domain": row // 6,
        "domain_names": np.array(["a", "b"]),
        "split": row % 3,
        "split_names": np.array(["train", "val", "test"]),
        "group": row // 2,
    }
    return {name: value for name, value in (content | changes).items() if value is not None}


def is_kept(data, column, given):
    """Whether what was read of one column is what was written, compared without numpy's casts."""
    given = given.tolist()
    if column == "labels":
        return data.labels.tolist() == given
    if column == "domain":
        return data.domains.tolist() == given
    if column == "split":
        found = data.split.tolist()
        for domain in (0, 1):  # one without val gets some of its train as such
            rows = [row for row in range(N) if row // 6 == domain]
            if all(given[row] != 1 for row in rows):
                found = [0 if row in rows and s == 1 else s for row, s in enumerate(found)]
        return found == given
    if column == "group":
        first = [given.index(value) if value >= 0 else row for row, value in enumerate(given)]
        units = data.units.tolist() if data.units is not None else list(range(N))
        return [units.index(unit) for unit in units] == first
    if column == "label_names":
        return list(data.class_names) == given
    if column == "domain_names":
        return list(data.domain_names) == given
    assert column == "split_names"
    return data.split.tolist() == [SPLITS[given[row % 3]] for row in range(N)]


WHOLE = {  # what stands in a column of whole numbers
    "int8": np.zeros(N, np.int8),
    "big-endian": np.ones(N, ">i4"),
    "uint64": np.ones(N, np.uint64),
    "uint64 above 2**63": np.full(N, 2**63 + 1, np.uint64),
    "2**62": np.full(N, 2**62),
    "0.9": np.arange(N) % 2 * 0.9,
    "1.0": np.ones(N),
    "nan": np.full(N, np.nan),
    "infinite": np.full(N, np.inf),
    "complex": np.ones(N, complex),
    "bool": np.arange(N) % 2 == 0,
    "texts of numbers": np.array(["1"] * N),
    "words": np.array(["x"] * N),
    "bytes": np.array([b"1"] * N),
    "dates": np.zeros(N, "datetime64[D]"),
    "objects": np.array([1] * N, object),
    "pairs": np.zeros(N, [("a", int)]),
    "-1": np.full(N, -1),
    "-2": np.full(N, -2),
    "one beyond": np.full(N, 3),
    "one wrong": np.array([0] * (N - 1) + [7]),
    "column": np.ones((N, 1), int),
    "short": np.ones(N - 1, int),
    "long": np.ones(N + 1, int),
    "scalar": np.array(1),
    "empty": np.zeros(0, int),
}
TEXTS = {  # what stands in a column of names; three, so that every column accepts the good ones
    "texts": np.array(["train", "val", "test"]),
    "permuted": np.array(["test", "train", "val"]),
    "wide": np.array(["train", "val", "test"], "<U40"),
    "other script": np.array(["犬", "猫", "été"]),
    "bytes": np.array([b"train", b"val", b"test"]),
    "numbers": np.array([1, 2, 3]),
    "floats": np.array([1.5, 2, 3]),
    "objects": np.array(["train", "val", "test"], object),
    "scalar": np.array("train"),
    "twice": np.array(["train", "val", "train"]),
    "empty": np.array(["train", "val", ""]),
    "blank": np.array(["train", "val", " "]),
    "none": np.zeros(0, "U1"),
    "column": np.array([["train"], ["val"], ["test"]]),
    "too few": np.array(["train"]),
    "surrogate": np.array(["train", "val", "caf\udce9"]),
    "control": np.array(["train", "val", "a\nb"]),
    "two forms of Unicode": np.array(["train", "caf\u00e9", "cafe\u0301"]),
    "no class": np.array(["train", "val", "Unlabelled"]),
    "plus": np.array(["train", "val", "a+b"]),
}
GOOD = {"int8", "big-endian", "uint64", "texts", "permuted", "wide"}
FINE = {  # what else is read, of one column or another
    *(("labels", "-1"), ("group", "-1"), ("group", "2**62")),
    *(("group", "one beyond"), ("group", "one wrong"), ("label_names", "plus")),
    *((column, "other script") for column in ("label_names", "domain_names")),
    ("domain_names", "no class"),
}
CASES = [
    *((column, kind, WHOLE[kind]) for column in ("labels", "domain", "split", "group")
      for kind in WHOLE),
    *((column, kind, TEXTS[kind]) for column in NAMES.values() for kind in TEXTS),
]  # fmt: skip


@pytest.mark.parametrize(
    ("column", "kind", "value"), [pytest.param(*case, id=f"{case[0]}-{case[1]}") for case in CASES]
)
def test_a_column_of_npz_is_lossless_or_refused(tmp_path, column, kind, value):
    content = columns(**{column: value})
    np.savez(tmp_path / "mine.npz", **content)
    try:
        data = arrays(tmp_path, size=4)
    except BadInput as error:
        said = str(error)
        assert "mine.npz" in said and column.removesuffix("_names") in said and "\n" not in said
        assert kind not in GOOD, said
    else:
        assert is_kept(data, column, value), kind
        # kinds that every column may hold, or this one alone
        assert kind in GOOD or (column, kind) in FINE


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from(["labels", "domain", "split", "group"]),
    hnp.arrays(hnp.scalar_dtypes() | hnp.unicode_string_dtypes(), st.sampled_from([N, (N, 1)])),
)
def test_any_array_is_read_as_it_is_or_refused(column, value):
    content = columns(**{column: value})
    del content["images"]
    try:
        found = coded(Path("mine.npz"), content, N)
    except BadInput as error:
        assert "mine.npz" in str(error) and column in str(error)
        return
    read = {"labels": found.labels, "domain": found.domains, "group": found.group}
    given = value.tolist()
    if column == "split":
        given, read["split"] = [[0, 1, 2][number] for number in given], found.split
    assert all(type(number) is int for number in given)
    assert read[column].tolist() == given and read[column].dtype == np.int64


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": np.zeros((N, 4, 0, 3), np.uint8)}, "images of shape .* have no pixels"),
        ({"images": np.zeros((N, 0, 4, 3), np.uint8)}, "images of shape .* have no pixels"),
        ({"images": np.zeros((0, 4, 4, 3), np.uint8)}, "has no rows"),
        ({"images": np.zeros((N, 4, 4, 4), np.uint8)}, "images should be uint8"),
        ({"images": np.zeros((N, 4, 4), np.uint8)}, "images should be uint8"),
        ({"images": np.zeros((N, 4, 4, 3), np.int8)}, "images should be uint8"),
        ({"packed": np.zeros(9, np.uint8)}, "has both images and packed"),
        ({"split": None}, "has split_names, but no split"),
        (
            {"split": None, "split_names": None, "splits": np.zeros(N)},
            "the array 'splits' is not read; call it 'split'",
        ),
        ({"group": None, "Group": np.zeros(N)}, "the array 'Group' is not read; call it 'group'"),
    ],
)
def test_what_else_may_be_wrong_with_an_npz(tmp_path, changes, words):
    np.savez(tmp_path / "mine.npz", **columns(**changes))
    with pytest.raises(BadInput, match=f"mine.npz.*{words}"):
        arrays(tmp_path, size=4)


@pytest.mark.parametrize(
    ("packed", "offsets", "words"),
    [
        (np.zeros(24, np.int16), np.arange(0, 26, 2), "packed should be uint8 of one dimension"),
        (np.zeros((24, 1), np.uint8), np.arange(0, 26, 2), "packed should be uint8 of one"),
        (np.zeros(24, np.uint8), np.arange(0, 26, 2) * 1.0, "offsets should be whole numbers"),
        (np.zeros(24, np.uint8), np.arange(0, 26, 2)[:, None], "offsets should be whole numbers"),
        (np.zeros(24, np.uint8), np.zeros(0, int), "offsets should be whole numbers"),
        (np.zeros(24, np.uint8), np.arange(0, 28, 2)[:13] + 2, "offsets go from 2 to 26, not from"),
        (np.zeros(24, np.uint8), np.arange(13), "offsets go from 0 to 12, not from 0 to the 24"),
        (np.zeros(24, np.uint8), np.arange(-1, 25, 2), "offsets go from -1 to 23"),
        (np.zeros(3, np.uint8), np.array([0, 2, 1, 3]), "offsets must rise, but image 1 ends at 1"),
        (np.zeros(3, np.uint8), np.array([0, 2, 2, 3]), "offsets must rise, but image 1 ends at 2"),
    ],
)
def test_offsets_that_do_not_lead_through_the_bytes_are_refused(tmp_path, packed, offsets, words):
    np.savez(tmp_path / "mine.npz", **columns(images=None, packed=packed, offsets=offsets))
    with pytest.raises(BadInput, match=f"mine.npz: {words}"):
        arrays(tmp_path, size=4)


@pytest.mark.parametrize(
    "content", [b"", b"PK\x05\x06", b"no zip", "npy", "pickle", "cut", "twice"]
)
def test_files_that_are_no_npz(tmp_path, content):
    place = tmp_path / "mine.npz"
    np.savez(place, **columns())
    whole = place.read_bytes()
    if content == "npy":
        with place.open("wb") as file:
            np.save(file, np.zeros(3))
    elif content == "pickle":
        with place.open("wb") as file:
            np.save(file, np.array([{}]), allow_pickle=True)
    elif content == "cut":
        place.write_bytes(whole[: len(whole) // 2])
    elif content == "twice":
        with warnings.catch_warnings(), zipfile.ZipFile(place, "a") as file:
            warnings.simplefilter("ignore")
            file.writestr("labels.npy", file.read("labels.npy"))
    else:
        place.write_bytes(content)
    with pytest.raises(BadInput, match="mine.npz (cannot be read as npz|has two arrays)") as caught:
        arrays(tmp_path, size=4)
    assert "\n" not in str(caught.value) and "allow_pickle" not in str(caught.value)


def test_files_must_agree_in_whether_they_have_a_split(tmp_path):
    """Otherwise the test rows of the one that has would be drawn into training."""
    np.savez(tmp_path / "has.npz", **columns())
    other = columns(domain_names=np.array(["c", "d"]), split=None, split_names=None)
    np.savez(tmp_path / "lacks.npz", **other)
    with pytest.raises(BadInput, match=r"has.npz has a split and lacks.npz has none"):
        arrays(tmp_path, size=4)
    for names in (("has.npz", "has.npz"), ("has.npz", "./has.npz")):
        with pytest.raises(BadInput, match="has.npz twice"):
            arrays(tmp_path, files=names, size=4)


def test_groups_too_large_to_be_kept_apart_are_refused():
    parts = {
        Path(name): coded(Path(name), columns(images=None, group=np.full(N, 2**62)), N)
        for name in ("one.npz", "two.npz")
    }
    with pytest.raises(BadInput, match=r"two.npz: group holds 4611686018427387904; number groups"):
        joined(parts)


def test_rows_without_a_label_are_trained_on_and_others_drawn_as_ever(tmp_path):
    """A third is unlabelled; of each class the same rows are drawn as before these were kept."""
    row = np.arange(60)
    labels, home = row % 3 - 1, row // 30
    content = columns(group=None, labels=labels, domain=home, split=0 * row)
    np.savez(tmp_path / "mine.npz", **content | {"images": np.zeros((60, 4, 4, 3), np.uint8)})
    data, wanted = arrays(tmp_path, size=4), []
    for number, name in enumerate("ab"):
        rng = np.random.Generator(np.random.PCG64(list(f"0/{name}".encode())))
        for label in (-1, 0, 1):  # ten rows each
            drawn = rng.permutation(row[(labels == label) & (home == number)])[:2].tolist()
            wanted += drawn if label >= 0 else []
    assert (data.split == SPLITS["val"]).nonzero().flatten().tolist() == sorted(wanted)
    assert (data.split != SPLITS["test"]).all() and (data.labels == UNKNOWN).sum() == 20


def test_a_domain_without_training_rows_has_nothing_to_draw_from(tmp_path):
    split = np.where(np.arange(N) < 6, 0, 2)
    np.savez(tmp_path / "mine.npz", **columns(split=split, group=None))
    assert arrays(tmp_path, size=4).split[6:].tolist() == [2] * 6


# A csv file.

WORDS = ["", " ", "cat", " dog ", "0", "-1", "1_0", "nan", "NaN", "Unlabeled", "none", "a+b", "a>b",
         "a,b", 'a"b', "a\nb", "a\rb", "é", "\x00", "\x1b[31m", "train", "val", "test"]  # fmt: skip


@settings(deadline=None, max_examples=300)
@given(st.sampled_from(["label", "domain", "split", "group"]), st.lists(st.sampled_from(WORDS),
       min_size=4, max_size=4))  # fmt: skip
def test_a_column_of_csv_is_lossless_or_refused(tmp_path_factory, column, values):
    place = tmp_path_factory.getbasetemp() / "mine.csv"
    rows = [
        {"text": f"t{i}", "label": "cat", "domain": "a", "split": "train", "group": "p"}
        | {column: value}
        for i, value in enumerate(values)
    ]
    with place.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*rows[0]])
        writer.writeheader()
        writer.writerows(rows)
    try:
        data = table(place.parent, file="mine.csv", length=4)
    except BadInput as error:
        assert re.match(rf"{re.escape(str(place))}.*{column}", str(error)) and "\n" not in str(
            error
        )
        return
    given = [value.strip() for value in values]
    if column == "label":
        assert not {"none", "-1"} & {*given}
        unknown = {"", "nan", "NaN", "Unlabeled"}
        assert [data.class_names[i] if i >= 0 else "" for i in data.labels.tolist()] == [
            "" if value in unknown else value for value in given
        ]
    elif column == "domain":
        assert [data.domain_names[i] for i in data.domains.tolist()] == given
    elif column == "group":
        units = [-1] * 4 if data.units is None else data.units.tolist()
        assert [sorted({*given} - {""})[i] if i >= 0 else "" for i in units] == given
    elif any(given):
        assert [["train", "val", "test"][s] for s in data.split.tolist()] == given
    else:
        assert data.split is None


@pytest.mark.parametrize(
    "text",
    ["1.5", "-2e3", "+7", ".5", "5.", "1E-3", "", "nan", "unlabelled",
     "1_000", "inf", "-Infinity", "0x10", "1,5", "1e39", "1e-60", "１", "1 000", "none", "many"],
)  # fmt: skip
def test_a_number_is_what_a_strict_decimal_says(tmp_path, text):
    quoted = f'"{text}"' if "," in text else text
    lines = ["text,label,domain", f"good,{quoted},a", "bad,2,b"]
    (tmp_path / "mine.csv").write_text("\n".join(lines), encoding="utf-8")
    wanted = {"1.5": 1.5, "-2e3": -2000, "+7": 7, ".5": 0.5, "5.": 5, "1E-3": 0.001}
    if text in ("", "nan", "unlabelled"):
        assert math.isnan(table(tmp_path, file="mine.csv", numbers=True).labels[0])
    elif text in wanted:
        found = table(tmp_path, file="mine.csv", numbers=True).labels[0]
        assert found == np.float32(wanted[text])
    else:
        with pytest.raises(BadInput, match=r"mine.csv, line 2: label .* (no number|float32)"):
            table(tmp_path, file="mine.csv", numbers=True)
