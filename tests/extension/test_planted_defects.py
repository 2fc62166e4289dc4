"""Broken plugins, each with one defect that a real author makes: the check meant for it says so.

A factory below differs from one that works in the line that its docstring names.
"""

import contextlib
import inspect
import os
import random
import re
import urllib.request
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from benchbench import TEST, TRAIN, UNKNOWN, Between, Objective, hookimpl, searched, supervised_loss
from benchbench.extension.catalog import Entry, Loader, Plugin
from benchbench.extension.conformance import CHECKS, Check, checks_of
from benchbench.extension.conformance.fixtures import DOMAINS, Subject, bars

PLANTED = Plugin("planted", "tests", "0", "planted", "")


def check(kind: str, factory, name: str, folder: Path) -> Check:
    (test,) = (test for test in CHECKS[kind] if test.__name__ == name)
    return Check(Subject(Entry(kind, "planted", factory, PLANTED), folder, folder), test)


# Objectives


class Spread(Objective):
    """A working one: views of an image close, images apart."""

    def __init__(self, encoder, task, *, width=8):
        super().__init__()
        self.projector = nn.Linear(encoder.num_features, width)

    def forward(self, encoder, batch):
        z0, z1 = (F.normalize(self.projector(encoder(v)).float(), dim=1) for v in batch.views)
        target = torch.arange(len(z0), device=z0.device)
        return F.cross_entropy((z0 @ z1.T).float() / 0.2, target)


class Labelled(Objective):
    """A working one with a head."""

    n_views = 1
    reads = {"labels"}

    def __init__(self, encoder, task, *, width=8):
        super().__init__()
        self.head = nn.Linear(encoder.num_features, task.num_classes)

    def forward(self, encoder, batch):
        return supervised_loss(self.predict(encoder(batch.views[0])), batch.labels)

    def predict(self, z):
        return self.head(z)


class PeeksAtTheCaller(Spread):
    """Takes all labels from a frame of whoever calls it."""

    def forward(self, encoder, batch):
        frame, labels = inspect.currentframe(), None
        while frame and labels is None:
            labels = getattr(frame.f_locals.get("pack"), "labels", None)
            frame = frame.f_back
        weight = 1.0 if labels is None else 1 + labels[::7].float().var()
        return weight * super().forward(encoder, batch)


class ReadsUndeclared(Labelled):
    """Reads labels without saying so."""

    reads = frozenset()


class ReadsIfShown(Spread):
    """Reads domains where it can, without saying so."""

    def forward(self, encoder, batch):
        loss = super().forward(encoder, batch)
        return loss if batch.domains is None else loss * (1 + batch.domains.float().mean())


class NumpyRandom(Spread):
    """Draws from numpy's global generator."""

    def forward(self, encoder, batch):
        return super().forward(encoder, batch) * (1 + np.random.rand())


class ClockRandom(Spread):
    """Draws from a generator that the system seeds."""

    def forward(self, encoder, batch):
        return super().forward(encoder, batch) * (1 + np.random.default_rng().random())


class Seeds(Spread):
    """Seeds torch itself, so that all seeds are one."""

    def __init__(self, encoder, task):
        torch.manual_seed(0)
        super().__init__(encoder, task)


class ChangesViews(Spread):
    """Adds noise to a view in place."""

    def forward(self, encoder, batch):
        batch.views[0].add_(0.01)
        return super().forward(encoder, batch)


class ChangesLabels(Labelled):
    """Makes unknown labels class 0, in place."""

    def forward(self, encoder, batch):
        batch.labels[batch.labels < 0] = 0
        return super().forward(encoder, batch)


class LossPerRow(Spread):
    """Forgets the mean."""

    def forward(self, encoder, batch):
        return super().forward(encoder, batch).expand(len(batch.views[0]))


class LossAsNumber(Spread):
    """Returns .item()."""

    def forward(self, encoder, batch):
        return super().forward(encoder, batch).item()


class LossNotFinite(Spread):
    """log(0)."""

    def forward(self, encoder, batch):
        return super().forward(encoder, batch) + torch.zeros(()).log()


class Detached(Spread):
    """Runs the encoder without gradient."""

    def forward(self, encoder, batch):
        with torch.no_grad():
            views = [encoder(view) for view in batch.views]
        z0, z1 = (self.projector(z) for z in views)
        return (z0 - z1).square().mean()


class NoStopGradient(Spread):
    """A momentum branch that is trained, too."""

    def __init__(self, encoder, task):
        super().__init__(encoder, task)
        self.momentum = nn.Linear(encoder.num_features, 8)

    def forward(self, encoder, batch):
        z0, z1 = (encoder(view) for view in batch.views)
        return (self.projector(z0) - self.momentum(z1)).square().mean()

    @torch.no_grad()
    def after_step(self, encoder):
        self.momentum.weight.lerp_(self.projector.weight + 0.1, 0.01)


