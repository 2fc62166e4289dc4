"""Keys change with all that can change a result, and with nothing else.

The fields are those of the classes: one that is new fails here until it is said what it changes.
"""

import hashlib
import inspect
import json
from dataclasses import asdict, fields, replace
from typing import NamedTuple

import numpy as np
import pytest
import torch
from tiny import make_catalog
from torch import nn

from benchbench.data.pack import Pack, in_memory
from benchbench.diagnostics.connectivity_measurement import Meter
from benchbench.diagnostics.geometry import diagnostics_key
from benchbench.diagnostics.node_classifiers import Effort
from benchbench.diagnostics.pseudo_labels import pseudo_labels
from benchbench.evaluation.criteria import common_key
from benchbench.execution.cell import describe
from benchbench.extension.catalog import Catalog, Plugin
from benchbench.extension.conformance.fixtures import bars, sentences
from benchbench.extension.contracts import DomainData, Task, reads_file
from benchbench.store.artifacts import Store
from benchbench.store.keys import features_key, first_key, key_of, part_key, snapshot_key
from benchbench.suites import plan as plan_module
from benchbench.suites.plan import Plan, versions_of
from benchbench.suites.suite import (
    Cell,
    Method,
    MethodTable,
    Shift,
    Stage,
    StageTable,
    Suite,
    TuneTable,
)
from benchbench.training.budget import Budget
from benchbench.training.device import Machine

CPU = Machine(torch.device("cpu"), "fp32")
SUITE = {
    "name": "tiny",
    "dataset": "tiny",
    "shifts": ["left > right"],
    "seeds": [0],
    "encoder": "small_cnn(width=4)",
    "precision": "fp32",
    "stage": {"steps": 6, "batch_size": 12, "lr": 0.01, "augmentation": "noise",
              "weak": "horizontal_flip", "small": "shrink"},
    "method": [
        {"name": "random", "chain": ""},
        {"name": "simclr", "chain": [{"objective": "simclr"}]},
        {"name": "erm", "chain": [{"objective": "erm"}]},
        {"name": "fixmatch", "chain": [{"objective": "fixmatch"}]},
        {"name": "swav", "chain": [{"objective": "swav"}]},
    ],
}  # fmt: skip
TRAINED = {"simclr", "erm", "fixmatch", "swav"}
EVERY = {"random", *TRAINED}


class Keys(NamedTuple):
    """Of one cell."""

    first: str
    stages: tuple[str, ...]
    cell: str


def without_units(units=None) -> DomainData:
    """Data that leave the split to the core."""
    return replace(bars(), split=None, units=units)


def with_groups(**changes) -> DomainData:
    data = bars()
    groups = torch.arange(len(data.labels)) % 2
    told = {"groups": groups, "group_names": ("one", "other"), "metric": "worst_group"}
    return replace(data, **{**told, **changes})


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return make_catalog()


@pytest.fixture
def planned(tmp_path, catalog):
    def make(said: dict, data=None, machine=CPU, offers=None) -> Plan:
        suite = Suite.model_validate_json(json.dumps(said))
        pack = data if isinstance(data, Pack) else in_memory(data or bars(), suite.split_seed)
        offers = offers or catalog
        dataset = offers.resolve("dataset", suite.dataset)
        return Plan(suite, offers, dataset, pack, Store(tmp_path / "store"), machine)

    return make


def keys_of(plan: Plan, cells=None) -> list[Keys]:
    cells = plan.cells if cells is None else cells
    return [
        Keys(
            plan.encoder_key(replace(cell, method=replace(cell.method, chain=()))),
            tuple(link.key for link in plan.links(cell)),
            plan.cell_id(cell),
        )
        for cell in cells
    ]


def changed(one: list[Keys], other: list[Keys]) -> set[str]:
    """Which kinds of key differ in any of the cells."""
    return {kind for a, b in zip(one, other, strict=False)
            for kind in Keys._fields if getattr(a, kind) != getattr(b, kind)}  # fmt: skip


def methods_changed(one: list[Keys], other: list[Keys], kind: str = "cell") -> set[str]:
    names = [method["name"] for method in SUITE["method"]]
    return {name for name, a, b in zip(names, one, other, strict=True)
            if getattr(a, kind) != getattr(b, kind)}  # fmt: skip


def edited(**changes) -> dict:
    return {**SUITE, **changes}


