"""Photographs in folders, as the benchmarks of domain adaptation and generalisation lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from benchbench import (
    UNKNOWN,
    BadInput,
    DomainData,
    ImageFiles,
    check_links,
    checked_size,
    published,
    tell_skipped,
)
from benchbench_files.tree import check_homes, classes_of, walk

Factory = Callable[..., DomainData]


@dataclass(frozen=True)
class Layout:
    """Where a benchmark's images lie, and how many there are."""

    title: str
    home: str
    licence: str
    folders: Mapping[str, str]  # of a domain: where its folders of classes lie
    classes: int
    rows: Mapping[str, int]  # as its authors count; {} where copies that are in use differ


def read(root: Path, layout: Layout, size: int) -> DomainData:
    """The split is left to be drawn, within each domain and class."""
    checked_size(size)
    top = Path(root)
    images: dict[str, str] = {}  # the path of each, and where it really lies
    rows: list[tuple[str, str]] = []  # domain, class
    sources: list[Path] = []
    skipped: list[str] = []
    for domain, place in layout.folders.items():
        found = walk(top / place)
        sources += [top / place, *(top / place / name for name in found.folders)]
        skipped += [f"{place}/{path}" for path in found.skipped]
        for image, real in found.images.items():
            if image.count("/") != 1:
                raise BadInput(f"images below {root}/{place} must lie at class/image: {image}")
            images[f"{place}/{image}"] = real
            rows.append((domain, image.partition("/")[0]))
        check_homes(top / place, [name for name in found.folders if "/" not in name], found)
    domains, classes = list(layout.folders), classes_of(top, {name for _, name in rows})
    if len(classes) != layout.classes:
        listed = ", ".join(classes[:5])
        raise BadInput(
            f"{layout.title} has {layout.classes} classes, but {root} has {len(classes)}: "
            f"{listed} …"
        )
    check_links(top, images)
    tell_skipped(skipped, top)
    index = {name: number for number, name in enumerate(classes)}
    return DomainData(
        ImageFiles(top, tuple(images), size),
        labels=torch.tensor([index.get(name, UNKNOWN) for _, name in rows]),
        domains=torch.tensor([domains.index(domain) for domain, _ in rows]),
        class_names=tuple(classes),
        domain_names=tuple(domains),
        licence=layout.licence,
        sources=tuple(sources),
    )


def laid_out(layout: Layout) -> Callable[[Factory], Factory]:
    return published(
        home=layout.home,
        licence=layout.licence,
        files=list(layout.folders.values()),
        rows=layout.rows,
    )


def below(top: str, *names: str, inner: str = "") -> dict[str, str]:
    return {name: f"{top}/{name}{inner}" for name in names}


OFFICE31 = Layout(
    "Office-31",
    "https://faculty.cc.gatech.edu/~judy/domainadapt/",
    "none stated; research",
    below("office31", "amazon", "dslr", "webcam", inner="/images"),
    31,
    {"amazon": 2_817, "dslr": 498, "webcam": 795},
)


@laid_out(OFFICE31)
def office31(root: Path, *, size: int = 224) -> DomainData:
    """Office-31: office objects in photographs of a shop, two cameras (Saenko et al. 2010)."""
    return read(root, OFFICE31, size)


OFFICE_HOME = Layout(
    "Office-Home",
    "https://www.hemanthdv.org/officeHomeDataset.html",
    "research and education, not commercial",
    below("OfficeHomeDataset_10072016", "Art", "Clipart", "Product", "Real World"),
    65,
    {"Art": 2_427, "Clipart": 4_365, "Product": 4_439, "Real World": 4_357},
)


@laid_out(OFFICE_HOME)
def office_home(root: Path, *, size: int = 224) -> DomainData:
    """Office-Home: objects of office and home in four styles (Venkateswara et al. 2017)."""
    return read(root, OFFICE_HOME, size)


PACS = Layout(
    "PACS",
    "https://github.com/facebookresearch/DomainBed",
    "none stated; research",
    below("PACS", "art_painting", "cartoon", "photo", "sketch"),
    7,
    {"art_painting": 2_048, "cartoon": 2_344, "photo": 1_670, "sketch": 3_929},
)


@laid_out(PACS)
def pacs(root: Path, *, size: int = 224) -> DomainData:
    """PACS: seven classes in four styles (Li et al. 2017)."""
    return read(root, PACS, size)


VLCS = Layout(
    "VLCS",
    "https://github.com/facebookresearch/DomainBed",
    "none stated; research",
    below("VLCS", "Caltech101", "LabelMe", "SUN09", "VOC2007"),
    5,
    {"Caltech101": 1_415, "LabelMe": 2_656, "SUN09": 3_282, "VOC2007": 3_376},
)


@laid_out(VLCS)
def vlcs(root: Path, *, size: int = 224) -> DomainData:
    """VLCS: five classes of four older datasets (Fang et al. 2013)."""
    return read(root, VLCS, size)


TERRA = Layout(
    "Terra Incognita",
    "https://github.com/facebookresearch/DomainBed",
    "CDLA-Permissive 1.0",
    below("terra_incognita", "location_100", "location_38", "location_43", "location_46"),
    10,
    {},
)


@laid_out(TERRA)
def terra_incognita(root: Path, *, size: int = 224) -> DomainData:
    """Terra Incognita: animals at four camera traps (Beery et al. 2018, as DomainBed takes it)."""
    return read(root, TERRA, size)


VISDA = Layout(
    "VisDA-2017",
    "https://github.com/VisionLearningGroup/taskcv-2017-public",
    "research",
    below("visda2017", "train", "validation"),
    12,
    {"train": 152_397, "validation": 55_388},
)


@laid_out(VISDA)
def visda2017(root: Path, *, size: int = 224) -> DomainData:
    """VisDA-2017: twelve classes, rendered and photographed (Peng et al. 2017)."""
    return read(root, VISDA, size)


LAYOUTS = {
    office31: OFFICE31,
    office_home: OFFICE_HOME,
    pacs: PACS,
    vlcs: VLCS,
    terra_incognita: TERRA,
    visda2017: VISDA,
}
