"""WILDS' texts: reviews by users that are new, comments that mention people of some identity."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchbench import TEST, TRAIN, VAL, DomainData, published, tokenized
from benchbench_wilds.images import HOME
from benchbench_wilds.package import read
from benchbench_wilds.rows import Rows, coded, joined

IDENTITIES = (
    *("male", "female", "LGBTQ", "christian", "muslim"),
    *("other_religions", "black", "white"),
)
CLASSES = ("not toxic", "toxic")


def _amazon_rows(*, unlabelled: bool, **_: object) -> dict[str, int]:
    labelled = {"train": 245_502 + 46_950 + 46_950, "val": 100_050, "test": 100_050}
    if not unlabelled:
        return labelled
    more = {"val": 266_066, "test": 268_761, "extra": 2_927_841}
    return {name: labelled.get(name, 0) + more.get(name, 0) for name in labelled | more}


@published(
    home=f"{HOME}/#amazon",
    licence="research only",
    files=lambda tokenizer, **_: [
        *(f"amazon_v2.1/{file}" for file in ("RELEASE_v2.1.txt", "reviews.csv", "splits/user.csv")),
        *([tokenizer] if tokenizer else ()),
    ],
    rows=_amazon_rows,
)
def amazon(
    root: Path,
    *,
    unlabelled: bool = True,
    length: int = 128,
    words: int = 20_000,
    tokenizer: str = "",
) -> DomainData:
    """Stars of product reviews, one to five, by users that are new (WILDS; Ni et al. 2019).

    Domains are sets of users: ``train``, whose validation and test rows are id_val and id_test,
    ``val``, ``test``, and with ``unlabelled`` also ``extra``, which has training rows alone: a
    stage gets them with sees = "all". Groups are users; its metric is the accuracy that a tenth of
    them stay below. The first ``length`` tokens are kept, of the ``words`` most frequent words, or
    by the file ``tokenizer`` below the root, a tokenizer.json of Hugging Face's.
    """
    data = read("amazon_dataset", "AmazonDataset", root)
    top, codes = Path(data.data_dir), np.asarray(data.split_array)
    here = codes < 10  # of the others, the files know the stars; nobody else shall
    every = np.array(data._input_array, dtype=object)
    parts = [
        Rows(
            list(every[here]),
            domains=coded(codes[here], {0: 0, 2: 0, 4: 0, 1: 1, 3: 2}),
            split=coded(codes[here], {0: TRAIN, 2: VAL, 4: TEST, 1: TEST, 3: TEST}),
            labels=data.y_array.numpy()[here],
            groups=data.metadata_array[:, 0].numpy()[here],
        )
    ]
    if unlabelled:
        domains = coded(codes[~here], {11: 1, 12: 2, 13: 3})
        parts.append(Rows(list(every[~here]), domains, np.where(domains < 0, -1, TRAIN)))
    return described(
        root,
        parts,
        class_names=("1 star", *(f"{stars} stars" for stars in range(2, 6))),
        domain_names=("train", "val", "test", "extra")[: 3 + unlabelled],
        metric="tenth_percentile",
        licence="research only",
        sources=[top / "reviews.csv", top / "splits" / "user.csv"],
        length=length,
        words=words,
        tokenizer=tokenizer,
    )


def _civilcomments_rows(*, unlabelled: bool, **_: object) -> dict[str, int]:
    extra = {"extra": 1_551_515} if unlabelled else {}
    return {"train": 269_038 + 45_180, "test": 133_782, **extra}


@published(
    home=f"{HOME}/#civilcomments",
    licence="CC0 1.0",
    files=lambda unlabelled, tokenizer, **_: [
        *("civilcomments_v1.0/RELEASE_v1.0.txt", "civilcomments_v1.0/all_data_with_identities.csv"),
        *(
            f"civilcomments_unlabeled_v1.0/{file}"
            for file in ("RELEASE_v1.0.txt", "unlabeled_data_with_identities.csv")
            if unlabelled
        ),
        *([tokenizer] if tokenizer else ()),
    ],
    rows=_civilcomments_rows,
)
def civilcomments(
    root: Path,
    *,
    unlabelled: bool = True,
    length: int = 128,
    words: int = 20_000,
    tokenizer: str = "",
) -> DomainData:
    """Toxic comments or not, on articles (WILDS; Borkan et al. 2019).

    Domains are ``train`` and its validation rows, ``test``, and with ``unlabelled`` also ``extra``,
    which has training rows alone: a stage gets them with sees = "all". Groups, which overlap, are
    the comments that mention one of eight identities, toxic or not; its metric is the accuracy of
    the worst. Of tokens see amazon.
    """
    data = read("civilcomments_dataset", "CivilCommentsDataset", root, "split")
    top, labels = Path(data.data_dir), data.y_array.numpy()
    codes = np.asarray(data.split_array).astype(np.int64)
    mentions = data.metadata_array[:, : len(IDENTITIES)].numpy().astype(bool)
    toxic = np.stack([labels == 0, labels == 1], 1)
    parts = [
        Rows(
            data._text_array,
            domains=coded(codes, {0: 0, 1: 0, 2: 1}),
            split=coded(codes, {0: TRAIN, 1: VAL, 2: TEST}),
            labels=labels,
            groups=(mentions[:, :, None] & toxic[:, None]).reshape(len(labels), -1),
        )
    ]
    sources = [top / "all_data_with_identities.csv"]
    if unlabelled:
        more = read(
            "unlabeled.civilcomments_unlabeled_dataset", "CivilCommentsUnlabeledDataset", root
        )
        comments = more._text_array
        parts.append(Rows(comments, np.full(len(comments), 2), np.full(len(comments), TRAIN)))
        sources.append(Path(more.data_dir) / "unlabeled_data_with_identities.csv")
    return described(
        root,
        parts,
        class_names=CLASSES,
        domain_names=("train", "test", "extra")[: 2 + unlabelled],
        group_names=tuple(f"{name}, {kind}" for name in IDENTITIES for kind in CLASSES),
        metric="worst_group",
        licence="CC0 1.0",
        sources=sources,
        length=length,
        words=words,
        tokenizer=tokenizer,
    )


def described(
    root: Path,
    parts: Sequence[Rows],
    *,
    sources: Sequence[Path],
    length: int,
    words: int,
    tokenizer: str,
    **said: Any,
) -> DomainData:
    """Texts, as `DomainData` and `tokenized` want them said."""
    texts, columns = joined(parts)
    texts = [text if isinstance(text, str) else "" for text in texts]  # an empty one is read as NaN
    file = root / tokenizer if tokenizer else None
    training = columns["split"].numpy() == TRAIN
    tokens, vocabulary = tokenized(
        texts,
        length=length,
        tokenizer=file,
        words=words,
        learned_from=(text for text, learn in zip(texts, training, strict=True) if learn),
    )
    return DomainData(
        tokens,
        vocabulary=vocabulary,
        sources=(*sources, *([file] if file else ())),
        **columns,
        **said,
    )
