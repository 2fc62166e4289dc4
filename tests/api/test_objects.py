"""Objects in the places of names: what they are known by, and what plugins they become."""

import os
import random
import subprocess
import sys
import threading
from collections import deque
from copy import deepcopy
from dataclasses import dataclass, field, make_dataclass
from datetime import date
from decimal import Decimal
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from tiny import Text, make_catalog
from torch import nn

from benchbench import BadInput, DomainData, Objective, Task, domain_data
from benchbench.execution.job import ending
from benchbench.extension.object_adapters import (
    augmentation_factory,
    encoder_factory,
    objective_factory,
    of_torch,
)
from benchbench.extension.objects import Objects, Unknown, digest_of

IMAGES = Task((3, 8, 8), 4, 2)


def defined(source: str, name: str = "f"):
    """What a notebook's cell defines: no file has it."""
    space = {"__name__": "cell", "torch": torch, "nn": nn}
    exec(compile(source, "<cell>", "exec"), space)  # noqa: S102
    return space[name]


LOSS = Text("SCALE = 2\ndef g(x): return x.T.real * SCALE\ndef f(x, k=1): return g(x) + k\n")


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (Text("# a comment\n\n\n") + LOSS, True),
        (LOSS + "UNUSED = 3\n", True),
        (LOSS + "T = real = 3\n", True),  # the names of attributes
        (LOSS.replace("SCALE = 2", "SCALE = 3"), False),
        (LOSS.replace("real * SCALE", "real / SCALE"), False),
        (LOSS.replace("k=1", "k=2"), False),
        (LOSS.replace("+ k", "- k"), False),
        (LOSS.replace("g(x) + k", "torch.relu(g(x)) + k"), False),
        (LOSS.replace("def f(x, k=1)", "def f(x, *, k=1)"), False),
    ],
)
def test_a_function_is_known_by_what_it_does(other, same):
    assert (digest_of(defined(LOSS)) == digest_of(defined(other))) is same


CLASS = Text(
    "class Base(nn.Module):\n    width = 4\n    def go(self, x): return x + 1\n"
    "class f(Base):\n    def forward(self, x): return self.go(x)\n"
)


@pytest.mark.parametrize(
    ("other", "same"),
    [
        (Text("\n") + CLASS, True),
        (CLASS.replace("width = 4", "width = 5"), False),
        (CLASS.replace("x + 1", "x + 2"), False),
        (CLASS.replace("f(Base)", "f(nn.Module)"), False),
        (CLASS.replace("def forward(self, x)", "@staticmethod\n    def forward(x)"), False),
    ],
)
def test_a_class_is_known_by_its_methods_and_those_it_inherits(other, same):
    assert (digest_of(defined(CLASS)) == digest_of(defined(other))) is same


def closed_over(value):
    return lambda x: x * value


def test_what_a_function_closes_over_and_what_is_bound_to_it_counts():
    assert digest_of(closed_over(2)) == digest_of(closed_over(2)) != digest_of(closed_over(3))
    half, third = partial(closed_over, 2), partial(closed_over, 3)
    assert digest_of(half) == digest_of(partial(closed_over, 2)) != digest_of(third)


class Named(list):
    def __init__(self, values, name):
        super().__init__(values)
        self.name = name


def test_what_a_subclass_of_a_list_adds_counts():
    digests = [digest_of(Named([1], name)) for name in "aab"]
    assert digests[0] == digests[1] != digests[2] and digests[0] != digest_of([1])


@dataclass(frozen=True)
class Config:
    width: int = 4
    names: tuple[str, ...] = ()
    more: dict = field(default_factory=dict)


def test_settings_of_usual_kinds_are_known_by_their_values():
    def using(value):
        return lambda x: (x, value)

    for one, other in (
        (Config(), Config(5)),
        (Config(names=("a",)), Config(names=("b",))),
        (Config(more={"a": 1}), Config(more={"a": 2})),
        (Decimal("1.5"), Decimal("1.6")),
        (date(2026, 1, 1), date(2026, 1, 2)),
        (deque([1]), deque([2])),
        (random.Random(1), random.Random(2)),
        (slice(1), slice(2)),
        (SimpleNamespace(a=1), SimpleNamespace(a=2)),
    ):
        assert digest_of(using(one)) == digest_of(using(deepcopy(one))), one
        assert digest_of(using(one)) != digest_of(using(other)), one
    assert digest_of(Config) != digest_of(make_dataclass("Config", [("width", int, 5)]))


