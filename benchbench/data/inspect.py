"""What a person or a test wants to know of prepared data."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from benchbench.contracts import as_read
from benchbench.data.encoded import SUFFIX
from benchbench.data.pack import Pack
from benchbench.data.prepare import changed_file, pixels_in
from benchbench.store import Store
from benchbench.terms import TEST, TRAIN, UNKNOWN, VAL, derive_seed

MARGIN, LINE = 6, 14  # pixels of a sheet: between images, and of a line of text


def counts(pack: Pack) -> list[tuple[str, int, int, int, int, int]]:
    """Of every domain: labelled rows for training, unlabelled ones, val, test, and classes."""
    found = []
    for name in pack.domain_names:
        known = {s: pack.with_label(pack.rows(name, s)) for s in (TRAIN, VAL, TEST)}
        sizes = {split: len(rows) for split, rows in known.items()}
        classes = pack.labels[torch.cat([*known.values()])].unique() if pack.class_names else ()
        hidden = len(pack.rows(name, TRAIN)) - sizes[TRAIN]
        found.append((name, sizes[TRAIN], hidden, sizes[VAL], sizes[TEST], len(classes)))
    return found


def miscounted(pack: Pack, expected: Mapping[str, int]) -> list[str]:
    """A sentence for every domain that has not the published number of rows."""
    faults = []
    for name, wanted in expected.items():
        found = 0
        if name in pack.domain_names:
            found = int((pack.domains == pack.domain_names.index(name)).sum())
        if found != wanted:
            faults.append(f"domain {name!r} has {found:,} rows, its authors have {wanted:,}")
    return faults


def lonely(pack: Pack) -> list[str]:
    """A sentence for every class that has labelled rows in one domain alone."""
    told = []
    for number, name in enumerate(pack.class_names):
        homes = pack.domains[pack.labels == number].unique().tolist()
        if len(homes) == 1 and len(pack.domain_names) > 1:
            told.append(f"class {name!r} has rows in domain {pack.domain_names[homes[0]]!r} alone")
    return told


def ailments(store: Store, data: Path) -> list[str]:
    """What is wrong with the store's packs and the data folder, a sentence each."""
    faults = []
    if not data.is_dir():
        faults.append(f"there is no folder {data}, where datasets that are files would lie")
    pixels = pixels_in(store)
    for left in sorted(pixels.glob("*.decoding")):
        faults.append(f"{left} was not decoded to its end; prepare its dataset again, or delete it")
    used = set()
    for place in sorted((store.root / "packs").glob("*.safetensors")):
        kept = store.read("packs", place.stem)
        if kept is None:
            faults.append(f"{place} is damaged; it is prepared anew when it is needed")
            continue
        used.add(kept.note["pixels"])
        if changed := changed_file(kept.note["files"]):
            faults.append(f"{changed} has changed since {kept.note['dataset']} was prepared")
        if not (pixels / kept.note["pixels"]).exists():
            faults.append(f"the pixels of {kept.note['dataset']} are gone; prepare it again")
    kept_files = [*pixels.glob("*.npy"), *pixels.glob(f"*{SUFFIX}")]
    for lost in sorted(p for p in kept_files if p.name not in used and ".starts" not in p.name):
        size = lost.stat().st_size / 1e6
        faults.append(f"{lost}, {size:,.0f} MB, belongs to no dataset as it is now; delete it")
    return faults


def contact_sheet(
    pack: Pack,
    augment: Callable[[Tensor], Tensor] | None,
    classes: int,
    images: int,
    views: int,
    seed: int,
) -> Image.Image:
    """A row for each of the first ``classes``, in each domain ``images`` drawn from all splits.

    With ``augment``, an image is followed by its ``views``, below it. Rows without label come last.
    """
    side = max(pack.inputs.shape[2:])
    tall = 1 + (views if augment else 0)
    labels = [*range(min(classes, len(pack.class_names)))]
    labels += [UNKNOWN] if (pack.labels == UNKNOWN).any() else []
    wide = images * side + MARGIN
    gutter = 8 + 6 * max(len(name_of(pack, label)) for label in labels)
    height = tall * side + MARGIN
    sheet = Image.new(
        "RGB",
        (gutter + wide * len(pack.domain_names), LINE + height * len(labels)),
        "white",
    )
    pen = ImageDraw.Draw(sheet)
    for column, domain in enumerate(pack.domain_names):
        pen.text((gutter + wide * column, 1), domain, fill="black")
    for line, label in enumerate(labels):
        top = LINE + height * line
        pen.text((4, top), name_of(pack, label), fill="black")
        for column in range(len(pack.domain_names)):
            rows = ((pack.labels == label) & (pack.domains == column)).nonzero().flatten()
            generator = torch.Generator().manual_seed(derive_seed(seed, "sheet", line, column))
            rows = rows[torch.randperm(len(rows), generator=generator)[:images]]
            if not len(rows):
                continue
            pixels = as_read(pack.inputs[rows])
            stacked = [pixels]
            if augment:
                torch.manual_seed(derive_seed(seed, "sheet", line, column, "views"))
                stacked += [augment(pixels) for _ in range(views)]
            for down, batch in enumerate(stacked):
                for right, image in enumerate(batch):
                    place = (gutter + wide * column + right * side, top + down * side)
                    sheet.paste(picture(image), place)
    return sheet


def name_of(pack: Pack, label: int) -> str:
    return "no label" if label == UNKNOWN else pack.class_names[label]


def picture(image: Tensor) -> Image.Image:
    """Of float [C, H, W] in [0, 1]; of other than one or three channels, the first."""
    channels = image if image.shape[0] == 3 else image[:1].expand(3, -1, -1)
    array = channels.mul(255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0)
    return Image.fromarray(array.contiguous().numpy())