class Counter(Spread):
    """A warm-up counted in a plain attribute."""

    def __init__(self, encoder, task):
        super().__init__(encoder, task)
        self.steps = 0

    def forward(self, encoder, batch):
        self.steps += 1
        return super().forward(encoder, batch) * min(1.0, self.steps / 4)


class Queue(Spread):
    """A queue in a plain attribute."""

    def __init__(self, encoder, task):
        super().__init__(encoder, task)
        self.queue = torch.zeros(1, encoder.num_features)

    def forward(self, encoder, batch):
        z = encoder(batch.views[0])
        loss = super().forward(encoder, batch) + (z @ self.queue.T).mean()
        self.queue = z.detach()[:4].clone()
        return loss


class Volatile(Spread):
    """A running centre in a buffer that is not persistent."""

    def __init__(self, encoder, task):
        super().__init__(encoder, task)
        self.register_buffer("centre", torch.zeros(encoder.num_features), persistent=False)

    def forward(self, encoder, batch):
        z = encoder(batch.views[0])
        loss = super().forward(encoder, batch) + (z - self.centre).square().mean()
        self.centre = 0.5 * self.centre + 0.5 * z.detach().mean(0)
        return loss


class ReadsBack(Spread):
    """Turns to another loss once the last one, read back, was low."""

    def __init__(self, encoder, task):
        super().__init__(encoder, task)
        self.last = float("inf")

    def forward(self, encoder, batch):
        loss = super().forward(encoder, batch)
        loss = loss * (2 if self.last < 3 else 1)
        self.last = loss.item()
        return loss


class HiddenLayers(Spread):
    """Layers in a list, which torch does not see."""

    def __init__(self, encoder, task):
        super().__init__(encoder, task)
        self.layers = [nn.Linear(8, 8)]

    def forward(self, encoder, batch):
        z0, z1 = (self.layers[0](self.projector(encoder(view))) for view in batch.views)
        return F.cross_entropy(z0 @ z1.T, torch.arange(len(z0), device=z0.device))


class FixedWidth(Spread):
    """Made for one encoder."""

    def __init__(self, encoder, task):
        super().__init__(encoder, task)
        self.projector = nn.Linear(10, 8)


class FixedClasses(Labelled):
    """Made for three classes."""

    def __init__(self, encoder, task):
        super().__init__(encoder, task)
        self.head = nn.Linear(encoder.num_features, 3)


class NoLabelsNoNumber(Labelled):
    """Divides by the number of labelled rows."""

    def forward(self, encoder, batch):
        logits = self.predict(encoder(batch.views[0]))
        total = F.cross_entropy(logits, batch.labels, ignore_index=UNKNOWN, reduction="sum")
        return total / (batch.labels != UNKNOWN).sum()


class FixedBatch(Spread):
    """Targets for twelve rows."""

    def forward(self, encoder, batch):
        z0, z1 = (self.projector(encoder(view)) for view in batch.views)
        return F.cross_entropy(z0 @ z1.T, torch.arange(12, device=z0.device))


class SoftmaxOverRows(Labelled):
    """Softmax over the batch, which still runs."""

    def predict(self, z):
        return self.head(z).softmax(0)


class PredictsClasses(Labelled):
    """Predicts classes, not scores."""

    def predict(self, z):
        return self.head(z).argmax(1)

    def forward(self, encoder, batch):
        return supervised_loss(self.head(encoder(batch.views[0])), batch.labels)


class DropoutForever(Labelled):
    """Dropout in evaluation, too."""

    def predict(self, z):
        return F.dropout(self.head(z), 0.5)


class Collapses(Spread):
    """SimSiam without its stop-gradient: nothing keeps images apart."""

    def forward(self, encoder, batch):
        z0, z1 = (F.normalize(encoder(view).float(), dim=1) for view in batch.views)
        return -(z0 * z1).sum(1).mean()


class Explodes(Spread):
    """A loss without bound."""

    def forward(self, encoder, batch):
        return -encoder(batch.views[0]).square().sum().exp()


class OrderMatters(Spread):
    """Weighs rows by their place."""

    def forward(self, encoder, batch):
        z0, z1 = (self.projector(encoder(view)) for view in batch.views)
        weight = torch.arange(len(z0), device=z0.device)[:, None]
        return (weight * (z0 - z1).square()).mean()


class KeepsTheEncoder(Spread):
    """Has the encoder for a member."""

    def __init__(self, encoder, task):
        super().__init__(encoder, task)
        self.encoder = encoder


class NotPicklable(Spread):
    """Keeps a lambda."""

    def __init__(self, encoder, task):
        super().__init__(encoder, task)
        self.scale = lambda loss: 2 * loss

    def forward(self, encoder, batch):
        return self.scale(super().forward(encoder, batch))


