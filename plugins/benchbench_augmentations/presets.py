"""The augmentations of papers, under their names."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce

from torch import Tensor

from benchbench import Task
from benchbench_augmentations import simple, strong

Augment = Callable[[Tensor], Tensor]
Pair = tuple[float, float]


def in_turn(*steps: Augment) -> Augment:
    return lambda images: reduce(lambda changed, step: step(changed), steps, images)


def simclr_views(task: Task, *, scale: Pair = (0.08, 1.0), strength: float = 1.0) -> Augment:
    """SimCLR's for ImageNet (Chen et al. 2020, arXiv:2002.05709, appendix A).

    Crop, flip, jitter of 0.8, 0.8, 0.8 and 0.2 times ``strength``, grey, blur.
    """
    return in_turn(
        simple.random_resized_crop(task, scale=scale),
        simple.horizontal_flip(task),
        simple.color_jitter(task, **jitter(0.8, 0.2, strength)),
        simple.greyscale(task),
        simple.gaussian_blur(task),
    )


def moco_views(task: Task, *, scale: Pair = (0.2, 1.0), strength: float = 1.0) -> Augment:
    """MoCo v2's (Chen et al. 2020, arXiv:2003.04297): as SimCLR's, with half of its jitter."""
    return in_turn(
        simple.random_resized_crop(task, scale=scale),
        simple.color_jitter(task, **jitter(0.4, 0.1, strength)),
        simple.greyscale(task),
        simple.gaussian_blur(task),
        simple.horizontal_flip(task),
    )


def byol_views(task: Task, *, scale: Pair = (0.08, 1.0), strength: float = 1.0) -> Augment:
    """BYOL's, which Barlow Twins, VICReg and DINO share (Grill et al. 2020, arXiv:2006.07733, B).

    Both of its two kinds of view in one: half of all views are blurred, and a tenth solarized,
    where the paper blurs all of one kind and a tenth of the other, and solarizes a fifth of it.
    """
    amounts = jitter(0.4, 0.1, strength) | {"saturation": min(0.2 * strength, 1.0)}
    return in_turn(
        simple.random_resized_crop(task, scale=scale),
        simple.horizontal_flip(task),
        simple.color_jitter(task, **amounts),
        simple.greyscale(task),
        simple.gaussian_blur(task, p=0.55),
        simple.solarize(task, p=0.1),
    )


def swav_views(
    task: Task, *, scale: Pair = (0.14, 1.0), size: int | None = None, strength: float = 1.0
) -> Augment:
    """SwAV's (Caron et al. 2020, arXiv:2006.09882): SimCLR's with another crop.

    Small views are ``swav_views(scale=(0.05, 0.14), size=…)``, 96 pixels for large ones of 224.
    """
    return in_turn(
        simple.random_resized_crop(task, scale=scale, size=size),
        simple.horizontal_flip(task),
        simple.color_jitter(task, **jitter(0.8, 0.2, strength)),
        simple.greyscale(task),
        simple.gaussian_blur(task),
    )


def wilds_strong(task: Task) -> Augment:
    """The strong augmentation of WILDS (Sagawa et al. 2022, arXiv:2112.05090).

    RandAugment of two operations, and Cutout.
    """
    return in_turn(strong.randaugment(task), strong.cutout(task))


def jitter(colors: float, hue: float, strength: float) -> dict[str, float]:
    amount = min(colors * strength, 1.0)
    return {
        "brightness": amount,
        "contrast": amount,
        "saturation": amount,
        "hue": min(hue * strength, 0.5),
    }
