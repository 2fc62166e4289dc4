"""Every operation against torchvision's, image by image; what is drawn against its distribution."""

import colorsys
import inspect
import math
from functools import partial

import pytest
import torch
import torchvision.transforms.v2 as T
import torchvision.transforms.v2.functional as reference
from torchvision.transforms import InterpolationMode

from benchbench import BadInput, Task
from benchbench_augmentations import benchbench_augmentations, operations
from benchbench_augmentations.simple import draw_boxes
from benchbench_augmentations.strong import autocontrast, operations_at

SHAPES = [(1, 32, 32), (3, 32, 32), (3, 64, 48), (3, 7, 10)]
FACTORIES = benchbench_augmentations()
WITH_P = sorted(n for n, f in FACTORIES.items() if "p" in inspect.signature(f).parameters)
BILINEAR = InterpolationMode.BILINEAR


def build(name, shape=(3, 32, 32), **options):
    return FACTORIES[name](Task(shape, 2, 2), **options)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def make_images(n, shape, seed=0):
    """Noise, of every second image in three levels only: black, white, grey and equal channels."""
    images = torch.rand(n, *shape, generator=generator(seed))
    images[::2] = (images[::2] * 3).floor() / 2
    return images


def between(low, high, n, seed=0):
    return torch.empty(n).uniform_(low, high, generator=generator(seed))


def each(operation, images, *parameters):
    """The reference, which takes one image and numbers, on every image."""
    rows = zip(images, *(p.tolist() for p in parameters), strict=True)
    return torch.stack([operation(image, *numbers) for image, *numbers in rows])


