"""The commands of `benchbench data`: what is on the disk, and what the core makes of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchbench.cli.options import Place, catalog, data_option, plugin_options, store_option
from benchbench.extension.errors import BadInput

if TYPE_CHECKING:
    from benchbench.data.pack import Pack
    from benchbench.extension.catalog import Choice
    from benchbench.store.artifacts import Store


@click.group()
def data() -> None:
    """Datasets: what is here, what is missing, and how they look.

    DATASET is spelled as in a suite, such as camelyon17 or "folder(path='PACS')". Nothing is
    downloaded but by `benchbench data download`.
    """


@data.command("list")
@plugin_options
@data_option
@click.option("--json", "as_json", is_flag=True)
def list_(data: Path, as_json: bool) -> None:
    """Say of every dataset whether its files are here, and where its authors publish them."""
    from benchbench.data.dataset_loading import missing_files

    known = catalog()
    facts: list[dict[str, Any]] = []
    for (kind, name), entry in sorted(known.entries.items()):
        if kind != "dataset":
            continue
        source, missing = entry.published, missing_files(known.resolve("dataset", name), data)
        files = list(source.files(**entry.options)) if source else []
        facts.append(
            {
                "name": name,
                "summary": entry.summary,
                "files": files,
                "missing": missing,
                "home": source.home if source else None,
                "licence": source.licence if source else None,
            }
        )
    if as_json:
        click.echo(json.dumps(facts, indent=1))
        return
    for fact in facts:
        state = "here" if fact["files"] else "no files of a fixed name: bundled, or as options say"
        if missing := fact["missing"]:
            more = f" and {len(missing) - 3} more" if missing[3:] else ""
            state = f"missing {', '.join(missing[:3])}{more}"
        click.echo(f"{fact['name']}: {state}")
        click.echo(f"    {fact['summary']}")
        if fact["home"]:
            click.echo(f"    {fact['home']} ({fact['licence']})")
    click.echo(f"Files are looked for below {data}; say --data DIRECTORY for another folder.")


@data.command()
@plugin_options
@click.argument("dataset")
@data_option
def download(dataset: str, data: Path) -> None:
    """Fetch DATASET's files, where their authors still publish them at an address.

    Checked by md5. Run it again after an interruption: it goes on where it stopped.
    """
    from benchbench.data.dataset_loading import missing_files
    from benchbench.data.download import download as fetch
    from benchbench.execution.progress import Counting

    choice = catalog().resolve("dataset", dataset)
    source = choice.entry.published
    items = source.downloads(**choice.options) if source else ()
    if not items:
        where = f"; its authors publish it at {source.home}" if source else ""
        raise BadInput(f"{dataset} cannot be downloaded from here{where}")
    for item in items:
        click.echo(f"{item.url} to {data / item.path}", err=True)
        fetch(item, data, Counting("fetching", "B"))
    left = missing_files(choice, data)
    click.echo(f"{choice.text}: " + (f"still missing: {', '.join(left)}" if left else "here"))
    if left:
        sys.exit(1)


@data.command()
@plugin_options
@click.argument("dataset")
@store_option
@data_option
def prepare(dataset: str, store: Path, data: Path) -> None:
    """Decode DATASET into the store, and count what is in it.

    What a suite needs is prepared by `run` too. Run it again after an interruption: it goes on.
    """
    _, pack = opened(dataset, store, data)
    click.echo(table_of(pack), nl=False)


@data.command()
@plugin_options
@click.argument("dataset")
@store_option
@data_option
def verify(dataset: str, store: Path, data: Path) -> None:
    """Compare DATASET with its files, with what was prepared, and with what its authors publish.

    Says what overlaps, too: equal images or texts in several splits or domains, the worst first,
    and groups on several sides of a split. That is no fault of the files: the exit status is 1 only
    where something has changed, or rows are missing.
    """
    from benchbench.data.dataset_loading import verified
    from benchbench.data.inspection import miscounted

    choice, pack = opened(dataset, store, data)
    faults, overlaps = verified(choice, data, a_store(store))
    source = choice.entry.published
    expected = source.rows(**choice.options) if source else {}
    faults += miscounted(pack, expected)
    for sentence in (*faults, *overlaps):
        click.echo(sentence)
    if faults:
        sys.exit(1)
    told = "as its authors say" if expected else "its authors' counts are not known here"
    what = "text" if pack.vocabulary else "image"
    more = "" if overlaps else f"; no {what} is in two splits or domains"
    click.echo(f"{choice.text}: {len(pack.labels):,} rows, unchanged since prepared; {told}{more}")


@data.command()
@plugin_options
@click.argument("dataset")
@click.option(
    "--out",
    "-o",
    type=Place(dir_okay=False, path_type=Path),
    default=Path("sheet.png"),
    show_default=True,
    help="The sheet; it must not lie in a folder of the dataset, of which it would become a part.",
)
@click.option("--augmentation", default="none", help="Show its views of each image, too.")
@click.option("--classes", default=10, show_default=True, type=click.IntRange(min=1))
@click.option(
    "--images",
    default=4,
    show_default=True,
    type=click.IntRange(min=1),
    help="Or texts, of each class in each domain.",
)
@click.option("--views", default=2, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=0, show_default=True)
@store_option
@data_option
def show(
    dataset: str,
    out: Path,
    augmentation: str,
    classes: int,
    images: int,
    views: int,
    seed: int,
    store: Path,
    data: Path,
) -> None:
    """Draw a sheet of DATASET: a row for each class, columns for each domain."""
    from benchbench.data.dataset_loading import check_apart
    from benchbench.data.inspection import contact_sheet
    from benchbench.suites.plan import build_augmentation, check_modality

    choice, pack = opened(dataset, store, data)
    check_apart(choice, data, a_store(store), out)
    known = catalog()
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
    click.echo(f"{out}: {sheet.width} × {sheet.height} pixels")


@data.command()
@plugin_options
@store_option
@data_option
def doctor(store: Path, data: Path) -> None:
    """Look for what is wrong with datasets here: plugins, leftovers, changed files."""
    from benchbench.data.inspection import ailments

    known = catalog()
    faults = [str(aside) for aside in known.aside]
    faults += ailments(a_store(store), data)
    for fault in faults:
        click.echo(fault)
    if faults:
        sys.exit(1)
    click.echo(f"nothing amiss in store {store} and data {data}")


def opened(dataset: str, store: Path, data: Path) -> tuple[Choice, Pack]:
    from benchbench.data.dataset_loading import packed
    from benchbench.execution.progress import Counting

    choice = catalog().resolve("dataset", dataset)
    place = a_store(store)
    place.check()
    return choice, packed(choice, data, place, 0, Counting("decoding", "image"))


def a_store(root: Path) -> Store:
    from benchbench.store.artifacts import Store

    return Store(root)


def table_of(pack: Pack) -> str:
    """Rows of every domain by split, labelled and not."""
    from tabulate import tabulate

    from benchbench.data.inspection import counts, lonely, without_label

    body = [[*row] for row in counts(pack)]
    head = ["domain", "train", "unlabelled", "val", "test", "classes"]
    text = tabulate(body, head, tablefmt="github", intfmt=",")
    size = " × ".join(map(str, pack.task.input_shape))
    kind = f"tokens, of {len(pack.vocabulary):,} words" if pack.vocabulary else "pixels"
    about = f"{size} {kind}, fingerprint {pack.fingerprint[:12]}, {pack.licence}"
    return "\n".join([text, "", about, *without_label(pack), *lonely(pack)]) + "\n"
