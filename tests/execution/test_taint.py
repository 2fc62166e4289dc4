"""What each row may reach: one split of one domain is spoilt, and what moves is compared with a
table written by hand.

Rows are spoilt in what they show, or in their labels, so much that whatever reads them moves. The
shift leads from "left" to "right"; "odd" is beside it.
"""

from dataclasses import replace

import pytest
from audiences import quiet
from safetensors.torch import load
from tiny import SUITE, make_plan

import benchbench.evaluation.criteria
import benchbench.execution.cell
from benchbench.data.pack import in_memory
from benchbench.execution.cell import execute, trained
from benchbench.extension.conformance.fixtures import DOMAINS, bars
from benchbench.extension.constants import TEST, TRAIN, VAL
from benchbench.store.artifacts import Store
from benchbench.store.records import prediction_name

SPLITS = {"train": TRAIN, "val": VAL, "test": TEST}
COLUMNS = ("inputs", "labels")
SHIFT = [
    f"{d} {split} {column}" for d in ("left", "right") for split in SPLITS for column in COLUMNS
]
BESIDE = [f"odd {split} {column}" for split in SPLITS for column in COLUMNS]
PLACES = [*([place] for place in SHIFT), BESIDE]  # each is spoilt in a run of its own
CHOOSING = ("linear", "ridge", "knn")  # something on validation rows
FITTED = ("prototype",)  # to training rows, with nothing chosen
COARSE = ("pfa", "head")  # after so few steps they may predict the same of all rows
OPTIONS = {"linear": "(penalties=7)", "ridge": "(penalties=7)"}  # few, which is enough and fast
TEXT = (
    SUITE.partition("stage =")[0]
    + """
stage = { steps = 4, batch_size = 12, lr = 0.05, augmentation = "noise" }
[[method]]
name = "pre-training"
chain = "simclr(width=8)"
[[method]]
name = "supervised"
chain = "erm"
sees = "source"
"""
)
TEXT += "".join(
    f'[[method]]\nname = "{one}"\nchain = "dann(width=8)"\nreadout = "{one}{options}"\n'
    for one, options in {**dict.fromkeys((*CHOOSING, *FITTED, *COARSE), ""), **OPTIONS}.items()
)

SOURCE_TRAIN = {"left train inputs", "left train labels"}
SOURCE_VAL = {"left val inputs", "left val labels"}
THROUGH_WEIGHTS = {"right train inputs"}  # of domain adaptation; it may be too little to be seen
OF_FEATURES = ("entropy", "infomax", "snd", "bnm", "class_ami", "rankme")  # of the target, no label
MOVES = {  # every result, and what moves it: this, and nothing else but what MAY says
    "weights of pre-training": {"left train inputs", "right train inputs"},
    "weights of supervised": SOURCE_TRAIN,
    "weights of adaptation": SOURCE_TRAIN | THROUGH_WEIGHTS,
    "what is chosen": SOURCE_TRAIN | SOURCE_VAL,
    "score on left": SOURCE_TRAIN | {"left test inputs", "left test labels"},
    "score on right": SOURCE_TRAIN | {"right test inputs", "right test labels"},
    "source_val": SOURCE_TRAIN | SOURCE_VAL,
    "target_val": SOURCE_TRAIN | {"right val inputs", "right val labels"},
    "dev": SOURCE_TRAIN | SOURCE_VAL | THROUGH_WEIGHTS,
    **dict.fromkeys(OF_FEATURES, SOURCE_TRAIN | THROUGH_WEIGHTS),
}
MAY = {
    **dict.fromkeys(("what is chosen", "source_val"), THROUGH_WEIGHTS),
    **dict.fromkeys(
        ("score on left", "score on right", "target_val"), THROUGH_WEIGHTS | SOURCE_VAL
    ),
    **dict.fromkeys(OF_FEATURES[:-1], SOURCE_VAL),  # by way of the penalty that is chosen
}
for domain in ("left", "right"):
    for readout in (*CHOOSING, *FITTED, *COARSE):
        result, rows = f"predictions of {readout} on {domain}", {f"{domain} test inputs"}
        MOVES[result] = set() if readout in COARSE else SOURCE_TRAIN | rows
        MAY[result] = THROUGH_WEIGHTS | (SOURCE_VAL if readout in CHOOSING else set())
        MAY[result] |= SOURCE_TRAIN | rows if readout in COARSE else set()


