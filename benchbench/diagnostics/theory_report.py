"""What the theory says of a setting: all figures, and a text that tells them."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from benchbench.diagnostics.text_tables import table
from benchbench.diagnostics.theory import (
    Blocks,
    Cell,
    Point,
    Setting,
    descent,
    eigenspaces,
    four_nodes,
    numeric,
    verdict,
)


def figures_and_text(
    setting: Setting, points: dict[str, list[Point]], seeds: int
) -> tuple[dict[str, Any], str]:
    """``points`` are `sweeps` of the setting, of so many seeds."""
    cells = four_nodes()
    figures = {
        "setting": {
            **asdict(setting.blocks),
            "inputs": setting.inputs,
            "features": setting.features,
            "seeds": seeds,
        },
        "verdict": verdict(setting),
        "spectrum": spectrum_of(setting.blocks),
        "descent": descent(setting),
        "four_nodes": [asdict(cell) for cell in cells],
        "sweeps": {name: [asdict(point) for point in each] for name, each in points.items()},
    }
    return figures, report(figures, cells, points)


def spectrum_of(blocks: Blocks) -> list[dict[str, Any]]:
    """The closed form, and how far LAPACK's eigenvalues of the normalised matrix are from it."""
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