def assert_close(ours, theirs, atol=1e-5):
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() <= atol


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """The images here are so small that threads, on a busy machine, take most of the time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def watch(monkeypatch):
    """``watch(*names)`` returns a list that every call of those operations joins from then on."""
    calls = []

    def record(name, operation, images, *args, **kwargs):
        calls.append((name, [*args, *kwargs.values()]))
        return operation(images, *args, **kwargs)

    def watch(*names):
        for name in names:
            watched = partial(record, name, getattr(operations, name))
            monkeypatch.setattr(operations, name, watched)
        return calls

    return watch


# Operations


@pytest.mark.parametrize("size", [None, 12, 40])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_crops_are_torchvisions(shape, size):
    height, width = shape[1:]
    wanted_size = (height, width) if size is None else (size, size)
    boxes = [
        (0, 0, height, width),
        (0, 0, 1, width),  # one pixel high
        (height - 1, 0, 1, width),
        (2, width - 1, height - 2, 1),  # one pixel wide
        (3, 4, 1, 1),
        (0, 1, 2, 3),
        (1, 0, height - 1, width - 1),
    ]
    tall = torch.randint(1, height + 1, (30,), generator=generator(1))
    wide = torch.randint(1, width + 1, (30,), generator=generator(2))
    top = (between(0, 1, 30) * (height + 1 - tall)).long()
    left = (between(0, 1, 30, seed=3) * (width + 1 - wide)).long()
    boxes = torch.cat([torch.tensor(boxes), torch.stack([top, left, tall, wide], 1)]).T
    images = make_images(boxes.shape[1], shape)
    wanted = each(
        lambda *a: reference.resized_crop(*a, list(wanted_size), BILINEAR, antialias=True),
        images,
        *boxes,
    )
    assert_close(operations.resized_crop(images, *boxes, wanted_size), wanted)


def test_the_whole_image_as_a_box_changes_nothing():
    images = make_images(2, (3, 64, 48))
    zero = torch.zeros(2)
    whole = zero, zero, zero + 64, zero + 48
    assert torch.equal(operations.resized_crop(images, *whole, (64, 48)), images)


@pytest.mark.parametrize("kernel_size", [3, 5, 9, 13])  # 13 reaches from border to border of 7
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_blurs_are_torchvisions(shape, kernel_size):
    sigma = torch.cat([torch.tensor([0.01, 0.1, 2.0, 50.0]), between(0.1, 3, 12)])
    images = make_images(len(sigma), shape)
    wanted = each(lambda x, s: reference.gaussian_blur(x, kernel_size, s), images, sigma)
    assert_close(operations.gaussian_blur(images, sigma, kernel_size), wanted)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "sharpness"])
def test_brightness_contrast_saturation_and_sharpness_are_torchvisions(name, shape):
    factor = torch.cat([torch.tensor([0.0, 1.0, 2.0]), between(0, 2, 21)])
    images = make_images(len(factor), shape)
    wanted = each(getattr(reference, f"adjust_{name}"), images, factor)
    assert_close(getattr(operations, f"adjust_{name}")(images, factor), wanted)


@pytest.mark.parametrize("shape", SHAPES[1:], ids=str)
def test_hues_are_torchvisions(shape):
    sixths = torch.arange(-3, 4) / 6
    turn = torch.cat([sixths, sixths, between(-0.5, 0.5, 26)])  # from -0.5 to 0.5
    images = make_images(len(turn), shape)
    assert_close(operations.adjust_hue(images, turn), each(reference.adjust_hue, images, turn))


def maps():
    """Angle, right, down, scale and shear of 40 affine maps: alone, then together."""
    still, one = torch.zeros(8), torch.ones(8)
    angle = torch.tensor([0.0, 90, 180, -90, 45, -180, 1, 30])
    right, down = between(-5, 5, 8), between(-9, 9, 8, seed=1)
    scale, shear = between(0.3, 2, 8), between(-60, 60, 8)
    cases = [
        (angle, still, still, one, still),
        (still, right, down, one, still),
        (still, still, still, scale, still),
        (still, still, still, one, shear),
        (angle, right, down, scale, shear.flip(0) / 2),
    ]
    return [torch.cat(parts) for parts in zip(*cases, strict=True)]


def their_affine(image, angle, right, down, scale, shear):
    return reference.affine(image, angle, [right, down], scale, [shear, 0.0], BILINEAR)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_affine_maps_are_torchvisions(shape):
    images = make_images(40, shape)
    ours = operations.affine(images, *maps(), fill=0.0, edge=False)
    assert_close(ours, each(their_affine, images, *maps()), 2e-5)


@pytest.mark.parametrize(
    ("beyond", "padding"),
    [
        ({"fill": 0.3, "edge": False}, {"fill": [0.3]}),
        ({"fill": 1.0, "edge": False}, {"fill": [1.0]}),
        ({"fill": 0.3, "edge": True}, {"padding_mode": "edge"}),
    ],
    ids=str,
)
def test_beyond_the_image_lies_the_fill_or_the_border_repeated(beyond, padding):
    """As on a larger canvas, cut back: torchvision's own fill counts a border's share twice."""

    def on_a_larger_canvas(image, *parameters):
        moved = their_affine(reference.pad(image, 100, **padding), *parameters)
        return reference.center_crop(moved, image.shape[1:])

    images = make_images(40, (3, 24, 32))
    ours = operations.affine(images, *maps(), **beyond)
    assert_close(ours, each(on_a_larger_canvas, images, *maps()), 5e-5)


def test_quarter_turns_move_pixels_and_mix_none():
    images, still = make_images(2, (3, 32, 32)), torch.zeros(2)
    for turns in range(-2, 3):
        turned = operations.affine(
            images, still + 90 * turns, still, still, still + 1, still, fill=0.0, edge=False
        )
        assert_close(turned, images.rot90(-turns, (2, 3)))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(
    ("name", "options", "theirs"),
    [
        ("horizontal_flip", {}, reference.horizontal_flip),
        ("invert", {}, reference.invert),
        ("solarize", {"threshold": 0.5}, lambda x: reference.solarize(x, 0.5)),
        ("solarize", {"threshold": 0.9}, lambda x: reference.solarize(x, 0.9)),
        ("greyscale", {}, lambda x: reference.rgb_to_grayscale(x, len(x))),
    ],
)
def test_what_has_no_parameters_is_torchvisions(name, options, theirs, shape):
    images = make_images(6, shape)
    assert_close(build(name, shape, p=1.0, **options)(images), each(theirs, images))


RAND_AUGMENT = T.RandAugment(interpolation=BILINEAR)
NAMES = [
    "Identity", "ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color",
    "Contrast", "Sharpness", "Posterize", "Solarize", "AutoContrast", "Equalize",
]  # fmt: skip


def theirs_of_two_ways(name, magnitude, image):
    """What torchvision's RandAugment does at a magnitude, with either sign where it has one."""
    magnitudes, signed = RAND_AUGMENT._AUGMENTATION_SPACE[name]
    strengths = magnitudes(31, *image.shape[1:])
    strength = 0.0 if strengths is None else float(strengths[magnitude])
    return [
        RAND_AUGMENT._apply_image_or_video_transform(
            image, name, way * strength, BILINEAR, {torch.Tensor: None}
        )
        for way in ((1, -1) if signed else (1,))
    ]


