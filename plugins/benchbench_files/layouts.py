"""Photographs in folders, as the benchmarks of domain adaptation and generalisation lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from benchbench import BadInput, DomainData, ImageFiles, published
from benchbench_files.tree import walk


@dataclass(frozen=True)
class Layout:
    """Where a benchmark's images lie, and how many there are."""

    summary: str
    home: str
    licence: str
    folders: Mapping[str, str]  # of a domain: where its folders of classes lie
    classes: int
    rows: Mapping[str, int]  # as its authors count; {} where copies that are in use differ


def factory(layout: Layout) -> Callable[..., DomainData]:
    @published(
        home=layout.home,
        licence=layout.licence,
        files=list(layout.folders.values()),
        rows=layout.rows,
    )
    def load(root: Path, *, size: int = 224) -> DomainData:
        found: list[tuple[str, str, str]] = []  # path, domain, class
        sources: list[Path] = []
        for domain, place in layout.folders.items():
            folders, images = walk(Path(root) / place)
            sources += [Path(root) / place, *(Path(root) / place / name for name in folders)]
            for image in images:
                if image.count("/") != 1:
                    raise BadInput(f"images below {root}/{place} must lie at class/image: {image}")
                found.append((f"{place}/{image}", domain, image.partition("/")[0]))
        domains, classes = list(layout.folders), sorted({name for _, _, name in found})
        if len(classes) != layout.classes:
            name, listed = layout.summary.partition(":")[0], ", ".join(classes[:5])
            raise BadInput(
                f"{name} has {layout.classes} classes, but {root} has {len(classes)}: {listed} …"
            )
        return DomainData(
            ImageFiles(Path(root), tuple(path for path, _, _ in found), size),
            labels=torch.tensor([classes.index(name) for _, _, name in found]),
            domains=torch.tensor([domains.index(domain) for _, domain, _ in found]),
            class_names=tuple(classes),
            domain_names=tuple(domains),
            licence=layout.licence,
            sources=tuple(sources),
        )

    load.__doc__ = layout.summary + "\n\nThe split is drawn, within each domain and class."
    return load


def below(top: str, *names: str, inner: str = "") -> dict[str, str]:
    return {name: f"{top}/{name}{inner}" for name in names}


LAYOUTS = {
    "office31": Layout(
        "Office-31: office objects in photographs of a shop, two cameras (Saenko et al. 2010).",
        "https://faculty.cc.gatech.edu/~judy/domainadapt/",
        "none stated; research",
        below("office31", "amazon", "dslr", "webcam", inner="/images"),
        31,
        {"amazon": 2_817, "dslr": 498, "webcam": 795},
    ),
    "office_home": Layout(
        "Office-Home: objects of office and home in four styles (Venkateswara et al. 2017).",
        "https://www.hemanthdv.org/officeHomeDataset.html",
        "research and education, not commercial",
        below("OfficeHomeDataset_10072016", "Art", "Clipart", "Product", "Real World"),
        65,
        {"Art": 2_427, "Clipart": 4_365, "Product": 4_439, "Real World": 4_357},
    ),
    "pacs": Layout(
        "PACS: seven classes in four styles (Li et al. 2017).",
        "https://github.com/facebookresearch/DomainBed",
        "none stated; research",
        below("PACS", "art_painting", "cartoon", "photo", "sketch"),
        7,
        {"art_painting": 2_048, "cartoon": 2_344, "photo": 1_670, "sketch": 3_929},
    ),
    "vlcs": Layout(
        "VLCS: five classes of four older datasets (Fang et al. 2013).",
        "https://github.com/facebookresearch/DomainBed",
        "none stated; research",
        below("VLCS", "Caltech101", "LabelMe", "SUN09", "VOC2007"),
        5,
        {"Caltech101": 1_415, "LabelMe": 2_656, "SUN09": 3_282, "VOC2007": 3_376},
    ),
    "terra_incognita": Layout(
        "Terra Incognita: animals at four camera traps (Beery et al. 2018, as DomainBed takes it).",
        "https://github.com/facebookresearch/DomainBed",
        "CDLA-Permissive 1.0",
        {
            f"location_{number}": f"terra_incognita/location_{number}"
            for number in (100, 38, 43, 46)
        },
        10,
        {},
    ),
    "visda2017": Layout(
        "VisDA-2017: twelve classes, rendered and photographed (Peng et al. 2017).",
        "https://github.com/VisionLearningGroup/taskcv-2017-public",
        "research",
        below("visda2017", "train", "validation"),
        12,
        {"train": 152_397, "validation": 55_388},
    ),
}

DATASETS = {name: factory(layout) for name, layout in LAYOUTS.items()}
