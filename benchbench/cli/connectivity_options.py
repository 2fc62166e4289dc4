"""The options that the commands share that measure connectivity: how, where, and of which data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from benchbench.cli.options import data_option, device_option, store_option

if TYPE_CHECKING:
    from collections.abc import Callable


def meter_options(command: Callable[..., None]) -> Callable[..., None]:
    """What the command gets as encoder, steps, seed, store, data and device."""
    for option in (
        device_option,
        data_option,
        store_option,
        click.option("--seed", default=0, show_default=True, help="Of everything that is drawn."),
        click.option(
            "--steps",
            default=300,
            show_default=True,
            type=click.IntRange(min=1),
            help="Of training each network.",
        ),
        click.option(
            "--encoder",
            help="What is trained: small_cnn(width=16), of texts transformer, if not said.",
        ),
    ):
        command = option(command)
    return command
