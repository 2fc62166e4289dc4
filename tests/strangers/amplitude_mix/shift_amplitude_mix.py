"""An augmentation that lends images the colours and textures of others."""

import torch

from benchbench import hookimpl

benchbench_api = ">=1.0,<2"
benchbench_expected_failures = {
    "amplitude_mix": {
        "rows_apart": "it mixes the rows of a batch",
        "per_sample": "equal images have nothing to lend each other",
    }
}


class AmplitudeMix:
    """An image's Fourier phase with an amplitude between its own and another's (2105.11120)."""

    def __init__(self, task, *, strength=0.5):
        self.strength = strength

    def __call__(self, images):
        spectrum = torch.fft.rfft2(images)
        other = spectrum[torch.randperm(len(images), device=images.device)].abs()
        ratio = self.strength * torch.rand(len(images), 1, 1, 1, device=images.device)
        amplitude = torch.lerp(spectrum.abs(), other, ratio)
        mixed = torch.fft.irfft2(torch.polar(amplitude, spectrum.angle()), s=images.shape[2:])
        return mixed.clamp(0, 1)


@hookimpl
def benchbench_augmentations():
    return {"amplitude_mix": AmplitudeMix}
