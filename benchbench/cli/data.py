"""The commands of `benchbench data`: what is on the disk, and what the core makes of it."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from benchbench import api
from benchbench.cli.options import Place, chosen_plugins, data_option, plugin_options, store_option


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
    found = api.data_list(data=data, **chosen_plugins())
    click.echo(found.json() if as_json else found)


@data.command()
@plugin_options
@click.argument("dataset")
@data_option
def download(dataset: str, data: Path) -> None:
    """Fetch DATASET's files, where their authors still publish them at an address.

    Checked by md5. Run it again after an interruption: it goes on where it stopped.
    """
    done = api.data_download(dataset, data=data, **chosen_plugins())
    click.echo(done)
    if done.missing:
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
    click.echo(api.data_prepare(dataset, store=store, data=data, **chosen_plugins()))


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
    found = api.data_verify(dataset, store=store, data=data, **chosen_plugins())
    click.echo(found)
    if found.faults:
        sys.exit(1)


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
    sheet = api.data_show(
        dataset,
        out,
        augmentation=augmentation,
        classes=classes,
        images=images,
        views=views,
        seed=seed,
        store=store,
        data=data,
        **chosen_plugins(),
    )
    click.echo(sheet)


@data.command()
@plugin_options
@store_option
@data_option
def doctor(store: Path, data: Path) -> None:
    """Look for what is wrong with datasets here: plugins, leftovers, changed files."""
    found = api.data_doctor(store=store, data=data, **chosen_plugins())
    click.echo(found)
    if found.faults:
        sys.exit(1)