class OnTheCPU(Spread):
    """Targets without a device."""

    def forward(self, encoder, batch):
        z0, z1 = (self.projector(encoder(view)) for view in batch.views)
        return F.cross_entropy(z0 @ z1.T, torch.arange(len(z0)))


class AsksTheLoss(Spread):
    """Branches on a value."""

    def forward(self, encoder, batch):
        loss = super().forward(encoder, batch)
        return loss if loss > 0.1 else 0.5 * loss


class NoHalf(Spread):
    """Adds what is bf16 under autocast to what is not."""

    def forward(self, encoder, batch):
        z = self.projector(encoder(batch.views[0]))
        halves = torch.arange(len(z), device=z.device) % 2
        return torch.zeros(2, 8, device=z.device).index_add(0, halves, z).square().mean()


class ProcessRandom(Spread):
    """Draws by the number of its process."""

    def forward(self, encoder, batch):
        return super().forward(encoder, batch) * (1 + os.getpid() % 97)


class HandsOnAnother(Spread):
    """What is read off is no encoder like the one trained."""

    def trained_encoder(self, encoder):
        return nn.Sequential(encoder)


class MovesWhatItHandsOn(Spread):
    """To ask for its average changes the encoder that is trained."""

    def trained_encoder(self, encoder):
        with torch.no_grad():
            for parameter in encoder.parameters():
                parameter.mul_(0.5)
        return encoder


class NoObjective(nn.Module):
    """Not derived from Objective."""

    def __init__(self, encoder, task):
        super().__init__()


class ReadsTypo(Labelled):
    """A misspelt declaration."""

    reads = {"label"}


class NoViews(Spread):
    """Wants no view."""

    n_views = 0


class HalfAView(Spread):
    """Wants half a weak view."""

    n_weak = 0.5


@searched(scale=Between(2.0, 5.0))
class DefaultOutside(Spread):
    """Lets a suite draw an option whose default is not among what is drawn."""

    def __init__(self, encoder, task, *, scale=1.0):
        super().__init__(encoder, task)


@searched(scale=Between(1e-40, 1.0))
class BreaksAtAnEnd(Spread):
    """Divides by an option that may be drawn too small."""

    def __init__(self, encoder, task, *, scale=1.0):
        super().__init__(encoder, task)
        self.scale = scale

    def forward(self, encoder, batch):
        return super().forward(encoder, batch) / self.scale


class BeginsWarm(Spread):
    """Begins in a way that there is not."""

    begins = "warm"


class ChangesWeakViews(Spread):
    """Darkens a weak view in place."""

    n_weak = 1

    def forward(self, encoder, batch):
        batch.weak[0].mul_(0.5)
        return super().forward(encoder, batch)


class KeepsItsHeadAside(Labelled):
    """Takes over a head in begin, in a plain attribute that a resumed run does not have."""

    begins = "head"

    def begin(self, head):
        self.offset = float(head.bias.detach().sum())

    def forward(self, encoder, batch):
        self.offset = self.offset * 0.9
        return super().forward(encoder, batch) * (1 + self.offset**2)


class NegativeRate(Spread):
    """Climbs."""

    encoder_lr = -1.0


class ColourMeans(Spread):
    """Predicts three colours, and says so nowhere."""

    def __init__(self, encoder, task):
        super().__init__(encoder, task)
        self.colours = nn.Linear(encoder.num_features, 3)

    def forward(self, encoder, batch):
        wanted = batch.views[1].mean((2, 3))
        return (self.colours(encoder(batch.views[0])) - wanted).square().mean()


class OneWidthWorks(Spread):
    """An option of which only the default works."""

    def forward(self, encoder, batch):
        z0, z1 = (self.projector(encoder(view)).view(-1, 2, 4) for view in batch.views)
        return (z0 - z1).square().mean()


def star_arguments(encoder, task, *layers, width=8):
    """Takes what comes."""


def no_star(encoder, task, width=8):
    """An option that can be given by position."""


def keyword_arguments(encoder, task, **options):
    """Hides its options."""


def no_default(encoder, task, *, width):
    """Must be told."""


def mutable_default(encoder, task, *, layers=[8, 8]):  # noqa: B006  this is the defect
    """A list that all calls share."""


def odd_default(encoder, task, *, activation=F.relu):
    """A default that no suite can spell."""


class Undocumented(Spread):
    pass


Undocumented.__doc__ = None


def local():
    class Inside(Spread):
        """Defined inside a function."""

    return Inside


exec("def sourceless(encoder, task):\n    'No file.'\n    return Spread(encoder, task)")  # noqa: S102


class AtImport(Spread):
    """Raises when built."""

    def __init__(self, encoder, task):
        raise RuntimeError("weights.pt is missing")


# Encoders


