"""A dataset of three domains that trains in a second, and objectives that misbehave."""

from dataclasses import replace
from importlib import import_module
from pathlib import Path

import torch
from torch import nn

from benchbench import BadInput, Objective, hookimpl
from benchbench.execution.local import run_cells
from benchbench.execution.progress import Progress
from benchbench.extension.catalog import Catalog, Loader, Plugin, source_digest
from benchbench.extension.conformance.fixtures import bars
from benchbench.store.artifacts import Store
from benchbench.suites.plan import Plan
from benchbench.suites.suite import Suite


class Text(str):
    """A text of which nothing is replaced that is not there: a test would test something else."""

    def replace(self, old: str, new: str, count: int = -1) -> "Text":
        assert old in self, f"{old!r} is not in the text, and would be replaced by nothing"
        return Text(super().replace(old, new, count))

    def __add__(self, more: str) -> "Text":
        return Text(super().__add__(more))


SUITE = Text("""
name = "tiny"
dataset = "tiny"
shifts = ["left > right"]
seeds = [0]
encoder = "small_cnn(width=4)"
precision = "fp32"
stage = { steps = 6, batch_size = 12, lr = 0.01, augmentation = "noise" }
[[method]]
chain = "simclr"
""")


def tiny(root, *, rows=40, seed=0):
    """The data of the conformance kit."""
    return bars(rows, seed=seed)


def heights(root, *, metric="worst_group_pearson"):
    """The same images, with the height of the bar as a number that a third of the rows hide."""
    data = bars(40)
    labels = data.labels.float() * 5 + 1
    labels[::3] = torch.nan
    labels[data.split == 2] = data.labels.float()[data.split == 2] * 5 + 1
    groups = torch.arange(len(labels)) // 45 % 2
    return replace(data, labels=labels, class_names=(), groups=groups,
                   group_names=("one", "other"), metric=metric)  # fmt: skip


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


def shrink(task):
    """Small views, of half of each side."""
    return lambda images: torch.nn.functional.avg_pool2d(images, 2)


def vanish(task):
    """Small views in which nothing is left."""
    return lambda images: images[:, :, :0, :0]


class TinyPlugin:
    @hookimpl
    def benchbench_datasets(self):
        return {"heights": heights, "tiny": tiny}

    @hookimpl
    def benchbench_augmentations(self):
        return {"shrink": shrink, "vanish": vanish}

    @hookimpl
    def benchbench_objectives(self):
        return {"unstable": Unstable}


PLUGINS = sorted((Path(__file__).parent.parent.parent / "plugins").glob("benchbench_*"))
MODULES = [import_module(folder.name) for folder in PLUGINS]


def make_catalog() -> Catalog:
    loader = Loader(strict=True)
    for module in MODULES:
        name = module.__name__
        plugin = Plugin(name, "benchbench-shift", "0", name, source_digest(name))
        loader.add(plugin, lambda module=module: module)
    loader.add(Plugin("tiny", "tests", "0", "tiny", "digest of tiny"), TinyPlugin)
    return loader.catalog()


def make_plan(
    text: str, store: Path, folder: Path, device: str = "cpu", root: Path | None = None
) -> Plan:
    path = folder / "suite.toml"
    path.write_text(text)
    suite = Suite.read(str(path))
    catalog, place = make_catalog(), Store(store)
    return Plan.make(suite, catalog, root or folder, place, device, lambda done, n: None)


def smoke(
    dataset: str,
    shift: str,
    root: Path,
    folder: Path,
    sees: str = "source+target",
    *,
    encoder: str = "small_cnn(width=4)",
    augmentation: str = "horizontal_flip",
):
    """The record of a dataset that was prepared, pre-trained on for two steps, and read off."""
    text = f"""
name = "smoke"
dataset = "{dataset}"
shifts = ["{shift}"]
seeds = [0]
encoder = "{encoder}"
precision = "fp32"
stage = {{ steps = 2, batch_size = 8, lr = 0.01, augmentation = "{augmentation}" }}
[[method]]
chain = "simclr"
sees = "{sees}"
"""
    plan = make_plan(text, folder / "store", folder, root=root)
    for cell in plan.cells:
        plan.check(cell)
    with Progress(1) as progress:
        (record,) = run_cells(plan, plan.cells, progress)
    assert record.status == "scored", record.reason
    return record


__all__ = ["SUITE", "BadInput", "make_catalog", "make_plan", "smoke"]
