"""Augmentations of batches on their device. Here parameters are drawn, a set for each image.

What is done with them is in ``operations``. Nothing waits for the device: no value is read back,
and no shape depends on what was drawn, but on the CPU.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from benchbench import BadInput, Task
from benchbench_augmentations import operations
from benchbench_augmentations.operations import per_image

Augment = Callable[[Tensor], Tensor]
Pair = tuple[float, float]

TRIES = 10  # at a box that fits, as in torchvision


def random_resized_crop(
    task: Task,
    *,
    scale: Pair = (0.2, 1.0),
    ratio: Pair = (3 / 4, 4 / 3),
    size: int | None = None,
) -> Augment:
    """A box of ``scale`` of the area and ``ratio`` of width to height, resized to full size.

    torchvision's RandomResizedCrop: the area is uniform, the ratio log-uniform. With ``size`` it
    becomes a square of so many pixels instead, as for small views.
    """
    check_pair("random_resized_crop: scale", scale, 0, 1)
    check_pair("random_resized_crop: ratio", ratio, 0.01, 100)
    if size is not None and not 1 <= size <= 4096:
        raise BadInput(f"random_resized_crop: size = {size} should be between 1 and 4096")
    shape = task.input_shape[1:] if size is None else (size, size)
    return lambda images: operations.resized_crop(images, *draw_boxes(images, scale, ratio), shape)


def draw_boxes(images: Tensor, scale: Pair, ratio: Pair) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Top, left, height and width [B], in pixels.

    The first try that fits into the image; where none does, the largest central box whose ratio
    is allowed.
    """
    height, width = images.shape[2:]
    areas = height * width * uniform(images, scale, TRIES)
    ratios = uniform(images, (math.log(ratio[0]), math.log(ratio[1])), TRIES).exp()
    heights, widths = (areas / ratios).sqrt().round(), (areas * ratios).sqrt().round()
    fits = (heights >= 1) & (heights <= height) & (widths >= 1) & (widths <= width)
    found, first = fits.any(1), fits.int().argmax(1, keepdim=True)

    def pick(tries: Tensor, central: int) -> Tensor:
        return torch.where(found, tries.gather(1, first)[:, 0], max(central, 1))

    def place(size: Tensor, side: int) -> Tensor:
        room = side - size
        return torch.where(found, torch.rand_like(room) * (room + 1), room / 2).floor()

    tall = pick(heights, min(height, round(width / ratio[0])))
    wide = pick(widths, min(width, round(height * ratio[1])))
    return place(tall, height), place(wide, width), tall, wide


def horizontal_flip(task: Task, *, p: float = 0.5) -> Augment:
    """Left and right change places."""
    check("horizontal_flip: p", p, 0, 1)
    return lambda images: operations.change_where(
        chosen(images, p), images, lambda some: some.flip(3)
    )


def color_jitter(
    task: Task,
    *,
    brightness: float = 0.4,
    contrast: float = 0.4,
    saturation: float = 0.4,
    hue: float = 0.1,
    p: float = 0.8,
) -> Augment:
    """torchvision's ColorJitter, with factors for each image but one order for the batch.

    ``hue`` is in circles; the others say how far from 1 a factor may be. One channel has neither
    saturation nor hue.
    """
    check_channels("color_jitter", task)
    check("color_jitter: brightness", brightness, 0, 1)
    check("color_jitter: contrast", contrast, 0, 1)
    check("color_jitter: saturation", saturation, 0, 1)
    check("color_jitter: hue", hue, 0, 0.5)
    check("color_jitter: p", p, 0, 1)
    steps = [
        (operations.adjust_brightness, 1, brightness),
        (operations.adjust_contrast, 1, contrast),
        (operations.adjust_saturation, 1, saturation),
        (operations.adjust_hue, 0, hue),
    ]
    if task.input_shape[0] == 1:
        del steps[2:]
    steps = [step for step in steps if step[2] > 0]

    def jitter(images: Tensor) -> Tensor:
        jittered = chosen(images, p)
        for number in torch.randperm(len(steps)).tolist():  # on the CPU, so nothing waits
            adjust, neutral, strength = steps[number]
            images = adjust(images, neutral + jittered * uniform(images, (-strength, strength)))
        return images

    return jitter


def greyscale(task: Task, *, p: float = 0.2) -> Augment:
    """All channels become the luma."""
    check_channels("greyscale", task)
    check("greyscale: p", p, 0, 1)
    return lambda images: operations.change_where(
        chosen(images, p), images, lambda some: operations.grey(some).clamp(0, 1).expand_as(some)
    )


