"""SimCLR as this package trains it, and as the documentation of other packages has it."""

import os
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2  # type: ignore[import-untyped]

from benchbench.benchmarks.training_step import bare_step, train_on
from benchbench.data.batches import Feed
from benchbench.data.encoded_images import Encoded
from benchbench.data.gathering import resident
from benchbench.data.pack import Pack
from benchbench.extension.catalog import Choice
from benchbench.extension.constants import TRAIN
from benchbench.extension.contracts import Batch, Objective, as_read
from benchbench.suites.plan import build_augmentation, build_encoder
from benchbench.training.budget import Budget
from benchbench.training.device import Machine, keep_freed_memory
from benchbench.training.loop import Views, learning_rate

Pairs = Generator[tuple[Tensor, Tensor], None, None]  # the views of batch after batch
Tick = Callable[[], None]  # called after each step

# What lightly's example for images of 32 × 32 does (examples/pytorch/simclr.py): its transform's
# defaults, without blur. The others do the same.
SCALE, JITTER = (0.08, 1.0), (0.8, 0.8, 0.8, 0.2)
AUGMENTATION = (
    f"random_resized_crop(scale={SCALE}) | horizontal_flip | color_jitter(brightness={JITTER[0]}, "
    f"contrast={JITTER[1]}, saturation={JITTER[2]}, hue={JITTER[3]}) | greyscale"
)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet
TEMPERATURE, WIDTH = 0.2, 128
OBJECTIVE = f"simclr(temperature={TEMPERATURE}, width={WIDTH})"


@dataclass(frozen=True)
class Setting:
    """What all pipelines are given alike."""

    machine: Machine
    encoder: Choice
    objective: Choice
    augmentation: tuple[Choice, ...]
    pack: Pack
    domains: tuple[str, ...]  # whose training rows are seen
    budget: Budget
    seed: int

    @cached_property
    def networks(self) -> tuple[nn.Module, Objective]:
        encoder = build_encoder(self.encoder, self.pack.task, self.seed)
        objective: Objective = self.objective.build(encoder, self.pack.task)
        return encoder.to(self.machine.device), objective.to(self.machine.device)

    @property
    def side(self) -> int:
        return self.pack.task.input_shape[-1]

    @property
    def images(self) -> Tensor:
        """uint8 [N, C, H, W]"""
        assert not isinstance(self.pack.inputs, Encoded), "they are in memory"
        return self.pack.inputs[torch.cat([self.pack.rows(name, TRAIN) for name in self.domains])]


Pipeline = Callable[[Setting, Tick], nn.Module]  # returns what makes features of images in [0, 1]


def floor(setting: Setting, tick: Tick) -> nn.Module:
    """Forward, backward and update on two resident batches, which changes nothing."""
    keep_freed_memory()
    encoder, objective = setting.networks
    encoder.to(memory_format=torch.channels_last)
    images = as_read(setting.images[: setting.budget.batch_size].to(setting.machine.device))
    step = bare_step(encoder, objective, images, setting.budget, setting.machine)
    for _ in range(setting.budget.steps):
        step()
        tick()
    return encoder


def ours(setting: Setting, tick: Tick) -> nn.Module:
    """As a suite runs it."""
    keep_freed_memory()
    machine, pack, budget = setting.machine, setting.pack, setting.budget
    encoder, objective = setting.networks
    encoder.to(memory_format=torch.channels_last)
    views = Views(build_augmentation(setting.augmentation, pack.task))
    inputs = resident(pack.inputs, machine)
    feed = Feed(pack, inputs, setting.domains, (), budget.batch_size, setting.seed, machine.device)
    train_on(
        machine,
        encoder,
        objective,
        views,
        feed,
        budget,
        lambda done, loss: tick(),
        seed=setting.seed,
    )
    return encoder


def lightly(setting: Setting, tick: Tick) -> nn.Module:
    """Its transform, loss and DataLoader; its projector has no batch norm, as ours has none."""
    from lightly.loss import NTXentLoss  # type: ignore[import-not-found,unused-ignore]
    from lightly.models.modules import (  # type: ignore[import-not-found,unused-ignore]
        SimCLRProjectionHead,
    )
    from lightly.transforms.simclr_transform import (  # type: ignore[import-not-found,unused-ignore]
        SimCLRTransform,
    )

    encoder, _ = setting.networks
    width = int(encoder.num_features)  # type: ignore[arg-type]
    head = SimCLRProjectionHead(width, width, WIDTH, batch_norm=False)
    model = nn.Sequential(encoder, head.to(setting.machine.device))
    criterion = NTXentLoss(temperature=TEMPERATURE)
    transform = SimCLRTransform(input_size=setting.side, gaussian_blur=0.0)
    batches = loaded(setting, transform)
    plain_loop(setting, model, batches, lambda x0, x1: criterion(model(x0), model(x1)), tick)
    return nn.Sequential(v2.Normalize(MEAN, STD), encoder)


