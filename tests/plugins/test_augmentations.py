"""Batched augmentations against torchvision's operations, image by image."""

import math

import pytest
import torch
import torchvision.transforms.v2.functional as reference
from torchvision.transforms import InterpolationMode

from benchbench import BadInput, Task
from benchbench_augmentations import benchbench_augmentations
from benchbench_augmentations import operations as do

FACTORIES = benchbench_augmentations()
LEVEL = 1 / 255


@pytest.fixture
def images():
    """Twelve images with black, white, grey and saturated spots."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(12, 3, 24, 36, generator=generator)
    x[:, :, :3] = 0
    x[:, :, 3:6] = 1
    x[:, :, 6:9] = x[:, :1, 6:9]
    x[:, 0, 9:12], x[:, 1:, 9:12] = 1, 0
    return x


def each(function, images, *parameters):
    """A torchvision operation on one image at a time."""
    return torch.stack([function(x, *(p[i] for p in parameters)) for i, x in enumerate(images)])


def close(ours, theirs, tolerance=1e-5):
    return torch.allclose(ours, theirs, atol=tolerance, rtol=0)


BOXES = [  # top, left, height, width in an image of 24 × 36
    (0, 0, 24, 36), (5, 7, 1, 9), (3, 35, 20, 1), (23, 35, 1, 1), (0, 0, 12, 36), (4, 6, 7, 5),
    (1, 2, 23, 30), (10, 0, 14, 18), (0, 18, 24, 18), (6, 6, 12, 12), (2, 3, 19, 31), (8, 9, 2, 3),
]  # fmt: skip


def test_crops_agree(images):
    boxes = torch.tensor(BOXES).unbind(1)
    theirs = each(
        lambda x, top, left, h, w: reference.resized_crop(
            x, top.item(), left.item(), h.item(), w.item(), [24, 36], antialias=True
        ),
        images,
        *boxes,
    )
    assert close(do.resized_crop(images, *boxes), theirs)


@pytest.mark.parametrize(
    ("ours", "theirs", "factors"),
    [
        (do.adjust_brightness, reference.adjust_brightness, (0.0, 2.0)),
        (do.adjust_contrast, reference.adjust_contrast, (0.0, 2.0)),
        (do.adjust_saturation, reference.adjust_saturation, (0.0, 2.0)),
        (do.adjust_hue, reference.adjust_hue, (-0.5, 0.5)),
    ],
    ids=["brightness", "contrast", "saturation", "hue"],
)
def test_colours_agree(images, ours, theirs, factors):
    factor = torch.linspace(*factors, 12)
    assert close(ours(images, factor), each(lambda x, f: theirs(x, f.item()), images, factor), 1e-4)


def test_grey_agrees_and_a_grey_image_is_its_own(images):
    theirs = reference.rgb_to_grayscale(images)
    assert close(do.luma(images), theirs)
    assert do.luma(theirs) is theirs


@pytest.mark.parametrize("kernel_size", [3, 5, 9])
def test_blur_agrees(images, kernel_size):
    sigma = torch.linspace(0.1, 3.0, 12)
    theirs = each(
        lambda x, s: reference.gaussian_blur(x, [kernel_size] * 2, [s.item()] * 2), images, sigma
    )
    assert close(do.gaussian_blur(images, sigma, kernel_size), theirs)


@pytest.mark.parametrize("threshold", [0.0, 0.3, 1.0])
def test_solarize_agrees(images, threshold):
    assert close(do.solarize(images, threshold), reference.solarize(images, threshold))


def test_flips_agree(images):
    flipped = torch.arange(12) % 2 == 0
    theirs = each(lambda x, f: reference.horizontal_flip(x) if f else x, images, flipped)
    assert torch.equal(do.horizontal_flip(images, flipped), theirs)


def test_affine_maps_agree(images):
    degrees = torch.tensor([0.0, 90, 180, -90, 33, -7, 0, 0, 12, -40, 5, 71])
    translate = torch.tensor([[0, 0], [0, 0], [3, 0], [0, -4], [5, 2], [0, 0], [7, 7], [0, 0],
                              [-3, 5], [1, 1], [-9, 0], [2, -2]])  # fmt: skip
    scale = torch.tensor([1.0, 1, 1, 1, 1, 0.5, 1, 2, 1.3, 0.8, 1.1, 0.9])
    shear = torch.tensor([0.0, 0, 0, 0, 0, 0, 0, 20, -15, 10, 5, -30])
    theirs = each(
        lambda x, d, t, s, h: reference.affine(
            x, d.item(), t.tolist(), s.item(), [h.item(), 0.0], InterpolationMode.BILINEAR
        ),
        images,
        degrees,
        translate,
        scale,
        shear,
    )
    ours = do.affine(images, degrees, translate.float(), scale, shear, "zeros")
    assert close(ours, theirs, LEVEL / 4)


def test_boxes_are_drawn_as_torchvision_draws_them(monkeypatch):
    boxes = []
    monkeypatch.setattr(do, "resized_crop", lambda x, *box: boxes.append(torch.stack(box, 1)) or x)
    images = torch.zeros(20_000, 3, 24, 36)
    torch.manual_seed(0)
    FACTORIES["random_resized_crop"](Task((3, 24, 36), 2, 2), scale=(0.2, 0.6))(images)
    top, left, height, width = boxes[0].unbind(1)
    area = height * width / (24 * 36)
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + height <= 24).all() and (left + width <= 36).all()
    assert area.mean().item() == pytest.approx(0.4, abs=0.01)
    assert area.min() > 0.17 and area.max() < 0.64  # whole pixels
    assert (width / height).log().mean().item() == pytest.approx(0, abs=0.02)
    assert (top / (24 - height)).nanmean().item() == pytest.approx(0.5, abs=0.02)


def test_a_box_that_never_fits_is_the_largest_central_one():
    task = Task((3, 8, 80), 2, 2)
    images = torch.rand(4, 3, 8, 80)
    view = FACTORIES["random_resized_crop"](task, scale=(1.0, 1.0))(images)
    theirs = reference.resized_crop(images, 0, 34, 8, 11, [8, 80], antialias=True)
    assert close(view, theirs) or close(
        view, reference.resized_crop(images, 0, 35, 8, 11, [8, 80], antialias=True)
    )


CALLS = [(name, shape) for name in FACTORIES for shape in ((3, 16, 16), (1, 16, 16), (3, 20, 14))]


@pytest.mark.parametrize(("name", "shape"), CALLS)
def test_the_contract_holds(name, shape):
    augment = FACTORIES[name](Task(shape, 2, 2))
    images = torch.rand(64, *shape)
    before = images.clone()
    views = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        views.append(augment(images))
    assert torch.equal(images, before), "changed in place"
    assert views[0].shape == images.shape and views[0].dtype == torch.float32
    assert views[0].min() >= 0 and views[0].max() <= 1
    assert torch.equal(views[0], views[1])
    if not (name == "greyscale" and shape[0] == 1):
        assert not torch.equal(views[0], views[2])


@pytest.mark.parametrize("name", [n for n in FACTORIES if n != "greyscale"])
def test_equal_images_get_different_views(name):
    torch.manual_seed(0)
    images = torch.rand(1, 3, 16, 16).expand(64, -1, -1, -1)
    views = FACTORIES[name](Task((3, 16, 16), 2, 2))(images)
    assert len(views.flatten(1).unique(dim=0)) > 1


@pytest.mark.parametrize(
    "name", ["horizontal_flip", "color_jitter", "greyscale", "gaussian_blur", "solarize", "invert",
             "affine", "rotation"]
)  # fmt: skip
def test_a_share_of_none_changes_nothing_and_of_one_changes_all(name):
    task, images = Task((3, 16, 16), 2, 2), torch.rand(200, 3, 16, 16)
    assert close(FACTORIES[name](task, p=0.0)(images), images)
    sharp = {"sigma": (0.5, 2.0)} if name == "gaussian_blur" else {}
    changed = (FACTORIES[name](task, p=1.0, **sharp)(images) - images).abs().amax((1, 2, 3)) > 1e-4
    assert changed.all()
    some = (FACTORIES[name](task, p=0.5)(images) - images).abs().amax((1, 2, 3)) > 1e-4
    assert 0.3 < some.float().mean() < 0.7


def test_noise_has_the_spread_that_was_asked_for():
    images = torch.full((2000, 1, 16, 16), 0.5)
    torch.manual_seed(0)
    spread = FACTORIES["noise"](Task((1, 16, 16), 2, 2), std=(0.02, 0.1))(images).std((1, 2, 3))
    assert spread.mean().item() == pytest.approx(0.06, abs=0.003)
    assert spread.min() > 0.015 and spread.max() < 0.12


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("random_resized_crop", {"scale": (0.5, 0.2)}),
        ("random_resized_crop", {"scale": (0.5, 1.2)}),
        ("random_resized_crop", {"ratio": (1.0,)}),
        ("horizontal_flip", {"p": 1.5}),
        ("color_jitter", {"brightness": -1.0}),
        ("color_jitter", {"hue": 0.7}),
        ("gaussian_blur", {"sigma": (-1.0, 1.0)}),
        ("noise", {"std": ("a", "b")}),
        ("affine", {"padding": "mirror"}),
    ],
)
def test_impossible_options_are_refused(name, options):
    (option,) = options
    with pytest.raises(BadInput, match=f"{name}: {option} = "):
        FACTORIES[name](Task((3, 16, 16), 2, 2), **options)


def test_colour_operations_refuse_images_without_colour_channels():
    with pytest.raises(BadInput, match="reads grey or RGB images, not 8 channels"):
        FACTORIES["color_jitter"](Task((8, 16, 16), 2, 2))


@pytest.mark.gpu
@pytest.mark.parametrize("name", FACTORIES)
def test_on_a_gpu_nothing_waits_for_the_host(name):
    augment = FACTORIES[name](Task((3, 16, 16), 2, 2))
    images = torch.rand(64, 3, 16, 16, device="cuda")
    augment(images)
    torch.cuda.set_sync_debug_mode("error")
    try:
        view = augment(images)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert view.device == images.device and math.isfinite(view.sum().item())