@pytest.mark.parametrize("magnitude", [0, 9, 30])
@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("Shear")])
def test_operations_of_randaugment_are_torchvisions(name, magnitude):
    """But for shears, which are about the corner there and about the centre here."""
    torch.manual_seed(0)
    images = (make_images(6, (3, 24, 32)) * 255).round().to(torch.uint8)
    step = operations_at(magnitude / 30, 24, 32, fill=0.0)[NAMES.index(name)]
    ours = (step(images.float() / 255) * 255).round()
    for image, mine in zip(images, ours, strict=True):
        both = [wanted.float() for wanted in theirs_of_two_ways(name, magnitude, image)]
        assert min((mine - wanted).abs().max() for wanted in both) <= 2.01  # it rounds twice


@pytest.mark.parametrize("channels", [1, 3])
def test_contrast_is_stretched_as_torchvision_does_bit_for_bit(channels):
    images = make_images(6, (channels, 24, 32)) * 0.7 + 0.1
    images[1], images[2, 0], images[3] = 0.25, 0.5, 0.0
    assert torch.equal(autocontrast(images), reference.autocontrast(images))


@pytest.mark.parametrize("way", [1, -1])
def test_shears_of_randaugment_slide_rows_or_columns_by_the_tangent(way, monkeypatch):
    monkeypatch.setattr(
        "benchbench_augmentations.strong.sign", lambda x: torch.full((len(x),), float(way))
    )
    along_rows, along_columns = operations_at(1.0, 21, 21, fill=0.0)[1:3]
    line = torch.zeros(1, 1, 21, 21)
    line[..., 10] = 1  # upright
    moved = along_rows(line)[0, 0]
    centre = (moved * torch.arange(21)).sum(1) / moved.sum(1)
    slope = (centre[15] - centre[5]) / 10
    assert slope.abs() == pytest.approx(0.3, abs=0.01)
    assert_close(along_columns(line.mT).mT, along_rows(line))


# What is drawn


