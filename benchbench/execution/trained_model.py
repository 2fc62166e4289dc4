"""A trained cell as one module for new images: its frozen encoder and its fitted readout."""

import glob
import os
import shlex
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchbench.data.decoding import quiet, read_image, tell_of_twelve_bits
from benchbench.data.folders import images_below
from benchbench.data.pack import Pack
from benchbench.data.preparation import Report, told
from benchbench.evaluation.readouts.interface import Affine, Fitted, Scores
from benchbench.evaluation.readouts.registry import HEAD, resolve_readout
from benchbench.execution.cell import first_encoder, first_objective, fit_readout, load
from benchbench.extension.contracts import Objective, Supervised, Task, as_read
from benchbench.extension.errors import BadInput
from benchbench.extension.grammar import instead
from benchbench.suites.plan import Plan
from benchbench.suites.shift_features import shift_features
from benchbench.suites.suite import Cell, Shift

if TYPE_CHECKING:
    import pandas as pd

Meaning = Literal["probability", "share", "score", "number"]

BATCH = 64  # images that are decoded and encoded together
LEAST = torch.finfo(torch.float32).min  # the score of a class without a labelled training row


def encoder_of(plan: Plan, cell: Cell, run: str | None = None) -> nn.Module:
    """The frozen encoder of a cell as the store has it: images to features [B, num_features].

    It is in evaluation mode, on the plan's device, and no parameter asks for a gradient. BadInput
    if the store does not have it; ``run`` is the command that trains the suite, as the sentence
    says it.
    """
    return _trained(plan, cell, run)[0]


def model_of(plan: Plan, cell: Cell, run: str | None = None) -> "Model":
    """The encoder of a cell, and its readout fitted again, as the protocol does, to its features.

    Features that the store has not are extracted, and kept. BadInput as of `encoder_of`.
    """
    encoder, objective, digest = _trained(plan, cell, run)
    pack, key = plan.pack, plan.encoder_key(cell)
    z = shift_features(encoder, key, (cell.shift.sources, cell.shift.targets), plan)
    fitted = fit_readout(cell, objective, z)
    spelled, _ = resolve_readout(cell.method.readout)
    if spelled == HEAD and objective is not None:
        readout = readout_of_head(objective, torch.cat([part.z for part in z.parts]))
    else:
        readout = readout_of(fitted)
    metadata = {
        "suite": plan.suite.name,
        "protocol": plan.suite.protocol,
        "method": cell.method.name,
        "shift": str(cell.shift),
        "seed": cell.seed,
        "draw": cell.draw,
        "encoder": plan.catalog.resolve("encoder", cell.method.encoder).text,
        "encoder_sha256": digest,  # as the cell's record has it
        "readout": spelled,
        "dataset": plan.dataset.text,
        "data_fingerprint": pack.fingerprint,
        "data_licence": pack.licence,
        "benchbench": version("benchbench-shift"),
    }
    how = Pictures.of(pack)
    meaning = _meaning(fitted, pack.task)
    model = Model(encoder, readout, meaning, pack.task, pack.class_names, how, metadata)
    return model.to(plan.machine.device).eval().requires_grad_(False)


