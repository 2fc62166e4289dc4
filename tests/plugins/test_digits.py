import hashlib
import re
from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fontTools.ttLib import TTFont
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import PathPatch
from matplotlib.textpath import TextPath
from matplotlib.transforms import Affine2D
from sklearn.datasets import load_digits, load_sample_images

from benchbench import TEST, TRAIN, VAL, BadInput
from benchbench_digits import bundled

DOMAINS = {"scans": 0, "photos": 1, "glyphs": 2}
SPLITS = (TRAIN, VAL, TEST)
TTF = Path(matplotlib.get_data_path(), "fonts/ttf")
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@pytest.fixture(scope="module")
def data():
    return bundled.digits(Path("unread"))


@pytest.fixture(scope="module")
def photos():
    labels = load_digits().target
    return bundled.plan_photos(bundled.deal_scans(labels, seed=0)[1], seed=0)


@pytest.fixture(scope="module")
def glyphs():
    return bundled.plan_glyphs(seed=0)


def enlarged_by_torch(scans: np.ndarray, size: int) -> np.ndarray:
    """[N, 1, size, size] from [N, 8, 8] in 0 to 16, with a margin; columns first, as Pillow."""
    images = F.pad(torch.from_numpy(scans.astype(int) * 255 // 16).float(), (1, 1, 1, 1))[:, None]
    for shape in (10, size), (size, size):
        images = F.interpolate(images, shape, mode="bicubic", antialias=True).round().clamp(0, 255)
    return images.numpy()


def test_each_split_of_each_domain_has_ten_classes_of_equal_size(data):
    counts = {
        (domain, split): torch.bincount(
            data.labels[(data.domains == number) & (data.split == split)], minlength=10
        ).tolist()
        for domain, number in DOMAINS.items()
        for split in SPLITS
    }
    assert counts == {
        ("scans", TRAIN): [60] * 10,
        ("scans", VAL): [15] * 10,
        ("scans", TEST): [25] * 10,
        ("photos", TRAIN): [264] * 10,
        ("photos", VAL): [66] * 10,
        ("photos", TEST): [114] * 10,
        ("glyphs", TRAIN): [264] * 10,
        ("glyphs", VAL): [66] * 10,
        ("glyphs", TEST): [114] * 10,
    }
    assert data.class_names == tuple("0123456789")
    assert data.domain_names == tuple(DOMAINS)
    assert data.inputs.shape == (9880, 3, 32, 32)
    assert data.inputs.dtype == torch.uint8


def test_no_scan_is_in_two_domains_or_on_two_sides_of_a_split(data):
    homes = [
        set(data.units[(data.domains == DOMAINS[domain]) & (data.split == split)].tolist())
        for domain in ("scans", "photos")
        for split in SPLITS
    ]
    assert [len(home) for home in homes] == [600, 150, 250, 440, 110, 190]
    assert all(one.isdisjoint(other) for one, other in combinations(homes, 2))


def test_no_scan_is_a_copy_of_another():
    assert len(np.unique(load_digits().data, axis=0)) == 1797


def test_no_group_is_on_two_sides_of_a_split(data):
    for group in data.units.unique():
        assert len(data.split[data.units == group].unique()) == 1


def test_every_image_of_scans_is_the_scan_that_its_group_names(data):
    source = load_digits()
    here = data.domains == DOMAINS["scans"]
    index = data.units[here].numpy()
    expected = enlarged_by_torch(source.images[index], 32)
    assert np.abs(data.inputs[here].numpy() - expected).max() <= 1
    assert (data.labels[here].numpy() == source.target[index]).all()


def test_every_photo_is_its_scan_subtracted_from_its_region(data, photos):
    source, photographs = load_digits(), load_sample_images().images
    here = data.domains == DOMAINS["photos"]
    index = np.array([photo.scan for photo in photos])
    assert (data.units[here].numpy() == index).all()
    assert (data.labels[here].numpy() == source.target[index]).all()
    crops = np.stack(
        [photographs[p.photograph][p.top : p.top + 48, p.left : p.left + 48] for p in photos]
    )
    crops = torch.from_numpy(crops).permute(0, 3, 1, 2).float()
    crops = F.interpolate(crops, (32, 32), mode="bilinear", antialias=True)
    digits = enlarged_by_torch(source.images[index], 32)
    assert np.abs(data.inputs[here].numpy() - np.abs(crops.numpy() - digits)).max() <= 2


def test_no_pixel_of_a_photograph_is_seen_by_two_splits(data, photos):
    seen = np.zeros((3, 2, 427, 640), bool)
    for photo in photos:
        region = seen[photo.split, photo.photograph]
        region[photo.top : photo.top + 48, photo.left : photo.left + 48] = True
    assert seen.sum(0).max() == 1
    assert seen.any((2, 3)).all()  # both photographs serve every split
    assert [photo.split for photo in photos] == data.split[data.domains == 1].tolist()


def test_no_typeface_is_used_by_two_splits(data, glyphs):
    here = data.domains == DOMAINS["glyphs"]
    assert [glyph.split for glyph in glyphs] == data.split[here].tolist()
    typefaces = {split: set() for split in SPLITS}
    for split, font in {(glyph.split, glyph.font) for glyph in glyphs}:
        family = TTFont(TTF / f"{font}.ttf")["name"].getDebugName(1)
        typefaces[split].add(re.match("DejaVu|STIX|cm", family)[0])
    assert typefaces == {TRAIN: {"DejaVu"}, VAL: {"STIX"}, TEST: {"cm"}}


def test_a_glyph_shares_its_group_with_its_typeface_and_with_no_scan(data):
    here = data.domains == DOMAINS["glyphs"]
    assert (data.units[here] == 1797 + data.split[here]).all()
    assert data.units[~here].max() < 1797


@pytest.mark.parametrize("font", [font for fonts in bundled.FONTS.values() for font in fonts])
def test_a_font_has_digits_where_the_digits_belong(font):
    characters = TTFont(TTF / f"{font}.ttf").getBestCmap()
    for label, name in enumerate(NAMES):
        assert characters[ord("0") + label] in (name, f"{name}oldstyle")


def test_every_print_is_most_like_what_matplotlib_draws_for_its_label():
    side = 64
    for font in (font for fonts in bundled.FONTS.values() for font in fonts):
        figure = Figure((10 * side / 100, side / 100), dpi=100)
        canvas = FigureCanvasAgg(figure)
        for label in range(10):
            path = TextPath((0, 0), str(label), prop=FontProperties(fname=TTF / f"{font}.ttf"))
            box = path.get_extents()
            move = Affine2D().translate(-(box.x0 + box.x1) / 2, -(box.y0 + box.y1) / 2)
            move.scale(side / 2 / max(box.width, box.height))
            move.translate(side * (label + 0.5), side / 2)
            figure.add_artist(PathPatch(path, transform=move, color="black", lw=0))
        canvas.draw()
        sheet = 255 - np.asarray(canvas.buffer_rgba())[:, :, 0].astype(int)
        theirs = np.stack(np.split(sheet, 10, axis=1))
        ours = np.stack([bundled.rendered(font, label, side) for label in range(10)])
        distances = np.abs(ours[:, None].astype(int) - theirs).sum((2, 3))
        assert (distances.argmin(1) == np.arange(10)).all()


def test_glyphs_are_as_high_and_where_their_plan_says_and_none_is_cut_off(glyphs):
    plain = [
        glyph._replace(degrees=0, blur=0, ink=[255] * 3, paper=[0] * 3) for glyph in glyphs[::5]
    ]
    for glyph, image in zip(plain, bundled.draw_glyphs(plain, 100), strict=True):
        rows, columns = (np.flatnonzero(image[:, :, 0].max(axis) > 127) for axis in (1, 0))
        extents = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert max(extents) == pytest.approx(glyph.height, abs=2)
        assert (rows[0] + rows[-1]) / 2 == pytest.approx(49.5 + glyph.down, abs=1.5)
        assert (columns[0] + columns[-1]) / 2 == pytest.approx(49.5 + glyph.right, abs=1.5)

    white = [glyph._replace(ink=[255] * 3, paper=[0] * 3) for glyph in glyphs]
    for glyph, image in zip(white, bundled.draw_glyphs(white, 32), strict=True):
        edges = (image[0], image[-1], image[:, 0], image[:, -1])
        assert max(edge.max() for edge in edges) < 128, glyph


def test_glyphs_show_their_two_colours_far_enough_apart_and_in_either_order(data, glyphs):
    weights = np.array([0.299, 0.587, 0.114])
    contrast = np.array([(np.array(g.ink) - g.paper) @ weights for g in glyphs])
    assert np.abs(contrast).min() > 99
    assert 0.45 < (contrast > 0).mean() < 0.55
    here = data.domains == DOMAINS["glyphs"]
    assert data.inputs[here][:, :, 0, 0].tolist() == [glyph.paper for glyph in glyphs]
    assert data.labels[here].tolist() == [glyph.label for glyph in glyphs]


def test_the_same_seed_gives_the_same_pixels_and_another_seed_others(data):
    again = bundled.digits(Path("elsewhere"))
    other = bundled.digits(Path("unread"), seed=1)
    for column in ("inputs", "labels", "domains", "split", "units"):
        assert torch.equal(getattr(data, column), getattr(again, column))
    for domain in DOMAINS.values():
        here = data.domains == domain
        assert not torch.equal(data.inputs[here], other.inputs[here])


def test_a_plan_is_the_same_on_every_machine(photos, glyphs):
    scans, _ = bundled.deal_scans(load_digits().target, seed=0)
    plan = repr(([*map(tuple, scans)], [*map(tuple, photos)], [*map(tuple, glyphs)]))
    assert hashlib.sha256(plan.encode()).hexdigest()[:16] == "b23eb391e0c4dbe1"


def test_another_size_shows_the_same_things(data):
    small = bundled.digits(Path("unread"), size=16)
    for column in ("labels", "domains", "split", "units"):
        assert torch.equal(getattr(data, column), getattr(small, column))
    halved = F.avg_pool2d(data.inputs.float(), 2)
    assert (halved - small.inputs).abs().mean((1, 2, 3)).max() < 20


def test_too_small_a_size_is_refused():
    with pytest.raises(BadInput, match="size=7"):
        bundled.digits(Path("unread"), size=7)


def test_a_file_that_a_package_no_longer_ships_is_named():
    with pytest.raises(BadInput, match=r"needs datasets/none\.csv, which sklearn ships, but"):
        bundled.shipped("sklearn", "datasets/none.csv")