def test_of_a_users_module_counts_what_is_asked_of_it_now(monkeypatch):
    module = ModuleType("mine")
    exec("T = 1\nU = 1\ndef g(x): return x * T", vars(module))  # noqa: S102
    monkeypatch.setitem(sys.modules, "mine", module)
    by_name = defined("def f(x):\n    import mine\n    return mine.g(x)")
    before = digest_of(by_name)
    module.U = 2
    assert digest_of(by_name) == before, "the function asks for nothing that has changed"
    module.T = 2
    changed = digest_of(by_name)
    assert changed != before
    exec("def g(x): return x + T", vars(module))  # noqa: S102
    assert digest_of(by_name) not in (before, changed)


def test_attributes_of_a_function_and_frozen_weights_count():
    def loss(x):
        return x * loss.k

    loss.k = 1
    before = digest_of(loss)
    loss.k = 2
    assert digest_of(loss) != before
    layer = nn.Linear(2, 2)
    free = digest_of(layer)
    layer.weight.requires_grad_(False)
    assert digest_of(layer) != free


def test_a_module_is_known_by_its_weights_and_its_settings():
    def net(seed=0, stride=1):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(3, 4, 3, stride), nn.BatchNorm2d(4), nn.Flatten())

    assert digest_of(net()) == digest_of(net())
    assert digest_of(net()) == digest_of(net().train(False)), "the mode is none of it"
    others = [net(seed=1), net(stride=2), nn.Sequential(net()), net()[:2]]
    moved = net()
    moved(torch.randn(8, 3, 8, 8))  # batch norm's running statistics
    digests = {digest_of(one) for one in (net(), moved, *others)}
    assert len(digests) == 2 + len(others)


def test_it_is_the_same_in_another_process_whatever_its_hashes():
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_objects as t;"
        "from benchbench.extension.objects import digest_of;"
        "print(digest_of(t.defined(t.LOSS)), digest_of(t.defined(t.CLASS)),"
        " digest_of(t.closed_over({'a', 'b', 'c'})))"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", script, Path(__file__).parent],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    here = (defined(LOSS), defined(CLASS), closed_over({"a", "b", "c"}))
    assert told == {" ".join(map(digest_of, here)) + "\n"}


def test_what_cannot_be_told_is_said_and_gets_another_digest_each_time(tmp_path):
    with (tmp_path / "file").open("w") as file, pytest.raises(Unknown, match="TextIOWrapper"):
        digest_of(lambda x: file.write(x))
    for source, why in (
        ("def f(x): return eval('x')", "f calls eval"),
        ("def f(x):\n    import nowhere\n    return x", "f imports nowhere, which fails"),
    ):
        with pytest.raises(Unknown, match=why):
            digest_of(defined(source))
    lock = threading.Lock()
    with pytest.raises(Unknown, match="lock has a state that cannot be read"):
        digest_of(lambda x: lock and x)
    catalog = make_catalog()
    (one,), (other,) = (given(catalog, (x for x in "a")) for _ in range(2))
    assert one.digest != other.digest and one.plugin.distribution == "unregistered object"
    assert "cannot be published" in one.sentence and "generator" in one.sentence


def given(catalog, value):
    objects = Objects(catalog)
    objects.named("augmentation", lambda x: (x, value)[0])
    return objects.given


def test_names_are_those_of_classes_and_taken_by_nothing_else():
    objects = Objects(make_catalog())
    small_cnn = type("SmallCNN", (nn.Module,), {})
    my_loss = type("MyLoss", (Objective,), {"forward": lambda self, encoder, batch: 0})
    names = [objects.named("encoder", small_cnn), objects.named("objective", my_loss)]
    assert names[0].startswith("small_cnn_") and names[1] == "my_loss"
    assert objects.named("objective", my_loss) == "my_loss", "the same object, the same name"
    assert objects.named("objective", "simclr(temperature=0.1)") == "simclr(temperature=0.1)"
    assert {("encoder", names[0]), ("objective", "my_loss")} < objects.whole.entries.keys()

    def none(images):
        return -images

    assert objects.named("augmentation", none).startswith("none_"), "suites say none for nothing"


