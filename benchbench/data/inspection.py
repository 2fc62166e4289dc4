"""What a person or a test wants to know of prepared data."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from benchbench.data.encoded_images import SUFFIX
from benchbench.data.pack import Pack
from benchbench.data.preparation import changed_file, pixels_in
from benchbench.extension.constants import PADDING, TEST, TRAIN, VAL
from benchbench.extension.contracts import as_read, is_known
from benchbench.store.artifacts import Store
from benchbench.training.seeds import derive_seed

MARGIN, LINE = 6, 14  # pixels of a sheet: between images, and of a line of text
PAGE = (320, 52)  # pixels of a text: width, height


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


def without_label(pack: Pack) -> list[str]:
    """A sentence for every domain without labels, or with rows that serve nothing for want of one.

    Such are rows that a dataset's own split has for validation or test.
    """
    told = []
    for number, name in enumerate(pack.domain_names):
        rows = (pack.domains == number) & ~is_known(pack.labels)
        if name not in pack.labelled_domains:
            told.append(f"domain {name!r} has no labels: it can be neither source nor target")
        elif idle := int((rows & (pack.split != TRAIN)).sum()):
            told.append(
                f"domain {name!r}: validation and test rows without a label, which serve nothing: "
                f"{idle:,}"
            )
    return told


def lonely(pack: Pack) -> list[str]:
    """A sentence for every class with labelled rows in one domain alone, of several with some."""
    told = []
    for number, name in enumerate(pack.class_names):
        homes = pack.domains[pack.labels == number].unique().tolist()
        if len(homes) == 1 and len(pack.labelled_domains) > 1:
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
    inputs: int,
    views: int,
    seed: int,
) -> Image.Image:
    """A row for each of the first ``classes``, in each domain ``inputs`` drawn from all splits.

    With ``augment``, an image or text is followed by its ``views``, below it. Rows without label
    come last; labels that are numbers are shown by thirds.
    """
    width, height = PAGE if pack.vocabulary else (pack.inputs.shape[3], pack.inputs.shape[2])
    tall = 1 + (views if augment else 0)
    lines = lines_of(pack, classes)
    wide = inputs * width + MARGIN
    gutter = 8 + 6 * max(len(name) for name, _ in lines)
    deep = tall * height + MARGIN
    sheet = Image.new(
        "RGB", (gutter + wide * len(pack.domain_names), LINE + deep * len(lines)), "white"
    )
    pen = ImageDraw.Draw(sheet)
    for column, domain in enumerate(pack.domain_names):
        pen.text((gutter + wide * column, 1), domain, fill="black")
    for line, (name, members) in enumerate(lines):
        top = LINE + deep * line
        pen.text((4, top), name, fill="black")
        for column in range(len(pack.domain_names)):
            rows = (members & (pack.domains == column)).nonzero().flatten()
            generator = torch.Generator().manual_seed(derive_seed(seed, "sheet", line, column))
            rows = rows[torch.randperm(len(rows), generator=generator)[:inputs]]
            if not len(rows):
                continue
            batch = as_read(pack.inputs[rows])
            stacked = [batch]
            if augment:
                torch.manual_seed(derive_seed(seed, "sheet", line, column, "views"))
                stacked += [augment(batch) for _ in range(views)]
            for down, seen in enumerate(stacked):
                for right, one in enumerate(seen):
                    place = (gutter + wide * column + right * width, top + down * height)
                    drawn = page(one, pack.vocabulary) if pack.vocabulary else picture(one)
                    sheet.paste(drawn, place)
    return sheet


def lines_of(pack: Pack, classes: int) -> list[tuple[str, Tensor]]:
    """What the rows of a sheet are called, and which of the pack's rows, bool [N], they show."""
    known = is_known(pack.labels)
    if pack.class_names:
        lines = [(name, pack.labels == k) for k, name in enumerate(pack.class_names[:classes])]
    elif not known.any():
        lines = []
    else:
        low, high = pack.labels[known].quantile(torch.tensor([1 / 3, 2 / 3])).tolist()
        middle = known & (pack.labels > low) & (pack.labels <= high)
        lines = [
            (f"up to {low:.3g}", known & (pack.labels <= low)),
            (f"up to {high:.3g}", middle),
            ("above", known & (pack.labels > high)),
        ]
    return lines if known.all() else [*lines, ("no label", ~known)]


def picture(image: Tensor) -> Image.Image:
    """Of float [C, H, W] in [0, 1]; of other than one or three channels, the first."""
    channels = image if image.shape[0] == 3 else image[:1].expand(3, -1, -1)
    array = channels.mul(255).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0)
    return Image.fromarray(array.contiguous().numpy())


def page(tokens: Tensor, vocabulary: Sequence[str]) -> Image.Image:
    """Of int64 [L]: as many of its words as have room."""
    text = " ".join(vocabulary[token] for token in tokens.tolist() if token != PADDING)
    paper = Image.new("RGB", PAGE, "white")
    lines = textwrap.wrap(text, PAGE[0] // 6 - 2)
    fit = (PAGE[1] - 4) // 12
    ImageDraw.Draw(paper).text((2, 0), "\n".join(lines[:fit]), fill="black", spacing=2)
    return paper
