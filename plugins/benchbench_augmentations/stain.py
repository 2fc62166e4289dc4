"""Colours of stained tissue."""

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from benchbench import BadInput, Task

# Optical density of haematoxylin, eosin and diaminobenzidine in red, green and blue: Ruifrok and
# Johnston 2001, as scikit-image has them
STAINS = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))


def stain_jitter(task: Task, *, sigma: float = 0.1, p: float = 1.0) -> Callable[[Tensor], Tensor]:
    """Each stain's density times 1 + a, plus b: a and b uniform in ±``sigma``, with probability p.

    Tellez et al. 2018 (arXiv:1808.05896), the targeted augmentation of Gao et al. 2023
    (arXiv:2302.11861) for Camelyon17. Densities are −log₁₀ of the colours, unmixed.
    """
    if task.input_shape[0] != 3:
        raise BadInput(f"stain_jitter is for images of 3 channels, not of {task.input_shape[0]}")
    if not 0 <= sigma < 10:
        raise BadInput(f"stain_jitter: sigma = {sigma} should be in [0, 10)")
    if not 0 <= p <= 1:
        raise BadInput(f"stain_jitter: p = {p} should be in [0, 1]")
    mix = torch.tensor(STAINS)
    unmix = torch.linalg.inv(mix)

    @cache
    def matrices(device: torch.device) -> tuple[Tensor, Tensor]:
        """Copied once: a copy makes the host wait for the device."""
        return unmix.to(device), mix.to(device)

    def jitter(images: Tensor) -> Tensor:
        shape = (2, len(images), 3, 1, 1)
        scale, shift = (2 * torch.rand(shape, device=images.device) - 1) * sigma
        density = -images.clamp(min=1e-6).log10()
        apart, together = matrices(images.device)
        stains = torch.einsum("bchw,cs->bshw", density, apart)
        density = torch.einsum("bshw,sc->bchw", stains * (1 + scale) + shift, together)
        hit = torch.rand(len(images), 1, 1, 1, device=images.device) < p
        return torch.where(hit, (10**-density).clamp(0, 1), images)

    return jitter