class Model(nn.Module):
    """An encoder and a readout: images to scores of classes, or to a number.

    ``class_names`` has the classes in the order of scores, and is empty where labels are numbers;
    ``meaning`` says what `probabilities` and a table of predictions make of scores; ``metadata``
    says what was trained, on what, and is what exported files repeat.
    """

    def __init__(
        self,
        encoder: nn.Module,
        readout: nn.Module,
        meaning: Meaning,
        task: Task,
        class_names: tuple[str, ...],
        pictures: "Pictures | str",
        metadata: Mapping[str, Any],
    ) -> None:
        super().__init__()
        self.encoder, self.readout, self.meaning, self.task = encoder, readout, meaning, task
        self.class_names, self.pictures, self.metadata = class_names, pictures, {**metadata}

    @property
    def input_shape(self) -> tuple[int, ...]:
        """[C, H, W] of an image, or [L] of a text."""
        return self.task.input_shape

    def forward(self, images: Tensor) -> Tensor:
        """Scores [B, K], the highest of the predicted class; of numbers the prediction [B, 1].

        Images are float32 [B, C, H, W] in [0, 1]; texts are int64 [B, L]. BadInput if they are not.
        Scores are float64 of all readouts but knn and a head that is no linear map. A class without
        a labelled training row has a score of -3.4e38 where the readout never predicts it.
        """
        wanted = torch.int64 if self.task.vocabulary else torch.float32
        if images.dtype != wanted or tuple(images.shape[1:]) != self.input_shape:
            kind = f"{wanted} [B, {', '.join(map(str, self.input_shape))}]".removeprefix("torch.")
            there = f"{images.dtype} {list(images.shape)}".removeprefix("torch.")
            raise BadInput(f"the model reads {kind}, not {there}")
        scores: Tensor = self.readout(self.encoder(images).float())
        return scores

    def probabilities(self, images: Tensor) -> Tensor | None:
        """[B, K], rows that sum to 1; None where scores are no probabilities.

        Of the readouts linear and head they are the softmax of scores, which are trained as log
        odds; of knn they are the shares of its weighted votes. Scores of ridge, prototype, pfa and
        zero_shot, and numbers, are no probabilities.
        """
        return self.values(self(images)) if self.meaning in ("probability", "share") else None

    def values(self, scores: Tensor) -> Tensor:
        """What ``meaning`` says, [B, K], of scores: probabilities, shares, or the scores."""
        if self.meaning == "probability":
            return scores.softmax(1)
        if self.meaning == "share":
            return scores / scores.sum(1, keepdim=True).clamp(min=torch.finfo(scores.dtype).tiny)
        return scores


@dataclass(frozen=True)
class Pictures:
    """How the images of a dataset were made from files, and a model's are."""

    channels: int  # 1 or 3
    size: int | tuple[int, int]  # the side, or height and width, to which both sides are resized
    crop: float | None = None  # as of ImageFiles

    @classmethod
    def of(cls, pack: Pack) -> "Pictures | str":
        """A text says why files of images cannot be read."""
        if pack.vocabulary:
            return "it reads texts"
        channels, height, width = pack.task.input_shape
        if pack.inputs.dtype != torch.uint8 or channels not in (1, 3):
            kind = str(pack.inputs.dtype).removeprefix("torch.")
            return f"it reads {channels} channels of {kind}, and a picture has 1 or 3 of 8 bits"
        return cls(channels, height if height == width else (height, width), pack.crop)

    def read(self, path: Path, deep: list[int]) -> np.ndarray:
        """uint8 [C, H, W]; BadInput if it cannot be decoded, or has colours and should have none.

        Of ``deep`` see `read_image`.
        """
        pixels = read_image(path, self.size, self.crop, deep)
        if self.channels == 1 and (pixels != pixels[:1]).any():
            raise BadInput(f"image {path} has colours, and the model reads grey images; convert it")
        return pixels[: self.channels]


@dataclass(frozen=True, repr=False)
class Predictions:
    """What a model says of the images below a folder."""

    paths: tuple[str, ...]  # from the folder, sorted
    predicted: tuple[str | float, ...]  # the name of a class each, or a number
    values: Tensor | None  # float64 [N, K]; None of numbers
    meaning: Meaning  # of values
    class_names: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of a table's columns."""
        each = (f"{self.meaning} of {name}" for name in self.class_names)
        return ("file", "prediction", *each)

    def rows(self) -> Iterator[tuple[str | float | None, ...]]:
        """The table's rows; None is the score of a class that the readout never predicts."""
        for row, (path, said) in enumerate(zip(self.paths, self.predicted, strict=True)):
            each: list[float] = [] if self.values is None else self.values[row].tolist()
            shown: list[float | None] = [None if value <= LEAST else value for value in each]
            yield (path, said, *shown)

    def to_frame(self) -> "pd.DataFrame":
        """The table as a pandas.DataFrame. BadInput if pandas is not installed."""
        try:
            import pandas as pd
        except ImportError:
            raise BadInput(
                'to_frame needs pandas: pip install "benchbench-shift[export]"; rows() does not'
            ) from None
        return pd.DataFrame(self.rows(), columns=self.columns)

    def __str__(self) -> str:
        """How many images there are of each prediction, or how numbers spread."""
        if not self.class_names:
            low, high = min(self.predicted), max(self.predicted)
            return f"{len(self.paths)} images, predicted from {low:g} to {high:g}"
        counts = Counter(self.predicted).most_common()
        each = ", ".join(f"{count} {name}" for name, count in counts)
        return f"{len(self.paths)} images: {each}"

    __repr__ = __str__


