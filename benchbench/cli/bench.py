"""The command `bench`."""

from __future__ import annotations

from typing import Any

import click

from benchbench import api
from benchbench.cli.options import chosen_plugins, compile_option, device_option, plugin_options


@click.command()
@plugin_options
@click.argument("what", default="resnet18@32")
@click.option("--batch-size", default=256, show_default=True, type=click.IntRange(min=2))
@click.option("--rounds", default=5, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--steps",
    type=click.IntRange(min=2),
    help="Of a round: 5, of peers 8. Of steady, in all: 10,000.",
)
@click.option(
    "--epochs",
    default=0,
    show_default=True,
    type=click.IntRange(min=0),
    help="Of peers: for how many to train on the dataset digits before accuracy is compared.",
)
@click.option(
    "--seeds",
    default=3,
    show_default=True,
    type=click.IntRange(min=1),
    help="Of peers: how many encoders each trains for that.",
)
@click.option("--precision", type=click.Choice(["auto", "bf16", "fp32"]), default="auto")
@compile_option
@device_option
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON, to keep.")
def bench(what: str, as_json: bool, **options: Any) -> None:
    """Measure WHAT against a floor or a peer, side by side, round by round.

    \b
    SHAPE             a training step and its parts against its floor
    objectives:SHAPE  the step of every objective against that of simclr
    peers:SHAPE       an epoch against its floor, lightly, torchvision and kornia
    streams:SHAPE     a step from images that are not on the device against one from those that are
    steady:SHAPE      memory and pace of a long run
    readout           the linear readout against scikit-learn
    data              preparing, fetching and opening data
    store             the store against plain files
    launch            a cell by several processes, Ray and submitit against one process
    startup           commands against the start of Python and torch

    SHAPE is small_cnn@32, resnet18@32, resnet50@224 or vit_small@224.
    """
    report = api.bench(what, **options, **chosen_plugins())
    click.echo(report.to_json() if as_json else report)