def stage(**changes) -> dict:
    return edited(stage={**SUITE["stage"], **changes})


def method(number: int, **changes) -> dict:
    listed = [*SUITE["method"]]
    listed[number] = {**listed[number], **changes}
    return edited(method=listed)


ALL, TRAINING, SCORE, NOTHING = (
    {"first", "stages", "cell"},
    {"stages", "cell"},
    {"cell"},
    set(),
)
OF_SUITE = {  # what it is set to, what that changes, and of which methods
    "name": ({"name": "other"}, SCORE, EVERY),
    "protocol": None,  # there is one; below
    "dataset": ({"dataset": "heights"}, NOTHING, set()),  # the data say it, by their fingerprint
    "shifts": ({"shifts": ["left > odd"]}, TRAINING, EVERY),
    "seeds": ({"seeds": [1]}, ALL, EVERY),
    "split_seed": ({"split_seed": 1}, NOTHING, set()),  # these data bring their split; below
    "precision": ({"precision": "bf16"}, NOTHING, set()),  # the machine has it; below
    "encoder": ({"encoder": "small_cnn(width=5)"}, ALL, EVERY),
    "readout": ({"readout": ["knn"]}, SCORE, EVERY),
    "baseline": ({"baseline": "erm"}, NOTHING, set()),
    "rule": ({"rule": "infomax"}, NOTHING, set()),
    "snapshots": ({"snapshots": 3}, SCORE, TRAINED),
    "tune": ({"tune": {"draws": 2}}, NOTHING, set()),
    "leave_one_out": ({"leave_one_out": True}, NOTHING, set()),
    "stage": None,  # by its fields, as of the others
    "method": None,
}
OF_STAGE = {
    "objective": None,  # of [stage], every chain says its own; below
    "augmentation": ("none", TRAINED),
    "weak": ("noise", {"fixmatch"}),
    "small": ("none", {"swav"}),
    "sees": ("source", TRAINED),
    "steps": (7, TRAINED),
    "batch_size": (14, TRAINED),
    "lr": (0.02, TRAINED),
    "weight_decay": (0.5, TRAINED),
    "warmup": (0.5, TRAINED),
    "optimizer": ("sgd", TRAINED),
    "parts": (2, TRAINED),
}
OF_METHOD = {  # of "erm", which reads labels
    "name": ("other", SCORE),
    "chain": ([{"objective": "erm"}, {"objective": "erm"}], TRAINING),
    "encoder": ("small_cnn(width=5)", ALL),
    "readout": (["knn"], SCORE),
    "labels": ("target", TRAINING),
}


def test_every_field_of_a_suite_is_said():
    assert OF_SUITE.keys() == Suite.model_fields.keys()
    assert OF_STAGE.keys() == StageTable.model_fields.keys()
    assert {*OF_METHOD, *OF_STAGE} == MethodTable.model_fields.keys()
    assert {"draws", "seed"} == TuneTable.model_fields.keys()


@pytest.mark.parametrize("field", [name for name, said in OF_SUITE.items() if said])
def test_a_field_of_a_suite(planned, field):
    change, kinds, methods = OF_SUITE[field]
    before, plan = keys_of(planned(SUITE)), planned(edited(**change))
    after = keys_of(plan, [cell for cell in plan.cells if cell.draw == 0])
    assert changed(before, after) == kinds
    assert methods_changed(before, after) == methods


@pytest.mark.parametrize("field", [name for name, said in OF_STAGE.items() if said])
@pytest.mark.parametrize("level", ["stage", "method", "chain"])
def test_a_field_of_a_stage_wherever_it_is_said(planned, field, level):
    value, methods = OF_STAGE[field]
    before = keys_of(planned(SUITE))
    if level == "stage":
        after = keys_of(planned(stage(**{field: value})))
        assert changed(before, after) == TRAINING and methods_changed(before, after) == methods
        return
    for number, name in enumerate(method["name"] for method in SUITE["method"]):
        if name == "random":
            continue
        link = {**SUITE["method"][number]["chain"][0], field: value}
        more = {field: value} if level == "method" else {"chain": [link]}
        after = keys_of(planned(method(number, **more)))
        assert methods_changed(before, after) == methods & {name}
        assert changed(before, after) == (TRAINING if name in methods else NOTHING)