@torch.no_grad()
def predict(
    model: Model, folder: Path, *, batch_size: int = BATCH, report: Report = lambda done, n: None
) -> Predictions:
    """Predict every image below a folder, in the order of their paths.

    Files are found and decoded, and images resized, as those of a dataset are: hidden files are
    passed over, others that are no images are counted in a warning. ``batch_size`` images are in
    memory at a time. BadInput if there is no image, one cannot be decoded (of several, the first is
    named and the others are counted), or the model reads no pictures.
    """
    if isinstance(model.pictures, str):
        raise BadInput(f"the model cannot read files of images: {model.pictures}")
    paths, device = images_below(folder), next(iter(model.state_dict().values())).device
    broken: dict[int, BadInput] = {}
    deep: list[int] = []
    scores: list[Tensor] = []

    def read(pictures: Pictures, row: int) -> np.ndarray | None:
        try:
            return pictures.read(folder / paths[row], deep)
        except BadInput as error:
            broken[row] = error
            return None

    with quiet(), ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(paths), batch_size):
            rows = range(start, min(start + batch_size, len(paths)))
            pixels = [*pool.map(partial(read, model.pictures), rows)]
            if not broken:  # if one is, the others are read to count those that are, too
                images = torch.from_numpy(np.stack([p for p in pixels if p is not None]))
                scores.append(model(as_read(images.to(device))).cpu())
            report(rows.stop, len(paths))
    told(broken)
    tell_of_twelve_bits(deep)
    found = torch.cat(scores)
    if not found.isfinite().all():
        row = int((~found.isfinite().all(1)).nonzero()[0])
        raise BadInput(f"the scores of image {folder / paths[row]} are not finite")
    if not model.class_names:
        numbers = tuple(found[:, 0].float().tolist())
        return Predictions(tuple(paths), numbers, None, model.meaning, ())
    named = tuple(model.class_names[k] for k in found.argmax(1).tolist())
    values = model.values(found).double()
    return Predictions(tuple(paths), named, values, model.meaning, model.class_names)


def cell_of(
    plan: Plan,
    method: str,
    shift: str | None = None,
    seed: int | None = None,
    draw: int | None = None,
) -> Cell:
    """The cell of a suite that is meant; what is not said is the first, but of several shifts.

    BadInput says what there is where a name is unknown, or a shift has to be chosen.
    """
    mine = [cell for cell in plan.cells if cell.method.name == method]
    if not mine:
        names = dict.fromkeys(cell.method.name for cell in plan.cells)
        raise BadInput(
            f"no method of {plan.suite.name} is named {method!r}; {instead(method, names)}"
        )
    shifts = plan.suite.ranked_shifts(mine)
    if shift is None and len(shifts) > 1:
        raise BadInput(
            f"method {method} has {len(shifts)} shifts; choose the shift: {', '.join(shifts)}"
        )
    wanted = shifts[0] if shift is None else str(Shift.parse(shift, plan.pack.domain_names))
    if not any(str(cell.shift) == wanted for cell in mine):
        raise BadInput(f"method {method} has no shift {wanted!r}; {instead(wanted, shifts)}")
    mine = [cell for cell in mine if str(cell.shift) == wanted]
    for name, value in (("seed", seed), ("draw", draw)):
        known = [*dict.fromkeys(getattr(cell, name) for cell in mine)]
        if value is not None and value not in known:
            there = ", ".join(map(str, known))
            raise BadInput(f"method {method} has no {name} {value}; there is {there}")
        mine = [c for c in mine if getattr(c, name) == (known[0] if value is None else value)]
    return mine[0]


