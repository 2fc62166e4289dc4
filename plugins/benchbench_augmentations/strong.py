"""RandAugment and Cutout, for batches."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchbench import Task
from benchbench_augmentations import operations, simple
from benchbench_augmentations.operations import per_image

Augment = Callable[[Tensor], Tensor]

STRENGTHS = 30  # magnitudes, as in the paper


def randaugment(task: Task, *, n: int = 2, magnitude: int = 9, fill: float = 0.5) -> Augment:
    """RandAugment (Cubuk et al. 2020, arXiv:1909.13719): ``n`` of fourteen operations in turn.

    Ranges are torchvision's, at ``magnitude`` of 30, with a sign for each image where there are two
    ways. For every turn the batch is dealt out, at random and as evenly as it goes, to the
    operations. Beyond a moved image lies ``fill``.
    """
    simple.check_channels("randaugment", task)
    _, height, width = task.input_shape
    simple.check("randaugment: n", n, 1, 100)
    simple.check("randaugment: magnitude", magnitude, 0, STRENGTHS)
    simple.check("randaugment: fill", fill, 0, 1)
    steps = operations_at(magnitude / STRENGTHS, height, width, fill)

    def augment(images: Tensor) -> Tensor:
        for _ in range(n):
            order = torch.randperm(len(images), device=images.device)
            first = int(torch.randint(len(steps), ()))  # on the CPU, so nothing waits
            changed = images.clone()
            for place in range(min(len(steps), len(images))):
                rows = order[place :: len(steps)]
                changed[rows] = steps[(first + place) % len(steps)](images[rows])
            images = changed
        return images

    return augment


def operations_at(strength: float, height: int, width: int, fill: float) -> list[Augment]:
    """RandAugment's operations at ``strength`` in [0, 1]."""
    from torchvision.transforms.v2 import functional

    def moved(**amounts: float) -> Augment:
        def move(images: Tensor) -> Tensor:
            ways = sign(images)
            still = {"angle": 0.0, "right": 0.0, "down": 0.0, "scale": 1.0, "shear": 0.0}
            given = {
                name: torch.full_like(ways, value) if name == "scale" else ways * value
                for name, value in (still | amounts).items()
            }
            return operations.affine(images, **given, fill=fill, edge=False)

        return move

    def turned(move: Augment) -> Augment:
        """The same along the other axis."""
        return lambda images: move(images.mT).mT

    def adjusted(adjust: Callable[[Tensor, Tensor], Tensor]) -> Augment:
        return lambda images: adjust(images, 1 + 0.9 * strength * sign(images))

    shear = torch.rad2deg(torch.atan(torch.tensor(0.3 * strength))).item()
    bits = 8 - round(4 * strength)
    return [
        lambda images: images,
        moved(shear=shear),
        turned(moved(shear=shear)),
        moved(right=int(150 / 331 * width * strength)),
        moved(down=int(150 / 331 * height * strength)),
        moved(angle=30 * strength),
        adjusted(operations.adjust_brightness),
        adjusted(operations.adjust_saturation),
        adjusted(operations.adjust_contrast),
        adjusted(operations.adjust_sharpness),
        lambda images: as_bytes(functional.posterize, images, bits),
        lambda images: operations.invert_where(images >= 1 - strength, images),
        autocontrast,
        lambda images: as_bytes(functional.equalize, images),
    ]


def autocontrast(images: Tensor) -> Tensor:
    """Each channel stretched to [0, 1], unless it is of one value: torchvision's, bit for bit.

    Its own assigns by an index of truth values, for which the host waits for the device.
    """
    low, high = images.amin((2, 3), keepdim=True), images.amax((2, 3), keepdim=True)
    flat = high == low
    spread = torch.where(flat, 1.0, high - low)
    return images.sub(torch.where(flat, 0.0, low)).div_(spread).clamp_(0, 1)


def as_bytes(change: Callable[..., Tensor], images: Tensor, *options: int) -> Tensor:
    """What is defined on 256 levels."""
    return change(images.mul(255).round().to(torch.uint8), *options).float().div_(255)


def sign(images: Tensor) -> Tensor:
    """−1 or 1 for each image, [B]."""
    return 1 - 2 * torch.randint(2, (len(images),), device=images.device).float()


def cutout(task: Task, *, size: float = 0.5, p: float = 1.0, fill: float = 0.5) -> Augment:
    """A square around a random pixel becomes ``fill`` (DeVries and Taylor 2017, arXiv:1708.04552).

    ``size`` is the square's side as a share of the shorter side of the image, of which it may jut
    out.
    """
    for name, value in (("size", size), ("p", p), ("fill", fill)):
        simple.check(f"cutout: {name}", value, 0, 1)

    def cut(images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        half = size * min(height, width) / 2

        def near(side: int) -> Tensor:
            centre = torch.rand(len(images), 1, device=images.device) * side
            return (torch.arange(side, device=images.device) + 0.5 - centre).abs() <= half

        square = near(height)[:, :, None] & near(width)[:, None]
        return torch.where(square[:, None] & per_image(simple.chosen(images, p)), fill, images)

    return cut
