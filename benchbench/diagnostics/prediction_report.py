"""How well connectivity predicts accuracy, and what else does: as a table, JSON and a picture."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import isnan
from pathlib import Path

from tabulate import tabulate

from benchbench.diagnostics.accuracy_prediction import Judged, Point, as_json, fixed_and_best
from benchbench.store.atomic_files import place_text

SHOWN = ("connectivity", "all four distances", "source accuracy")  # in the picture


def write_report(folder: Path, points: Sequence[Point], told: Mapping[str, Judged]) -> None:
    """The picture (prediction.svg) and the points (fit.json). BadInput if they cannot be."""
    from benchbench.diagnostics.plots import predicted  # with Matplotlib, for a picture alone

    names = [name for name in SHOWN if name in told]
    place_text(folder / "prediction.svg", predicted(points, names))
    place_text(folder / "fit.json", as_json(points))


def figures_as_json(told: Mapping[str, Judged]) -> str:
    """With null for what cannot be said, as of a rank within shifts of one augmentation each."""
    fields = {
        name: {key: None if isnan(value) else value for key, value in asdict(judged).items()}
        for name, judged in told.items()
    }
    return json.dumps(fields, indent=1, allow_nan=False)


def table_of(points: Sequence[Point], told: Mapping[str, Judged]) -> str:
    body = [
        [
            name,
            *(f"{value:.2f}" for value in (j.inside, j.pairs, j.elsewhere, j.rank, j.within)),
            f"{100 * j.chosen:.1f}",
            f"{j.chance_domains:.4f}",
            f"{j.chance_within:.4f}",
        ]
        for name, j in told.items()
    ]
    head = [
        "predictor",
        "R²",
        "R² of new domains",
        "R² elsewhere",
        "rank elsewhere",
        "rank within a shift",
        "chosen by it",
        "p, domains",
        "p, within",
    ]
    text = tabulate(body, head, tablefmt="github", disable_numparse=True,
                    colalign=["left"] + ["right"] * 8)  # fmt: skip
    fixed, same, best = fixed_and_best(points)
    sets = sorted({point.dataset for point in points})
    shifts = len({(point.dataset, point.shift) for point in points})
    return (
        f"{text}\n\n"
        f"Of the logit of target accuracy, least squares over {len(points)} cells: {shifts} shifts "
        f"of {len(sets)} datasets ({', '.join(sets)}) under their augmentations. *R²*: of a fit to "
        "all; *of new domains*: each pair of domains predicted by a fit to all other pairs; "
        "*elsewhere*: each dataset predicted by a fit to the others (below 0: worse than the "
        "overall mean); *rank*: Spearman's correlation of that prediction with accuracy, over all "
        "cells, and over the augmentations of a shift, mean over shifts; *chosen by it*: target "
        "accuracy, in percent, with the augmentation that the prediction prefers on each shift, "
        f"where {fixed} on all of them has {100 * same:.1f}, and the best of each shift "
        f"{100 * best:.1f}; *p*: share of 2,000 "
        "permutations whose R² is as high, of whole pairs of domains within a dataset, and of "
        "augmentations within a shift.\n"
    )
