"""From a dataset that a suite names to its pack."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchbench.data import preparation
from benchbench.data.pack import Pack
from benchbench.extension.catalog import Choice
from benchbench.extension.contracts import DomainData, ImageFiles
from benchbench.extension.errors import BadInput, MissingData
from benchbench.store.artifacts import Store


def packed(
    dataset: Choice, root: Path, store: Store, split_seed: int, report: preparation.Report
) -> Pack:
    """The dataset's pack, prepared if it is not there. MissingData if its files are not."""
    build = partial(described, dataset, root)
    return preparation.prepared(_source(dataset, root), build, store, split_seed, report)


def verified(
    dataset: Choice, root: Path, store: Store, split_seed: int = 0
) -> tuple[list[str], list[str]]:
    """What of a prepared dataset is no longer as its files are, and what overlaps in it."""
    return preparation.verified(_source(dataset, root), described(dataset, root), store, split_seed)


def check_apart(dataset: Choice, root: Path, store: Store, out: Path) -> None:
    """BadInput if a file written at ``out`` would change the dataset, which is prepared.

    It must lie in no folder that is read as a whole, and replace no file of the dataset.
    """
    place, read = out.resolve(), preparation.read_from(_source(dataset, root), store, 0)
    for path in read:
        if place.is_relative_to(path) and (path.is_dir() or place == path):
            what = "a folder" if path.is_dir() else "a file"
            raise BadInput(
                f"{out} would change the dataset, which is read from {what} {path}; "
                "name a place elsewhere with -o"
            )
    alike = place.suffix in {path.suffix for path in read}
    if alike and place.exists() and place.is_relative_to(os.path.commonpath(read)):
        inputs = described(dataset, root).inputs
        if isinstance(inputs, ImageFiles) and any(
            (inputs.root / path).resolve() == place
            for path in inputs.paths
            if path.endswith(place.name)
        ):
            raise BadInput(f"{out} is an image of the dataset; name a place elsewhere with -o")


def described(dataset: Choice, root: Path) -> DomainData:
    """What the dataset's plugin says of it. MissingData if its files are not there."""
    check_files(dataset, root)
    data: DomainData = dataset.build(root)
    return data


def check_files(dataset: Choice, root: Path) -> None:
    """MissingData if not all files are there that the dataset says it needs."""
    if missing := missing_files(dataset, root):
        raise MissingData(told_missing(dataset, root, missing), missing)


def _source(dataset: Choice, root: Path) -> dict[str, str]:
    """All that decides what a dataset's factory returns, but for the files."""
    digest = dataset.entry.plugin.digest
    return {"dataset": dataset.text, "plugin": digest, "root": str(root.resolve())}


def missing_files(dataset: Choice, root: Path) -> list[str]:
    """Paths below the root that the dataset needs, as far as it says which, and are not there."""
    source = dataset.entry.published
    wanted = source.files(**dataset.options) if source else ()
    return [path for path in wanted if not (root / path).exists()]


def told_missing(dataset: Choice, root: Path, missing: Sequence[str]) -> str:
    listed = ", ".join(missing[:4]) + (f" and {len(missing) - 4} more" if missing[4:] else "")
    source = dataset.entry.published
    assert source is not None, "what says which files it needs says where they are from"
    return (
        f"dataset {dataset.entry.name} needs {listed} below {root}; its authors publish it at "
        f"{source.home} ({source.licence})"
    )
