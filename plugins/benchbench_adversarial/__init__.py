"""Baselines that play against an adversary: about domains, about targets, about the input."""

from collections.abc import Callable

from benchbench import Objective, hookimpl
from benchbench_adversarial.domains import CDAN, DANN
from benchbench_adversarial.heads import MCD, MDD
from benchbench_adversarial.virtual import DIRTT, VADA


@hookimpl
def benchbench_objectives() -> dict[str, Callable[..., Objective]]:
    return {"cdan": CDAN, "dann": DANN, "dirt_t": DIRTT, "mcd": MCD, "mdd": MDD, "vada": VADA}
