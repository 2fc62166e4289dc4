"""A dataset of three domains that trains in a second, and objectives that misbehave."""

from pathlib import Path

import pluggy
import torch
from torch import nn

import benchbench_augmentations
import benchbench_contrastive
import benchbench_digits
import benchbench_encoders
import benchbench_invariance
import benchbench_supervised
from benchbench import TEST, TRAIN, VAL, BadInput, DomainData, Objective, hookimpl, hookspecs
from benchbench.catalog import Catalog, Plugin, collect, source_digest
from benchbench.plan import Plan
from benchbench.store import Store
from benchbench.suite import Suite

CLASSES, DOMAINS = ("low", "middle", "high"), ("left", "right", "odd")

SUITE = """
name = "tiny"
dataset = "tiny"
shifts = ["left > right"]
seeds = [0]
encoder = "small_cnn(width=4)"
precision = "fp32"
stage = { steps = 6, batch_size = 12, lr = 0.01, augmentation = "noise" }
[[method]]
chain = "simclr"
"""


def tiny(root, *, rows=40, seed=0):
    """A bright bar, whose height is the class, on a ground, whose grey is the domain."""
    generator = torch.Generator().manual_seed(seed)
    n = rows * len(CLASSES) * len(DOMAINS)
    index = torch.arange(n)
    labels, domains = index % 3, index // 3 % 3
    images = torch.randint(0, 40, (n, 3, 16, 16), generator=generator)
    images += 50 * domains[:, None, None, None]
    for row in range(n):
        top = 5 * int(labels[row])
        images[row, :, top : top + 5] += 80
    split = torch.tensor([TRAIN, TRAIN, TRAIN, VAL, TEST])[index // 9 % 5]
    return DomainData(images.to(torch.uint8), labels, domains, CLASSES, DOMAINS, split)


class Unstable(Objective):
    """A loss that becomes NaN, or an error of another sort, at a step."""

    n_views = 1

    def __init__(self, encoder, task, *, at=3, error=""):
        super().__init__()
        self.at, self.error, self.step = at, error, 0
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, encoder, batch):
        loss = encoder(batch.views[0]).mean() * self.scale
        self.step += 1
        if self.step <= self.at:
            return loss
        if self.error == "memory":
            raise torch.OutOfMemoryError("no memory left")
        if self.error:
            raise RuntimeError(self.error)
        return loss * torch.nan


class TinyPlugin:
    @hookimpl
    def benchbench_datasets(self):
        return {"tiny": tiny}

    @hookimpl
    def benchbench_objectives(self):
        return {"unstable": Unstable}


MODULES = (
    benchbench_augmentations,
    benchbench_contrastive,
    benchbench_digits,
    benchbench_encoders,
    benchbench_invariance,
    benchbench_supervised,
)


def make_catalog() -> Catalog:
    manager = pluggy.PluginManager("benchbench")
    manager.add_hookspecs(hookspecs)
    plugins = {}
    for module in MODULES:
        name = module.__name__
        manager.register(module, name=name)
        plugins[name] = Plugin(name, "benchbench-shift", "0", name, source_digest(name))
    manager.register(TinyPlugin(), name="tiny")
    plugins["tiny"] = Plugin("tiny", "tests", "0", "tiny", "digest of tiny")
    entries, aside = collect(manager, plugins)
    assert not aside, aside
    return Catalog(entries)


def make_plan(text: str, store: Path, folder: Path, device: str = "cpu") -> Plan:
    path = folder / "suite.toml"
    path.write_text(text)
    suite = Suite.read(str(path))
    return Plan.make(suite, make_catalog(), folder, Store(store), device, lambda done, n: None)


def quiet(stage):
    """An audience's watcher that says nothing."""
    return lambda done, loss: None


__all__ = ["SUITE", "BadInput", "make_catalog", "make_plan", "quiet"]