def test_an_encoder_is_what_the_module_gives_and_is_left_as_it_was():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    built = encoder_factory(module)(IMAGES)
    x = torch.rand(5, 3, 8, 8)
    assert built.num_features == 4 * 6 * 6 and built(x).shape == (5, 144)
    assert module.training and all(
        torch.equal(v, before[n]) for n, v in module.state_dict().items()
    )
    module.eval()
    assert torch.equal(encoder_factory(module)(IMAGES)(x), module(x).flatten(1))
    assert torch.equal(encoder_factory(lambda t: t.mean((2, 3)))(IMAGES)(x), x.mean((2, 3)))


@pytest.mark.parametrize(
    ("thing", "sentence"),
    [
        (nn.Conv2d(1, 2, 3), "cannot read images of 3 × 8 × 8"),
        (lambda x: {"features": x}, "returns dict for two inputs"),
        (lambda x: x.mean(), r"returns \(\) for two inputs"),
        (lambda x: x.flatten(1).to(torch.complex64), "returns complex numbers"),
        (lambda x: x[:1], r"returns \(1, 3, 8, 8\) for two inputs"),
    ],
)
def test_an_encoder_that_is_none_is_refused(thing, sentence):
    with pytest.raises(BadInput, match=sentence):
        encoder_factory(thing)(IMAGES)


def test_a_loss_is_a_function_of_an_encoder_and_a_batch():
    def loss(encoder, batch):
        """Whatever comes out is to be small."""
        return encoder(batch.views[0]).square().mean()

    encoder = encoder_factory(lambda x: x.mean((2, 3)))(IMAGES)
    objective = objective_factory(loss)(encoder, IMAGES)
    views = (torch.rand(4, 3, 8, 8),)
    batch = SimpleNamespace(views=views)
    assert torch.equal(objective(encoder, batch), views[0].mean((2, 3)).square().mean())
    assert not objective.reads and objective.__doc__ == loss.__doc__
    with pytest.raises(BadInput, match="give the class Function, or functools"):
        objective_factory(objective)
    with pytest.raises(BadInput, match="Linear is no objective; derive it"):
        objective_factory(nn.Linear)
    with pytest.raises(BadInput, match="<lambda> takes 1 arguments; a loss takes an encoder and"):
        objective_factory(lambda batch: 0)
    assert torch.equal(objective_factory(lambda e, b: loss(e, b))(encoder, IMAGES)(encoder, batch),
                       objective(encoder, batch))  # fmt: skip


@pytest.mark.parametrize(
    ("view", "returned"),
    [
        (lambda x: None, "NoneType"),
        (lambda x: x[:3], "float32 [3, 3, 8, 8]"),
        (lambda x: x.double(), "float64 [4, 3, 8, 8]"),
    ],
)
def test_a_view_that_is_none_is_refused(view, returned):
    with pytest.raises(TypeError) as refused:
        augmentation_factory(view)(IMAGES)(torch.rand(4, 3, 8, 8))
    assert f"returns {returned} for float32 [4, 3, 8, 8]" in str(refused.value)
    half = augmentation_factory(lambda x: x[:, :, ::2])(IMAGES)  # a crop
    assert half(torch.rand(4, 3, 8, 8)).shape == (4, 3, 4, 8)


def test_a_loss_that_reads_what_it_does_not_declare_is_told_how_to():
    def loss(encoder, batch):
        return torch.nn.functional.cross_entropy(encoder(batch.views[0]), batch.labels)

    encoder = encoder_factory(lambda x: x.mean((2, 3)))(IMAGES)
    batch = SimpleNamespace(views=(torch.rand(4, 3, 8, 8),), labels=None)
    with pytest.raises(TypeError, match="not NoneType") as refused:
        objective_factory(loss)(encoder, IMAGES)(encoder, batch)
    assert "loss.reads = {'labels'}" in ending(refused.value)[1]
    loss.reads = {"labels"}
    batch.labels = torch.zeros(4, dtype=torch.int64)
    assert objective_factory(loss)(encoder, IMAGES)(encoder, batch) > 0