def _trained(
    plan: Plan, cell: Cell, run: str | None
) -> tuple[nn.Module, Objective | None, str | None]:
    """Encoder and last objective as the last stage left them, and the sha256 of their file."""
    links, objective, kept = plan.links(cell), None, None
    if links and (kept := plan.store.read("stages", links[-1].key)) is None:
        raise BadInput(_why_untrained(plan, cell, run))
    device = plan.machine.device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):  # building seeds it
        encoder = first_encoder(cell, plan)
        for link in links:
            objective = first_objective(cell, link, encoder, plan)
    if kept is not None:
        load(encoder, objective, kept)
    encoder.eval().requires_grad_(False)
    return encoder, objective, kept.sha256 if kept else None


def _why_untrained(plan: Plan, cell: Cell, run: str | None) -> str:
    place = plan.store.records(plan.suite.name) / f"{plan.stem(cell)}.json"
    meant = {"method": cell.method.name, "shift": str(cell.shift), "seed": f"{cell.seed}"}
    meant |= {"draw": f"{cell.draw}"} if cell.draw else {}
    only = ",".join(f"{name}={glob.escape(value)}" for name, value in meant.items())
    command = run or f"benchbench run {plan.suite.name}"
    quoted = shlex.quote(only)
    again = command.replace("ONLY", quoted) if "ONLY" in command else f"{command} --only {quoted}"
    record = plan.record(cell)
    if record is None:
        return f"{cell} is not trained in store {plan.store.root}; train it with: {again}"
    if record.status == "scored":
        return (
            f"{cell}: store {plan.store.root} has its record, but no longer its encoder, or that "
            f"was damaged; remove {place} and train it again with: {again}"
        )
    return f"{cell} has no trained encoder: it ended as {record.status}, {record.reason}"


def _meaning(fitted: Fitted, task: Task) -> Meaning:
    if not task.num_classes:
        return "number"
    if fitted.log_odds:
        return "probability"
    return "share" if fitted.votes else "score"


class AffineReadout(nn.Module):
    """Scores that are an affine map of features."""

    weight: Tensor
    bias: Tensor

    def __init__(self, affine: Affine) -> None:
        super().__init__()
        self.unit = affine.unit
        self.register_buffer("weight", affine.weight.clone())
        self.register_buffer("bias", affine.bias.clamp(min=LEAST))  # float32 has no less

    def forward(self, z: Tensor) -> Tensor:
        z = z.to(self.weight.dtype)
        return (F.normalize(z, dim=1) if self.unit else z) @ self.weight + self.bias


class HeadReadout(nn.Module):
    """Scores of an objective's own head that is no linear map."""

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, z: Tensor) -> Tensor:
        return self.objective.predict(z)


class FittedReadout(nn.Module):
    """Scores of a readout that is no module, such as knn; on the CPU, as it was fitted."""

    def __init__(self, scores: Scores) -> None:
        super().__init__()
        self.scores = scores

    def forward(self, z: Tensor) -> Tensor:
        return self.scores(z.cpu()).to(z.device)


def readout_of(fitted: Fitted) -> nn.Module:
    return AffineReadout(fitted.affine) if fitted.affine else FittedReadout(fitted.scores)


@torch.no_grad()
def readout_of_head(objective: Objective, z: Tensor) -> nn.Module:
    """Affine where the objective predicts features with its classifier and nothing else."""
    objective = objective.cpu().eval()
    if isinstance(objective, Supervised) and isinstance(objective.classifier, nn.Linear):
        linear = objective.classifier
        if torch.allclose(objective.predict(z), linear(z), rtol=1e-6, atol=1e-6):
            weight = linear.weight.detach().T.double()
            bias = (
                weight.new_zeros(weight.shape[1]) if linear.bias is None else linear.bias.double()
            )
            return AffineReadout(Affine(weight, bias.detach()))
    return HeadReadout(objective)
