"""Checks of datasets. Where a dataset's files are not there, they are skipped, saying so."""

import hashlib

import torch
from torch import Tensor

from benchbench.data.pack import Pack
from benchbench.extension.conformance.fixtures import Broken, Skip, Subject
from benchbench.extension.constants import NO_CLASS, TEST, TRAIN, UNKNOWN, UNLABELLED, VAL
from benchbench.extension.contracts import DomainData, ImageFiles, is_known
from benchbench.extension.errors import BadInput

NAMES = {TRAIN: "train", VAL: "val", TEST: "test"}


def contract(subject: Subject) -> None:
    """DomainData with images [N, C, H, W] or texts [N, L], and columns with values in range."""
    try:
        data = subject.data
        if not isinstance(data, DomainData):
            raise Broken(f"the factory returns {type(data).__name__}, not benchbench.DomainData")
        if not isinstance(data.inputs, ImageFiles | Tensor):
            kind = type(data.inputs).__name__
            raise Broken(f"inputs are {kind}; give a tensor or benchbench.ImageFiles")
        pack = subject.packed(data)
    except BadInput as error:
        raise Broken(f"{error}") from None
    if pack.task.modality == "image":
        c, h, w = pack.inputs.shape[1:]
        if c > 16 >= w:
            said = f"images are of {c} channels, {h} × {w}"
            raise Broken(f"{said}: permute(0, 3, 1, 2) to [N, C, H, W]")
    if len(pack.labels) == 0:
        raise Broken("it has no rows")


def same_twice(subject: Subject) -> None:
    """Built twice it is the same, row for row."""
    again = subject.packed(subject.build(subject.root))
    if again.fingerprint != subject.pack.fingerprint:
        raise Broken(
            "built twice it differs; sort what the file system lists, and draw from a generator "
            "seeded by an option"
        )


def splits(subject: Subject) -> None:
    """A domain has labelled rows for training and validation, another for test.

    No domain is without rows, and no test row without label.
    """
    pack = subject.pack
    if len(pack.domain_names) < 2:
        raise Broken("it has one domain; a shift needs two")
    labelled: dict[int, list[str]] = {split: [] for split in NAMES}
    for name in pack.domain_names:
        if not any(len(pack.rows(name, split)) for split in NAMES):
            raise Broken(f"domain {name!r} has no rows; leave its name out")
        for split, domains in labelled.items():
            if len(pack.with_label(pack.rows(name, split))):
                domains.append(name)
        if not is_known(pack.labels[pack.rows(name, TEST)]).all():
            raise Broken(f"domain {name!r} has test rows without label; use them for training")
    sources = set(labelled[TRAIN]) & set(labelled[VAL])
    if not any(set(labelled[TEST]) - {name} for name in sources):
        lacking = [NAMES[split] for split in (TRAIN, VAL, TEST) if not labelled[split]]
        raise Broken(
            f"no domain has {' or '.join(lacking) or 'both train and val'} rows with labels; "
            "leave split out to have it drawn"
        )


def classes(subject: Subject) -> None:
    """Every class has a name and, in every domain with labels, training rows."""
    pack = subject.pack
    if not pack.class_names:
        raise Skip("its labels are numbers")
    named = [name.strip() for name in pack.class_names]
    if len(set(named)) < len(named) or not all(named):
        raise Broken(f"class_names = {pack.class_names} are not all named, or not all different")
    if unknown := [name for name in named if name.lower() in (*UNLABELLED, *NO_CLASS)]:
        raise Broken(f"{unknown[0]!r} is no class; give rows without label the label UNKNOWN")
    for name in pack.domain_names:
        labels = pack.labels[pack.rows(name, TRAIN)]
        found = set(labels.tolist()) - {UNKNOWN}
        lacking = [pack.class_names[k] for k in range(len(named)) if k not in found]
        if found and lacking:
            raise Broken(
                f"domain {name!r} has no training rows of class {lacking[0]!r}, and could not be "
                "a source; leave out classes that domains do not share"
            )


def domains(subject: Subject) -> None:
    """Every domain has a name, and does not give its rows' class away."""
    pack = subject.pack
    names = [name.strip() for name in pack.domain_names]
    if len(set(names)) < len(names) or not all(names):
        raise Broken(f"domain_names = {pack.domain_names} are not all named, or not all different")
    if odd := [name for name in names if set(name) & set(">+,=")]:
        raise Broken(f"domain {odd[0]!r} cannot be written in a shift; leave > + , = out")
    for name in pack.domain_names:
        labels = pack.labels[pack.with_label(pack.rows(name, TRAIN))]
        if len(labels.unique()) == 1 and len(pack.class_names) > 1:
            raise Broken(
                f"all rows of domain {name!r} are of one class: who reads domains reads labels; "
                "a domain is where an image is from, not what it shows"
            )


def no_row_twice(subject: Subject) -> None:
    """No image is in two splits, nor in two domains."""
    pack = subject.pack
    seen: dict[bytes, int] = {}
    for row, image in enumerate(pack.inputs):
        digest = hashlib.sha256(image.contiguous().numpy().data).digest()
        first = seen.setdefault(digest, row)
        same = pack.split[row] == pack.split[first] and pack.domains[row] == pack.domains[first]
        if not same:
            raise Broken(
                f"rows {first} ({place(pack, first)}) and {row} ({place(pack, row)}) are the same; "
                "drop one, or give both one unit and let the core draw the split"
            )


def place(pack: Pack, row: int) -> str:
    return f"{pack.domain_names[int(pack.domains[row])]}, {NAMES[int(pack.split[row])]}"


def units_apart(subject: Subject) -> None:
    """Rows of one unit (a patient, a camera, a scan) are on one side of a split it brings."""
    data = subject.data
    if data.units is None or data.split is None:
        raise Skip("it has no units" if data.units is None else "the core draws its split")
    for unit in data.units[data.units >= 0].unique().tolist():
        sides = data.split[data.units == unit].unique().tolist()
        if len(sides) > 1:
            words = " and ".join(NAMES[side] for side in sides)
            raise Broken(f"unit {unit} is in {words}; keep a unit on one side")


def not_blank(subject: Subject) -> None:
    """Inputs are not all alike, nor black because floats in [0, 1] were cut to integers."""
    images = subject.pack.inputs[:: max(1, len(subject.pack.inputs) // 200)]
    if images.dtype == torch.uint8 and int(images.max()) <= 1:
        raise Broken("no pixel is above 1 of 255; multiply by 255 before .to(torch.uint8)")
    if (images == images[:1]).all():
        raise Broken("all rows are the same")


def licence(subject: Subject) -> None:
    """It says under what licence its images are: every record repeats it."""
    if subject.data.licence.strip().lower() in ("", "unknown", "none"):
        raise Broken(
            "it states no licence; set DomainData(licence=…), or say whose images they are"
        )


CHECKS = (
    contract,
    same_twice,
    splits,
    classes,
    domains,
    no_row_twice,
    units_apart,
    not_blank,
    licence,
)
