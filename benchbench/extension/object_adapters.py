"""Modules, functions and arrays of a user as what plugins offer."""

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchbench.extension.contracts import Batch, DomainData, Objective, Task
from benchbench.extension.errors import BadInput

MOST_VALUES = 50  # of a column of texts that are quoted in an error


class Encoder(nn.Module):
    """Any module or function from a batch [B, …] to features, flattened to [B, num_features]."""

    def __init__(self, function: Callable[[Tensor], Any], num_features: int) -> None:
        super().__init__()
        self.function, self.num_features = function, num_features

    def forward(self, inputs: Tensor) -> Tensor:
        features: Tensor = self.function(inputs)
        return features.flatten(1)


def encoder_factory(thing: Any) -> Callable[[Task], nn.Module]:
    """Builds a copy of a module, so that a cell that trains it leaves the user's as it was.

    BadInput if it does not read the data, or returns no tensor with a row for each input.
    """

    def encoder(task: Task) -> nn.Module:
        mine = copy.deepcopy(thing) if isinstance(thing, nn.Module) else thing
        known = getattr(mine, "num_features", None)
        if isinstance(mine, nn.Module):
            mine.eval()
        try:
            with torch.no_grad():
                found = mine(task.blank(2))
        except Exception as error:  # as many types as there are networks
            size = f"{task.modality}s of {' × '.join(map(str, task.input_shape))}"
            raise BadInput(f"the encoder cannot read {size}: {error}") from None
        if not isinstance(found, Tensor) or found.ndim < 2 or len(found) != 2:
            what = f"{tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            raise BadInput(
                f"the encoder returns {what} for two inputs, and should return one tensor of "
                "features [2, num_features]; wrap it in a function that picks them"
            )
        width = found[0].numel()
        if found.is_complex():
            raise BadInput("the encoder returns complex numbers; make them real, as by torch.abs")
        if isinstance(mine, nn.Module) and found.ndim == 2 and known == width:
            return mine
        return Encoder(mine, width)

    encoder.__doc__ = inspect.getdoc(thing if inspect.isroutine(thing) else type(thing))
    return encoder


def objective_factory(thing: Any) -> Callable[..., Objective]:
    """A class or a factory as it is; ``loss(encoder, batch)`` as an objective without options."""
    if isinstance(thing, Objective):
        name = type(thing).__name__
        raise BadInput(
            f"the objective is an instance of {name}, and every cell needs one of its own: give "
            f"the class {name}, or functools.partial({name}, option=value)"
        )
    if isinstance(thing, type) and not issubclass(thing, Objective):
        raise BadInput(f"{thing.__name__} is no objective; derive it from benchbench.Objective")
    if not callable(thing):
        raise BadInput(f"{type(thing).__name__} is no objective; give a class or a function")
    names = [] if isinstance(thing, type) else [*inspect.signature(thing).parameters]
    if isinstance(thing, type) or (names[1:2] == ["task"]):
        return thing  # a factory, which the first stage tries
    if len(names) != 2:
        raise BadInput(
            f"{getattr(thing, '__name__', 'the objective')} takes {len(names)} arguments; a loss "
            "takes an encoder and a batch, and a factory (encoder, task, *, options)"
        )

    class Function(Objective):
        """A loss as a function of an encoder and a batch; a module is trained with the encoder."""

        reads = frozenset({"labels", "domains"} & set(getattr(thing, "reads", ())))

        def __init__(self, encoder: nn.Module, task: Task) -> None:
            super().__init__()
            self.loss = copy.deepcopy(thing) if isinstance(thing, nn.Module) else None

        def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
            try:
                loss: Tensor = (self.loss or thing)(encoder, batch)
            except (AttributeError, TypeError) as error:
                hidden = [n for n in ("labels", "domains") if n not in self.reads]
                if hidden and "NoneType" in str(error):
                    name = getattr(thing, "__name__", "loss")
                    error.add_note(
                        f"batch.{hidden[0]} is None unless the loss says that it reads them: "
                        f"{name}.reads = {{{hidden[0]!r}}}"
                    )
                raise
            return loss

    Function.__doc__ = inspect.getdoc(thing) or Function.__doc__
    return Function


def augmentation_factory(thing: Any) -> Callable[[Task], Callable[[Tensor], Tensor]]:
    """One that returns a function from a batch to its view, whatever the data."""
    if not callable(thing):
        raise BadInput(f"{type(thing).__name__} is no augmentation; give a function of a batch")

    def view(inputs: Tensor) -> Tensor:
        found: Tensor = thing(inputs)
        right = isinstance(found, Tensor) and found.dtype == inputs.dtype
        if not right or len(found) != len(inputs):
            raise TypeError(
                f"the augmentation returns {_shown(found)} for {_shown(inputs)}, and should return "
                "a tensor of the same dtype with a view in each row"
            )
        return found

    return lambda task: view


def _shown(thing: Any) -> str:
    if not isinstance(thing, Tensor):
        return type(thing).__name__
    return f"{thing.dtype} {list(thing.shape)}".removeprefix("torch.")


def dataset_factory(data: DomainData) -> Callable[[Any], DomainData]:
    return lambda root: data


