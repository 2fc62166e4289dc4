"""Augmentations of batches on their device: simple ones, strong ones, and those of papers."""

from collections.abc import Callable

from torch import Tensor

from benchbench import hookimpl
from benchbench_augmentations import presets, simple, stain, strong

OFFERED = (
    simple.affine,
    simple.color_jitter,
    simple.gaussian_blur,
    simple.greyscale,
    simple.horizontal_flip,
    simple.invert,
    simple.noise,
    simple.random_resized_crop,
    simple.rotation,
    simple.solarize,
    stain.stain_jitter,
    strong.cutout,
    strong.randaugment,
    presets.byol_views,
    presets.moco_views,
    presets.simclr_views,
    presets.swav_views,
    presets.wilds_strong,
)


@hookimpl
def benchbench_augmentations() -> dict[str, Callable[..., Callable[[Tensor], Tensor]]]:
    return {factory.__name__: factory for factory in OFFERED}
