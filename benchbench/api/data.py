"""Datasets are listed, fetched, prepared, checked and drawn."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from benchbench.extension.errors import BadInput

if TYPE_CHECKING:
    from benchbench.data.pack import Pack
    from benchbench.extension.catalog import Catalog, Choice
    from benchbench.store.artifacts import Store

from benchbench.api.opening import Where, check_at_least, counting, data_place, store_place, teller
from benchbench.api.plugins import catalog
from benchbench.api.stores import Inspection


@dataclass(frozen=True)
class DatasetFacts:
    """What is known of a dataset before it is read."""

    name: str
    summary: str
    files: tuple[str, ...]  # that it needs below the data folder, as far as it says which
    missing: tuple[str, ...]
    home: str | None  # where its authors publish it
    licence: str | None

    def __str__(self) -> str:
        state = "here" if self.files else "no files of a fixed name: bundled, or as options say"
        if self.missing:
            more = f" and {len(self.missing) - 3} more" if self.missing[3:] else ""
            state = f"missing {', '.join(self.missing[:3])}{more}"
        lines = [f"{self.name}: {state}", f"    {self.summary}"]
        return "\n".join(lines + ([f"    {self.home} ({self.licence})"] if self.home else []))

    __repr__ = __str__


@dataclass(frozen=True)
class Datasets:
    """All datasets that plugins offer; printed, what of each is missing."""

    datasets: tuple[DatasetFacts, ...]
    data: Path

    def __str__(self) -> str:
        where = f"Files are looked for below {self.data}; say --data DIRECTORY for another folder."
        return "\n".join([*map(str, self.datasets), where])

    __repr__ = __str__

    def json(self) -> str:
        return json.dumps([asdict(facts) for facts in self.datasets], indent=1)


def data_list(
    *,
    data: Where = None,
    plugins: Sequence[str | Path] = (),
    without_plugins: Sequence[str] = (),
    strict_plugins: bool = False,
) -> Datasets:
    """Whether the files of every dataset are here, and where its authors publish them."""
    from benchbench.data.dataset_loading import missing_files

    known, place = _catalog(plugins, without_plugins, strict_plugins), data_place(data)
    found = []
    for (kind, name), entry in sorted(known.entries.items()):
        if kind != "dataset":
            continue
        source, missing = entry.published, missing_files(known.resolve("dataset", name), place)
        files = source.files(**entry.options) if source else ()
        home, licence = (source.home, source.licence) if source else (None, None)
        found.append(DatasetFacts(name, entry.summary, tuple(files), tuple(missing), home, licence))
    return Datasets(tuple(found), place)


@dataclass(frozen=True)
class Downloaded:
    """A dataset whose files were fetched."""

    dataset: str  # with all options
    missing: tuple[str, ...]  # files that have no address

    def __str__(self) -> str:
        state = f"still missing: {', '.join(self.missing)}" if self.missing else "here"
        return f"{self.dataset}: {state}"

    __repr__ = __str__


def data_download(
    dataset: str,
    *,
    data: Where = None,
    plugins: Sequence[str | Path] = (),
    without_plugins: Sequence[str] = (),
    strict_plugins: bool = False,
    progress: bool = True,
) -> Downloaded:
    """Fetch a dataset's files where its authors still publish them at an address.

    Files are checked by md5. After an interruption it goes on where it stopped. BadInput if there
    is no address, or what comes from it is something else.
    """
    from benchbench.data.dataset_loading import missing_files
    from benchbench.data.download import download

    known, place = _catalog(plugins, without_plugins, strict_plugins), data_place(data)
    choice = known.resolve("dataset", dataset)
    source = choice.entry.published
    items = source.downloads(**choice.options) if source else ()
    if not items:
        where = f"; its authors publish it at {source.home}" if source else ""
        raise BadInput(f"{dataset} cannot be downloaded from here{where}")
    tell = teller(progress)
    for item in items:
        tell(f"{item.url} to {place / item.path}")
        download(item, place, counting("fetching", "B", progress))
    return Downloaded(choice.text, tuple(missing_files(choice, place)))


@dataclass(frozen=True)
class Prepared:
    """A dataset in a store; printed, the rows of every domain by split, labelled and not."""

    dataset: str  # with all options
    pack: Pack = field(repr=False)

    def __str__(self) -> str:
        from tabulate import tabulate

        from benchbench.data.inspection import counts, lonely, without_label

        pack = self.pack
        body = [[*row] for row in counts(pack)]
        head = ["domain", "train", "unlabelled", "val", "test", "classes"]
        text = tabulate(body, head, tablefmt="github", intfmt=",")
        size = " × ".join(map(str, pack.task.input_shape))
        kind = f"tokens, of {len(pack.vocabulary):,} words" if pack.vocabulary else "pixels"
        about = f"{size} {kind}, fingerprint {pack.fingerprint[:12]}, {pack.licence}"
        return "\n".join([text, "", about, *without_label(pack), *lonely(pack)])

    __repr__ = __str__


def data_prepare(
    dataset: str,
    *,
    store: Where = None,
    data: Where = None,
    plugins: Sequence[str | Path] = (),
    without_plugins: Sequence[str] = (),
    strict_plugins: bool = False,
    progress: bool = True,
) -> Prepared:
    """Decode a dataset into the store, as `run` does with what a suite needs.

    ``dataset`` is spelled as in a suite. After an interruption it goes on where it stopped.
    BadInput if its files are missing, or are not as its plugin says.
    """
    known = _catalog(plugins, without_plugins, strict_plugins)
    choice, pack, _ = _prepared(known, dataset, store, data, progress)
    return Prepared(choice.text, pack)


def data_verify(
    dataset: str,
    *,
    store: Where = None,
    data: Where = None,
    plugins: Sequence[str | Path] = (),
    without_plugins: Sequence[str] = (),
    strict_plugins: bool = False,
    progress: bool = True,
) -> Inspection:
    """Compare a dataset with its files, with what was prepared, and with what its authors publish.

    Faults are what has changed, and rows that are missing. Notes are what overlaps: equal images
    or texts in several splits or domains, the worst first, and groups on several sides of a split.
    """
    from benchbench.data.dataset_loading import verified
    from benchbench.data.inspection import miscounted

    known = _catalog(plugins, without_plugins, strict_plugins)
    choice, pack, place = _prepared(known, dataset, store, data, progress)
    faults, overlaps = verified(choice, data_place(data), place)
    source = choice.entry.published
    expected = source.rows(**choice.options) if source else {}
    faults += miscounted(pack, expected)
    told = "as its authors say" if expected else "its authors' counts are not known here"
    what = "text" if pack.vocabulary else "image"
    more = "" if overlaps else f"; no {what} is in two splits or domains"
    rows = f"{choice.text}: {len(pack.labels):,} rows, unchanged since prepared"
    return Inspection(tuple(faults), tuple(overlaps), f"{rows}; {told}{more}")


@dataclass(frozen=True)
class Sheet:
    """A picture of a dataset."""

    path: Path
    width: int  # pixels
    height: int

    def __str__(self) -> str:
        return f"{self.path}: {self.width} × {self.height} pixels"

    __repr__ = __str__


def data_show(
    dataset: str,
    out: str | Path = "sheet.png",
    *,
    augmentation: str = "none",
    classes: int = 10,
    images: int = 4,
    views: int = 2,
    seed: int = 0,
    store: Where = None,
    data: Where = None,
    plugins: Sequence[str | Path] = (),
    without_plugins: Sequence[str] = (),
    strict_plugins: bool = False,
    progress: bool = True,
) -> Sheet:
    """Draw a sheet of a dataset: a row for each class, columns for each domain.

    ``images``, or texts, are drawn of each class in each domain, each with ``views`` of it by the
    ``augmentation``, which is spelled as in a suite.

    BadInput if ``out`` lies in a folder of the dataset, of which it would become a part, or cannot
    be written.
    """
    from benchbench.data.dataset_loading import check_apart
    from benchbench.data.inspection import contact_sheet
    from benchbench.suites.plan import build_augmentation, check_modality

    for name, count in (("classes", classes), ("images", images), ("views", views)):
        check_at_least(name, count, 1)
    known, out = _catalog(plugins, without_plugins, strict_plugins), Path(out)
    choice, pack, place = _prepared(known, dataset, store, data, progress)
    check_apart(choice, data_place(data), place, out)
    steps = known.pipeline(augmentation)
    for step in steps:
        check_modality(step, pack.task, known)
    augment = build_augmentation(steps, pack.task) if steps else None
    sheet = contact_sheet(pack, augment, classes, images, views, seed)
    try:
        sheet.save(out)
    except ValueError:
        raise BadInput(f"{out} must end like an image, such as {out.stem}.png") from None
    except OSError as error:
        raise BadInput(f"{out} cannot be written: {error.strerror or error}") from None
    return Sheet(out, sheet.width, sheet.height)


def data_doctor(
    *,
    store: Where = None,
    data: Where = None,
    plugins: Sequence[str | Path] = (),
    without_plugins: Sequence[str] = (),
    strict_plugins: bool = False,
) -> Inspection:
    """Look for what is wrong with datasets here: plugins, leftovers, changed files."""
    from benchbench.data.inspection import ailments
    from benchbench.store.artifacts import Store

    known = _catalog(plugins, without_plugins, strict_plugins)
    home, place = store_place(store), data_place(data)
    faults = [*map(str, known.aside), *ailments(Store(home), place)]
    return Inspection(tuple(faults), (), f"nothing amiss in store {home} and data {place}")


def _catalog(
    plugins: Sequence[str | Path], without_plugins: Sequence[str], strict_plugins: bool
) -> Catalog:
    return catalog(plugins=plugins, without_plugins=without_plugins, strict_plugins=strict_plugins)


def _prepared(
    known: Catalog, dataset: str, store: Where, data: Where, progress: bool
) -> tuple[Choice, Pack, Store]:
    from benchbench.data.dataset_loading import packed
    from benchbench.store.artifacts import Store

    choice, place = known.resolve("dataset", dataset), Store(store_place(store))
    place.check()
    report = counting("decoding", "image", progress)
    return choice, packed(choice, data_place(data), place, 0, report), place
