"""WILDS' images of groups whose shares change: a background or a sex that goes with the class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchbench import TEST, TRAIN, VAL, DomainData, published
from benchbench_wilds.package import read
from benchbench_wilds.rows import Rows, coded, described


@published(
    home="https://github.com/kohpangwei/group_DRO",
    licence="research and teaching, not commercial",
    files=[f"waterbirds_v1.0/{file}" for file in ("RELEASE_v1.0.txt", "metadata.csv")],
    rows={"train": 4_795 + 1_199, "test": 5_794},
)
def waterbirds(root: Path, *, size: int = 224) -> DomainData:
    """Land and water birds, mostly before their own background (Sagawa et al. 2020).

    ``train`` and its validation rows go with the background, ``test`` is balanced. Groups are class
    and background; its metric is the accuracy of the worst.
    """
    data = read("waterbirds_dataset", "WaterbirdsDataset", root)
    names = [
        f"{bird} on {place}" for bird in ("landbird", "waterbird") for place in ("land", "water")
    ]
    return _by_group(root, size, data, "", ("landbird", "waterbird"), names)


@published(
    home="https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
    licence="research, not commercial",
    files=[
        f"celebA_v1.0/{file}"
        for file in (
            *("RELEASE_v1.0.txt", "list_attr_celeba.csv", "list_eval_partition.csv"),
            "img_align_celeba",
        )
    ],
    rows={"train": 162_770 + 19_867, "test": 19_962},
)
def celeba(root: Path, *, size: int = 224) -> DomainData:
    """Blond hair or not, mostly of women (Liu et al. 2015, as Sagawa et al. 2020 use it).

    Groups are class and sex, as the attribute says it; its metric is the accuracy of the worst.
    """
    data = read("celebA_dataset", "CelebADataset", root)
    names = [f"{hair}, {sex}" for hair in ("not blond", "blond") for sex in ("female", "male")]
    return _by_group(root, size, data, "img_align_celeba/", ("not blond", "blond"), names)


def _by_group(
    root: Path, size: int, data: Any, folder: str, classes: tuple[str, str], names: list[str]
) -> DomainData:
    top, labels = Path(data.data_dir), data.y_array.numpy()
    rows = Rows(
        [f"{top.name}/{folder}{name}" for name in data._input_array],
        domains=coded(data.split_array, {0: 0, 1: 0, 2: 1}),
        split=coded(data.split_array, {0: TRAIN, 1: VAL, 2: TEST}),
        labels=labels,
        groups=2 * labels + data.metadata_array[:, 0].numpy(),
    )
    return described(
        root,
        size,
        [rows],
        class_names=classes,
        domain_names=("train", "test"),
        group_names=names,
        metric="worst_group",
        licence="research and teaching, not commercial",
        sources=sorted(top.glob("*.csv")),
    )
