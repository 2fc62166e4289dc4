"""Rounds: in each, all that is compared runs once, so that all of it meets the same machine."""

from collections.abc import Callable, Mapping
from statistics import median


def side_by_side(rounds: int, actions: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """What each action returns, round by round; most return seconds."""
    told: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(rounds):
        for name, action in actions.items():
            told[name].append(action())
    return told


def ratio(name: str, some: list[float], others: list[float]) -> dict[str, float]:
    """The median of the rounds' ratios, with the lowest and the highest."""
    ratios = [a / b for a, b in zip(some, others, strict=True)]
    return {name: median(ratios), f"{name}_lowest": min(ratios), f"{name}_highest": max(ratios)}