@pytest.mark.parametrize("field", OF_METHOD)
def test_a_field_of_a_method_changes_keys_of_that_method_alone(planned, field):
    value, kinds = OF_METHOD[field]
    before, after = keys_of(planned(SUITE)), keys_of(planned(method(2, **{field: value})))
    assert changed(before, after) == kinds
    assert methods_changed(before, after) == {"erm"}


def test_whose_labels_a_method_uses_changes_no_stage_that_reads_none(planned):
    before, after = keys_of(planned(SUITE)), keys_of(planned(method(1, labels="target")))
    assert changed(before, after) == SCORE and methods_changed(before, after) == {"simclr"}


def test_the_protocol_changes_every_key(planned):
    plan = planned(SUITE)
    other = replace(plan, suite=plan.suite.model_copy(update={"protocol": "uda/2"}))
    assert changed(keys_of(plan), keys_of(other)) == ALL


def test_the_order_of_methods_changes_no_key(planned):
    back = edited(method=SUITE["method"][::-1])
    assert {*keys_of(planned(SUITE))} == {*keys_of(planned(back))}


def test_a_seed_of_the_split_counts_where_the_split_is_drawn(planned):
    one, other = (planned(edited(split_seed=n), without_units()) for n in (0, 1))
    assert changed(keys_of(one), keys_of(other)) == TRAINING


def test_settings_that_are_drawn_are_in_the_keys_of_their_draws(planned):
    def drawn(**tune):
        plan = planned(edited(tune=tune))
        return {c.draw: key for c, key in zip(plan.cells, keys_of(plan), strict=True)
                if c.method.name == "simclr"}  # fmt: skip

    one, more, other = drawn(draws=2), drawn(draws=3), drawn(draws=2, seed=1)
    assert one[0] == more[0] == other[0] and one[1] == more[1]
    assert changed([one[1]], [other[1]]) == TRAINING
    assert len({key.stages for key in more.values()}) == len({key.cell for key in more.values()})


def test_shifts_share_what_does_not_see_their_difference(planned):
    plan = planned(edited(shifts=["left > right", "left > odd"], stage={
        **SUITE["stage"], "sees": "source"}))  # fmt: skip
    keys = keys_of(plan, [cell for cell in plan.cells if cell.method.name == "erm"])
    assert changed(*[[key] for key in keys]) == SCORE


def test_lars_without_decay_has_another_key_than_what_sgd_trained_under_its_name():
    of = {decay: Budget(1, 12, 0.01, decay, 0.1, "lars").key for decay in (0.0, 1e-4)}
    assert of[1e-4] == {
        "steps": 1, "batch_size": 12, "lr": 0.01, "weight_decay": 1e-4, "warmup": 0.1,
        "optimizer": "lars",
    }  # fmt: skip
    assert of[0.0] == {**of[1e-4], "weight_decay": 0.0, "adapts": True}
    assert "adapts" not in Budget(1, 12, 0.01, 0.0, 0.1, "sgd").key


# Of what a plan is made


CHANGED = {  # of a cell of "erm" in turn: the value, and what it changes
    Budget: {
        "steps": (7, TRAINING),
        "batch_size": (14, TRAINING),
        "lr": (0.02, TRAINING),
        "weight_decay": (0.5, TRAINING),
        "warmup": (0.5, TRAINING),
        "optimizer": ("lars", TRAINING),
        "parts": (2, TRAINING),
    },
    Stage: {
        "objective": ("dann", TRAINING),
        "augmentation": ("none", TRAINING),
        "weak": ("none", NOTHING),  # erm asks for no such views
        "small": (None, NOTHING),
        "sees": ("source", TRAINING),
        "budget": (Budget(1, 12, 0.01, 1e-4, 0.1), TRAINING),
    },
    Method: {
        "name": ("other", SCORE),
        "encoder": ("small_cnn(width=5)", ALL),
        "chain": ((), TRAINING),
        "readout": ("knn", SCORE),
        "labels": ("target", TRAINING),
    },
    Shift: {"sources": (("odd",), TRAINING), "targets": (("odd",), TRAINING)},
    Cell: {
        "method": None,  # by its fields
        "shift": None,
        "seed": (1, ALL),
        "draw": (1, SCORE),
    },
}


