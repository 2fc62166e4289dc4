"""WILDS' images of domains that are new: hospitals, cameras, years, batches, styles."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchbench import TEST, TRAIN, VAL, DomainData, published
from benchbench_wilds.package import read
from benchbench_wilds.rows import Rows, coded, described, with_val

HOME = "https://wilds.stanford.edu/datasets"


def _camelyon17_rows(*, unlabelled: bool, **_: object) -> dict[str, int]:
    more = 600_030 if unlabelled else 0
    return {"hospital 1": 34_904 + more, "hospital 2": 85_054 + more}


@published(
    home=f"{HOME}/#camelyon17",
    licence="CC0 1.0",
    files=lambda unlabelled, **_: [
        f"{folder}/{file}"
        for folder, version in (("camelyon17_v1.0", "1.0"), ("camelyon17_unlabeled_v1.0", "1.0"))
        if unlabelled or "unlabeled" not in folder
        for file in (f"RELEASE_v{version}.txt", "metadata.csv", "patches")
    ],
    rows=_camelyon17_rows,
)
def camelyon17(root: Path, *, unlabelled: bool = True, size: int = 96) -> DomainData:
    """Tumour or not, in tissue patches of five hospitals (WILDS; Bándi et al. 2018).

    Official split: train on ``hospital 0 + hospital 3 + hospital 4``, whose validation rows are
    id_val; hospital 1 is the validation and hospital 2 the test domain. The sources have no test
    rows. ``unlabelled`` adds a million patches per hospital or so, for training.
    """
    data = read("camelyon17_dataset", "Camelyon17Dataset", root)
    metadata = data.metadata_array.numpy()
    top = Path(data.data_dir)
    parts = [
        Rows(
            [f"{top.name}/{path}" for path in data._input_array],
            domains=metadata[:, 0],
            split=coded(data.split_array, {0: TRAIN, 1: VAL, 2: TEST, 3: TEST}),
            labels=data.y_array.numpy(),
            groups=metadata[:, 1],
        )
    ]
    sources = [top / "metadata.csv"]
    if unlabelled:  # the class of wilds keeps three million rows in lists of strings
        import pandas as pd

        table = root / "camelyon17_unlabeled_v1.0" / "metadata.csv"
        columns = ["patient", "node", "x_coord", "y_coord", "center"]
        rows = pd.read_csv(table, usecols=columns, dtype={"patient": "str"})
        places = zip(rows.patient, rows.node, rows.x_coord, rows.y_coord, strict=True)
        paths = [
            f"{table.parent.name}/patches/patient_{p}_node_{n}/patch_patient_{p}_node_{n}_x_{x}_y_{y}.png"
            for p, n, x, y in places
        ]
        parts.append(Rows(paths, rows.center.to_numpy(), np.full(len(rows), TRAIN)))
        sources.append(table)
    return described(
        root,
        size,
        parts,
        class_names=("normal", "tumor"),
        domain_names=[f"hospital {number}" for number in range(5)],
        group_names=[f"slide {number}" for number in range(50)],
        licence="CC0 1.0",
        sources=sources,
    )


def _iwildcam_rows(*, unlabelled: bool, **_: object) -> dict[str, int]:
    extra = {"extra": 819_120} if unlabelled else {}
    return {"train": 129_809 + 7_314 + 8_154, "val": 14_961, "test": 42_791, **extra}


@published(
    home=f"{HOME}/#iwildcam",
    licence="CDLA-Permissive 1.0",
    files=lambda unlabelled, **_: [
        *("iwildcam_v2.0/RELEASE_v2.0.txt", "iwildcam_v2.0/metadata.csv"),
        *("iwildcam_v2.0/categories.csv", "iwildcam_v2.0/train"),
        *(
            f"iwildcam_unlabeled_v1.0/{file}"
            for file in ("RELEASE_v1.0.txt", "metadata.csv", "images")
            if unlabelled
        ),
    ],
    rows=_iwildcam_rows,
)
def iwildcam(root: Path, *, unlabelled: bool = True, size: int = 448) -> DomainData:
    """Animal species at camera traps (WILDS; Beery et al. 2020). Its metric is macro F1.

    Domains are sets of cameras: ``train``, whose validation and test rows are id_val and id_test,
    ``val``, ``test``, and with ``unlabelled`` also ``extra``, which has training rows alone: a
    stage gets them with sees = "all".
    """
    import pandas as pd

    data = read("iwildcam_dataset", "IWildCamDataset", root)
    top = Path(data.data_dir)
    parts = [
        Rows(
            [f"{top.name}/train/{name}" for name in data._input_array],
            domains=coded(data.split_array, {0: 0, 3: 0, 4: 0, 1: 1, 2: 2}),
            split=coded(data.split_array, {0: TRAIN, 3: VAL, 4: TEST, 1: TEST, 2: TEST}),
            labels=data.y_array.numpy(),
        )
    ]
    sources = [top / "metadata.csv", top / "categories.csv"]
    domain_names = ["train", "val", "test"]
    if unlabelled:
        table = root / "iwildcam_unlabeled_v1.0" / "metadata.csv"
        names = pd.read_csv(table, usecols=["uid"], dtype="str").uid
        paths = [f"{table.parent.name}/images/{name}.jpg" for name in names]
        parts.append(Rows(paths, np.full(len(paths), 3), np.full(len(paths), TRAIN)))
        sources.append(table)
        domain_names.append("extra")
    categories = pd.read_csv(top / "categories.csv").set_index("y").name
    return described(
        root,
        size,
        parts,
        class_names=[str(categories.get(y, f"class {y}")) for y in range(data.n_classes)],
        domain_names=domain_names,
        metric="macro_f1",
        licence="CDLA-Permissive 1.0",
        sources=sources,
    )


FMOW_LABELLED = (76_863 + 11_483 + 11_327, 19_915, 22_108)
FMOW_UNLABELLED = (11_948, 155_313, 173_208)
FMOW_PERIODS = ("2002-2012", "2013-2015", "2016-2017")


def _fmow_rows(*, unlabelled: bool, **_: object) -> dict[str, int]:
    more = FMOW_UNLABELLED if unlabelled else (0, 0, 0)
    return {p: a + b for p, a, b in zip(FMOW_PERIODS, FMOW_LABELLED, more, strict=True)}


@published(
    home=f"{HOME}/#fmow",
    licence="Functional Map of the World Challenge Public License",
    files=[
        f"fmow_v1.1/{file}"
        for file in ("RELEASE_v1.1.txt", "rgb_metadata.csv", "country_code_mapping.csv", "images")
    ],
    rows=_fmow_rows,
)
def fmow(root: Path, *, unlabelled: bool = True, size: int = 224) -> DomainData:
    """Use of buildings and land in satellite images (WILDS; Christie et al. 2018).

    Domains are periods: ``2002-2012``, whose validation and test rows are id_val and id_test,
    ``2013-2015`` and ``2016-2017``. Groups are continents; its metric is the accuracy of the worst,
    where "Other" is none. ``unlabelled`` adds images of all periods for training.
    """
    data = read("fmow_dataset", "FMoWDataset", root)
    top = Path(data.data_dir)
    regions = data._metadata_map["region"]
    codes = {number: -1 if name == "Other" else number for number, name in enumerate(regions)}
    parts = [
        Rows(
            [f"{top.name}/images/rgb_img_{row}.png" for row in data.full_idxs],
            domains=coded(data.split_array, {0: 0, 1: 0, 2: 0, 3: 1, 4: 2}),
            split=coded(data.split_array, {0: TRAIN, 1: VAL, 2: TEST, 3: TEST, 4: TEST}),
            labels=data.y_array.numpy(),
            groups=coded(data.metadata_array[:, 0].numpy(), codes),
        )
    ]
    if unlabelled:
        more = read("unlabeled.fmow_unlabeled_dataset", "FMoWUnlabeledDataset", root)
        paths = [f"{top.name}/images/rgb_img_{row}.png" for row in more.full_idxs]
        periods = coded(more.split_array, {10: 0, 11: 1, 12: 2})
        parts.append(Rows(paths, periods, np.full(len(paths), TRAIN)))
    return described(
        root,
        size,
        parts,
        class_names=sorted(data.category_to_idx, key=data.category_to_idx.__getitem__),
        domain_names=FMOW_PERIODS,
        group_names=regions,
        metric="worst_group",
        licence="Functional Map of the World Challenge Public License",
        sources=[top / "rgb_metadata.csv", top / "country_code_mapping.csv"],
    )


@published(
    home=f"{HOME}/#rxrx1",
    licence="CC BY-NC-SA 4.0",
    files=[f"rxrx1_v1.0/{file}" for file in ("RELEASE_v1.0.txt", "metadata.csv", "images")],
    rows={"train": 2 * 40_612, "val": 9_854, "test": 34_432},
)
def rxrx1(root: Path, *, size: int = 256, seed: int = 0) -> DomainData:
    """Genetic perturbations of cells, by experimental batch (WILDS; Taylor et al. 2019).

    Domains are sets of experiments: ``train``, whose test rows are id_test, ``val`` and ``test``.
    WILDS has no validation rows of the training experiments: a fifth of the training rows of each
    class, drawn with ``seed``, is taken. Groups are cell types.
    """
    data = read("rxrx1_dataset", "RxRx1Dataset", root)
    top, labels = Path(data.data_dir), data.y_array.numpy()
    domains = coded(data.split_array, {0: 0, 3: 0, 1: 1, 2: 2})
    split = coded(data.split_array, {0: TRAIN, 3: TEST, 1: TEST, 2: TEST})
    rows = Rows(
        [f"{top.name}/{path}" for path in data._input_array],
        domains,
        with_val(split, labels, domains, seed),
        labels,
        groups=data.metadata_array[:, 0].numpy(),
    )
    return described(
        root,
        size,
        [rows],
        class_names=[f"siRNA {number}" for number in range(data.n_classes)],
        domain_names=("train", "val", "test"),
        group_names=data._metadata_map["cell_type"],
        licence="CC BY-NC-SA 4.0",
        sources=[top / "metadata.csv"],
    )


DOMAINNET_ROWS = {
    "clipart": 48_129,
    "infograph": 51_605,
    "painting": 72_266,
    "quickdraw": 172_500,
    "real": 172_947,
    "sketch": 69_128,
}
SENTRY_ROWS = {
    "clipart": 3_707 + 1_616,
    "painting": 6_727 + 2_909,
    "real": 16_141 + 6_943,
    "sketch": 5_537 + 2_399,
}


@published(
    home="http://ai.bu.edu/M3SDA/",
    licence="for research and teaching, without profit, alone",
    files=lambda sentry, **_: [
        "domainnet_v1.0/RELEASE_v1.0.txt",
        f"domainnet_v1.0/{'sentry_' if sentry else ''}metadata.csv",
    ],
    rows=lambda sentry, **_: SENTRY_ROWS if sentry else DOMAINNET_ROWS,
)
def domainnet(root: Path, *, sentry: bool = False, size: int = 224, seed: int = 0) -> DomainData:
    """Objects in six styles (WILDS; Peng et al. 2019), as they lie for WILDS.

    All 345 classes and six domains, or with ``sentry`` the 40 classes and four domains of Tan et
    al. 2020, which Shen et al. 2022 use. A fifth of each class of the training rows of a domain,
    drawn with ``seed``, is kept for validation.
    """
    pairs = [("clipart", "painting"), ("real", "sketch")]
    if not sentry:
        pairs = [("clipart", "infograph"), ("painting", "quickdraw"), ("real", "sketch")]
    parts, classes = [], {}
    for number, (first, second) in enumerate(pairs):
        data = read(
            "domainnet_dataset",
            "DomainNetDataset",
            root,
            source_domain=first,
            target_domain=second,
            use_sentry=sentry,
        )
        top, labels = Path(data.data_dir), data.y_array.numpy()
        domains = coded(data.split_array, {0: 0, 3: 0, 1: 1, 2: 1}) + 2 * number
        split = coded(data.split_array, {0: TRAIN, 1: TRAIN, 2: TEST, 3: TEST})
        split = with_val(split, labels, domains, seed)
        paths = [f"{top.name}/{path}" for path in data._input_image_paths]
        parts.append(Rows(paths, domains, split, labels))
        codes = data.metadata_array[:, 1].tolist()
        names = [data._metadata_map["category"][code] for code in codes]
        classes |= dict(zip(labels.tolist(), names, strict=True))
    return described(
        root,
        size,
        parts,
        class_names=[classes.get(label, f"class {label}") for label in range(data.n_classes)],
        domain_names=[name for pair in pairs for name in pair],
        licence="DomainNet: for research and teaching, without profit, alone",
        sources=[top / f"{'sentry_' if sentry else ''}metadata.csv"],
    )