def spoilt(data, places: list[str]):
    """The data with other images, or other labels, in some splits of some domains."""
    changed = {column: getattr(data, column).clone() for column in COLUMNS}
    for place in places:
        domain, split, column = place.split()
        rows = (data.domains == DOMAINS.index(domain)) & (data.split == SPLITS[split])
        values = changed[column]
        if column == "labels":
            values[rows] = (values[rows] + 1) % 3
        else:  # upside down and in negative: another class, on another ground
            values[rows] = 255 - values[rows].flip(2)
    return replace(data, **changed)


def results(plan) -> dict[str, object]:
    """All that a run of four steps comes to, by name, so that equals are equal bit for bit."""
    found: dict[str, object] = {}
    pre_training, supervised, *adaptation = plan.cells
    for cell in (pre_training, supervised, adaptation[0]):
        encoder, *_ = trained(cell, plan.links(cell), plan, quiet)
        name = cell.method.name if cell is not adaptation[0] else "adaptation"
        weights = [value.flatten().tolist() for value in encoder.state_dict().values()]
        found[f"weights of {name}"] = weights
    records = []
    for cell in adaptation:
        record = execute(cell, plan, quiet)
        kept = plan.store.records("tiny") / record.file_name
        predictions = load(kept.with_suffix(".safetensors").read_bytes())
        for domain in ("left", "right"):
            values = predictions[prediction_name(domain)].tolist()
            found[f"predictions of {cell.method.name} on {domain}"] = values
        records.append(record)
    assert [record.status for record in records] == ["scored"] * len(records)
    found["what is chosen"] = [dict(record.selection.chosen) for record in records]
    for place, domain in enumerate(("left", "right")):
        found[f"score on {domain}"] = [record.scores[place].accuracy for record in records]
    for name in records[0].validators.model_dump():
        found[name] = [getattr(record.validators, name) for record in records]
    return found


@pytest.fixture(scope="module")
def moved(tmp_path_factory) -> dict[str, set[str]]:
    """The places that moved each result. One store, so that nothing old is taken for new."""
    folder = tmp_path_factory.mktemp("taint")
    plan, data = make_plan(TEXT, folder / "store", folder), bars(20)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            benchbench.execution.cell, "diagnosed", lambda *others: None
        )  # half of the time
        # these domains are separable, of which there is no dev: see test_validators
        patch.setattr(benchbench.evaluation.criteria, "tells_a_risk", lambda weights: True)
        honest = results(replace(plan, pack=in_memory(data)))
        places: dict[str, set[str]] = {name: set() for name in honest}
        for spoils in PLACES:
            pack = in_memory(spoilt(data, spoils))
            for name, value in results(replace(plan, pack=pack)).items():
                if repr(value) != repr(honest[name]):
                    places[name].update(spoils)
    return places


def test_every_result_is_in_the_table(moved):
    assert moved.keys() == MOVES.keys()


@pytest.mark.parametrize("result", MOVES)
def test_a_result_moves_with_what_it_may_rest_on_and_with_nothing_else(moved, result):
    may = MAY.get(result, set())
    assert moved[result] - may == MOVES[result] - may


SHARED = TEXT.partition("[[method]]")[0].replace(
    '["left > right"]', '["left > right", "right > left"]'
)
SHARED += 'readout = "prototype"\n[[method]]\nchain = ""\n[[method]]\nchain = "simclr(width=8)"\n'


def test_what_cells_share_is_what_each_would_have_alone(tmp_path):
    """Both ways share a pre-training and its features; cells of other data share but the store."""
    folder, data = tmp_path / "suite", bars(20)
    folder.mkdir()
    plan = make_plan(SHARED, tmp_path / "shared", folder)
    assert len(plan.cells) == 4
    for number, places in enumerate(([], PLACES[0] + PLACES[4] + PLACES[10])):
        there = replace(plan, pack=in_memory(spoilt(data, places)))
        for place, cell in enumerate(plan.cells):
            alone = replace(there, store=Store(tmp_path / f"{number} {place}"))
            found, wanted = (execute(cell, one, quiet) for one in (there, alone))
            for part in ("scores", "validators", "diagnostics", "selection"):
                assert getattr(found, part) == getattr(wanted, part), (part, str(cell), places)