def torchvision(setting: Setting, tick: Tick) -> nn.Module:
    """Its transforms on images of Pillow, in the workers of a DataLoader."""
    view = v2.Compose(
        [
            v2.RandomResizedCrop(setting.side, scale=SCALE),
            v2.RandomHorizontalFlip(),
            v2.RandomApply([v2.ColorJitter(*JITTER)], p=0.8),
            v2.RandomGrayscale(p=0.2),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(MEAN, STD),
        ]
    )
    return with_our_loss(setting, loaded(setting, Twice(view)), tick)


def kornia(setting: Setting, tick: Tick) -> nn.Module:
    """Its augmentation of whole batches on the device, where the images lie."""
    import kornia.augmentation as k  # type: ignore[import-not-found,unused-ignore]

    augment = nn.Sequential(
        k.RandomResizedCrop((setting.side, setting.side), scale=SCALE),
        k.RandomHorizontalFlip(),
        k.ColorJitter(*JITTER, p=0.8),
        k.RandomGrayscale(p=0.2),
        k.Normalize(torch.tensor(MEAN), torch.tensor(STD)),
    )
    images = setting.images.to(setting.machine.device)

    def batches() -> Pairs:
        while True:
            order = torch.randperm(len(images), device=images.device)
            for rows in order.split(setting.budget.batch_size):
                if len(rows) == setting.budget.batch_size:
                    inputs = as_read(images[rows])
                    yield augment(inputs), augment(inputs)

    return with_our_loss(setting, batches(), tick)


OURS, FLOOR = "benchbench", "floor"
PIPELINES: dict[str, Pipeline] = {
    FLOOR: floor,
    OURS: ours,
    "lightly": lightly,
    "torchvision": torchvision,
    "kornia": kornia,
}


class Pictures(Dataset[tuple[list[Tensor], int]]):
    """As torchvision's CIFAR10: an array in memory, made an image of Pillow when asked for."""

    def __init__(self, images: Tensor, transform: Callable[[Image.Image], list[Tensor]]) -> None:
        self.pixels = images.permute(0, 2, 3, 1).contiguous().numpy()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, row: int) -> tuple[list[Tensor], int]:
        return self.transform(Image.fromarray(self.pixels[row])), 0


class Twice:
    """Two views of an image."""

    def __init__(self, view: Callable[[Image.Image], Tensor]) -> None:
        self.view = view

    def __call__(self, image: Image.Image) -> list[Tensor]:
        return [self.view(image), self.view(image)]


def loaded(setting: Setting, transform: Callable[[Image.Image], list[Tensor]]) -> Pairs:
    """Batches of a DataLoader, epoch after epoch."""
    loader = DataLoader(
        Pictures(setting.images, transform),
        batch_size=setting.budget.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=os.cpu_count() or 1,
    )
    while True:
        for (x0, x1), _ in loader:
            yield x0.to(setting.machine.device), x1.to(setting.machine.device)


def with_our_loss(setting: Setting, batches: Pairs, tick: Tick) -> nn.Module:
    encoder, objective = setting.networks

    def loss_of(x0: Tensor, x1: Tensor) -> Tensor:
        return objective(encoder, Batch((x0, x1), None, None, 0.0))

    plain_loop(setting, nn.ModuleList([encoder, objective]), batches, loss_of, tick)
    return nn.Sequential(v2.Normalize(MEAN, STD), encoder)


def plain_loop(
    setting: Setting,
    model: nn.Module,
    batches: Pairs,
    loss_of: Callable[[Tensor, Tensor], Tensor],
    tick: Tick,
) -> None:
    """What examples consist of, in float32 and NCHW; optimizer and learning rate are ours."""
    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(), weight_decay=setting.budget.weight_decay, fused=True
    )
    with closing(batches):
        for step in range(setting.budget.steps):
            x0, x1 = next(batches)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(setting.budget, step)
            loss_of(x0, x1).backward()
            optimizer.step()
            optimizer.zero_grad()
            tick()