class Plain(nn.Module):
    """A working one."""

    def __init__(self, task, *, width=6):
        super().__init__()
        self.num_features = width
        self.layer = nn.Conv2d(task.input_shape[0], width, 3, 2, 1)

    def forward(self, images):
        return self.layer(images).relu().mean((2, 3))


class WrongWidth(Plain):
    """num_features is not what comes out."""

    def __init__(self, task):
        super().__init__(task)
        self.num_features = 512


class NotPooled(Plain):
    """Leaves the image's axes."""

    def forward(self, images):
        return self.layer(images)


class TwoOutputs(Plain):
    """Returns features and a map."""

    def forward(self, images):
        return super().forward(images), self.layer(images)


class BatchStatistics(Plain):
    """Subtracts the batch's mean, in evaluation too."""

    def forward(self, images):
        z = super().forward(images)
        return z - z.mean(0)


class WrongAxis(Plain):
    """A mean over the wrong axis that still runs."""

    def forward(self, images):
        z = super().forward(images)
        return z / z.norm(dim=0, keepdim=True).clamp(min=1e-6)


class DropoutInEvaluation(Plain):
    """Functional dropout, which eval() does not reach."""

    def forward(self, images):
        return F.dropout(super().forward(images), 0.5)


class NormalisesInPlace(Plain):
    """Normalises the images it is given."""

    def forward(self, images):
        return super().forward(images.sub_(0.5))


class SeedsItself(Plain):
    """Calls torch.manual_seed."""

    def __init__(self, task):
        torch.manual_seed(0)
        super().__init__(task)


class NumpyWeights(Plain):
    """Draws its weights with numpy."""

    def __init__(self, task):
        super().__init__(task)
        self.layer.weight.data += float(np.random.default_rng().random())


class ThreeChannels(Plain):
    """Made for RGB, and says so nowhere."""

    def __init__(self, task):
        super().__init__(task)
        self.layer = nn.Conv2d(3, 6, 3, 2, 1)


class Squeezes(Plain):
    """Squeezes every axis of length one away."""

    def forward(self, images):
        return super().forward(images).squeeze()


class PlainAverage(Plain):
    """A running mean in a plain attribute."""

    def __init__(self, task):
        super().__init__(task)
        self.average = torch.zeros(6)

    def forward(self, images):
        z = super().forward(images)
        if self.training:
            self.average = 0.9 * self.average + 0.1 * z.detach().mean(0)
        return z - self.average


class SlowStart(Plain):
    """Counts its steps in a plain attribute."""

    steps = 0

    def forward(self, images):
        self.steps += self.training
        return super().forward(images) * (1 + 1 / (1 + self.steps) * self.training)


class UnusedLayer(Plain):
    """A classifier that is never called."""

    def __init__(self, task):
        super().__init__(task)
        self.classifier = nn.Linear(6, task.num_classes)


class NoGradient(Plain):
    """Frozen by accident."""

    @torch.no_grad()
    def forward(self, images):
        return super().forward(images)


class Constant(Plain):
    """Forgets its input."""

    def forward(self, images):
        return self.layer(torch.zeros_like(images)).relu().mean((2, 3))


class NoHalfEncoder(Plain):
    """Adds what is bf16 under autocast to what is not."""

    def forward(self, images):
        z = super().forward(images)
        rows = torch.arange(len(z), device=z.device)
        return torch.zeros(len(z), 6, device=z.device).index_add(0, rows, z)


class MeanOnTheCPU(Plain):
    """A constant that does not move with the module."""

    def __init__(self, task):
        super().__init__(task)
        self.mean = torch.tensor([0.5])

    def forward(self, images):
        return super().forward(images - self.mean[:, None, None])


class DropsZeros(Plain):
    """Picks values by a condition."""

    def forward(self, images):
        return super().forward(images) + images[images > 0].mean()


class Downloads(Plain):
    """Fetches weights behind the user's back, and goes on without them."""

    def __init__(self, task):
        super().__init__(task)
        with contextlib.suppress(Exception):
            urllib.request.urlopen("https://example.org/weights.safetensors", timeout=1)


class WritesCache(Plain):
    """Leaves a file at home."""

    def __init__(self, task):
        super().__init__(task)
        (Path.home() / ".planted-cache").write_text("weights")


class SharedCopy(Plain):
    """A copy is the original."""

    def __deepcopy__(self, memo):
        return self


# Augmentations


class Dim:
    """A working one: each image darker by a factor of its own."""

    def __init__(self, task, *, least=0.5):
        self.least = least

    def factor(self, images, rows):
        return self.least + (1 - self.least) * torch.rand(rows, 1, 1, 1, device=images.device)

    def __call__(self, images):
        return images * self.factor(images, len(images))


class InPlace(Dim):
    """Works on the batch itself."""

    def __call__(self, images):
        return images.mul_(self.factor(images, len(images)))