@pytest.mark.parametrize("n", [1, 3])
def test_randaugment_deals_out_its_operations_evenly(n, monkeypatch):
    """Operation k adds 100 ** k, so that a result tells which were applied."""
    steps = [lambda x, k=k: x + 4.0**k for k in range(14)]
    monkeypatch.setattr("benchbench_augmentations.strong.operations_at", lambda *args: steps)
    torch.manual_seed(0)
    applied = torch.zeros(14)
    augment = build("randaugment", (3, 1, 1), n=n)
    for _ in range(50):
        values = augment(torch.zeros(28, 3, 1, 1, dtype=torch.float64))[:, 0, 0, 0].long()
        digits = torch.stack([values // 4**k % 4 for k in range(14)], 1)
        assert (digits.sum(1) == n).all()
        if n == 1:
            assert (digits.sum(0) == 2).all()
        applied += digits.sum(0)
    assert applied.std() < 0.1 * applied.mean()
    few = torch.stack([augment(torch.zeros(3, 3, 1, 1))[:, 0, 0, 0] for _ in range(300)])
    assert len(few.unique()) >= 14


def test_a_cut_square_has_the_size_asked_for_and_may_jut_out():
    torch.manual_seed(0)
    black = (build("cutout", size=0.5, fill=1.0)(torch.zeros(4000, 3, 32, 32)) == 1)[:, 0]
    heights, widths = black.any(2).sum(1), black.any(1).sum(1)
    assert torch.equal(black.sum((1, 2)), heights * widths)
    assert heights.max() == 16 and heights.min() in (7, 8) and widths.max() == 16
    assert heights.float().mean() == pytest.approx(14, abs=0.2)  # 16 but for what juts out
    assert black[:, 0, 0].any() and black[:, 16, 16].any()


PRESETS = sorted(name for name in FACTORIES if name.endswith("_views") or name == "wilds_strong")


@pytest.mark.parametrize("name", PRESETS)
def test_presets_work_on_colour_images_of_any_shape(name):
    torch.manual_seed(0)
    view = build(name, (3, 40, 24))(make_images(5, (3, 40, 24)))
    assert view.shape == (5, 3, 40, 24) and view.min() >= 0 and view.max() <= 1


def test_small_views_are_squares_of_the_size_asked_for():
    view = build("swav_views", scale=(0.05, 0.14), size=12)(make_images(5, (3, 40, 24)))
    assert view.shape == (5, 3, 12, 12)


def test_the_presets_jitter_as_their_papers_say(watch):
    strengths = {}
    for name in ("simclr_views", "moco_views", "byol_views"):
        calls = watch("adjust_brightness", "adjust_saturation", "adjust_hue")
        torch.manual_seed(0)
        build(name, (3, 2, 2))(torch.zeros(20_000, 3, 2, 2))
        jitters = {}
        for operation, (factor,) in calls:
            jitters.setdefault(operation, factor)
        strengths[name] = [
            round((factor - (0 if "hue" in operation else 1)).abs().max().item(), 2)
            for operation, factor in sorted(jitters.items())
        ]
        calls.clear()
    assert strengths == {
        "simclr_views": [0.8, 0.2, 0.8],
        "moco_views": [0.4, 0.1, 0.4],
        "byol_views": [0.4, 0.1, 0.2],
    }


@pytest.mark.parametrize(
    ("size", "scale", "ratio"),
    [
        ((32, 32), (0.2, 1.0), (3 / 4, 4 / 3)),
        ((32, 32), (0.08, 0.3), (0.5, 0.6)),
        ((64, 48), (0.2, 1.0), (3 / 4, 4 / 3)),
        ((16, 80), (0.5, 1.0), (3 / 4, 4 / 3)),  # tries often fail
    ],
)
def test_boxes_are_spread_as_torchvisions(size, scale, ratio):
    torch.manual_seed(0)
    images = torch.zeros(20_000, 1, *size)
    ours = torch.stack(draw_boxes(images, scale, ratio), 1)
    crop = T.RandomResizedCrop(size, scale, ratio)
    boxes = [crop.make_params([images[0]]) for _ in range(1500)]
    theirs = torch.tensor([[b["top"], b["left"], b["height"], b["width"]] for b in boxes])
    for mine, other in zip(ours.T, theirs.float().T, strict=True):
        error = other.std() / math.sqrt(len(other))
        assert abs(mine.mean() - other.mean()) <= 4 * error + 1e-6
        assert mine.std() == pytest.approx(other.std().item(), rel=0.1, abs=1e-6)


def test_boxes_have_the_area_and_ratio_asked_for_and_lie_inside():
    torch.manual_seed(0)
    top, left, height, width = draw_boxes(torch.zeros(20_000, 1, 96, 96), (0.2, 0.6), (0.5, 2.0))
    area = height * width / 96**2
    assert area.min() > 0.19 and area.max() < 0.61
    assert area.mean() == pytest.approx(0.4, abs=0.01)
    assert (width / height).log().mean() == pytest.approx(0, abs=0.01)
    assert top.min() == left.min() == 0
    assert (top + height).max() == (left + width).max() == 96
    for values in (top, left, height, width):
        assert torch.equal(values, values.round())


@pytest.mark.parametrize("size", [(8, 64), (64, 8), (7, 64), (64, 7)])
def test_where_no_box_fits_it_is_torchvisions_central_one(size):
    images, scale, ratio = torch.zeros(3, 1, *size), (1.0, 1.0), (3 / 4, 4 / 3)
    wanted = T.RandomResizedCrop(size, scale, ratio).make_params([images[0]])
    wanted = [wanted[key] for key in ("top", "left", "height", "width")]
    assert torch.stack(draw_boxes(images, scale, ratio), 1).tolist() == [wanted] * 3


JITTER = {"brightness": 0.4, "contrast": 0.3, "saturation": 0.8, "hue": 0.1}


def test_jitter_factors_are_uniform_in_all_four_ways_or_neutral_in_all_four(watch):
    calls = watch(*(f"adjust_{name}" for name in JITTER))
    torch.manual_seed(0)
    build("color_jitter", p=0.75, **JITTER)(torch.zeros(20_000, 3, 1, 1))
    factors = {name.removeprefix("adjust_"): factor for name, (factor,) in calls}
    assert factors.keys() == JITTER.keys()
    offsets = torch.stack([factors[n] - int(n != "hue") for n in JITTER], 1)
    changed = offsets.any(1)
    assert changed.float().mean() == pytest.approx(0.75, abs=0.01)
    assert offsets[changed].all()
    shares = offsets[changed] / torch.tensor([*JITTER.values()])
    assert shares.abs().max() <= 1.00001
    quartiles = shares.quantile(torch.tensor([0.25, 0.5, 0.75]), 0)
    assert_close(quartiles, torch.tensor([[-0.5], [0], [0.5]]).expand(3, 4), 0.03)


def test_the_order_of_the_jitter_varies_from_batch_to_batch(watch):
    calls = watch(*(f"adjust_{name}" for name in JITTER))
    torch.manual_seed(0)
    jitter = build("color_jitter")
    for _ in range(50):
        jitter(torch.zeros(1, 3, 1, 1))
    names = [name for name, _ in calls]
    orders = {tuple(names[start : start + 4]) for start in range(0, 200, 4)}
    assert len(orders) > 15  # of 24
    assert all(len(set(order)) == 4 for order in orders)


def test_of_a_grey_image_brightness_and_contrast_alone_are_jittered(watch):
    calls = watch(*(f"adjust_{name}" for name in JITTER))
    build("color_jitter", (1, 4, 4))(make_images(2, (1, 4, 4)))
    assert {name for name, _ in calls} == {"adjust_brightness", "adjust_contrast"}


def test_a_strength_of_nothing_is_no_work(watch):
    calls = watch(*(f"adjust_{name}" for name in JITTER))
    images = make_images(2, (3, 4, 4))
    assert torch.equal(build("color_jitter", **dict.fromkeys(JITTER, 0.0))(images), images)
    assert not calls


@pytest.mark.parametrize(
    ("shape", "kernel_size"),
    [
        ((3, 2, 2), 3),
        ((3, 32, 32), 3),
        ((3, 64, 64), 7),
        ((3, 96, 64), 7),
        ((3, 96, 96), 9),
        ((3, 224, 224), 23),
    ],
)
def test_the_kernel_of_the_blur_is_an_odd_tenth_of_the_shorter_side(shape, kernel_size, watch):
    calls = watch("gaussian_blur")
    build("gaussian_blur", shape)(torch.zeros(1, *shape))
    ((_, (_, used)),) = calls
    assert used == kernel_size


def test_the_width_of_the_blur_is_uniform_where_chosen(watch):
    calls = watch("gaussian_blur")
    torch.manual_seed(0)
    build("gaussian_blur", (1, 2, 2), sigma=(0.5, 2.5), p=0.3)(torch.zeros(20_000, 1, 2, 2))
    ((_, (sigma, _)),) = calls
    assert len(sigma) / 20_000 == pytest.approx(0.3, abs=0.01)
    assert sigma.min() >= 0.5 and sigma.max() <= 2.5
    assert sigma.mean() == pytest.approx(1.5, abs=0.03)


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (3, 9, 17)])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_only_the_chosen_images_are_changed_and_as_all_of_them_would_be(shape, share):
    """On a CPU the others are not computed: the same, bit for bit, as changing every image."""
    images, sigma = make_images(24, shape), torch.linspace(0.1, 2.0, 24)
    chosen = torch.rand(24, generator=torch.Generator().manual_seed(1)) < share
    for change, parameters in (
        (lambda some: some.flip(3), ()),
        (lambda some: operations.grey(some).expand_as(some), ()),
        (lambda some, sigma: operations.gaussian_blur(some, sigma, 3), (sigma,)),
    ):
        before = images.clone()
        found = operations.change_where(chosen, images, change, *parameters)
        every = change(images, *parameters)
        wanted = torch.stack([e if c else i for c, e, i in zip(chosen, every, images, strict=True)])
        assert torch.equal(found, wanted) and torch.equal(images, before)


