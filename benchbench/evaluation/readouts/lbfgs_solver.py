"""L-BFGS on many independent functions together."""

from collections.abc import Callable

import torch
from torch import Tensor


def lbfgs(
    value_and_slope: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    start: Tensor,
    max_iter: int,
    tolerance: float = 1e-5,
    memory: int = 10,
) -> Tensor:
    """Minimise P independent functions of [A, B] together; ``start`` is [P, A, B].

    Nocedal and Wright, algorithm 7.5, with Armijo backtracking. ``value_and_slope(v, lanes)``
    evaluates the functions that ``lanes`` numbers. A function that has converged leaves.
    """
    result = start.clone()
    lanes = torch.arange(len(start), device=start.device)
    v = start.clone()
    value, slope = value_and_slope(v, lanes)
    pairs: list[tuple[Tensor, Tensor]] = []  # (step, change of slope), oldest first
    for _ in range(max_iter):
        going = slope.abs().amax((1, 2)) > tolerance
        if not going.all():
            result[lanes] = v
            if not going.any():
                return result
            lanes, v, value, slope = lanes[going], v[going], value[going], slope[going]
            pairs = [(s[going], y[going]) for s, y in pairs]
        direction = -_inverse_hessian(slope, pairs)
        descent = _dot(direction, slope)
        size = torch.ones_like(value)
        for _ in range(30):
            new_v = v + size[:, None, None] * direction
            new_value, new_slope = value_and_slope(new_v, lanes)
            enough = new_value <= value + 1e-4 * size * descent + 1e-15 * value.abs()
            if enough.all():
                break
            size = torch.where(enough, size, size / 2)
        moved = torch.where(enough[:, None, None], new_v, v)
        settled = torch.where(enough[:, None, None], new_slope, slope)
        pairs = [*pairs[-memory + 1 :], (moved - v, settled - slope)]
        v, value, slope = moved, torch.where(enough, new_value, value), settled
    result[lanes] = v
    return result


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum((1, 2))


def _inverse_hessian(slope: Tensor, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The two-loop recursion for every function on its own; a pair without curvature is skipped."""
    q = slope.clone()
    kept = []
    for s, y in reversed(pairs):
        curved = _dot(s, y)
        weight = torch.where(curved > 1e-20, 1 / curved.clamp(min=1e-20), 0.0)
        along = weight * _dot(s, q)
        q -= along[:, None, None] * y
        kept.append((s, y, weight, along))
    if pairs:
        s, y = pairs[-1]
        ratio = _dot(s, y) / _dot(y, y).clamp(min=1e-30)
        q *= torch.where(ratio > 0, ratio, 1.0)[:, None, None]
    for s, y, weight, along in reversed(kept):
        q += (along - weight * _dot(y, q))[:, None, None] * s
    return q
