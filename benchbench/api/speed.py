"""How fast it is here, beside a floor or a peer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from benchbench.extension.constants import Precision

from benchbench.api.opening import check_at_least, check_one_of, wanted_of
from benchbench.api.reports import FigureReport


def bench(
    what: str = "resnet18@32",
    *,
    batch_size: int = 256,
    rounds: int = 5,
    steps: int | None = None,
    epochs: int = 0,
    seeds: int = 3,
    precision: Precision | Literal["auto"] = "auto",
    compiled: bool = False,
    device: str = "auto",
    plugins: Sequence[str | Path] = (),
    without_plugins: Sequence[str] = (),
    strict_plugins: bool = False,
) -> FigureReport:
    """Measure something against a floor or a peer, side by side, round by round.

    ``what`` is as in ``benchbench bench``: a shape, such as "resnet18@32", for a training step and
    its parts; "objectives:", "peers:", "streams:" or "steady:" with a shape; "readout", "data",
    "store", "launch" or "startup". ``steps`` are of a round, 5 if not said, of peers 8; of steady
    in all, 10,000. ``epochs`` and ``seeds`` are of peers: with so many, accuracies on the dataset
    digits are compared, too.

    BadInput says which measurements there are.
    """
    from benchbench.benchmarks.named_benchmarks import Asked, figures_and_text

    for name, number, least in (
        ("batch_size", batch_size, 2),
        ("rounds", rounds, 1),
        ("steps", 2 if steps is None else steps, 2),
        ("epochs", epochs, 0),
        ("seeds", seeds, 1),
    ):
        check_at_least(name, number, least)
    check_one_of("precision", precision, ("auto", "bf16", "fp32"))
    asked = Asked(
        wanted_of(plugins, without_plugins, strict_plugins),
        batch_size,
        rounds,
        steps,
        epochs,
        seeds,
        precision,
        device,
        compiled,
    )
    return FigureReport(*figures_and_text(what, asked))
