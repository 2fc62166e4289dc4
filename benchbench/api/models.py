"""Trained methods for new images: as modules, as predictions, and as files for other programs."""

from __future__ import annotations

import csv
import io
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchbench.api.boards import is_board
from benchbench.api.opening import Where, counting, opened, wanted_of
from benchbench.extension.errors import BadInput

if TYPE_CHECKING:
    from torch import nn

    from benchbench.execution.trained_model import Model, Predictions
    from benchbench.suites.plan import Plan
    from benchbench.suites.suite import Cell


def load_encoder(
    suite: Any,
    method: str,
    *,
    shift: str | None = None,
    seed: int | None = None,
    draw: int | None = None,
    store: Where = None,
    data: Where = None,
    device: str = "auto",
    plugins: Sequence[str | Path] = (),
    without_plugins: Sequence[str] = (),
    strict_plugins: bool = False,
    progress: bool = True,
) -> nn.Module:
    """The encoder of a method as `run` has trained it: frozen, in evaluation mode, on the device.

    It maps float32 images [B, C, H, W] in [0, 1] to features [B, num_features]. ``suite`` is as in
    `run`, with the same objects; ``shift`` may be left out if the method has only one, and ``seed``
    and ``draw`` are the first unless they are given. Nothing is trained: BadInput says what is
    missing in the store, and that a published board has no weights.
    """
    from benchbench.execution.trained_model import encoder_of

    where: dict[str, Any] = {"store": store, "data": data, "device": device, "plugins": plugins}
    how: dict[str, Any] = {
        "without_plugins": without_plugins,
        "strict_plugins": strict_plugins,
    }
    with _cell(suite, method, shift, seed, draw, progress, **where, **how) as (plan, cell, again):
        return encoder_of(plan, cell, again)


def load_model(
    suite: Any,
    method: str,
    *,
    shift: str | None = None,
    seed: int | None = None,
    draw: int | None = None,
    store: Where = None,
    data: Where = None,
    device: str = "auto",
    plugins: Sequence[str | Path] = (),
    without_plugins: Sequence[str] = (),
    strict_plugins: bool = False,
    progress: bool = True,
) -> Model:
    """The encoder and the readout of a method as one module, from images to scores of classes.

    Images are float32 [B, C, H, W] in [0, 1], scores [B, K]. The rest is as in `load_encoder`.
    """
    from benchbench.execution.trained_model import model_of

    where: dict[str, Any] = {"store": store, "data": data, "device": device, "plugins": plugins}
    how: dict[str, Any] = {
        "without_plugins": without_plugins,
        "strict_plugins": strict_plugins,
    }
    with _cell(suite, method, shift, seed, draw, progress, **where, **how) as (plan, cell, again):
        return model_of(plan, cell, again)


def predict(
    suite: Any,
    method: str,
    images: str | Path,
    *,
    to: str | Path | None = None,
    shift: str | None = None,
    seed: int | None = None,
    draw: int | None = None,
    store: Where = None,
    data: Where = None,
    device: str = "auto",
    plugins: Sequence[str | Path] = (),
    without_plugins: Sequence[str] = (),
    strict_plugins: bool = False,
    progress: bool = True,
) -> Predictions:
    """Predict every image in a folder and the folders in it; nothing is trained.

    Images are resized as the dataset's are. With ``to`` the table is written as CSV, when all
    images are predicted. The other arguments are those of `load_encoder`. BadInput names an image
    that cannot be decoded.
    """
    from benchbench.execution.trained_model import predict as predicted
    from benchbench.store.atomic_files import place, writing

    model = load_model(
        suite,
        method,
        shift=shift,
        seed=seed,
        draw=draw,
        store=store,
        data=data,
        device=device,
        plugins=plugins,
        without_plugins=without_plugins,
        strict_plugins=strict_plugins,
        progress=progress,
    )
    found = predicted(model, Path(images), report=counting("predicting", "image", progress))
    if to is not None:
        with writing(str(to)):
            place(Path(to), as_csv(found).encode())
    return found


@dataclass(frozen=True)
class ExportedModel:
    """A file that holds a trained method."""

    path: Path
    holds: str  # what is in it, in words

    def __str__(self) -> str:
        return f"{self.path}: {self.path.stat().st_size:,} bytes, {self.holds}"

    __repr__ = __str__


def export_model(
    suite: Any,
    method: str,
    to: str | Path,
    *,
    shift: str | None = None,
    seed: int | None = None,
    draw: int | None = None,
    store: Where = None,
    data: Where = None,
    device: str = "auto",
    plugins: Sequence[str | Path] = (),
    without_plugins: Sequence[str] = (),
    strict_plugins: bool = False,
    progress: bool = True,
) -> ExportedModel:
    """Write a trained method as .onnx, .pt2 (for torch.export.load) or .safetensors (weights).

    Its scores of random inputs are compared with the model's before the file is there. The other
    arguments are those of `load_encoder`. BadInput says what is not installed, or which readouts
    such a file can hold.
    """
    from benchbench.execution.model_export import check_target, export

    check_target(Path(to))
    model = load_model(
        suite,
        method,
        shift=shift,
        seed=seed,
        draw=draw,
        store=store,
        data=data,
        device=device,
        plugins=plugins,
        without_plugins=without_plugins,
        strict_plugins=strict_plugins,
        progress=progress,
    )
    return ExportedModel(Path(to), export(model, Path(to)))


@contextmanager
def _cell(
    suite: Any,
    method: str,
    shift: str | None,
    seed: int | None,
    draw: int | None,
    progress: bool,
    *,
    plugins: Sequence[str | Path],
    without_plugins: Sequence[str],
    strict_plugins: bool,
    **where: Any,
) -> Iterator[tuple[Plan, Cell, str]]:
    """The plan, the cell that is meant, and the command that trains it."""
    from benchbench.execution.trained_model import cell_of

    if is_board(suite):
        raise BadInput(
            f"{suite} is a published board, which holds records and no weights; run its suite: "
            f"benchbench run {shlex.quote(str(Path(suite, 'suite.toml')))}"
        )
    wanted = wanted_of(plugins, without_plugins, strict_plugins)
    with opened(suite, **where, wanted=wanted, progress=progress) as made:
        if not made.kept:
            raise BadInput(f"nothing is kept of it: {made.objects.unregistered[0].sentence}")
        usual = {"store": ".benchbench", "data": "data", "device": "auto"}
        said = {n: v for n, v in where.items() if v is not None and str(v) != usual[n]}
        options = [f"--{name}={value}" for name, value in said.items()]
        again = shlex.join(["benchbench", "run", str(suite), *options])
        if not isinstance(suite, str | Path):
            again = "benchbench.run(suite, only=ONLY), of the same suite"
        yield made.plan, cell_of(made.plan, method, shift, seed, draw), again


def as_csv(found: Predictions) -> str:
    """With probabilities to six digits, and nothing that a spreadsheet would run."""
    from benchbench.leaderboard.escaping import csv_cell

    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(map(csv_cell, found.columns))
    for row in found.rows():
        short = (float(f"{value:.6g}") if isinstance(value, float) else value for value in row)
        table.writerow(map(csv_cell, short))
    return text.getvalue()
