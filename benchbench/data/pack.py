"""A dataset as the core uses it: checked, split and fingerprinted."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from benchbench.data.encoded_images import Encoded
from benchbench.data.fingerprint import digest_of, fingerprint_of
from benchbench.data.splits import draw_split
from benchbench.evaluation.metrics import OF_GROUPS, resolve_metric
from benchbench.extension.constants import PADDING, TEST, TRAIN, UNKNOWN, VAL
from benchbench.extension.contracts import DomainData, ImageFiles, Task, is_known
from benchbench.extension.errors import BadInput
from benchbench.store.records import Unseen


@dataclass(frozen=True)
class Pack:
    """Rows of images or texts, and what is known of each."""

    inputs: Tensor | Encoded  # as in DomainData; memory-mapped where they lie in a store
    labels: Tensor  # int64 [N], or float32 [N] of numbers
    domains: Tensor  # int64 [N]
    split: Tensor  # int64 [N]
    groups: Tensor | None  # int64 [N], −1: in none; or bool [N, G]
    class_names: tuple[str, ...]
    domain_names: tuple[str, ...]
    group_names: tuple[str, ...]
    metric: str  # the dataset's own
    licence: str
    fingerprint: str  # sha256 over everything here that decides a score, but the metric
    vocabulary: tuple[str, ...] = ()
    crop: float | None = None  # as in ImageFiles, of which the inputs were decoded

    @property
    def task(self) -> Task:
        shape = tuple(self.inputs.shape[1:])
        return Task(shape, len(self.class_names), len(self.domain_names), self.vocabulary)

    @property
    def hidden(self) -> Tensor:
        """What stands for a label that nobody may see."""
        return torch.tensor(UNKNOWN if self.class_names else torch.nan, dtype=self.labels.dtype)

    def with_label(self, rows: Tensor) -> Tensor:
        """Those of some rows whose label is known."""
        return rows[is_known(self.labels[rows])]

    @property
    def labelled_domains(self) -> tuple[str, ...]:
        """Those of which some row has a label, in the data's order."""
        numbers = self.domains[is_known(self.labels)].unique().tolist()
        return tuple(self.domain_names[number] for number in numbers)

    def rows(self, domain: str, split: int) -> Tensor:
        """int64 indices of a domain's rows in one split, ascending."""
        number = self.domain_names.index(domain)
        return ((self.domains == number) & (self.split == split)).nonzero().flatten()


def pack_of(data: DomainData, split_seed: int, inputs: Tensor | Encoded, digest: str) -> Pack:
    """The data with these inputs, whose sha256 is ``digest``; a split is drawn if there is none.

    BadInput names what breaks the contract of DomainData.
    """
    count, names = len(inputs), data.domain_names
    for column in ("labels", "domains", "split", "units", "groups"):
        values = getattr(data, column)
        wanted, words, shape = torch.int64, "int64", [count]
        if column == "labels" and not data.class_names:
            wanted, words = torch.float32, "float32, as there are no class_names,"
        elif column == "groups" and values is not None and values.dtype == torch.bool:
            wanted, words, shape = torch.bool, "bool", [count, len(data.group_names)]
        if values is not None and (values.dtype != wanted or list(values.shape) != shape):
            raise BadInput(f"the dataset's {column} must be {words} of shape {shape}")
    if data.class_names:
        _check_range("labels", data.labels, UNKNOWN, len(data.class_names))
    elif data.labels.isinf().any():
        raise BadInput("the dataset's labels must be finite, or NaN where nobody knows them")
    _check_range("domains", data.domains, 0, len(names))
    if data.groups is not None and data.groups.dtype != torch.bool:
        named = len(data.group_names) or torch.iinfo(torch.int64).max
        _check_range("groups", data.groups, -1, named)
    if (inputs.ndim == 2) != bool(data.vocabulary):
        raise BadInput("the dataset's texts need a vocabulary, and its images must have none")
    if data.vocabulary and isinstance(inputs, Tensor):
        _check_range("texts", inputs, PADDING, len(data.vocabulary))
    resolve_metric(data.metric, data.groups, classes=bool(data.class_names))
    split = data.split
    if split is None:
        split = draw_split(data.labels, data.domains, data.units, names, split_seed)
    _check_range("split", split, TRAIN, TEST + 1)
    return Pack(
        inputs,
        data.labels,
        data.domains,
        split,
        data.groups,
        data.class_names,
        names,
        data.group_names,
        data.metric,
        data.licence,
        fingerprint_of(data, split, tuple(inputs.shape), digest),
        data.vocabulary,
    )


def in_memory(data: DomainData, split_seed: int = 0) -> Pack:
    """The pack of data whose inputs are a tensor."""
    assert not isinstance(data.inputs, ImageFiles), "files are prepared in a store"
    return pack_of(data, split_seed, data.inputs, digest_of(data.inputs))


def _check_range(column: str, values: Tensor, low: int, end: int) -> None:
    if len(values) and not (low <= int(values.min()) and int(values.max()) < end):
        raise BadInput(f"the dataset's {column} must lie in [{low}, {end - 1}]")


def check_shift(pack: Pack, labelled: Sequence[str], targets: Sequence[str], shift: str) -> None:
    """BadInput if the shift cannot be learned or scored at all."""
    for name in labelled:
        for split, word in ((TRAIN, "training"), (VAL, "validation")):
            if not len(pack.with_label(pack.rows(name, split))):
                raise BadInput(f"shift {shift}: domain {name!r} has no labelled {word} rows")
    rows = torch.cat([pack.with_label(pack.rows(name, TRAIN)) for name in labelled])
    classes = set(pack.labels[rows].tolist())
    for name in {*labelled, *targets} if pack.metric in OF_GROUPS else ():
        tests = pack.with_label(pack.rows(name, TEST))
        groups = torch.zeros(0) if pack.groups is None else pack.groups[tests]
        if len(tests) and not (groups if groups.dtype == torch.bool else groups >= 0).any():
            raise BadInput(
                f"shift {shift}: the metric {pack.metric} is of groups, and no test row of domain "
                f"{name!r} is in one"
            )
    for name in targets:
        tests = pack.with_label(pack.rows(name, TEST))
        if not len(tests):
            raise BadInput(f"shift {shift}: domain {name!r} has no labelled test rows")
        wanted = set(pack.labels[tests].tolist())
        if pack.class_names and not wanted & classes:
            mine = ", ".join(pack.class_names[label] for label in sorted(wanted)) or "none"
            theirs = ", ".join(pack.class_names[label] for label in sorted(classes))
            raise BadInput(
                f"shift {shift}: domain {name!r} has no class in common with the labelled "
                f"domains; it has {mine}, they have {theirs}"
            )


def unseen(pack: Pack, labelled: Sequence[str], targets: Sequence[str]) -> Unseen | None:
    """Classes of the targets' test rows that no training row of the labelled domains has."""
    if not pack.class_names:
        return None
    shown, tested = (
        pack.labels[torch.cat([pack.with_label(pack.rows(name, split)) for name in names])]
        for names, split in ((labelled, TRAIN), (targets, TEST))
    )
    tests = tested.bincount(minlength=len(pack.class_names))
    missing = (tests > 0) & (shown.bincount(minlength=len(tests)) == 0)
    if not missing.any():
        return None
    return Unseen(
        classes={pack.class_names[k]: int(tests[k]) for k in missing.nonzero().flatten().tolist()},
        n_classes=int((tests > 0).sum()),
        n=len(tested),
    )
