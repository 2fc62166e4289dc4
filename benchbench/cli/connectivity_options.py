"""What the commands share that measure connectivity: how, where, and of which data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchbench.cli.data import opened
from benchbench.cli.options import catalog, data_option, device_option, store_option

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchbench.data.pack import Pack
    from benchbench.diagnostics.connectivity_measurement import Estimator, Meter


@dataclass(frozen=True)
class Measuring:
    """What `meter_options` were given."""

    encoder: str | None
    steps: int
    seed: int
    store: Path
    data: Path
    device: str

    def meter(self, dataset: str, estimator: Estimator = "fast") -> tuple[str, Meter]:
        """The dataset's spelling with all defaults, and what measures it."""
        from benchbench.diagnostics.connectivity_measurement import Meter
        from benchbench.diagnostics.node_classifiers import Effort
        from benchbench.store.artifacts import Store
        from benchbench.training.device import Machine

        choice, pack = opened(dataset, self.store, self.data)
        return choice.text, Meter(
            catalog(),
            pack,
            Store(self.store),
            Machine.choose(self.device, "auto"),
            self.encoder or usual_encoder(pack),
            estimator,
            Effort(steps=self.steps),
            self.seed,
        )


def meter_options(command: Callable[..., None]) -> Callable[..., None]:
    """Options that the command gets as ``measuring``."""
    own = ("encoder", "steps", "seed", "store", "data", "device")

    @wraps(command)
    def gathered(**options: Any) -> None:
        measuring = Measuring(**{name: options.pop(name) for name in own})
        command(measuring=measuring, **options)

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
        gathered = option(gathered)
    return gathered


def usual_encoder(pack: Pack) -> str:
    return "transformer" if pack.vocabulary else "small_cnn(width=16)"
