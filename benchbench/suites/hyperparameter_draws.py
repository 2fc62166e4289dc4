"""The settings of a method that a suite's ``tune`` draws."""

from dataclasses import replace

from benchbench.extension.catalog import Catalog
from benchbench.extension.contracts import Between
from benchbench.extension.grammar import parse, spell
from benchbench.suites.suite import Method, Stage, TuneTable
from benchbench.training.seeds import derive_seed

LR = 5.0  # the learning rate is drawn within this factor of what the suite says, log-uniformly


def drawn(method: Method, catalog: Catalog, tune: TuneTable, seed: int, draw: int) -> Method:
    """The method with its learning rates and its objectives' options as drawn.

    What the suite spells out stays as it is, as does everything in draw 0 (DomainBed: Gulrajani and
    Lopez-Paz 2021, appendix D). Draws differ between training seeds, and are the same for chains
    that begin alike, so that these share their stages.
    """
    if draw == 0:
        return method
    stages = [
        drawn_stage(stage, catalog, (tune.seed, "tune", seed, draw, depth))
        for depth, stage in enumerate(method.chain)
    ]
    return replace(method, chain=tuple(stages))


def drawn_stage(stage: Stage, catalog: Catalog, where: tuple[int | str, ...]) -> Stage:
    entry = catalog.resolve("objective", stage.objective).entry
    name, chosen = parse(stage.objective)

    def value(space: Between, option: str) -> float:
        seed, *purpose = where
        share = derive_seed(int(seed), *purpose, name, option) / 2**63
        return space.at(share)

    options = {o: rounded(value(space, o)) for o, space in entry.searched.items()}
    lr = stage.budget.lr
    return replace(
        stage,
        objective=spell(name, {**options, **chosen}),
        budget=replace(stage.budget, lr=rounded(value(Between(lr / LR, lr * LR), "lr"))),
    )


def rounded(value: float) -> float:
    """To three digits, as a person would write it."""
    return value if isinstance(value, int) else float(f"{value:.3g}")