def test_the_hue_where_channels_tie_is_that_of_the_first_highest():
    """Every pixel whose channels are of five levels, by the definition of HSV, in float64."""
    levels = torch.linspace(0, 1, 5)
    pixels = torch.cartesian_prod(levels, levels, levels)  # [125, 3]
    turns = torch.linspace(-0.5, 0.5, 11)
    images = pixels.T.reshape(1, 3, 25, 5).expand(11, 3, 25, 5)
    found = operations.adjust_hue(images, turns)
    hsv = [colorsys.rgb_to_hsv(*pixel) for pixel in pixels.tolist()]
    wanted = [[colorsys.hsv_to_rgb((h + t) % 1, s, v) for h, s, v in hsv] for t in turns.tolist()]
    assert_close(found.flatten(2).mT, torch.tensor(wanted))


def test_affine_parameters_are_uniform_and_shifts_whole_pixels(watch):
    calls = watch("affine")
    torch.manual_seed(0)
    options = {"degrees": 40.0, "translate": 0.25, "scale": (0.5, 2.0), "shear": 10.0}
    build("affine", (1, 4, 40), **options)(torch.zeros(20_000, 1, 4, 40))
    ((_, (angle, right, down, scale, shear, *_)),) = calls
    for values, low, high in (
        (angle, -40, 40), (right, -10, 10), (down, -1, 1), (scale, 0.5, 2), (shear, -10, 10),
    ):  # fmt: skip
        assert low <= values.min() <= low + 0.05 and high - 0.05 <= values.max() <= high
        assert values.mean() == pytest.approx((low + high) / 2, abs=(high - low) / 100)
    assert torch.equal(right, right.round()) and torch.equal(down, down.round())


