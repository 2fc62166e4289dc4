"""The command `benchbench diagnose prediction`."""

from __future__ import annotations

import json
from dataclasses import asdict
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchbench.cli.options import Place, writable, written

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchbench.diagnostics.accuracy_prediction import Point

SHOWN = ("connectivity", "all four distances", "source accuracy")  # in the picture


@click.command()
@click.argument("folders", nargs=-1, metavar="[DIR]...", type=Place(path_type=Path))
@click.option(
    "--out",
    type=Place(path_type=Path),
    help="A folder for the picture (prediction.svg) and the points (fit.json). Made if missing.",
)
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON, to keep.")
def prediction(folders: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    """Say how well connectivity predicts target accuracy, and what else does.

    Each DIR is a dataset: a folder with suite.toml, records/ and connectivity.json, as `diagnose
    connectivity --format json` prints it. Without one, the points that come with benchbench, which
    `advise` predicts from.
    """
    from benchbench.diagnostics.accuracy_prediction import PREDICTORS, judge, shipped
    from benchbench.diagnostics.accuracy_prediction import as_json as as_text
    from benchbench.leaderboard.prediction_points import points_of

    if out is not None:
        writable(out)
    points = [point for folder in folders for point in points_of(folder)] or shipped()
    told = {
        name: asdict(judge(mine, names))
        for name, names in PREDICTORS.items()
        if (mine := [p for p in points if set(names) <= p.values.keys()]) == points
    }
    if out is not None:
        from benchbench.diagnostics.plots import predicted

        names = [name for name in SHOWN if name in told]
        written(out / "prediction.svg", predicted(points, names))
        written(out / "fit.json", as_text(points))
    click.echo(as_strict_json(told) if as_json else table_of(points, told), nl=as_json)


def as_strict_json(told: dict[str, dict[str, float]]) -> str:
    """With null for what cannot be said, as of a rank within shifts of one augmentation each."""
    fields = {
        name: {key: None if isnan(value) else value for key, value in judged.items()}
        for name, judged in told.items()
    }
    return json.dumps(fields, indent=1, allow_nan=False)


def table_of(points: Sequence[Point], told: dict[str, dict[str, float]]) -> str:
    from tabulate import tabulate

    from benchbench.diagnostics.accuracy_prediction import fixed_and_best

    body = [[name, *(f"{j[key]:.2f}" for key in ("inside", "pairs", "elsewhere", "rank", "within")),
             f"{100 * j['chosen']:.1f}",
             f"{j['chance_domains']:.4f}", f"{j['chance_within']:.4f}"]
            for name, j in told.items()]  # fmt: skip
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
