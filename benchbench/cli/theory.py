"""The command `theory`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchbench.cli.bench import table
from benchbench.cli.options import Place, writable, written

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchbench.diagnostics.theory import Blocks, Cell, Point


@click.command()
@click.option("--classes", default=5, show_default=True)
@click.option("--domains", default=2, show_default=True, help="The first is the source.")
@click.option("--rho", default=0.5, show_default=True, help="Same class, same domain.")
@click.option("--alpha", default=0.2, show_default=True, help="Same class, different domains.")
@click.option("--beta", default=0.2, show_default=True, help="Different classes, same domain.")
@click.option("--gamma", default=0.1, show_default=True, help="Different in both.")
@click.option("--inputs", default=80, show_default=True, help="Of each class in each domain.")
@click.option("--features", type=int, help="Default: classes + domains - 1.")
@click.option(
    "--seeds",
    default=5,
    show_default=True,
    type=click.IntRange(min=1),
    help="How many graphs are drawn for each setting: seeds 0, 1, …",
)
@click.option(
    "--out",
    type=Place(path_type=Path),
    help="A folder for pictures (SVG) and all figures (theory.json). Made if missing.",
)
@click.option("--json", "as_json", is_flag=True, help="Print all figures as JSON, to keep.")
def theory(
    classes: int,
    domains: int,
    rho: float,
    alpha: float,
    beta: float,
    gamma: float,
    inputs: int,
    features: int | None,
    seeds: int,
    out: Path | None,
    as_json: bool,
) -> None:
    """Will a head from one domain be right in others, by the theory of connectivity.

    Two inputs are connected with a probability that depends on whether they share class and
    domain. Prints what contrastive features of such a graph hold, and what a head trained on the
    first domain reads off them: of the population, and of graphs drawn at random.
    """
    from benchbench.diagnostics.theory import Blocks, Setting, descent, four_nodes, sweeps, verdict

    k = classes + domains - 1 if features is None else features
    setting = Setting(Blocks(classes, domains, rho, alpha, beta, gamma), inputs, k)
    if out:
        writable(out)
    spectrum, descended, cells = spectrum_of(setting.blocks), descent(setting), four_nodes()
    points = sweeps(setting, seeds)
    figures = {
        "setting": {**asdict(setting.blocks), "inputs": inputs, "features": k, "seeds": seeds},
        "verdict": verdict(setting),
        "spectrum": spectrum,
        "descent": descended,
        "four_nodes": [asdict(cell) for cell in cells],
        "sweeps": {name: [asdict(point) for point in each] for name, each in points.items()},
    }
    told = json.dumps(figures, indent=1)
    if out:
        from benchbench.diagnostics.theory_plots import write_pictures

        write_pictures(out, setting, points)
        written(out / "theory.json", told + "\n")
    click.echo(told if as_json else report(figures, cells, points))


def spectrum_of(blocks: Blocks) -> list[dict[str, Any]]:
    """The closed form, and how far LAPACK's eigenvalues of the normalised matrix are from it."""
    from benchbench.diagnostics.theory import eigenspaces, numeric

    spaces, found = eigenspaces(blocks), numeric(blocks)
    return [
        {
            **asdict(space),
            "normalised": space.value / spaces[0].value,
            "eigvalsh": float(found[space.name].mean()),
            "difference": float(abs(found[space.name] - space.value / spaces[0].value).max()),
        }
        for space in spaces
    ]


def report(figures: dict[str, Any], cells: Sequence[Cell], points: dict[str, list[Point]]) -> str:
    setting = figures["setting"]
    told = ", ".join(f"{name} {value:g}" for name, value in setting.items() if name != "seeds")
    headers = ("directions", "how many", "eigenvalue", "of the constant's", "eigvalsh", "apart")
    rows = [tuple(space.values()) for space in figures["spectrum"]]
    drawn = sum(sum(cell.accuracies.values()) for cell in cells if cell.features == 2)
    return "\n".join(
        [
            told,
            *figures["verdict"],
            "",
            "The population: closed form and eigvalsh",
            table(rows, headers, ("", "d", ".4g", ".6f", ".6f", ".0e")),
            descent_line(figures["descent"]),
            "",
            f"Two classes, two domains, {drawn:,} random settings: target accuracy with k features",
            four_node_table(cells),
            "",
            f"Graphs drawn at random, mean ± sd of {setting['seeds']} seeds. source, target: of "
            "the source's ridge head; pfa: of its",
            "preconditioned averages on the targets; domain: of a head for the domain; cosine: "
            "class against domain heads",
            sweep_table(points),
        ]
    )


def descent_line(descent: dict[str, Any]) -> str:
    grams = "the Gram matrices differ by {gram_difference:.0e}"
    if not descent["unique"]:
        grams = "there are several best features, as that many cut through equal eigenvalues"
    return (
        "Gradient descent on the spectral contrastive loss with {features} features ends at "
        "{by_descent:.4f}, eigenvectors give {by_eigenvectors:.4f};\n" + grams + "."
    ).format(**descent)


def four_node_table(cells: Sequence[Cell]) -> str:
    found: dict[int, list[str]] = {}
    for cell in cells:
        share = sum(cell.accuracies.values()) or 1
        text = [f"{value:g} ({count / share:.0%})" for value, count in cell.accuracies.items()]
        found.setdefault(cell.features, []).append(" or ".join(text))
    headers = ("k", "α > γ, β > γ", "α > γ, β < γ", "α < γ, β > γ", "α < γ, β < γ")
    return table([(k, *texts) for k, texts in found.items()], headers, ("d", "", "", "", ""))


def sweep_table(points: dict[str, list[Point]]) -> str:
    rows = []
    for name, each in points.items():
        for point in each:
            sds = asdict(point.sd).values() if point.sd else [None] * len(asdict(point.mean))
            means = asdict(point.mean).values()
            cells = [
                f"{mean:.3f}" + (f" ± {sd:.3f}" if sd is not None else "")
                for mean, sd in zip(means, sds, strict=True)
            ]
            rows.append((f"{name} {point.value:g}", *cells))
    return table(rows, ("changed", *asdict(points["inputs"][0].mean)), ("",) * 6)