def domain_data(
    inputs: Any,
    labels: Any,
    domains: Any,
    *,
    split: Any = None,
    units: Any = None,
    class_names: Sequence[str] = (),
    domain_names: Sequence[str] = (),
    licence: str = "unknown",
) -> DomainData:
    """Data of several domains from arrays.

    ``inputs`` are images [N, C, H, W] or [N, H, W, C], uint8 or float in [0, 1]. Labels and domains
    [N] are texts, or integers that index ``class_names`` and ``domain_names`` where these are
    given; a label of -1 or None is unknown. ``split`` [N] is of "train", "val" and "test", and is
    drawn where there is none; ``units`` [N] are what a drawn split keeps whole. BadInput says which
    argument is not such.
    """
    images = _images(inputs)
    count = len(images)
    if not count:
        raise BadInput("inputs are empty")
    numbers, names = _coded("labels", labels, count, class_names, unknown=True)
    places, domain_words = _coded("domains", domains, count, domain_names, unknown=False)
    sides = ("train", "val", "test")
    parts = None if split is None else _coded("split", split, count, sides, unknown=False)[0]
    kept = None if units is None else _coded("units", units, count, (), unknown=False)[0]
    return DomainData(
        images, numbers, places, names, domain_words, split=parts, units=kept, licence=licence
    )


def of_torch(dataset: Any) -> DomainData:
    """Of a torch Dataset whose items are (image, label, domain), each read once.

    BadInput if its items are others.
    """
    images, labels, domains = [], [], []
    for number in range(len(dataset)):
        try:
            item = dataset[number]
        except Exception as error:
            told = f"{type(error).__name__}: {error}"
            raise BadInput(f"item {number} of the dataset cannot be read: {told}") from error
        if not isinstance(item, tuple | list) or len(item) != 3:
            raise BadInput(
                f"item {number} of the dataset should be (image, label, domain), and is "
                f"{type(item).__name__}"
                + (f" of {len(item)}" if isinstance(item, tuple | list) else "")
            )
        images.append(_image(item[0], number))
        labels.append(_plain(item[1]))
        domains.append(_plain(item[2]))
    if len({image.shape for image in images}) > 1:
        raise BadInput("images of the dataset have several sizes; resize them to one")
    names = getattr(dataset, "classes", None) or ()
    return domain_data(torch.stack(images), labels, domains, class_names=tuple(map(str, names)))


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value


def _image(value: Any, number: int) -> Tensor:
    array = torch.as_tensor(np.array(value) if not isinstance(value, Tensor) else value)
    if array.ndim == 2:
        array = array[None] if isinstance(value, Tensor) else array[:, :, None]
    if array.ndim != 3:
        raise BadInput(f"image {number} of the dataset has {array.ndim} dimensions, not 3")
    return array if isinstance(value, Tensor) else array.permute(2, 0, 1)


def _images(inputs: Any) -> Tensor:
    """uint8 [N, C, H, W], or float16 where values are no bytes."""
    images = torch.as_tensor(np.asarray(inputs) if not isinstance(inputs, Tensor) else inputs)
    if images.ndim != 4:
        raise BadInput(f"inputs should be images of 4 dimensions, and have {images.ndim}")
    if images.shape[1] > 4 and images.shape[3] <= 4:
        images = images.permute(0, 3, 1, 2)
    if images.dtype.is_floating_point:
        if len(images) and not (images.min() >= 0 and images.max() <= 1):
            raise BadInput("inputs of floating point should lie in [0, 1]; bytes are uint8")
        as_bytes = (images * 255).round()
        exact = (as_bytes / 255 - images).abs().max() < 1e-6 if len(images) else True
        images = as_bytes.to(torch.uint8) if exact else images.to(torch.float16)
    elif images.dtype != torch.uint8:
        raise BadInput(f"inputs should be uint8, or floats in [0, 1], and are {images.dtype}")
    return images.contiguous()


def _coded(
    column: str, values: Any, count: int, names: Sequence[str], *, unknown: bool
) -> tuple[Tensor, tuple[str, ...]]:
    """int64 [N], and what the numbers stand for."""
    try:
        plain = [_plain(value) for value in values]
    except TypeError:
        raise BadInput(f"{column} is {type(values).__name__}, and should have an entry for each "
                       "input") from None  # fmt: skip
    if len(plain) != count:
        raise BadInput(f"{column} has {len(plain)} entries for {count} inputs")
    missing = [value is None or (isinstance(value, int) and value == -1) for value in plain]
    if any(missing) and not unknown:
        raise BadInput(f"{column}[{missing.index(True)}] is missing")
    known = [value for value, gone in zip(plain, missing, strict=True) if not gone]
    if all(isinstance(value, int) for value in known):
        words = tuple(names) or tuple(map(str, range(max(known, default=-1) + 1)))
        for row, value in enumerate(plain):
            if not missing[row] and not 0 <= value < len(words):
                raise BadInput(f"{column}[{row}] is {value}, and there are {len(words)} names")
        codes = [-1 if gone else value for value, gone in zip(plain, missing, strict=True)]
        return torch.tensor(codes, dtype=torch.int64), words
    if not all(isinstance(value, str) for value in known):
        odd = next(value for value in known if not isinstance(value, str))
        what = repr(odd) if isinstance(odd, str | int | float) else f"a {type(odd).__name__}"
        raise BadInput(f"{column} should be texts or integers, and has {what}")
    words = tuple(names) or tuple(sorted(set(known)))
    if strange := sorted(set(known) - set(words))[:MOST_VALUES]:
        raise BadInput(f"{column} has {strange[0]!r}, which is none of {', '.join(words)}")
    place: Mapping[str, int] = {word: number for number, word in enumerate(words)}
    codes = [-1 if gone else place[value] for value, gone in zip(plain, missing, strict=True)]
    return torch.tensor(codes, dtype=torch.int64), words
