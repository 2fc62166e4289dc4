"""A dataset made by a formula: in which direction do the stripes run?"""

import torch

from benchbench import DomainData, hookimpl

CLASSES, DOMAINS = ("level", "upright", "rising"), ("fine", "coarse")


def stripes(root, *, rows=120, seed=0):
    """Stripes in noise: the class is their direction, the domain how wide they are."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.arange(rows * len(CLASSES) * len(DOMAINS))
    labels, domains = index % len(CLASSES), index // len(CLASSES) % len(DOMAINS)
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    along = torch.stack([y, x, x + y])[labels] / (1 + domains)[:, None, None]
    phase = torch.rand(len(index), 1, 1, generator=generator)
    images = 127 + 80 * torch.sin(1.5 * along + 6.28 * phase)
    images = images[:, None].repeat(1, 3, 1, 1)
    images += 20 * torch.randn(images.shape, generator=generator)
    images = images.clamp(0, 255).to(torch.uint8)
    return DomainData(images, labels, domains, CLASSES, DOMAINS, licence="CC0: a formula")


@hookimpl
def benchbench_datasets():
    return {"stripes": stripes}