class OneDraw(Dim):
    """One factor for the batch."""

    def __call__(self, images):
        return images * self.factor(images, 1)


class PythonRandom(Dim):
    """Draws with Python's random."""

    def __call__(self, images):
        return images * torch.tensor([random.random() for _ in images])[:, None, None, None]


class OwnGenerator(Dim):
    """Draws from a generator of its own."""

    def __call__(self, images):
        factors = np.random.default_rng().random((len(images), 1, 1, 1), np.float32)
        return images * torch.from_numpy(factors)


class NotClamped(Dim):
    """Leaves [0, 1]."""

    def __call__(self, images):
        return images + torch.randn_like(images)


class ToBytes(Dim):
    """Returns uint8."""

    def __call__(self, images):
        return (255 * images).to(torch.uint8)


class Crops(Dim):
    """Returns smaller images."""

    def __call__(self, images):
        return images[:, :, 2:-2, 2:-2].clone()


class BatchMean(Dim):
    """Contrast around the batch's mean."""

    def __call__(self, images):
        factor = self.factor(images, len(images))
        return (factor * images + (1 - factor) * images.mean(0)).clamp(0, 1)


class Curriculum(Dim):
    """Gets stronger from call to call."""

    calls = 0

    def __call__(self, images):
        self.calls += 1
        return images * self.factor(images, len(images)) ** self.calls


class FactorOnTheCPU(Dim):
    """Draws on the CPU."""

    def __call__(self, images):
        return images * torch.rand(len(images), 1, 1, 1)


class Saturates(Dim):
    """Sets the values that meet a condition."""

    def __call__(self, images):
        seen = super().__call__(images).clone()
        seen[seen > 0.9] = torch.rand(int((seen > 0.9).sum()), device=images.device)
        return seen


class RGBOnly(Dim):
    """Unpacks three channels, and says so nowhere."""

    def __call__(self, images):
        red, green, blue = images.unbind(1)
        return torch.stack([blue, green, red], 1)


class SqueezesViews(Dim):
    """Squeezes a batch of one away."""

    def __call__(self, images):
        return super().__call__(images).squeeze()


class Window(Dim):
    """A view that is the batch itself, flipped or not."""

    def __call__(self, images):
        return images if torch.rand(()) < 0.5 else images.flip(3)


class SmallOnly(Dim):
    """Square images only."""

    def __call__(self, images):
        return torch.maximum(images, images.mT) * self.factor(images, len(images))


# Datasets


def rows_of(data, domain, split=None):
    inside = data.domains == DOMAINS.index(domain)
    return inside if split is None else inside & (data.split == split)


def duplicated_row(root):
    """A training image is a test image, too."""
    data = bars(8)
    images = data.inputs.clone()
    images[rows_of(data, "left", TEST).nonzero()[0]] = images[rows_of(data, "left", TRAIN)][0]
    return replace(data, inputs=images)


def copied_target(root):
    """A target image is in the source, too."""
    data = bars(8)
    images = data.inputs.clone()
    images[rows_of(data, "left", TRAIN).nonzero()[0]] = images[rows_of(data, "right", TRAIN)][0]
    return replace(data, inputs=images)


def float_images(root):
    """Images as floats in [0, 1]."""
    return replace(bars(8), inputs=bars(8).inputs / 255)


def channels_last(root):
    """Images as [N, H, W, C]."""
    return replace(bars(8), inputs=bars(8).inputs.repeat(1, 1, 2, 2).permute(0, 2, 3, 1))


def unseeded(root):
    """Rows in another order every time."""
    order = np.random.default_rng().permutation(len(bars(8).labels))
    data = bars(8)
    columns = {name: getattr(data, name)[order] for name in ("inputs", "labels", "domains")}
    return replace(data, **columns, split=data.split[order])


def label_without_name(root):
    """Labels from 1."""
    return replace(bars(8), labels=bars(8).labels + 1)


def labels_as_bytes(root):
    """Labels of another type."""
    return replace(bars(8), labels=bars(8).labels.to(torch.uint8))


def unknown_as_class(root):
    """A class for what has none."""
    return replace(bars(8), class_names=("low", "middle", "unknown"))


def missing_class(root):
    """A source without one of the classes."""
    data = bars(8)
    gone = rows_of(data, "left", TRAIN) & (data.labels == 2)
    return replace(data, labels=data.labels.masked_fill(gone, 1))


def no_test(root):
    """A dataset without test rows."""
    data = bars(8)
    return replace(data, split=data.split.masked_fill(data.split == TEST, TRAIN))


def unlabelled_test(root):
    """Test rows that cannot be scored."""
    data = bars(8)
    return replace(data, labels=data.labels.masked_fill(rows_of(data, "right", TEST), UNKNOWN))


def domain_per_class(root):
    """The domain is the class."""
    return replace(bars(8), domains=bars(8).labels)


