"""Pictures of the theory: the population's spectrum, and sweeps of drawn graphs."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchbench.diagnostics.plots import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    one_style,
    svg,
)
from benchbench.diagnostics.theory import Blocks, Point, Setting, eigenspaces

CURVES = {  # measure: what it is, colour, marker, line
    "source": ("accuracy on the source, ridge head of the source", BLUE, "o", "-"),
    "target": ("accuracy on the targets, same head", ORANGE, "s", "-"),
    "pfa": ("accuracy on the targets, PFA head (t = 2)", SKY, "x", ":"),
    "domain": ("accuracy of a head for the domain", GREEN, "^", "-"),
    "cosine": ("mean |cos| of class and domain heads", PURPLE, "D", "--"),
}
AXES = {
    "alpha": "α, probability of an edge: same class, different domains",
    "beta": "β, probability of an edge: different classes, same domain",
    "gamma": "γ, probability of an edge: different classes, different domains",
    "inputs": "n, inputs of each class in each domain (logarithmic)",
    "features": "k, number of features (logarithmic)",
}


def write_pictures(folder: Path, setting: Setting, points: Mapping[str, Sequence[Point]]) -> None:
    """``spectrum.svg`` and an SVG for each sweep; the same bytes for the same numbers."""
    with one_style():
        pictures = {"spectrum": spectrum(setting.blocks)}
        pictures |= {name: sweep(setting, name, points[name]) for name in points}
        for name, picture in pictures.items():
            (folder / f"{name}.svg").write_text(svg(picture), encoding="utf-8")


def spectrum(blocks: Blocks) -> Figure:
    """Eigenvalues of the normalised population over α, all else as it is."""
    figure = Figure(figsize=(7.6, 5.2), layout="constrained")
    axes = figure.add_subplot()
    unit = blocks.gamma or 1.0
    most = max(3 * blocks.gamma, 1.2 * blocks.alpha) or 1.0
    alphas = np.linspace(1e-6, min(1.0, most), 121).tolist()  # 0 may leave no edge at all
    along = [eigenspaces(replace(blocks, alpha=alpha)) for alpha in alphas]
    looks = {"class": (ORANGE, "-"), "domain": (GREEN, "--"), "interaction": (BLACK, ":")}
    for place, (name, (colour, line)) in enumerate(looks.items(), 1):
        values = [spaces[place].value / spaces[0].value for spaces in along]
        label = f"{name}, {along[0][place].dimension} of them"
        places = [alpha / unit for alpha in alphas]
        axes.plot(places, values, color=colour, linestyle=line, linewidth=2, label=label)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.25 * (high - low))  # room for the words of `beside`
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.set_xlabel("α / γ, all else the same" if blocks.gamma else "α, all else the same")
    axes.set_ylabel("eigenvalue, as a share of the constant's")
    odds = f"ρ = {blocks.rho:g}, β = {blocks.beta:g}, γ = {blocks.gamma:g}"
    heading = "k features hold the k directions of the largest eigenvalues"
    axes.set_title(f"{heading}\n{sizes(blocks)}, {odds}", pad=22)
    lines = {blocks.alpha / unit: "this setting"}
    if blocks.gamma:
        beside(axes)
        lines = {1.0: "α = γ"} | lines
        if blocks.alpha == blocks.gamma:
            lines = {1.0: "this setting: α = γ"}
    mark(axes, lines)
    legend(figure, axes, 3)
    return figure


def beside(axes: Axes) -> None:
    """What a head of the source does on either side of α = γ."""
    style: dict[str, Any] = {"va": "top", "fontsize": 9, "transform": axes.get_xaxis_transform()}
    style["bbox"] = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    axes.text(0.97, 0.97, "class below interaction:\nwrong in the targets", ha="right", **style)
    axes.text(1.03, 0.97, "class above interaction:\nright in the targets", ha="left", **style)


def sweep(setting: Setting, name: str, points: Sequence[Point]) -> Figure:
    """Measures over what is changed, mean and sd of seeds, with chance and where theory turns."""
    figure = Figure(figsize=(7.6, 5.6), layout="constrained")
    axes = figure.add_subplot()
    values = [point.value for point in points]
    for measure, (label, colour, marker, line) in CURVES.items():
        means = [getattr(point.mean, measure) for point in points]
        sds = [getattr(point.sd, measure) if point.sd else 0.0 for point in points]
        style: dict[str, Any] = {"marker": marker, "linestyle": line, "markersize": 5}
        axes.errorbar(values, means, sds, fmt="none", ecolor=colour, capsize=3)
        axes.plot(values, means, color=colour, label=label, **style)
    blocks = setting.blocks
    for count, what, line in ((blocks.classes, "class", ":"), (blocks.domains, "domain", "-.")):
        label = f"chance for the {what}, 1/{count}"
        axes.axhline(1 / count, color=GREY, linestyle=line, linewidth=1.2, label=label)
    axes.set_ylim(-0.05, 1.08)
    axes.set_xlabel(AXES[name])
    axes.set_ylabel("share of inputs, or |cos|; mean ± sd of seeds")
    if name in ("inputs", "features"):
        axes.set_xscale("log")
        axes.set_xticks(values, [f"{value:g}" for value in values])
        axes.minorticks_off()
    mark(axes, turns(setting, name))
    axes.set_title(f"What heads read off features of drawn graphs\n{rest(setting, name)}", pad=22)
    legend(figure, axes, 2)
    return figure


def turns(setting: Setting, name: str) -> dict[float, str]:
    """Where theory says that something changes, and what is there."""
    blocks = setting.blocks
    if name in ("alpha", "beta"):
        return {blocks.gamma: f"{'α' if name == 'alpha' else 'β'} = γ"}
    if name == "gamma" and blocks.alpha == blocks.beta:
        return {blocks.alpha: "γ = α = β"}
    if name == "gamma":
        return {blocks.alpha: "γ = α", blocks.beta: "γ = β"}
    if name == "features":
        return {blocks.classes + blocks.domains - 1: "k = r + m − 1"}
    return {}


def rest(setting: Setting, name: str) -> str:
    """All of the setting but what is changed."""
    blocks = setting.blocks
    odds = {"alpha": blocks.alpha, "beta": blocks.beta, "gamma": blocks.gamma}
    facts = {"rho": blocks.rho, **odds, "inputs": setting.inputs, "features": setting.features}
    letters = zip("ραβγnk", facts.items(), strict=True)
    told = [f"{letter} = {value:g}" for letter, (fact, value) in letters if fact != name]
    return f"{sizes(blocks)}, {', '.join(told)}"


def sizes(blocks: Blocks) -> str:
    return f"r = {blocks.classes} classes, m = {blocks.domains} domains"


def mark(axes: Axes, lines: Mapping[float, str]) -> None:
    """Vertical lines with their names above the axes; of two, each name leans outwards."""
    leanings = ["center"] if len(lines) < 2 else ["right", "left"]
    for x, leaning in zip(sorted(lines), leanings, strict=False):
        axes.axvline(x, color=BLACK, linewidth=1.2, alpha=0.5)
        place: dict[str, Any] = {"ha": leaning, "va": "bottom"}
        axes.text(x, 1.01, lines[x], transform=axes.get_xaxis_transform(), **place)


def legend(figure: Figure, axes: Axes, columns: int) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
