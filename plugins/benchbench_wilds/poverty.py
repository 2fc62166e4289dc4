"""WILDS' satellite images of villages and towns, whose wealth is a number."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchbench import TEST, TRAIN, VAL, DomainData, published
from benchbench_wilds.images import HOME
from benchbench_wilds.package import read
from benchbench_wilds.rows import Rows, coded, described

LICENCE = "public domain in the USA (LandSat, DMSP, VIIRS)"


def _rows(*, fold: str, unlabelled: bool, **_: object) -> dict[str, int]:
    if fold != "A":
        return {}
    labelled = (9_797 + 1_000 + 1_000, 3_909, 3_963)
    more = (181_948, 24_173, 55_275) if unlabelled else (0, 0, 0)
    return {n: a + b for n, a, b in zip(("train", "val", "test"), labelled, more, strict=True)}


@published(
    home=f"{HOME}/#povertymap",
    licence=LICENCE,
    files=lambda unlabelled, **_: [
        *(f"poverty_v1.1/{file}" for file in ("RELEASE_v1.1.txt", "dhs_metadata.csv", "images")),
        *(
            f"poverty_unlabeled_v1.0/{file}"
            for file in ("RELEASE_v1.0.txt", "unlabeled_metadata.csv", "images")
            if unlabelled
        ),
    ],
    rows=_rows,
)
def poverty(root: Path, *, fold: str = "A", unlabelled: bool = True, size: int = 224) -> DomainData:
    """Wealth of a place, a number, from images of eight bands (WILDS; Yeh et al. 2020).

    Domains are sets of countries, other ones in each ``fold``, A to E: ``train``, whose validation
    and test rows are id_val and id_test, ``val`` and ``test``. Groups are rural and urban places;
    its metric is the lower of their Pearson's r. ``unlabelled`` adds images of all of them for
    training. Pixels are the published ones, with mean 0 and deviation 1, divided by 8, plus ½.
    """
    data = read("poverty_dataset", "PovertyMapDataset", root, fold=fold)
    top = Path(data.data_dir)
    parts = [
        Rows(
            [f"{top.name}/images/landsat_poverty_img_{row}.npz" for row in range(len(data))],
            domains=coded(data.split_array, {0: 0, 1: 0, 2: 0, 3: 1, 4: 2}),
            split=coded(data.split_array, {0: TRAIN, 1: VAL, 2: TEST, 3: TEST, 4: TEST}),
            labels=data.y_array[:, 0].numpy(),
            groups=data.metadata_array[:, 0].numpy(),
        )
    ]
    sources = [top / "dhs_metadata.csv"]
    if unlabelled:
        more = read(
            "unlabeled.poverty_unlabeled_dataset", "PovertyMapUnlabeledDataset", root, fold=fold
        )
        folder = Path(more.data_dir)
        paths = [f"{folder.name}/images/landsat_poverty_img_{row}.npz" for row in range(len(more))]
        sets = coded(more.split_array, {10: 0, 11: 1, 12: 2})
        parts.append(Rows(paths, sets, np.full(len(paths), TRAIN)))
        sources.append(folder / "unlabeled_metadata.csv")
    return described(
        root,
        size,
        parts,
        class_names=(),
        domain_names=("train", "val", "test"),
        group_names=("rural", "urban"),
        metric="worst_group_pearson",
        licence=LICENCE,
        sources=sources,
        reader=bands,
        channels=8,
    )


def bands(path: Path) -> np.ndarray:
    """float32 [8, H, W], mostly in [0, 1]."""
    with np.load(path, allow_pickle=False) as file:
        return np.asarray(file["x"], np.float32) / 8 + 0.5