def cell_with(cell: Cell, kind: type, field: str, value: object) -> Cell:
    (link,) = cell.method.chain
    change = {field: value}
    made = {
        Cell: lambda: replace(cell, **change),
        Shift: lambda: replace(cell, shift=replace(cell.shift, **change)),
        Method: lambda: replace(cell, method=replace(cell.method, **change)),
        Stage: lambda: replace(cell, method=replace(cell.method, chain=(replace(link, **change),))),
        Budget: lambda: replace(
            cell,
            method=replace(
                cell.method, chain=(replace(link, budget=replace(link.budget, **change)),)
            ),
        ),
    }
    return made[kind]()


@pytest.mark.parametrize("kind", CHANGED, ids=lambda kind: kind.__name__)
def test_a_field_of_a_cell_and_of_its_parts(planned, kind):
    assert CHANGED[kind].keys() == {field.name for field in fields(kind)}
    plan = planned(SUITE)
    (cell,) = [cell for cell in plan.cells if cell.method.name == "erm"]
    for field, said in CHANGED[kind].items():
        if said is None:
            continue
        value, kinds = said
        other = cell_with(cell, kind, field, value)
        assert other != cell
        assert changed(keys_of(plan, [cell]), keys_of(plan, [other])) == kinds, field


def first_of(number: int, tensor: torch.Tensor) -> torch.Tensor:
    other = tensor.clone()
    other[0] = number
    return other


