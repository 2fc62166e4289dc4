"""A trained model as a file for other programs: ONNX, torch.export, or plain weights.

Every file holds, as JSON, what the model is: `description`. Nothing takes its place before what
was read back from it gave the model's scores of random inputs.
"""

import copy
import io
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from benchbench.execution.trained_model import AffineReadout, FittedReadout, Model
from benchbench.extension.errors import BadInput
from benchbench.store.artifacts import packed
from benchbench.store.atomic_files import place, writing

NAME = "benchbench"  # of the metadata, in every file
TOLERANCE = 1e-4  # by how much scores may differ, as a share of the largest, or of 1
ROWS = (1, 5)  # of the batches that an exported file is tried with
ONNX = ("onnx", "onnxruntime", "onnxscript")
LARGEST_ONNX = 2**31  # bytes of a protobuf


def export(model: Model, path: Path) -> str:
    """Write a model to FILE.onnx, FILE.pt2 or FILE.safetensors, complete or not at all.

    Returns what the file holds, in words.

    An .onnx (by torch's exporter, opset as it chooses; the extra ``onnx``) and a .pt2 (for
    torch.export.load) map ``images``, float32 [B, C, H, W] in [0, 1], any B, to ``scores``
    [B, K]: the encoder in float32, an affine readout in float64, as in the protocol, since classes
    whose scores differ by 1e-9 would be equal in float32. A .safetensors has the encoder's state
    dict below ``encoder.``, and below ``readout.`` the ``weight`` [D, K] and ``bias`` [K] of
    readouts that are an affine map: linear, ridge, prototype, pfa, zero_shot (of features scaled
    to length 1) and linear heads.

    BadInput if the suffix is another, the readout cannot be exported, the packages are missing,
    the exporter fails, or the file's scores differ from the model's by more than 1e-4.
    """
    check_target(path)
    if path.suffix != ".safetensors" and isinstance(model.readout, FittedReadout):
        raise BadInput(
            f"readout {model.metadata['readout']} cannot be exported to {path.suffix}; linear, "
            "ridge, prototype, pfa, zero_shot and head can, and .safetensors holds the encoder"
        )
    plain = copy.deepcopy(model).cpu().to(memory_format=torch.contiguous_format).eval()
    content, scores = WRITERS[path.suffix](plain)
    for rows in ROWS:
        inputs = random_inputs(model, rows)
        with torch.no_grad():
            check(path, scores(inputs), plain(inputs))
    with writing(str(path)):
        place(path, content)
    return contents(model, path.suffix)


def contents(model: Model, suffix: str) -> str:
    if suffix != ".safetensors" or isinstance(model.readout, AffineReadout):
        return "encoder and readout"
    return f"the encoder alone, as readout {model.metadata['readout']} is no affine map"


def check_target(path: Path) -> None:
    """BadInput if no file of this suffix can be written, as far as can be told without a model."""
    if path.suffix not in WRITERS:
        known = ", ".join(f"FILE{suffix}" for suffix in WRITERS)
        raise BadInput(f"a model cannot be exported to {path}; there is {known}")
    missing = [name for name in ONNX if find_spec(name) is None] if path.suffix == ".onnx" else []
    if missing:
        raise BadInput(
            f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed, and an "
            '.onnx needs it: pip install "benchbench-shift[onnx]"'
        )


def check(path: Path, found: Tensor, wanted: Tensor) -> None:
    """BadInput if scores [B, K] of a file are not those of the model."""
    scale = wanted[wanted > torch.finfo(wanted.dtype).min].abs().amax().clamp(min=1)
    apart = (found - wanted).abs().div(scale)
    if found.shape != wanted.shape or not (apart <= TOLERANCE).all():
        raise BadInput(
            f"{path} is not written: its scores of random inputs differ from the model's, by "
            f"{apart.max().item():.2g} of the largest"
        )


def random_inputs(model: Model, rows: int) -> Tensor:
    """Inputs as the model reads them, the same at every call."""
    draw = torch.Generator().manual_seed(rows)
    shape = (rows, *model.input_shape)
    if words := len(model.task.vocabulary):
        return torch.randint(words, shape, generator=draw)
    return torch.rand(shape, generator=draw)