def gaussian_blur(
    task: Task, *, sigma: Pair = (0.1, 2.0), p: float = 0.5, kernel_size: int | None = None
) -> Augment:
    """SimCLR's blur (arXiv:2002.05709, appendix A), ``sigma`` and ``kernel_size`` in pixels.

    None is a tenth of the shorter side, made odd, and at least 3.
    """
    side = min(task.input_shape[1:])
    size = max(3, side // 20 * 2 + 1) if kernel_size is None else kernel_size
    if not (isinstance(size, int) and size % 2 == 1 and 3 <= size < 2 * side):
        raise BadInput(
            f"gaussian_blur: kernel_size = {size!r} should be odd, at least 3 and below {2 * side}"
        )
    check_pair("gaussian_blur: sigma", sigma, 0.01, 100)
    check("gaussian_blur: p", p, 0, 1)

    def blur(images: Tensor) -> Tensor:
        hit, width = chosen(images, p), uniform(images, sigma)
        return operations.change_where(
            hit, images, lambda some, width: operations.gaussian_blur(some, width, size), width
        )

    return blur


def solarize(task: Task, *, threshold: float = 0.5, p: float = 0.2) -> Augment:
    """Values from ``threshold`` on are inverted."""
    check("solarize: threshold", threshold, 0, 1)
    check("solarize: p", p, 0, 1)
    return lambda images: operations.invert_where(
        per_image(chosen(images, p)) & (images >= threshold), images
    )


def invert(task: Task, *, p: float = 0.5) -> Augment:
    """The negative."""
    check("invert: p", p, 0, 1)
    return lambda images: operations.invert_where(per_image(chosen(images, p)), images)


def noise(task: Task, *, std: Pair = (0.0, 0.1)) -> Augment:
    """Gaussian noise on every value, its standard deviation drawn for each image."""
    check_pair("noise: std", std, 0, 1)
    return lambda images: (
        torch.randn_like(images).mul_(per_image(uniform(images, std))).add_(images).clamp_(0, 1)
    )


def affine(
    task: Task,
    *,
    degrees: float = 15.0,
    translate: float = 0.1,
    scale: Pair = (0.9, 1.1),
    shear: float = 0.0,
    p: float = 1.0,
    fill: float = 0.0,
    edge: bool = False,
) -> Augment:
    """torchvision's RandomAffine, bilinear: rotation, shift by whole pixels, scale and shear.

    ``translate`` is a share of each side, ``shear`` in degrees. Beyond the image lies ``fill`` or,
    with ``edge``, the nearest pixel of its border.
    """
    check("affine: degrees", degrees, 0, 180)
    check("affine: translate", translate, 0, 1)
    check_pair("affine: scale", scale, 0.01, 100)
    check("affine: shear", shear, 0, 89)
    check("affine: p", p, 0, 1)
    check("affine: fill", fill, 0, 1)

    def move(images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        moved = operations.affine(
            images,
            angle=uniform(images, (-degrees, degrees)),
            right=(width * uniform(images, (-translate, translate))).round(),
            down=(height * uniform(images, (-translate, translate))).round(),
            scale=uniform(images, scale),
            shear=uniform(images, (-shear, shear)),
            fill=fill,
            edge=edge,
        )
        return torch.where(per_image(chosen(images, p)), moved, images)

    return move


def rotation(task: Task, *, degrees: float = 15.0, p: float = 1.0) -> Augment:
    """Rotation about the centre, either way, bilinear; the corners that open are black."""
    check("rotation: degrees", degrees, 0, 180)
    check("rotation: p", p, 0, 1)
    return affine(task, degrees=degrees, translate=0.0, scale=(1.0, 1.0), p=p)


def chosen(images: Tensor, p: float) -> Tensor:
    """bool [B]"""
    return torch.rand(len(images), device=images.device) < p


def uniform(images: Tensor, bounds: Pair, *shape: int) -> Tensor:
    """[B, *shape]"""
    return torch.empty(len(images), *shape, device=images.device).uniform_(*bounds)


def check(option: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise BadInput(f"{option} = {value} should be between {low} and {high}")


def check_pair(option: str, pair: Pair, low: float, high: float) -> None:
    numbers = len(pair) == 2 and all(isinstance(value, int | float) for value in pair)
    if not (numbers and low <= pair[0] <= pair[1] <= high):
        raise BadInput(
            f"{option} = {pair} should be two ascending numbers between {low} and {high}"
        )


def check_channels(owner: str, task: Task) -> None:
    channels = task.input_shape[0]
    if channels not in (1, 3):
        raise BadInput(f"{owner} is for images of 1 or 3 channels, not of {channels}")