OF_DATA = {  # the data before and after, and what that changes
    "inputs": (bars(), replace(bars(), inputs=first_of(7, bars().inputs)), TRAINING),
    "labels": (bars(), replace(bars(), labels=first_of(2, bars().labels)), TRAINING),
    "domains": (bars(), replace(bars(), domains=first_of(2, bars().domains)), TRAINING),
    "class_names": (bars(), replace(bars(), class_names=("a", "b", "c")), TRAINING),
    "domain_names": (bars(), replace(bars(), domain_names=("left", "right", "new")), TRAINING),
    "split": (bars(), replace(bars(), split=first_of(1, bars().split)), TRAINING),
    "units": (without_units(), without_units(torch.arange(360) // 4), TRAINING),
    "licence": (bars(), replace(bars(), licence="other"), NOTHING),
    "groups": (with_groups(), with_groups(groups=torch.arange(360) // 2 % 2), TRAINING),
    "group_names": (with_groups(), with_groups(group_names=("other", "one")), SCORE),
    "metric": (bars(), replace(bars(), metric="macro_f1"), SCORE),
    "sources": (bars(), replace(bars(), sources=(plan_module.Path("x"),)), NOTHING),
    "vocabulary": None,  # below
}


def test_every_field_of_data_is_said_and_reaches_the_pack():
    assert OF_DATA.keys() == {field.name for field in fields(DomainData)}
    mine = {field.name for field in fields(Pack)} - {"fingerprint", "crop"}  # the pixels are
    assert mine == OF_DATA.keys() - {"units", "sources"}, "what decides is in the fingerprint"


@pytest.mark.parametrize("field", [name for name, said in OF_DATA.items() if said])
def test_a_field_of_data(planned, field):
    before, after, kinds = OF_DATA[field]
    assert changed(keys_of(planned(SUITE, before)), keys_of(planned(SUITE, after))) == kinds


def test_units_of_data_that_bring_their_split_change_nothing(planned):
    data = replace(bars(), units=torch.arange(360))
    assert changed(keys_of(planned(SUITE)), keys_of(planned(SUITE, data))) == NOTHING


def test_groups_that_overlap_are_not_those_of_the_same_bytes(planned):
    ones, names = torch.ones(360, dtype=torch.int64), tuple("abcdefgh")
    within = with_groups(groups=ones, group_names=names)
    overlap = torch.zeros(360, 8, dtype=torch.bool)
    overlap[:, 0] = True
    overlapping = with_groups(groups=overlap, group_names=names)
    assert ones.numpy().tobytes() == overlap.numpy().tobytes()
    assert "cell" in changed(keys_of(planned(SUITE, within)), keys_of(planned(SUITE, overlapping)))


def test_words_of_texts_are_in_every_key(planned, catalog):
    encoder = next(e.name for e in catalog.entries.values()
                   if e.kind == "encoder" and "text" in e.modalities)  # fmt: skip
    said = edited(encoder=encoder, stage={**SUITE["stage"], "augmentation": "none"},
                  method=[{"name": "erm", "chain": "erm"}])  # fmt: skip
    data = sentences()
    first, *rest = data.vocabulary
    other = replace(data, vocabulary=(f"{first}x", *rest))
    assert changed(*(keys_of(planned(said, each)) for each in (data, other))) == ALL


@pytest.mark.parametrize("field", [field.name for field in fields(Task)])
def test_what_an_encoder_is_told_is_in_its_first_key(field):
    task = Task((1, 8, 8), 3, 2, ("word",))
    other = {"input_shape": (1, 9, 8), "num_classes": 4, "num_domains": 3, "vocabulary": ("w",)}
    both = (task, replace(task, **{field: other[field]}))
    assert len({first_key(("e", "d"), asdict(t), 0, "p", {}) for t in both}) == 2


OF_MACHINE = {"device": (torch.device("cuda"), NOTHING), "precision": ("bf16", TRAINING),
              "compiled": (True, NOTHING), "memory_share": (0.5, NOTHING)}  # fmt: skip


@pytest.mark.parametrize("field", [field.name for field in fields(Machine)])
def test_a_field_of_the_machine(planned, field):
    value, kinds = OF_MACHINE[field]
    before = keys_of(planned(SUITE))
    after = keys_of(planned(SUITE, machine=replace(CPU, **{field: value})))
    assert changed(before, after) == kinds
    assert methods_changed(before, after) == (TRAINED if kinds else set()), "features are exact"


def test_versions_of_torch_and_timm_are_in_every_key(planned, monkeypatch):
    assert versions_of(bars_task()).keys() == {"timm", "torch"}
    before = keys_of(planned(SUITE))
    for name in ("timm", "torch"):
        said = {"timm": "1", "torch": "1", name: "2"}
        monkeypatch.setattr(plan_module, "version", lambda package, said=said: said[package])
        after = keys_of(planned(SUITE))
        assert changed(before, after) == ALL
        before = after
        monkeypatch.undo()


def bars_task() -> Task:
    return in_memory(bars()).task


OF_PLAN = {"suite", "catalog", "pack", "machine"}  # by their parts; and what changes no key:
IDLE = {"dataset", "store", "checkpoint_every", "_facts"}


def test_every_field_of_a_plan_is_said(planned, tmp_path):
    plan = planned(SUITE)
    assert {field.name for field in fields(Plan)} == OF_PLAN | IDLE
    dataset = plan.catalog.resolve("dataset", "tiny(rows=41)")
    other = replace(plan, dataset=dataset, store=Store(tmp_path / "x"), checkpoint_every=1.0)
    assert changed(keys_of(plan), keys_of(other)) == NOTHING


OF_PLUGIN = {"name": NOTHING, "distribution": NOTHING, "version": NOTHING, "entry_point": NOTHING,
             "digest": None}  # fmt: skip
BY_KIND = {
    "encoder": (ALL, EVERY),
    "objective": (TRAINING, TRAINED),
    "augmentation": (TRAINING, TRAINED),
    "dataset": (NOTHING, set()),
}


def with_plugin(catalog: Catalog, kind: str, **changes) -> Catalog:
    entries = {
        place: replace(entry, plugin=replace(entry.plugin, **changes))
        if place[0] == kind
        else entry
        for place, entry in catalog.entries.items()
    }
    return replace(catalog, entries=entries)


@pytest.mark.parametrize("kind", BY_KIND)
@pytest.mark.parametrize("field", [field.name for field in fields(Plugin)])
def test_a_field_of_a_plugin(planned, catalog, kind, field):
    kinds, methods = (NOTHING, set()) if OF_PLUGIN[field] == NOTHING else BY_KIND[kind]
    before = keys_of(planned(SUITE))
    after = keys_of(planned(SUITE, offers=with_plugin(catalog, kind, **{field: "other"})))
    assert changed(before, after) == kinds and methods_changed(before, after) == methods


# Spellings


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("simclr", "simclr()"),
        ("simclr", "simclr(temperature=0.2)"),
        ("simclr(temperature=1)", "simclr( temperature = 1.0 )"),
        ("simclr(temperature=0.3, width=64)", "simclr(width=64, temperature=0.3)"),
    ],
)
def test_one_choice_has_one_key_however_it_is_spelled(planned, catalog, one, other):
    default = catalog.resolve("objective", "simclr").options["temperature"]
    one, other = (text.replace("0.2)", f"{default})") for text in (one, other))
    keys = [keys_of(planned(method(1, chain=[{"objective": o}]))) for o in (one, other)]
    assert keys[0] == keys[1]


@pytest.mark.parametrize(
    ("field", "one", "other"),
    [
        ("augmentation", "noise|horizontal_flip", "noise  |  horizontal_flip()"),
        ("lr", 1, 1.0),
        ("weight_decay", 0, 0.0),
        ("warmup", 0.1, 0.10),
        ("sees", "source+target", "all"),  # where there are no others
    ],
)
def test_one_stage_has_one_key_however_it_is_spelled(planned, field, one, other):
    data = bars()
    kept = data.domains < 2
    parts = {n: getattr(data, n)[kept] for n in ("inputs", "labels", "domains", "split")}
    two = replace(data, **parts, domain_names=data.domain_names[:2])
    keys = [keys_of(planned(stage(**{field: value}), two)) for value in (one, other)]
    assert keys[0] == keys[1]


@pytest.mark.parametrize(
    ("one", "other"), [("knn(k=(1, 5))", "knn(k=[1, 5])"), ("linear", "linear()")]
)
def test_one_readout_has_one_key_however_it_is_spelled(planned, one, other):
    keys = [keys_of(planned(edited(readout=[text]))) for text in (one, other)]
    assert keys[0] == keys[1]


def test_a_default_that_is_spelled_out_changes_no_key(planned):
    said = stage(weight_decay=1e-4, warmup=0.1, optimizer="adamw", parts=1, sees="source+target")
    assert keys_of(planned(SUITE)) == keys_of(planned(said))


# Files that decide, too


@reads_file("weights")
def from_file(task, *, weights="", sha256=""):
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(task.input_shape[0] * 256, 4))
    encoder.num_features = 4
    return encoder


HUB = {"weights": 0.0}  # what a name stands for today


def from_hub(task, *, pretrained=False):
    encoder = from_file(task)
    if pretrained:
        nn.init.constant_(encoder[1].weight, HUB["weights"])
        nn.init.zeros_(encoder[1].bias)
    return encoder


def offering(catalog: Catalog) -> Catalog:
    plugin = Plugin("mine", "tests", "0", "mine", "digest")
    like = catalog.entries["encoder", "small_cnn"]
    mine = {
        ("encoder", factory.__name__): replace(
            like, name=factory.__name__, factory=factory, plugin=plugin
        )
        for factory in (from_file, from_hub)
    }
    plugins = (*catalog.plugins, plugin)
    return replace(catalog, entries={**catalog.entries, **mine}, plugins=plugins)


@pytest.mark.parametrize("pretrained", [True, False])
def test_weights_that_somebody_else_trained_are_in_every_key(
    planned, catalog, pretrained, monkeypatch
):
    said, found = edited(encoder=f"from_hub(pretrained={pretrained})"), []
    for weights in (0.0, 1.0, 0.0):
        monkeypatch.setitem(HUB, "weights", weights)
        plan = planned(said, offers=offering(catalog))
        found.append(keys_of(plan))
        spec = describe(plan.cells[0], plan).spec
        assert (spec.weights_sha256 is not None) == pretrained
    assert changed(found[0], found[1]) == (ALL if pretrained else NOTHING)
    assert found[0] == found[2]


def test_the_content_of_a_file_that_an_encoder_reads_is_in_every_key(planned, catalog, tmp_path):
    place, found = tmp_path / "weights.bin", []
    for content in (b"one", b"other", b"one"):
        place.write_bytes(content)
        said = edited(encoder=f"from_file(weights={str(place)!r})")
        found.append(keys_of(planned(said, offers=offering(catalog))))
    assert changed(found[0], found[1]) == ALL
    assert found[0] == found[2], "when it was written does not matter"


def test_the_content_of_a_file_that_a_readout_reads_is_in_its_key(planned, tmp_path):
    place, found = tmp_path / "texts.npy", []
    for number in (0.0, 1.0):
        np.save(place, np.full((3, 4), number, np.float32))
        found.append(keys_of(planned(edited(readout=[f"zero_shot(embeddings={str(place)!r})"]))))
    assert changed(*found) == SCORE


# Features, snapshots, diagnostics, connectivity, pseudo-labels


@pytest.mark.parametrize(
    ("function", "given"),
    [
        (features_key, {"encoder_key": "e", "domain": "d", "fingerprint": "f"}),
        (
            part_key,
            {"encoder_key": "e", "domains": ("d",), "fingerprint": "f", "part": "read", "drawn": 1},
        ),
        (snapshot_key, {"stage_key": "s", "step": 1}),
        (
            diagnostics_key,
            {"encoder_key": "e", "fingerprint": "f", "sources": ("a",), "targets": ("b",)},
        ),
        (
            common_key,
            {"encoder_key": "e", "fingerprint": "f", "labelled": ("a",), "targets": ("b",)},
        ),
        (
            first_key,
            {"encoder": ("e", "d"), "task": {"input_shape": 1}, "seed": 0, "protocol": "p",
             "versions": {"torch": "1"}, "weights": "w"},
        ),
    ],
)  # fmt: skip
def test_every_argument_of_a_key_is_in_it(function, given):
    assert given.keys() == inspect.signature(function).parameters.keys()
    other = {int: 9, str: "other", tuple: ("other", "x"), dict: {"other": 1}}
    keys = {function(**given)}
    for name, value in given.items():
        keys.add(function(**{**given, name: other[type(value)]}))
    assert len(keys) == 1 + len(given)


class Asked(Exception):
    """With the key that was asked for."""


class Asking(Store):
    def once(self, kind, key, work, make):
        raise Asked(f"{kind} {key}")


@pytest.fixture
def meter(catalog, tmp_path) -> Meter:
    return Meter(catalog, in_memory(bars()), Asking(tmp_path), CPU, "small_cnn(width=4)")


LEFT_RIGHT = Shift(("left",), ("right",))


def asked(meter: Meter, augmentation="noise", shift=LEFT_RIGHT, labels=None) -> tuple[str, str]:
    """The keys of connectivity and of pseudo-labels."""
    with pytest.raises(Asked) as first:
        meter.of(augmentation, shift, labels)
    with pytest.raises(Asked) as second:
        pseudo_labels(meter, augmentation, shift)
    return str(first.value), str(second.value)


BOTH, CONNECTED, NEITHER = (True, True), (True, False), (False, False)


def test_every_field_of_a_meter_changes_the_keys_it_should(meter, catalog, tmp_path):
    other = {
        "catalog": (with_plugin(catalog, "encoder", digest="other"), BOTH),
        "pack": (in_memory(replace(bars(), inputs=first_of(7, bars().inputs))), BOTH),
        "store": (Asking(tmp_path / "other"), NEITHER),
        "machine": (replace(CPU, precision="bf16"), BOTH),
        "encoder": ("small_cnn(width=5)", BOTH),
        "estimator": ("faithful", CONNECTED),
        "effort": None,  # by its fields
        "seed": (1, BOTH),
    }
    assert other.keys() == {field.name for field in fields(Meter)}
    before = asked(meter)
    for field, said in other.items():
        if said:
            after = asked(replace(meter, **{field: said[0]}))
            assert tuple(a != b for a, b in zip(before, after, strict=True)) == said[1], field
    for field in fields(Effort):
        effort = replace(meter.effort, **{field.name: 2 * getattr(meter.effort, field.name)})
        after = asked(replace(meter, effort=effort))
        assert all(a != b for a, b in zip(before, after, strict=True)), field.name


def test_what_a_meter_is_asked_for_changes_the_keys(meter):
    before = asked(meter)
    for other in (
        asked(meter, augmentation="none"),
        asked(meter, shift=Shift(("left",), ("odd",))),
    ):
        assert all(a != b for a, b in zip(before, other, strict=True))
    back = asked(meter, shift=Shift(("right",), ("left",)))
    assert back[0] == before[0], "connectivity is of the domains, and asked in both directions"
    assert back[1] != before[1], "pseudo-labels are the source's"
    labels = meter.pack.labels.clone()
    labels[0] = 2
    given = asked(meter, labels=labels)
    assert given[0] != before[0] and given[1] == before[1]


def test_the_form_of_keys_is_what_it_was():
    parts = {"b": [1, 2.5, None, True], "a": ("x", {"ü": "–"})}
    text = r'{"a":["x",{"\u00fc":"\u2013"}],"b":[1,2.5,null,true]}'
    assert key_of(parts) == hashlib.sha256(text.encode()).hexdigest()
    digest = "46488f3a882af99f159165526099ce4e9e9b9bdcc980ef36e1c10710a199967e"
    assert key_of(parts) == digest, "another form would make every store train anew"
    with pytest.raises(ValueError):
        key_of({"a": float("nan")})