def test_a_rotation_is_an_affine_map_with_an_angle_alone(watch):
    calls = watch("affine")
    images = make_images(9, (3, 8, 8))
    build("rotation", degrees=90.0)(images)
    ((_, (angle, right, down, scale, shear, fill, edge)),) = calls
    assert angle.unique().numel() == 9 and angle.abs().max() <= 90
    assert not any(values.any() for values in (right, down, shear)) and (scale == 1).all()
    assert (fill, edge) == (0.0, False)


def test_the_deviation_of_the_noise_is_drawn_for_each_image():
    torch.manual_seed(0)
    grey = torch.full((2000, 1, 16, 16), 0.5)
    noisy = build("noise", (1, 16, 16), std=(0.05, 0.1))(grey) - grey
    deviation = noisy.std((1, 2, 3))
    assert 0.04 < deviation.min() < 0.055 and 0.095 < deviation.max() < 0.115
    assert deviation.mean() == pytest.approx(0.075, abs=0.001)
    assert noisy.mean() == pytest.approx(0, abs=0.001)


# What every augmentation keeps to


@pytest.mark.parametrize("name", WITH_P)
def test_p_is_the_share_of_images_that_change(name):
    images = make_images(400, (3, 8, 8))
    for p, tolerance in ((0.0, 0), (0.3, 0.07), (1.0, 0.07)):  # the least of blurs is none
        torch.manual_seed(0)
        change = (build(name, (3, 8, 8), p=p)(images) - images).abs().amax((1, 2, 3))
        assert (change > 1e-5).float().mean() == pytest.approx(p, abs=tolerance)


