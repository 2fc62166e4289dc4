"""Augmentations of whole batches on the device, with parameters drawn per sample.

``operations`` says what is done; this file, with which parameters. All random numbers come from
torch's default generator.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from benchbench import BadInput, Task, hookimpl
from benchbench_augmentations import operations as do

Augmentation = Callable[[Tensor], Tensor]
PADDINGS = ("zeros", "border", "reflection")


def random_resized_crop(
    task: Task, *, scale: tuple = (0.2, 1.0), ratio: tuple = (3 / 4, 4 / 3)
) -> Augmentation:
    """A box of random area (a share of the image) and aspect ratio, scaled to the image's size.

    Boxes as in torchvision's RandomResizedCrop: the first of ten draws that fits, else the
    largest central box.
    """
    check_range("random_resized_crop", "scale", scale, 0, 1)
    check_range("random_resized_crop", "ratio", ratio, 0, math.inf)
    _, height, width = task.image_shape

    def augment(images: Tensor) -> Tensor:
        shape, device = (len(images), 10), images.device
        area = uniform(shape, scale, device) * height * width
        aspect = uniform(shape, (math.log(ratio[0]), math.log(ratio[1])), device).exp()
        wide, high = (area * aspect).sqrt().round(), (area / aspect).sqrt().round()
        valid = (wide >= 1) & (wide <= width) & (high >= 1) & (high <= height)
        first = valid.int().argmax(1, keepdim=True)
        fits = valid.any(1)
        central = min(max(width / height, ratio[0]), ratio[1])
        w = torch.where(fits, wide.gather(1, first)[:, 0], min(width, round(height * central)))
        h = torch.where(fits, high.gather(1, first)[:, 0], min(height, round(width / central)))
        place = torch.rand(len(images), 2, device=device)
        place = torch.where(fits[:, None], place, 0.5)
        top = (place[:, 0] * (height - h + 1)).floor().clamp(max=height - 1)
        left = (place[:, 1] * (width - w + 1)).floor().clamp(max=width - 1)
        return do.resized_crop(images, top, left, h, w)

    return augment


def horizontal_flip(task: Task, *, p: float = 0.5) -> Augmentation:
    """Mirror a share ``p`` of the images."""
    check_share("horizontal_flip", p)
    return lambda images: do.horizontal_flip(images, chosen(images, p))


def color_jitter(
    task: Task,
    *,
    brightness: float = 0.4,
    contrast: float = 0.4,
    saturation: float = 0.4,
    hue: float = 0.1,
    p: float = 0.8,
) -> Augmentation:
    """torchvision's ColorJitter on a share ``p`` of the images.

    Factors are drawn per sample, the order of the four operations once per batch. Of grey images
    only brightness and contrast change.
    """
    check_share("color_jitter", p)
    check_channels("color_jitter", task)
    strengths = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
    for name, value in strengths.items():
        if value < 0:
            raise BadInput(f"color_jitter: {name} = {value} should not be negative")
    if not 0 <= hue <= 0.5:
        raise BadInput(f"color_jitter: hue = {hue} should lie in [0, 0.5]")
    ranges = [(max(0.0, 1 - value), 1 + value) for value in strengths.values()]
    steps = [do.adjust_brightness, do.adjust_contrast, do.adjust_saturation, do.adjust_hue]
    active = [value > 0 for value in (*strengths.values(), hue)]
    if task.image_shape[0] == 1:
        active[2:] = [False, False]

    def augment(images: Tensor) -> Tensor:
        n, device = len(images), images.device
        on = chosen(images, p)
        factors = [torch.where(on, uniform((n,), r, device), 1.0) for r in ranges]
        factors.append(torch.where(on, uniform((n,), (-hue, hue), device), 0.0))
        for number in torch.randperm(4).tolist():  # on the CPU: the order is the host's to know
            if active[number]:
                images = steps[number](images, factors[number])
        return images

    return augment


def greyscale(task: Task, *, p: float = 0.2) -> Augmentation:
    """Take the colour from a share ``p`` of the images."""
    check_share("greyscale", p)
    check_channels("greyscale", task)

    def augment(images: Tensor) -> Tensor:
        return torch.where(do.column(chosen(images, p)), do.luma(images), images)

    return augment


def gaussian_blur(task: Task, *, sigma: tuple = (0.1, 2.0), p: float = 0.5) -> Augmentation:
    """Blur a share ``p`` of the images; ``sigma`` in pixels, the kernel a tenth of the image.

    Chen et al. 2020, appendix A.
    """
    check_share("gaussian_blur", p)
    check_range("gaussian_blur", "sigma", sigma, 0, math.inf)
    side = min(task.image_shape[1:])
    kernel_size = max(3, side // 10 // 2 * 2 + 1)

    def augment(images: Tensor) -> Tensor:
        drawn = uniform((len(images),), sigma, images.device)
        blunt = torch.where(chosen(images, p), drawn, 1e-3)  # so narrow a kernel changes nothing
        return do.gaussian_blur(images, blunt, kernel_size)

    return augment


def solarize(task: Task, *, threshold: float = 0.5, p: float = 0.2) -> Augmentation:
    """Invert what is at least as bright as ``threshold``, in a share ``p`` of the images."""
    check_share("solarize", p)

    def augment(images: Tensor) -> Tensor:
        return torch.where(do.column(chosen(images, p)), do.solarize(images, threshold), images)

    return augment


def invert(task: Task, *, p: float = 0.5) -> Augmentation:
    """Turn a share ``p`` of the images into their negative."""
    check_share("invert", p)
    return lambda images: torch.where(do.column(chosen(images, p)), 1 - images, images)


def noise(task: Task, *, std: tuple = (0.0, 0.1)) -> Augmentation:
    """Add Gaussian noise, of a standard deviation drawn per sample."""
    check_range("noise", "std", std, 0, math.inf)

    def augment(images: Tensor) -> Tensor:
        amount = do.column(uniform((len(images),), std, images.device))
        return torch.addcmul(images, amount, torch.randn_like(images)).clamp_(0, 1)

    return augment


def affine(
    task: Task,
    *,
    degrees: float = 15.0,
    translate: float = 0.1,
    scale: tuple = (0.9, 1.1),
    shear: float = 0.0,
    p: float = 1.0,
    padding: str = "border",
) -> Augmentation:
    """Turn, shift, scale and shear a share ``p`` of the images.

    ``degrees`` and ``shear`` are the largest angles to both sides, ``translate`` the largest shift
    as a share of the side, ``padding`` one of zeros, border, reflection.
    """
    check_share("affine", p)
    check_range("affine", "scale", scale, 0, math.inf)
    if padding not in PADDINGS:
        raise BadInput(f"affine: padding = {padding!r}; there is {', '.join(PADDINGS)}")
    _, height, width = task.image_shape

    def augment(images: Tensor) -> Tensor:
        n, device = len(images), images.device
        on = chosen(images, p)
        sides = torch.tensor([width, height], device=device) * translate
        shift = uniform((n, 2), (-1, 1), device) * sides * on[:, None]
        turn, slant = (uniform((n,), (-most, most), device) * on for most in (degrees, shear))
        size = torch.where(on, uniform((n,), scale, device), 1.0)
        return do.affine(images, turn, shift, size, slant, padding)

    return augment


def rotation(
    task: Task, *, degrees: float = 15.0, p: float = 1.0, padding: str = "border"
) -> Augmentation:
    """Turn a share ``p`` of the images by up to ``degrees`` to either side."""
    return affine(task, degrees=degrees, translate=0.0, scale=(1.0, 1.0), p=p, padding=padding)


def uniform(shape: tuple[int, ...], bounds: tuple, device: torch.device) -> Tensor:
    low, high = bounds
    return low + (high - low) * torch.rand(shape, device=device)


def chosen(images: Tensor, p: float) -> Tensor:
    """bool [B], true for a share ``p``, drawn per sample."""
    return torch.rand(len(images), device=images.device) < p


def check_share(name: str, p: float) -> None:
    if not 0 <= p <= 1:
        raise BadInput(f"{name}: p = {p} should lie in [0, 1]")


def check_range(name: str, option: str, bounds: tuple, low: float, high: float) -> None:
    numbers = [b for b in bounds if isinstance(b, int | float)]
    if len(bounds) != 2 or len(numbers) != 2 or not low <= bounds[0] <= bounds[1] <= high:
        limits = f"[{low}, {high}]" if high < math.inf else f"[{low}, ∞)"
        raise BadInput(f"{name}: {option} = {bounds} should be two rising numbers in {limits}")


def check_channels(name: str, task: Task) -> None:
    if task.image_shape[0] not in (1, 3):
        raise BadInput(f"{name} reads grey or RGB images, not {task.image_shape[0]} channels")


@hookimpl
def benchbench_augmentations():
    return {
        "affine": affine,
        "color_jitter": color_jitter,
        "gaussian_blur": gaussian_blur,
        "greyscale": greyscale,
        "horizontal_flip": horizontal_flip,
        "invert": invert,
        "noise": noise,
        "random_resized_crop": random_resized_crop,
        "rotation": rotation,
        "solarize": solarize,
    }
