"""Stain jitter beside a plain computation, pixel by pixel."""

import numpy as np
import pytest
import torch

from benchbench import BadInput, Task
from benchbench_augmentations.stain import STAINS, stain_jitter

TASK = Task((3, 8, 8), 2, 2)


def by_hand(image, scale, shift):
    result = np.empty_like(image)
    for y, x in np.ndindex(image.shape[1:]):
        density = -np.log10(np.maximum(image[:, y, x], 1e-6))
        stains = np.linalg.solve(np.array(STAINS).T, density)
        jittered = np.array(STAINS).T @ (stains * (1 + scale) + shift)
        result[:, y, x] = np.clip(10.0**-jittered, 0, 1)
    return result


def test_it_is_the_formula_with_parameters_of_each_image():
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    view = stain_jitter(TASK, sigma=0.2)(images)
    torch.manual_seed(0)
    scale, shift = ((2 * torch.rand(2, 4, 3, 1, 1) - 1) * 0.2)[..., 0, 0].double().numpy()
    for row in range(4):
        wanted = by_hand(images[row].double().numpy(), scale[row], shift[row])
        assert np.abs(view[row].numpy() - wanted).max() < 1e-5


def test_without_jitter_nothing_changes_and_p_says_how_often():
    images = torch.rand(400, 3, 8, 8)
    assert torch.allclose(stain_jitter(TASK, sigma=0.0)(images), images, atol=1e-5)
    torch.manual_seed(0)
    same = (stain_jitter(TASK, p=0.25)(images) == images).flatten(1).all(1)
    assert same.double().mean() == pytest.approx(0.75, abs=0.07)


def test_other_images_are_refused():
    with pytest.raises(BadInput, match="images of 3 channels, not of 1"):
        stain_jitter(Task((1, 8, 8), 2, 2))
    with pytest.raises(BadInput, match="p = 1.5 should be in"):
        stain_jitter(TASK, p=1.5)