@pytest.mark.parametrize("shape", [(1, 12, 8), (3, 8, 12), (3, 32, 32)], ids=str)
@pytest.mark.parametrize("name", FACTORIES)
def test_a_view_is_new_and_has_the_shape_and_range_of_the_batch(name, shape):
    if name == "stain_jitter" and shape[0] == 1:
        pytest.skip("stains have three channels")
    torch.manual_seed(0)
    images = make_images(64, shape)
    images[:2], images[2:4] = 0, 1
    before = images.clone()
    view = build(name, shape)(images)
    assert torch.equal(images, before)
    assert view.shape == images.shape and view.dtype == torch.float32
    assert view.min() >= 0 and view.max() <= 1


@pytest.mark.parametrize("name", FACTORIES)
def test_equal_images_in_a_batch_get_views_of_their_own(name):
    torch.manual_seed(0)
    images = make_images(2, (3, 8, 8))[1:].expand(32, -1, -1, -1)
    assert len(build(name)(images).unique(dim=0)) > 1


@pytest.mark.parametrize("name", FACTORIES)
def test_the_seed_of_torch_settles_the_view(name):
    images, views = make_images(32, (3, 8, 8)), []
    augment = build(name)
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        views.append(augment(images))
    assert torch.equal(views[0], views[1]) and not torch.equal(views[0], views[2])


@pytest.mark.parametrize("name", FACTORIES)
def test_nothing_is_read_back_from_the_device(name):
    """On the device "meta" there are no values, so to look at one is an error."""
    images = torch.zeros(4, 3, 32, 32, device="meta")
    assert build(name)(images).shape == images.shape


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, {"p": p}) for name in WITH_P for p in (-0.1, 1.1, math.nan)),
        ("random_resized_crop", {"size": 0}),
        ("randaugment", {"n": 0}),
        ("randaugment", {"magnitude": 31}),
        ("randaugment", {"fill": 1.5}),
        ("cutout", {"size": 1.5}),
        ("random_resized_crop", {"scale": (0.5, 0.2)}),
        ("random_resized_crop", {"scale": (0.5, 1.2)}),
        ("random_resized_crop", {"scale": (0.5,)}),
        ("random_resized_crop", {"scale": ("0.5", "1")}),
        ("random_resized_crop", {"ratio": (0.0, 1.0)}),
        ("random_resized_crop", {"ratio": (1.0, math.inf)}),
        ("color_jitter", {"brightness": -0.1}),
        ("color_jitter", {"contrast": 1.1}),
        ("color_jitter", {"saturation": math.nan}),
        ("color_jitter", {"hue": 0.6}),
        ("gaussian_blur", {"sigma": (0.0, 1.0)}),
        ("gaussian_blur", {"sigma": (2.0, 1.0)}),
        ("gaussian_blur", {"kernel_size": 4}),
        ("gaussian_blur", {"kernel_size": 1}),
        ("gaussian_blur", {"kernel_size": 65}),
        ("gaussian_blur", {"kernel_size": "3"}),
        ("solarize", {"threshold": 1.5}),
        ("noise", {"std": (-0.1, 0.1)}),
        ("affine", {"degrees": 181.0}),
        ("affine", {"translate": -0.1}),
        ("affine", {"scale": (0.0, 1.0)}),
        ("affine", {"shear": 90.0}),
        ("affine", {"fill": 2.0}),
        ("rotation", {"degrees": -1.0}),
    ],
)
def test_an_option_out_of_range_is_refused_in_one_sentence(name, options):
    (option,) = options
    with pytest.raises(BadInput, match=rf"^{name}: {option} = .* should be [^\n]*$"):
        build(name, **options)


@pytest.mark.parametrize("name", ["color_jitter", "greyscale"])
def test_colours_need_one_channel_or_three(name):
    with pytest.raises(BadInput, match=f"{name} is for images of 1 or 3 channels, not of 8"):
        build(name, (8, 32, 32))


def test_an_image_of_one_pixel_cannot_be_blurred():
    with pytest.raises(BadInput, match="kernel_size = 3 should be odd, at least 3 and below 2"):
        build("gaussian_blur", (3, 1, 1))