def comma_domain(root):
    """A domain that no shift can name."""
    return replace(bars(8), domain_names=("left", "right > wrong", "odd"))


def split_units(root):
    """A patient in training and test."""
    data = bars(8)
    return replace(data, units=torch.arange(len(data.labels)) // 9 % 3)


def no_licence(root):
    """No licence."""
    return replace(bars(8), licence="unknown")


def black(root):
    """Floats in [0, 1], cut to integers."""
    return replace(bars(8), inputs=(bars(8).inputs / 255).to(torch.uint8))


def forgets_a_column(root):
    """Raises what is no BadInput: its files are not missing, it is broken."""
    return {}["label"]


def downloads(root):
    """Fetches what is missing."""
    urllib.request.urlopen("https://example.org/images.tar")
    return bars(8)


def writes_outside(root):
    """Unpacks into the working directory."""
    Path("planted-images").mkdir()
    return bars(8)


def not_domain_data(root):
    """Images and labels as a pair."""
    return bars(8).inputs, bars(8).labels


DEFECTS = [
    ("objective", PeeksAtTheCaller, "no_target_labels", "target labels leak into training"),
    ("objective", ReadsUndeclared, "loss", "declare reads = {'domains', 'labels'}"),
    ("objective", ReadsIfShown, "no_undeclared", "another loss without declaring reads"),
    ("objective", NumpyRandom, "leaves_the_world_alone", "numpy.random; draw .* with torch"),
    ("objective", ClockRandom, "seeded", "draw with torch's generator alone"),
    ("objective", Seeds, "leaves_the_world_alone", "seeds torch's generator; leave that to"),
    ("objective", ChangesViews, "input_unchanged", "work on copies"),
    ("objective", ChangesLabels, "input_unchanged", "work on copies"),
    ("objective", ChangesWeakViews, "input_unchanged", "changes its batch in place"),
    ("objective", LossPerRow, "loss", r"has shape \(12,\); take its mean"),
    ("objective", LossAsNumber, "loss", "returns float, not a tensor; leave .item"),
    ("objective", LossNotFinite, "loss", r"-inf on an ordinary batch; look for log\(0\)"),
    ("objective", Detached, "reaches_encoder", "outside no_grad"),
    ("objective", NoStopGradient, "momentum_without_gradient", "momentum.weight .*no_grad"),
    ("objective", HandsOnAnother, "trained_encoder", "another state than the encoder's, such as"),
    ("objective", MovesWhatItHandsOn, "trained_encoder", "changes what is trained"),
    ("objective", Counter, "resumes", "keep counters, queues and momentum in parameters"),
    ("objective", Queue, "resumes", "persistent buffers"),
    ("objective", Volatile, "resumes", "persistent buffers"),
    ("objective", ReadsBack, "resumes", "depend on a value that was read back"),
    ("objective", HiddenLayers, "state_is_complete", "keep what it learns in parameters"),
    ("objective", FixedWidth, "any_size", "take sizes from encoder.num_features"),
    ("objective", FixedClasses, "any_size", "and 5 classes .* take sizes from"),
    ("objective", NoLabelsNoNumber, "short_batches", r"without any label .* clamp\(min=1\)"),
    ("objective", FixedBatch, "short_batches", "a batch of 5 .* take sizes from batch"),
    ("objective", SoftmaxOverRows, "predicts", "softmax over dim 1, never dim 0"),
    ("objective", PredictsClasses, "predicts", r"predict makes \(9,\), not \(9, num_classes\)"),
    ("objective", DropoutForever, "predicts", r"turn dropout off in eval\(\)"),
    ("objective", Collapses, "healthy", "the features collapse: .* repel different images"),
    ("objective", Explodes, "healthy", "at step .* bound the loss"),
    ("objective", OrderMatters, "order_of_rows", "treat every row alike"),
    ("objective", KeepsTheEncoder, "encoder_not_kept", "use the encoder that forward gets"),
    ("objective", NotPicklable, "copies", "keep no lambdas"),
    ("objective", OnTheCPU, "devices", "make it with device=images.device"),
    ("objective", AsksTheLoss, "no_waits", r"waits .*reads a value, at .*test_planted_.*py:\d+"),
    ("objective", NoHalf, "autocast", "cast with .float"),
    ("objective", ProcessRandom, "two_processes", "draw nothing from the rank, the clock"),
    ("objective", NoObjective, "contract", "derive it from benchbench.Objective"),
    ("objective", ReadsTypo, "contract", "it reads label; there is domains, labels"),
    ("objective", NoViews, "contract", "n_views = 0; it is a whole number of at least 1"),
    ("objective", HalfAView, "contract", "n_weak = 0.5; it is a whole number of at least 0"),
    ("objective", DefaultOutside, "drawn_settings", "scale = 1.0 is not between 2.0 and 5.0"),
    ("objective", BreaksAtAnEnd, "drawn_settings", "scale = 1e-40 makes the loss"),
    ("objective", BeginsWarm, "contract", "begins = 'warm'; it is"),
    ("objective", KeepsItsHeadAside, "resumes", "interrupted after step"),
    ("objective", NegativeRate, "contract", "encoder_lr = -1.0"),
    ("objective", ColourMeans, "channels", "with 4 channels .* or raise BadInput"),
    ("objective", OneWidthWorks, "options_build", "width=9 is taken, but .* refuse it with"),
    ("objective", star_arguments, "signature", r"takes \*layers; name every option"),
    ("objective", no_star, "signature", "it should read .*, with the star"),
    ("objective", keyword_arguments, "signature", r"takes \*options; name every option"),
    ("objective", no_default, "signature", "'width' has no default; give it one"),
    ("objective", mutable_default, "plain_defaults", "list, which all calls share; use a tuple"),
    ("objective", odd_default, "plain_defaults", "'activation', .* cannot be spelled in a suite"),
    ("objective", Undocumented, "documented", "no docstring; say in a line"),
    ("objective", local(), "travels", "define it at the top level of a module"),
    ("objective", sourceless, "source_present", "define it in a module"),  # noqa: F821
    ("objective", AtImport, "builds", "RuntimeError: weights.pt is missing, at test_planted"),
    ("encoder", WrongWidth, "contract", r"\(5, 6\), not \(5, 512\).* set num_features"),
    ("encoder", NotPooled, "contract", "pool what is left of the image"),
    ("encoder", TwoOutputs, "contract", "returns tuple, not one tensor of features"),
    ("encoder", BatchStatistics, "rows_apart", "use running statistics"),
    ("encoder", WrongAxis, "rows_apart", "no mean over dim 0"),
    ("encoder", DropoutInEvaluation, "rows_apart", r"turn dropout and the like off in eval\(\)"),
    ("encoder", NormalisesInPlace, "input_unchanged", "work on a copy"),
    ("encoder", SeedsItself, "seeded", "do not call torch.manual_seed in a factory"),
    ("encoder", NumpyWeights, "seeded", "draw initial weights with torch alone"),
    ("encoder", ThreeChannels, "channels", r"read task.input_shape\[0\] channels"),
    ("encoder", Squeezes, "short_batches", "do not squeeze the batch away"),
    ("encoder", PlainAverage, "state_is_complete", "register_buffer, not in plain attributes"),
    ("encoder", SlowStart, "resumes", "resumed ends elsewhere; keep counters"),
    ("encoder", UnusedLayer, "all_weights_learn", "classifier.* is not used; remove it"),
    ("encoder", NoGradient, "all_weights_learn", "do not detach, nor run under no_grad"),
    ("encoder", Constant, "sees_the_image", "does not depend on the input"),
    ("encoder", NoHalfEncoder, "autocast", "cast where types must agree"),
    ("encoder", MeanOnTheCPU, "devices", "keep it with register_buffer"),
    ("encoder", DropsZeros, "no_waits", r"shape depends on values, at .*\.py:\d+\); leave values"),
    ("encoder", Downloads, "offline", "reaches for the network: .*example.org.* BadInput"),
    ("encoder", WritesCache, "own_folder", "it writes to .*planted-cache; keep to memory"),
    ("encoder", SharedCopy, "copies", "shares its weights with the original"),
    ("augmentation", InPlace, "input_unchanged", r"start from images.clone\(\)"),
    ("augmentation", Window, "input_unchanged", "shares memory with the batch; return a new"),
    ("augmentation", OneDraw, "per_sample", r"draw torch.rand\(len\(images\), 1, 1, 1\)"),
    ("augmentation", PythonRandom, "leaves_the_world_alone", "Python's random; draw .* torch"),
    ("augmentation", OwnGenerator, "seeded", "draw with torch.rand and keep no state"),
    ("augmentation", Curriculum, "seeded", "keep no state from call to call"),
    ("augmentation", NotClamped, "contract", r"not in \[0, 1\]; end with clamp"),
    ("augmentation", ToBytes, "contract", "a view is float32"),
    ("augmentation", Crops, "contract", "a view has the shape"),
    ("augmentation", SmallOnly, "contract", "raises RuntimeError: The size of tensor"),
    ("augmentation", BatchMean, "rows_apart", r"dims \(1, 2, 3\), never over dim 0"),
    ("augmentation", FactorOnTheCPU, "devices", "make it with device=images.device"),
    ("augmentation", Saturates, "no_waits", "choose with torch.where"),
    ("augmentation", SqueezesViews, "short_batches", "do not squeeze the batch away"),
    ("augmentation", RGBOnly, "channels", "or raise BadInput in the factory"),
    ("dataset", duplicated_row, "no_row_twice", r"\(left, train\) and .* drop one"),
    ("dataset", copied_target, "no_row_twice", r"\(right, train\).* are the same;"),
    ("dataset", float_images, "contract", r"must be uint8 or float16 of shape \[N, C, H, W\]"),
    ("dataset", channels_last, "contract", r"permute\(0, 3, 1, 2\)"),
    ("dataset", unseeded, "same_twice", "draw from a generator seeded by an option"),
    ("dataset", label_without_name, "contract", r"labels must lie in \[-1, 2\]"),
    ("dataset", labels_as_bytes, "contract", "labels must be int64"),
    ("dataset", unknown_as_class, "classes", "'unknown' is no class; .* label UNKNOWN"),
    ("dataset", missing_class, "classes", "'left' has no training rows of class 'high'"),
    ("dataset", no_test, "splits", "no domain has test rows with labels; leave split"),
    ("dataset", unlabelled_test, "splits", "test rows without label; use them for training"),
    ("dataset", domain_per_class, "domains", "who reads domains reads labels"),
    ("dataset", comma_domain, "domains", "cannot be written in a shift; leave"),
    ("dataset", split_units, "units_apart", "keep a unit on one side"),
    ("dataset", no_licence, "licence", r"set DomainData\(licence=…\)"),
    ("dataset", black, "not_blank", r"multiply by 255 before .to\(torch.uint8\)"),
    ("dataset", forgets_a_column, "builds", "cannot be built from its defaults: KeyError: 'label'"),
    ("dataset", downloads, "offline", "reaches for the network: .*say in BadInput which files"),
    ("dataset", writes_outside, "own_folder", "it writes to planted-images; .* its root"),
    ("dataset", not_domain_data, "contract", "returns tuple, not benchbench.DomainData"),
]


@pytest.mark.parametrize(
    ("kind", "factory", "name", "message"),
    DEFECTS,
    ids=[f"{kind}-{factory.__name__}-{name}" for kind, factory, name, _ in DEFECTS],
)
def test_a_defect_is_told_by_the_check_meant_for_it(kind, factory, name, message, tmp_path):
    outcome = check(kind, factory, name, tmp_path).run()
    assert outcome.status == "failed", outcome
    assert re.search(message, outcome.message), outcome.message
    left = Path("planted-images"), Path.home() / ".planted-cache"
    assert not any(path.exists() for path in left), "the guard lets nothing be written"


def healthy_bars(root):
    """A working one."""
    return bars(8)


NOT_OF = {  # checks that do not apply, by what was planted in
    "Spread": {"predicts"},
    "Labelled": set(),
    "Plain": set(),
    "Dim": set(),
    "healthy_bars": {"units_apart"},
}


@pytest.mark.parametrize(
    ("kind", "factory"),
    [
        ("objective", Spread),
        ("objective", Labelled),
        ("encoder", Plain),
        ("augmentation", Dim),
        ("dataset", healthy_bars),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_what_the_defects_were_planted_in_passes_every_check(kind, factory, tmp_path):
    """Each check by itself, as a defect is tried: what checks share could hide one."""
    outcomes = {test.__name__: check(kind, factory, test.__name__, tmp_path).run()
                for test in CHECKS[kind]}  # fmt: skip
    failed = {n: o.message for n, o in outcomes.items() if o.status not in ("passed", "skipped")}
    assert failed == {}
    skipped = {name for name, outcome in outcomes.items() if outcome.status == "skipped"}
    assert skipped == NOT_OF[factory.__name__]


def test_every_check_has_a_defect_that_it_catches():
    caught = {(kind, name) for kind, _, name, _ in DEFECTS}
    for kind, tests in CHECKS.items():
        for test in tests:
            common = all(test in others for others in CHECKS.values())
            kinds = CHECKS if common else (kind,)
            assert any((k, test.__name__) in caught for k in kinds), f"{kind} {test.__name__}"


def test_an_expected_failure_needs_a_reason_and_must_happen(tmp_path):
    expected = replace(check("augmentation", BatchMean, "rows_apart", tmp_path), expected="mixes")
    outcome = expected.run()
    assert (outcome.status, outcome.message) == ("expected", "mixes")
    fine = replace(check("augmentation", Dim, "rows_apart", tmp_path), expected="mixes")
    assert fine.run().status == "failed" and "but passes" in fine.run().message


def test_expecting_a_check_that_there_is_not_is_refused():
    class Mixing:
        benchbench_expected_failures = {"dim": {"rows_aprt": "mixes rows"}}

        @hookimpl
        def benchbench_augmentations(self):
            return {"dim": Dim}

    loader = Loader()
    loader.add(PLANTED, Mixing)
    with pytest.raises(Exception, match="names 'dim' 'rows_aprt', which is no entry and check"):
        list(checks_of(loader.catalog(), [PLANTED], Path(), Path()))