def description(model: Model, suffix: str) -> dict[str, Any]:
    """All that a user of the file has to know, for JSON."""
    how = model.pictures
    images = None
    if not isinstance(how, str):
        colours = "RGB" if how.channels == 3 else "grey"
        made = {"resize": "bilinear, as Pillow does", "values": "uint8 / 255"}
        images = {"colours": colours, "crop": how.crop, **made}
    return {
        **model.metadata,
        "holds": contents(model, suffix),
        "input_shape": model.input_shape,
        "images": images,
        "class_names": model.class_names,
        "scores_are": MEANINGS[model.meaning],
        "features": "scaled to length 1"
        if getattr(model.readout, "unit", False)
        else "as they are",
    }


MEANINGS = {
    "probability": "log odds, whose softmax are probabilities",
    "share": "weights of votes",
    "score": "the highest is the prediction; they are no probabilities",
    "number": "the prediction",
}

Written = tuple[bytes, Callable[[Tensor], Tensor]]  # a file, and the scores it gives


def as_onnx(model: Model) -> Written:
    size = sum(tensor.nbytes for tensor in model.state_dict().values())
    if size >= LARGEST_ONNX:
        raise BadInput(f"an .onnx holds at most 2 GiB, and the model has {size:,} bytes; use .pt2")
    import onnxruntime

    with exporting(model, ".onnx"):
        program = torch.onnx.export(
            Plain(model),
            (random_inputs(model, 2),),
            dynamo=True,
            input_names=["images"],
            output_names=["scores"],
            dynamic_shapes=dynamic(),
            verbose=False,
        )
        assert program is not None, "dynamo returns a program"
        program.model.metadata_props[NAME] = json.dumps(description(model, ".onnx"))
        content: bytes = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def scores(inputs: Tensor) -> Tensor:
        (found,) = session.run(None, {"images": inputs.numpy()})
        return torch.from_numpy(np.asarray(found))

    return content, scores


def as_pt2(model: Model) -> Written:
    file, note = io.BytesIO(), {f"{NAME}.json": json.dumps(description(model, ".pt2"))}
    with exporting(model, ".pt2"):
        program = torch.export.export(
            Plain(model), (random_inputs(model, 2),), dynamic_shapes=dynamic()
        )
        torch.export.save(program, file, extra_files=note)
    file.seek(0)
    read: nn.Module = torch.export.load(file).module()
    return file.getvalue(), read


def as_safetensors(model: Model) -> Written:
    tensors = {f"encoder.{name}": value for name, value in model.encoder.state_dict().items()}
    if isinstance(model.readout, AffineReadout):
        tensors |= {f"readout.{name}": v for name, v in model.readout.state_dict().items()}
    content = packed(tensors, {NAME: json.dumps(description(model, ".safetensors"))})
    kept, again = safetensors.torch.load(content), copy.deepcopy(model)
    inside: Mapping[str, Tensor] = {
        name: tensor for name, tensor in kept.items() if not name.startswith("readout.")
    }
    again.encoder.load_state_dict({n.removeprefix("encoder."): t for n, t in inside.items()})
    if isinstance(again.readout, AffineReadout):
        again.readout.weight, again.readout.bias = kept["readout.weight"], kept["readout.bias"]
    return content, again


WRITERS: Mapping[str, Callable[[Model], Written]] = {
    ".onnx": as_onnx,
    ".pt2": as_pt2,
    ".safetensors": as_safetensors,
}


class Plain(nn.Module):
    """The model without the checks of its input, which a file cannot have."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.encoder, self.readout = model.encoder, model.readout

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.readout(self.encoder(images))
        return scores


def dynamic() -> dict[str, Any]:
    """Any number of rows."""
    return {"images": {0: torch.export.Dim("batch")}}


@contextmanager
def exporting(model: Model, suffix: str) -> Iterator[None]:
    """What torch's exporters say of a network that they cannot export, as BadInput."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of deprecations inside torch
            yield
    except Exception as error:  # as many types as there are networks
        reason = f"{error}".strip().partition("\n")[0] or type(error).__name__
        raise BadInput(
            f"encoder {model.metadata['encoder']} cannot be exported to {suffix}: {reason}"
        ) from error