def test_a_loss_that_is_a_module_is_trained_and_left_as_it_was():
    class Loss(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, encoder, batch):
            return (encoder(batch.views[0]) * self.scale).square().mean()

    mine = Loss()
    encoder = encoder_factory(lambda x: x.mean((2, 3)))(IMAGES)
    objective = objective_factory(mine)(encoder, IMAGES)
    (parameter,) = objective.parameters()
    objective(encoder, SimpleNamespace(views=(torch.rand(4, 3, 8, 8),))).backward()
    assert parameter.grad is not None and mine.scale.grad is None


def test_an_augmentation_is_a_function_of_a_batch():
    images = torch.rand(4, 3, 8, 8)
    assert torch.equal(augmentation_factory(torch.neg)(IMAGES)(images), -images)
    with pytest.raises(BadInput, match="int is no augmentation"):
        augmentation_factory(3)


def test_arrays_become_the_data_of_several_domains():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 8, 10, 3), dtype=np.uint8)
    data = domain_data(images, ["cat", "dog", None, "cat", "dog", "cat"], list("aabbba"))
    assert data.class_names == ("cat", "dog") and data.domain_names == ("a", "b")
    assert data.labels.tolist() == [0, 1, -1, 0, 1, 0] and data.domains.tolist() == [
        0,
        0,
        1,
        1,
        1,
        0,
    ]
    assert torch.equal(data.inputs, torch.from_numpy(images).permute(0, 3, 1, 2))
    again = domain_data(data.inputs / 255, data.labels, data.domains, class_names=("cat", "dog"),
                        domain_names=("a", "b"))  # fmt: skip
    assert torch.equal(again.inputs, data.inputs) and torch.equal(again.labels, data.labels)
    halves = domain_data(torch.full((2, 1, 4, 4), 0.3001), [0, 1], [0, 1])
    assert halves.inputs.dtype == torch.float16, "bytes would lose some of it"
    split = domain_data(images, [0] * 6, [0] * 6, split=["train", "val", "test"] * 2).split
    assert split.tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"inputs": np.zeros((4, 3, 8))}, "4 dimensions, and have 3"),
        ({"inputs": np.full((4, 3, 8, 8), 7.0)}, r"should lie in \[0, 1\]"),
        ({"inputs": np.zeros((4, 3, 8, 8), np.int32)}, "are torch.int32"),
        ({"inputs": np.zeros((0, 3, 8, 8), np.uint8)}, "inputs are empty"),
        ({"labels": None}, "labels is NoneType, and should have an entry for each input"),
        ({"labels": torch.eye(4)}, "should be texts or integers, and has a Tensor"),
        ({"labels": [0, 1, 0]}, "labels has 3 entries for 4 inputs"),
        ({"labels": [0, 1, 5, 0], "class_names": ("a", "b")}, r"labels\[2\] is 5, and there are 2"),
        ({"labels": [0.5, 1, 0, 1]}, "should be texts or integers, and has 0.5"),
        ({"domains": ["a", None, "b", "a"]}, r"domains\[1\] is missing"),
        ({"split": ["train", "dev", "val", "test"]}, "'dev', which is none of train, val, test"),
    ],
)
def test_arrays_that_are_not_such_are_refused(change, sentence):
    right = {
        "inputs": np.zeros((4, 3, 8, 8), np.uint8),
        "labels": [0, 1, 0, 1],
        "domains": [0, 0, 1, 1],
    }
    with pytest.raises(BadInput, match=sentence):
        domain_data(**{**right, **change})


class Broken:
    def __len__(self):
        return 1

    def __getitem__(self, number):
        raise KeyError("gone")


def test_a_torch_dataset_is_read_once_item_by_item():
    images = torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8)
    items = [(images[i], i % 2, "ab"[i > 2]) for i in range(5)]
    data = of_torch(items)
    assert isinstance(data, DomainData) and torch.equal(data.inputs, images)
    assert data.labels.tolist() == [0, 1, 0, 1, 0] and data.domains.tolist() == [0, 0, 0, 1, 1]
    with pytest.raises(BadInput, match=r"item 0 of the dataset should be \(image, label, domain\)"):
        of_torch([(images[0], 1)])
    with pytest.raises(BadInput, match="item 0 of the dataset cannot be read: KeyError: 'gone'"):
        of_torch(Broken())
    with pytest.raises(BadInput, match="have several sizes"):
        of_torch([items[0], (torch.zeros(3, 5, 5, dtype=torch.uint8), 0, "a")])
