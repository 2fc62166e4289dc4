"""The command `advise`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from benchbench.cli.connectivity_options import Measuring, meter_options
from benchbench.cli.options import Place, catalog, plugin_options, writable, written
from benchbench.extension.constants import COLOURS, CROPS
from benchbench.extension.errors import BadInput

if TYPE_CHECKING:
    from benchbench.data.pack import Pack
    from benchbench.diagnostics.advice import Labels, TargetAdvice
    from benchbench.diagnostics.connectivity_measurement import Meter

TRIED = (f"{CROPS} | {COLOURS}", CROPS, COLOURS, f"{CROPS} | {COLOURS} | invert", "affine",
         "wilds_strong", "noise | gaussian_blur")  # fmt: skip
SECONDS = (13, 61)  # of 300 steps, 32 pixels, two CPU cores: leaderboards/connectivity
OF_TEXTS = ("token_dropout", "span", "synonyms", "span | synonyms")


@click.command()
@plugin_options
@click.argument("dataset")
@click.option(
    "--source",
    "sources",
    multiple=True,
    required=True,
    metavar="DOMAIN",
    help="Where labels are. May be repeated.",
)
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="DOMAIN",
    help="Where they are not: every other domain if it is not said. May be repeated.",
)
@click.option(
    "--augmentation",
    "augmentations",
    multiple=True,
    metavar="'A | B(key=value)'",
    help="A candidate. May be repeated; the usual ones if it is not said.",
)
@click.option(
    "--goal",
    default=0.8,
    show_default=True,
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="The accuracy on the new domain that would do.",
)
@click.option(
    "--labels",
    type=click.Choice(["source", "given"]),
    default="source",
    show_default=True,
    help="source: no target label is read; given: those that the data have make it exacter.",
)
@click.option(
    "--out",
    "-o",
    type=Place(dir_okay=False, path_type=Path),
    default=Path("advice.html"),
    show_default=True,
    help="The page.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the same as JSON.")
@meter_options
def advise(
    dataset: str,
    sources: tuple[str, ...],
    targets: tuple[str, ...],
    augmentations: tuple[str, ...],
    goal: float,
    labels: Labels,
    out: Path,
    as_json: bool,
    measuring: Measuring,
) -> None:
    """Will a classifier of the source work on a new domain, or must it be labelled?

    Measures which augmentation connects the domains of DATASET, such as "folder(path='mine')", and
    predicts the accuracy of contrastive pre-training with it, or says why it cannot tell. Writes a
    page that explains itself.
    """
    from benchbench.data.dataset_loading import check_apart
    from benchbench.diagnostics.advice import advise as advised
    from benchbench.diagnostics.advice_page import as_json as told
    from benchbench.diagnostics.advice_page import page

    if not out.parent.is_dir():
        raise BadInput(f"--out {out}: there is no folder {out.parent}")
    text, meter = measuring.meter(dataset)
    pack = meter.pack
    check_apart(catalog().resolve("dataset", text), measuring.data, meter.store, out)
    writable(out.parent)
    found = advised(
        meter,
        text,
        sources,
        targets or others(pack, sources),
        augmentations or usual(meter),
        goal=goal,
        labels=labels,
        watch=lambda networks: click.echo(in_advance(networks, measuring.steps), err=True),
    )
    written(out, page(found, pack))
    if as_json:
        click.echo(told(found), nl=False)
    else:
        for item in found.targets:
            click.echo(in_words(item))
    click.echo(f"{out} explains it", err=True)


def in_advance(networks: int, steps: int) -> str:
    """Roughly how long it takes: by what one network took for the boards of connectivity."""
    return (
        f"training up to {networks} small networks, {steps} steps each; those in the store are not "
        f"trained again. 300 steps with images of 32 pixels took {SECONDS[0]} to {SECONDS[1]} s on "
        "two CPU cores"
    )


def in_words(item: TargetAdvice) -> str:
    """A line with the prediction; or, if it cannot tell, why, what was measured, what to do."""
    if not item.reasons:
        best = item.best
        return (
            f"{item.target}: {item.verdict}; {100 * best.accuracy:.0f} % predicted "
            f"({100 * best.low:.0f} to {100 * best.high:.0f}) with {best.augmentation}; two "
            f"classifiers of the source agree on {100 * item.agreement:.0f} % of its rows"
        )
    measured = [
        f"α {said.alpha.value:.4f}, β {said.beta.value:.4f}, γ {said.gamma.value:.4f}, "
        f"α/γ {option.ratios[0]:.1f}, β/γ {option.ratios[1]:.1f} with {option.augmentation}"
        for option in item.options
        for said in [option.connectivity]
    ]
    parts = {"why": item.reasons, "measured": measured, "what to do next": item.next_steps}
    lines = [f"{item.target}: {item.verdict}"]
    for name, sentences in parts.items():
        lines += [f"  {name}:", *(f"  * {sentence}" for sentence in sentences)]
    return "\n".join(lines)


def others(pack: Pack, sources: tuple[str, ...]) -> list[str]:
    return [name for name in pack.domain_names if name not in sources]


def usual(meter: Meter) -> list[str]:
    """Of the usual candidates, those that can be built for the data.

    Colours, say, want one channel or three. BadInput if there is none.
    """
    from benchbench.diagnostics.augmentation_search_space import fits

    catalog, task = meter.catalog, meter.pack.task
    every = OF_TEXTS if meter.pack.vocabulary else TRIED
    found = [text for text in every if fits(catalog, task, text)]
    if not found:
        raise BadInput("none of the usual augmentations is for such data; say --augmentation")
    return found
