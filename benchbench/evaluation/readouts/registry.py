"""Readouts by the names that suites have for them."""

from collections.abc import Callable, Mapping

from benchbench.evaluation.readouts.interface import Fit
from benchbench.evaluation.readouts.knn import knn
from benchbench.evaluation.readouts.linear_probe import linear
from benchbench.evaluation.readouts.nearest_class_mean import prototype
from benchbench.evaluation.readouts.pfa import pfa
from benchbench.evaluation.readouts.ridge import ridge
from benchbench.evaluation.readouts.zero_shot import with_digest, zero_shot
from benchbench.extension.errors import BadInput
from benchbench.extension.grammar import instead, options_of, parse, settle, spell

READOUTS: Mapping[str, Callable[..., Fit]] = {
    "linear": linear,
    "ridge": ridge,
    "knn": knn,
    "prototype": prototype,
    "pfa": pfa,
    "zero_shot": zero_shot,
}
PINNED = {"zero_shot": with_digest}  # what reads a file is spelled with the file's content
HEAD = "head"
READ_MOMENTS = ("pfa",)  # what asks for the moments of unlabelled rows
OF_NUMBERS = ("linear", "ridge", "knn", HEAD)


def check_task(text: str, num_classes: int) -> None:
    """BadInput if labels are numbers and the readout wants classes."""
    name, _ = parse(text)
    if not num_classes and name not in OF_NUMBERS:
        known = ", ".join(OF_NUMBERS)
        raise BadInput(f"readout {name} wants classes, and labels are numbers; there is {known}")


def reads_moments(text: str) -> bool:
    """Whether the readout asks for the moments of unlabelled rows."""
    return parse(text)[0] in READ_MOMENTS


def resolve_readout(text: str) -> tuple[str, Callable[[], Fit] | None]:
    """The spelling with all defaults, and what builds it; None for the objective's own head."""
    name, chosen = parse(text)
    if name == HEAD and not chosen:
        return HEAD, None
    if name not in READOUTS:
        raise BadInput(f"no readout is named {name!r}; {instead(name, [*READOUTS, HEAD])}")
    factory = READOUTS[name]
    options = settle(f"readout {name}", options_of(factory), chosen)
    options = PINNED.get(name, dict)(options)
    return spell(name, options), lambda: factory(**options)
