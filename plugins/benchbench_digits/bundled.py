"""The dataset ``digits``: three domains, made only of files that ordinary dependencies ship.

Each image is planned first, as a row that says what it is made of, and then drawn. A plan is a
function of the seed alone and holds integers; pixels are reckoned in integers too, by numpy and
Pillow: only another Pillow, with its JPEG decoder and FreeType, could shift a grey level.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from benchbench import TEST, TRAIN, VAL, BadInput, DomainData, checked_size

if TYPE_CHECKING:
    from PIL import Image

LICENCE = (
    "scans: UCI Optical Recognition of Handwritten Digits, CC BY 4.0, as scikit-learn ships them, "
    "BSD-3-Clause; photos: the same with china.jpg by danielbuechele and flower.jpg by vultilion, "
    "both CC BY 2.0; glyphs: drawn with fonts that matplotlib ships: DejaVu, Bitstream Vera "
    "licence, STIX, OFL 1.1, and Computer Modern, BaKoMa licence"
)

# What each split gets. The rarest class has 174 scans: 100 and 74 use it up.
SCANS = {TRAIN: 60, VAL: 15, TEST: 25}  # of each class, to be shown as they are
BLENDED = {TRAIN: 44, VAL: 11, TEST: 19}  # of each class, to be shown in CROPS photos each
CROPS = 6
TILES = {TRAIN: 72, VAL: 18, TEST: 30}  # of both photographs, 60 each
GLYPHS = {TRAIN: 264, VAL: 66, TEST: 114}  # of each class

PHOTOGRAPHS = ("china.jpg", "flower.jpg")  # 640 × 427 pixels
COLUMNS, ROWS = 10, 6  # of tiles in a photograph
TILE, CROP = 64, 48  # sides, in its pixels; a crop lies inside a tile

CONTRAST = 100  # least difference in luminance, out of 255, between a glyph and its paper
FONTS = {  # one typeface each, and all of its cuts that have digits
    TRAIN: (
        "DejaVuSans",
        "DejaVuSans-Bold",
        "DejaVuSans-BoldOblique",
        "DejaVuSans-Oblique",
        "DejaVuSansMono",
        "DejaVuSansMono-Bold",
        "DejaVuSansMono-BoldOblique",
        "DejaVuSansMono-Oblique",
        "DejaVuSerif",
        "DejaVuSerif-Bold",
        "DejaVuSerif-BoldItalic",
        "DejaVuSerif-Italic",
    ),
    VAL: ("STIXGeneral", "STIXGeneralBol", "STIXGeneralBolIta", "STIXGeneralItalic"),
    TEST: ("cmb10", "cmmi10", "cmr10", "cmss10", "cmti10", "cmtt10"),
}


class Scan(NamedTuple):
    label: int
    split: int
    scan: int  # its row in scikit-learn's file


class Photo(NamedTuple):
    label: int
    split: int
    scan: int
    photograph: int
    left: int  # of the crop, in the photograph's pixels
    top: int


class Glyph(NamedTuple):
    label: int
    split: int
    font: str
    degrees: int  # anticlockwise
    height: int  # in percent of the image's side, as are the next two
    right: int
    down: int
    blur: int  # a Gaussian's radius, in thousandths of the image's side
    ink: list[int]  # red, green, blue
    paper: list[int]


def digits(root: Path, *, size: int = 32, seed: int = 0) -> DomainData:
    """Handwritten and printed digits: three domains, each with ten equally large classes.

    | domain | train | val | test | what                                                       |
    |--------|-------|-----|------|------------------------------------------------------------|
    | scans  |   600 | 150 |  250 | scikit-learn's handwritten digits, light on dark           |
    | photos |  2640 | 660 | 1140 | others of them, subtracted from photographs as in MNIST-M  |
    |        |       |     |      | (Ganin et al. 2016, section 5.2.4)                         |
    | glyphs |  2640 | 660 | 1140 | matplotlib's fonts in two colours, turned, moved, blurred  |

    No two splits share a scan, a pixel of a photograph or a typeface; no two domains share a
    scan. ``units`` are the scans and the typefaces. Nothing is read from ``root``.
    """
    if checked_size(size) < 8:
        raise BadInput(f"digits(size={size}) is too small to read: the scans have 8 pixels a side")
    pixels, labels = read_scans()
    scans, blended = deal_scans(labels, seed)
    photos, glyphs = plan_photos(blended, seed), plan_glyphs(seed)

    handwritten = enlarged(pixels, size)
    drawn = chain(
        draw_scans(scans, handwritten),
        draw_photos(photos, handwritten, read_photographs(), size),
        draw_glyphs(glyphs, size),
    )
    rows: list[Scan | Photo | Glyph] = [*scans, *photos, *glyphs]
    images = np.empty((len(rows), 3, size, size), np.uint8)
    for i, image in enumerate(drawn):
        images[i] = image.transpose(2, 0, 1)
    return DomainData(
        inputs=torch.from_numpy(images),
        labels=torch.tensor([row.label for row in rows]),
        domains=torch.tensor([0] * len(scans) + [1] * len(photos) + [2] * len(glyphs)),
        class_names=tuple("0123456789"),
        domain_names=("scans", "photos", "glyphs"),
        split=torch.tensor([row.split for row in rows]),
        units=torch.tensor(
            [scan.scan for scan in scans]
            + [photo.scan for photo in photos]
            + [len(pixels) + glyph.split for glyph in glyphs]  # a split is a typeface
        ),
        licence=LICENCE,
    )


def stream(seed: int, purpose: str) -> np.random.Generator:
    """Random numbers that do not depend on what is drawn for other purposes."""
    return np.random.Generator(np.random.PCG64(list(f"{purpose}/{seed}".encode())))


def deal_scans(labels: np.ndarray, seed: int) -> tuple[list[Scan], list[Scan]]:
    """The scans to be shown as they are, and those to be blended into photographs."""
    rng = stream(seed, "scans")
    shown: list[Scan] = []
    blended: list[Scan] = []
    for label in range(10):
        deck = iter(rng.permutation(np.flatnonzero(labels == label)).tolist())
        for hand, counts in (shown, SCANS), (blended, BLENDED):
            for split, count in counts.items():
                hand += [Scan(label, split, scan) for scan in islice(deck, count)]
    return shown, blended


def plan_photos(blended: list[Scan], seed: int) -> list[Photo]:
    rng = stream(seed, "photos")
    deck = iter(rng.permutation(len(PHOTOGRAPHS) * ROWS * COLUMNS).tolist())
    tiles = {split: list(islice(deck, count)) for split, count in TILES.items()}
    photos = []
    for label, split, scan in blended:
        for tile in rng.choice(tiles[split], CROPS, replace=False).tolist():
            photograph, place = divmod(tile, ROWS * COLUMNS)
            row, column = divmod(place, COLUMNS)
            right, down = rng.integers(0, TILE - CROP, 2, endpoint=True).tolist()
            left, top = column * TILE + right, row * TILE + down
            photos.append(Photo(label, split, scan, photograph, left, top))
    return photos


def plan_glyphs(seed: int) -> list[Glyph]:
    rng = stream(seed, "glyphs")
    prints = [
        (label, split, FONTS[split][i % len(FONTS[split])])
        for label in range(10)
        for split, count in GLYPHS.items()
        for i in range(count)
    ]
    lowest, highest = (-12, 66, -4, -4, 0), (12, 78, 4, 4, 30)  # of degrees to blur
    shapes = rng.integers(lowest, highest, (len(prints), 5), endpoint=True).tolist()
    colours = two_colours(rng, len(prints)).tolist()
    return [Glyph(*p, *s, *c) for p, s, c in zip(prints, shapes, colours, strict=True)]


def two_colours(rng: np.random.Generator, n: int) -> np.ndarray:
    """Pairs [n, 2, 3] of ink and paper, drawn anew for as long as they are too alike."""
    pairs = rng.integers(0, 256, (n, 2, 3))
    while (alike := np.abs(luminance(pairs[:, 0]) - luminance(pairs[:, 1])) < CONTRAST).any():
        pairs[alike] = rng.integers(0, 256, (alike.sum(), 2, 3))
    return pairs


def luminance(colours: np.ndarray) -> np.ndarray:
    """As ITU-R BT.601 weighs red, green and blue, rounded down."""
    return colours @ (299, 587, 114) // 1000


# The next three yield each image as uint8 [size, size, 3].


def draw_scans(rows: list[Scan], handwritten: list[np.ndarray]) -> Iterator[np.ndarray]:
    for row in rows:
        yield np.repeat(handwritten[row.scan], 3, axis=2)


def draw_photos(
    rows: list[Photo], handwritten: list[np.ndarray], photographs: list[Image.Image], size: int
) -> Iterator[np.ndarray]:
    from PIL import Image

    for row in rows:
        box = (row.left, row.top, row.left + CROP, row.top + CROP)
        crop = photographs[row.photograph].crop(box)  # resize(box=box) would read around the box
        photo = np.asarray(crop.resize((size, size), Image.Resampling.BILINEAR))
        digit = handwritten[row.scan]
        yield np.maximum(photo, digit) - np.minimum(photo, digit)


def draw_glyphs(rows: list[Glyph], size: int) -> Iterator[np.ndarray]:
    from PIL import Image, ImageFilter

    side = 4 * size
    printed = {
        font: [rendered(font, label, side) for label in range(10)]
        for font in chain(*FONTS.values())
    }
    for row in rows:
        turned = printed[row.font][row.label].rotate(row.degrees)
        seen = side / 2 / (row.height / 100)  # pixels across: the digit is side / 2 high
        left = (side - seen) / 2 - seen * row.right / 100
        top = (side - seen) / 2 - seen * row.down / 100
        box = (left, top, left + seen, top + seen)
        mask = turned.resize((size, size), Image.Resampling.BOX, box)
        mask = mask.filter(ImageFilter.GaussianBlur(row.blur / 1000 * size))
        cover = np.asarray(mask, np.uint16)[:, :, None]
        ink, paper = np.array((row.ink, row.paper), np.uint16)
        yield ((cover * ink + (255 - cover) * paper + 127) // 255).astype(np.uint8)


def enlarged(scans: np.ndarray, size: int) -> list[np.ndarray]:
    """Each uint8 [size, size, 1], with a margin, from 8 × 8 values of 0 to 16."""
    from PIL import Image

    grey = (scans.astype(np.uint16) * 255 // 16).astype(np.uint8)
    framed = np.pad(grey, ((0, 0), (1, 1), (1, 1)))
    large = [Image.fromarray(f).resize((size, size), Image.Resampling.BICUBIC) for f in framed]
    return [np.asarray(image)[:, :, None] for image in large]


def rendered(font: str, label: int, side: int) -> Image.Image:
    """A digit, white on black, that fills the middle half of side × side pixels."""
    from PIL import Image, ImageDraw, ImageFont, ImageOps

    path = shipped("matplotlib", f"mpl-data/fonts/ttf/{font}.ttf")
    face = ImageFont.truetype(path, side, layout_engine=ImageFont.Layout.BASIC)
    sheet = Image.new("L", (2 * side, 2 * side))
    ImageDraw.Draw(sheet).text((side, side), str(label), fill=255, font=face, anchor="mm")
    glyph = sheet.crop(sheet.getbbox())
    return ImageOps.expand(ImageOps.pad(glyph, (side // 2, side // 2)), side // 4)


def read_scans() -> tuple[np.ndarray, np.ndarray]:
    """Values uint8 [1797, 8, 8] from 0 to 16, and labels [1797]."""
    path = shipped("sklearn", "datasets/data/digits.csv.gz")
    table = np.loadtxt(path, np.uint8, delimiter=",")
    return table[:, :64].reshape(-1, 8, 8), table[:, 64]


def read_photographs() -> list[Image.Image]:
    from PIL import Image

    photographs = []
    for name in PHOTOGRAPHS:
        with Image.open(shipped("sklearn", f"datasets/images/{name}")) as image:
            photographs.append(image.convert("RGB"))
    return photographs


def shipped(package: str, path: str) -> Path:
    """A file in an installed package, which is not imported: scikit-learn would take a second."""
    spec = find_spec(package)
    file = Path(spec.origin).parent / path if spec and spec.origin else Path(package, path)
    if not file.is_file():
        raise BadInput(f"digits needs {path}, which {package} ships, but there is no {file}")
    return file
