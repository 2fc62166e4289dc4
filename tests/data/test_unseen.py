"""Domains without labels, and classes that no label teaches: never without a word."""

import html
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from tiny import Text, make_plan

from benchbench.cli import main
from benchbench.data.pack import unseen
from benchbench.extension.errors import BadInput
from benchbench.leaderboard.consistency import _counted, _foreign
from benchbench.leaderboard.true_labels import Truth
from benchbench.store.records import Data, read_records, record_of

SUITE = Text("""
name = "wild"
dataset = "folder(path='wild', size=8)"
shifts = "all"
seeds = [0]
encoder = "small_cnn(width=4)"
precision = "fp32"
stage = { steps = 2, batch_size = 6, lr = 0.01, augmentation = "horizontal_flip" }
[[method]]
chain = "simclr"
sees = "all"
[[method]]
chain = "erm"
sees = "source"
readout = "head"
""")
ROWS = {"zoo": {"cat": 20, "dog": 20}, "park": {"cat": 20, "dog": 20, "yak": 10, "zebra": 30},
        "night": {"unlabelled": 30}}  # fmt: skip
WORDS = (
    "shift zoo > park: 2 of 4 classes of the target have no labelled source row for training "
    "(yak, zebra): 50 % of its test rows (8 of 16) are counted as errors"
)


@pytest.fixture
def wild(tmp_path):
    """Images of two domains with labels and one without, and a suite of all shifts."""
    rng = np.random.default_rng(0)
    for domain, classes in ROWS.items():
        for name, count in classes.items():
            folder = tmp_path / "wild" / domain / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    (tmp_path / "wild.toml").write_text(SUITE)
    return tmp_path


def plain(page):
    """A page's text, without what keeps names from being read as Markdown or HTML."""
    return html.unescape(re.sub(r"\\(\W)", r"\1", page))


def benchbench(*words):
    result = CliRunner().invoke(main, [str(word) for word in words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def test_run_and_board_say_what_no_label_teaches_and_what_all_leaves_out(wild):
    places = ("--data", wild, "--store", wild / "store")
    status, out, err = benchbench("run", wild / "wild.toml", "--dry-run", *places)
    assert status == 0 and "night" not in out and out.count(": to run") == 4
    told = err.splitlines()
    assert WORDS in told and "shift park > zoo" not in err
    assert (
        "shifts = \"all\" leaves out domain 'night': none of its 30 rows has a label; stages with "
        'sees = "all" train on them'
    ) in told

    status, out, err = benchbench("run", wild / "wild.toml", *places)
    assert status == 0 and WORDS in err
    assert f"S{WORDS[1:]}." in plain(out)
    records = read_records(wild / "store" / "records" / "wild")
    by_shift = {r.shift: r for r in records if r.method == "erm"}
    said = by_shift["zoo > park"].data.unseen
    assert (said.classes, said.n_classes, said.n) == ({"yak": 2, "zebra": 6}, 4, 16)
    assert (said.n,) == tuple(s.n for s in by_shift["zoo > park"].scores if s.role == "target")
    assert '"unseen"' not in by_shift["park > zoo"].text()
    (seen,) = (r.spec.chain[0].domains for r in records if r.method == "simclr"
               and r.shift == "zoo > park")  # fmt: skip
    assert seen == ("night", "park", "zoo")

    assert benchbench("publish", wild / "wild.toml", "--to", wild / "board", *places)[0] == 0
    for name in ("README.md", "site/index.html"):
        assert plain((wild / "board" / name).read_text()).count(f"S{WORDS[1:]}.") == 1, name
    assert "missing" not in (wild / "board" / "README.md").read_text()
    assert benchbench("publish", wild / "board")[0] == 0, "which knows the shifts by its records"


def test_what_a_record_calls_unseen_is_counted_in_the_labels_of_test_rows(wild):
    truth = Truth("f", "accuracy", ("cat", "yak", "zebra"), (),
                  {"park": np.array([0, 0, 1, 2, 2, -1])}, {})  # fmt: skip
    said = {"classes": {"yak": 1, "zebra": 2}, "n_classes": 3, "n": 5}
    common = {"dataset": "d", "fingerprint": "f", "licence": "l", "sources": ("zoo",),
              "targets": ("park",), "n_labelled": 1, "n_unlabelled": 0}  # fmt: skip
    honest = Data.model_validate({**common, "unseen": said})
    assert _counted(honest, truth) == honest.unseen
    wrong = Data.model_validate({**common, "unseen": {**said, "classes": {"yak": 3}}})
    assert _counted(wrong, truth) != wrong.unseen


def test_a_record_of_before_stays_the_record_that_it_was(wild):
    plan = make_plan(SUITE, wild / "store", wild)
    from benchbench.execution.cell import describe

    record = next(describe(cell, plan) for cell in plan.cells if str(cell.shift) == "park > zoo")
    fields = json.loads(record.text())
    assert "unseen" not in fields["data"]
    assert record_of(record.text().encode()) == record
    cell = next(cell for cell in plan.cells if str(cell.shift) == "zoo > park")
    told = describe(cell, plan)
    assert record_of(told.text().encode()) == told and told.data.unseen is not None
    more = replace(plan.pack, class_names=(*plan.pack.class_names, "gnu"))
    assert unseen(more, ("zoo",), ("park",)) == told.data.unseen, "a gnu is nowhere"
    truth = Truth.of(plan.pack)
    assert [*_foreign(told, cell, plan.suite, truth)] == []
    fewer = told.data.unseen.model_copy(update={"classes": {"yak": 1}})
    lie = told.model_copy(update={"data": told.data.model_copy(update={"unseen": fewer})})
    (sentence,) = _foreign(lie, cell, plan.suite, truth)
    assert sentence.startswith("its unseen is")


def test_a_shift_that_names_a_domain_without_labels_is_refused_by_name(wild):
    named = SUITE.replace('"all"\nseeds', '["zoo > night"]\nseeds')
    (wild / "wild.toml").write_text(named)
    places = ("--data", wild, "--store", wild / "store")
    status, _, err = benchbench("run", wild / "wild.toml", *places)
    assert status == 2 and "shift zoo > night: domain 'night' has no labelled test rows" in err
    assert "leaves out" not in err


def test_all_of_one_domain_with_labels_is_no_shift(wild):
    (wild / "wild" / "park").rename(wild / "park")
    with pytest.raises(BadInput, match="means no shift of .*: domain 'zoo' alone has labels"):
        _ = make_plan(SUITE, wild / "store", wild).cells


def test_a_readout_that_knows_classes_by_their_texts_is_not_said_to_err(wild):
    np.save(wild / "e.npy", np.ones((4, 32), np.float32))
    read = SUITE.replace(
        'readout = "head"', f"readout = \"zero_shot(embeddings='{wild / 'e.npy'}')\""
    )
    plan = make_plan(read, wild / "store", wild)
    kinds = {cell.method.name: plan.unseen(cell) is None
             for cell in plan.cells if str(cell.shift) == "zoo > park"}  # fmt: skip
    assert kinds == {"simclr": False, "erm": True}
