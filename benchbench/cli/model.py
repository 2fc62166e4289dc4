"""`benchbench predict` and `benchbench export-model`: a trained method, for new images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchbench.cli.options import (
    Place,
    chosen_plugins,
    data_option,
    device_option,
    plugin_options,
    store_option,
)

if TYPE_CHECKING:
    from collections.abc import Callable


def model_options(command: Callable[..., None]) -> Callable[..., None]:
    """Which trained model is meant, and where it lies."""
    for option in (
        device_option,
        data_option,
        store_option,
        click.option(
            "--draw",
            type=int,
            metavar="N",
            help="Of a suite that tunes, which draw of settings; by default the first.",
        ),
        click.option("--seed", type=int, metavar="N", help="By default the suite's first seed."),
        click.option(
            "--shift",
            metavar="'SOURCE > TARGET'",
            help="May be left out where the method has one shift.",
        ),
        click.argument("method"),
        click.argument("suite"),
        plugin_options,
    ):
        command = option(command)
    return command


@click.command()
@model_options
@click.option(
    "--images",
    required=True,
    type=Place(path_type=Path),
    metavar="DIR",
    help="Every image in this folder and the folders in it.",
)
@click.option(
    "--to",
    "out",
    required=True,
    type=Place(dir_okay=False, path_type=Path),
    metavar="FILE.csv",
    help="Replaced when all images are predicted.",
)
def predict(images: Path, out: Path, **which: Any) -> None:
    """Predict new images with METHOD of SUITE, as `benchbench run` has trained it.

    Nothing is trained. The table has a row for each image: its path below DIR, the predicted class,
    and for each class a probability (readouts linear and head), a share of votes (knn) or a score;
    where labels are numbers, the path and the number. Images are resized as the dataset's are.
    """
    from benchbench import api

    found = api.predict(**which, images=images, to=out, **chosen_plugins())
    click.echo(f"{out}: {len(found.paths):,} images predicted")


@click.command("export-model")
@model_options
@click.option(
    "--to",
    "out",
    required=True,
    type=Place(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="FILE.onnx, FILE.pt2 (for torch.export.load) or FILE.safetensors (weights alone).",
)
def export_model(out: Path, **which: Any) -> None:
    """Write METHOD of SUITE, as `benchbench run` has trained it, as a file for other programs.

    It maps images, float32 [B, C, H, W] in [0, 1], to scores, and says in its metadata what they
    are, of which classes, and how images are to be made. Before it is written, its scores of random
    inputs are compared with the model's.
    """
    from benchbench import api

    click.echo(api.export_model(**which, to=out, **chosen_plugins()))
