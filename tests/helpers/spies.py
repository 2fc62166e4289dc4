"""An encoder, objectives, a store and a readout that write down what is done to them, in order.

Each image of the dataset ``numbered`` tells which row it is, and the encoder hands that number on
as a feature: whoever meets images or features can say whose rows they are.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_pre_hook

from benchbench import DomainData, Supervised, hookimpl
from benchbench.data.pack import Pack, in_memory
from benchbench.evaluation.readouts.interface import Fitted
from benchbench.evaluation.readouts.registry import READOUTS
from benchbench.extension.catalog import Catalog, Loader, Plugin
from benchbench.extension.constants import TEST, TRAIN, VAL
from benchbench.store.artifacts import Store
from benchbench.suites.plan import Plan
from benchbench.suites.suite import Suite

DOMAINS = ("left", "right", "odd")
SPLITS = {TRAIN: "train", VAL: "val", TEST: "test"}
ROWS = {TRAIN: 8, VAL: 4, TEST: 4}  # of every domain

LOG: list[str] = []  # what was done, in order; `listening` empties it


@contextmanager
def listening() -> Iterator[list[str]]:
    """Within, everything is written down, the steps of every optimizer too."""
    LOG.clear()
    hook = register_optimizer_step_pre_hook(_stepped)
    try:
        yield LOG
    finally:
        hook.remove()


def _stepped(optimizer, args, kwargs) -> None:
    rates = ", ".join(f"{group['lr']:.4f}" for group in optimizer.param_groups)
    first = optimizer.param_groups[0]["params"][0]
    LOG.append(f"step at {rates}; gradient {first.grad.flatten()[0].item():+.2f}")


def numbered(root) -> DomainData:
    """Images of 2 × 2 grey pixels, of which the first is the number of the row, from 1 on."""
    columns = [
        (domain, split, index % 2)
        for domain in range(3)
        for split, rows in ROWS.items()
        for index in range(rows)
    ]
    domains, split, labels = (torch.tensor(column) for column in zip(*columns, strict=True))
    images = torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.arange(1, len(labels) + 1)
    images[:, 0, 0, 1] = labels.to(torch.uint8) * 255
    return DomainData(images, labels, domains, ("no", "yes"), DOMAINS, split, licence="made here")


PACK: Pack = in_memory(numbered(None))


def whose(rows: torch.Tensor) -> str:
    """``left train 4 + right train 4``, of numbers of rows."""
    index = rows.round().long() - 1
    counts: dict[str, int] = {}
    for domain, split in zip(PACK.domains[index].tolist(), PACK.split[index].tolist(), strict=True):
        name = f"{DOMAINS[domain]} {SPLITS[split]}"
        counts[name] = counts.get(name, 0) + 1
    return " + ".join(f"{name} {count}" for name, count in counts.items())


class SpyEncoder(nn.Module):
    """Features are the number of the row, its label's pixel, and the sum of its two parameters."""

    num_features = 3

    def __init__(self, task, *, start=1.0):
        super().__init__()
        self.matrix = nn.Parameter(torch.full((1, 1), start))
        self.vector = nn.Parameter(torch.zeros(1))

    def forward(self, images):
        number = images[:, 0, 0, 0] * 255
        if number.any():  # blank images are how a plan tries an encoder
            mode = "training" if self.training else "evaluating"
            gradient = "with gradient" if torch.is_grad_enabled() else "without gradient"
            LOG.append(f"encoder, {mode}, {gradient}: {whose(number)}")
        weight = (self.matrix[0, 0] + self.vector[0]).expand(len(images))
        return torch.stack([number, images[:, 0, 0, 1], weight], 1)


class SpyObjective(Supervised):
    """A loss that is the mean of the encoder's last feature, so that its gradient is always 1."""

    n_views = 1

    def __init__(self, encoder, task, *, name="first", begins="fresh"):
        super().__init__(encoder, task)
        self.name, self.begins = name, begins
        self.register_buffer("moves", torch.zeros(()))

    def begin(self, head):
        LOG.append(f"{self.name} begins with {head.bias.tolist()}")
        super().begin(head)

    def forward(self, encoder, batch):
        mode = "training" if self.training else "evaluating"
        LOG.append(f"{self.name}, {mode}, at {batch.progress:.3f}, moved {int(self.moves)} times")
        shown = (batch.labels >= 0).sum().item()
        z = encoder(batch.views[0])
        LOG.append(f"labels shown of {shown} rows")
        loss = z[:, 2].mean() + 0 * self.classifier(z).sum()
        loss.register_hook(lambda gradient: LOG.append("backward"))
        return loss

    def after_step(self, encoder):
        with torch.no_grad():
            self.moves += 1
            self.classifier.bias.fill_(self.moves.item())
        LOG.append(f"{self.name} after step {int(self.moves)}")

    def predict(self, z):
        LOG.append(f"head in {'training' if self.training else 'evaluation'}")
        return super().predict(z)


def spy_readout():
    """Writes down what it is fitted on, chosen on and asked for."""

    def fit(train, val, unlabelled, num_classes):
        weight = train.z[0, 2].item()
        LOG.append(f"readout of weight {weight:.4f}")
        LOG.append(f"  fitted on {whose(train.z[:, 0])}")
        LOG.append(f"  chosen on {whose(val.z[:, 0])}")
        every = unlabelled()
        LOG.append(f"  unlabelled {every.count} rows, numbered {every.mean[0]:.2f} in the mean")

        def scores(z):
            LOG.append(f"  predicts {whose(z[:, 0])}")
            return torch.stack([0.5 - z[:, 1], z[:, 1] - 0.5], 1)

        return Fitted(scores, "source-val")

    return fit


class SpyStore(Store):
    """Writes down what is kept, in what order."""

    def write(self, kind, key, tensors, note=None):
        done = f" of {int(tensors['done'])} steps" if kind == "checkpoints" else ""
        weight = tensors.get("encoder.matrix")
        LOG.append(
            f"keep {kind}{done}" + (f", weight {weight.item():.4f}" if kind in STATES else "")
        )
        return super().write(kind, key, tensors, note)

    def remove(self, kind, key):
        LOG.append(f"remove {kind}")
        super().remove(kind, key)

    def write_record(self, record, predictions=None):
        LOG.append(f"keep record, {record.status}")
        return super().write_record(record, predictions)


STATES = ("stages", "snapshots", "checkpoints")


class SpyPlugin:
    @hookimpl
    def benchbench_datasets(self):
        return {"numbered": numbered}

    @hookimpl
    def benchbench_encoders(self):
        return {"spy_encoder": SpyEncoder}

    @hookimpl
    def benchbench_objectives(self):
        return {"spy": SpyObjective}


def spy_catalog() -> Catalog:
    loader = Loader(strict=True)
    loader.add(Plugin("spies", "tests", "0", "spies", "digest of spies"), SpyPlugin)
    return loader.catalog()


def spy_plan(text: str, folder: Path, monkeypatch, **options) -> Plan:
    """The plan of a suite of spies, with a readout ``spy`` beside the others."""
    monkeypatch.setitem(READOUTS, "spy", spy_readout)
    path = folder / "suite.toml"
    path.write_text(text)
    suite, store = Suite.read(str(path)), SpyStore(folder / "store")
    return Plan.make(suite, spy_catalog(), folder, store, "cpu", lambda done, n: None, **options)
