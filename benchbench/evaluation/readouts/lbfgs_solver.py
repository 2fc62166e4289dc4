"""L-BFGS: on many independent functions together, or on one after another that is like it."""

from collections.abc import Callable

import torch
from torch import Tensor

LEAST = 1e-20  # steps along which the slope changes by less tell nothing


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


class Curvature:
    """The last steps s and changes y of the slope along them, and the inverse Hessian they imply.

    Held are [M, A] each, and their inner products. The inverse Hessian is the compact form of Byrd,
    Nocedal and Schnabel (1994, theorem 2.2): that of the two-loop recursion (Nocedal and Wright,
    algorithm 7.4), in two products with what is held instead of four for each pair.
    """

    def __init__(self, most: int, size: int, device: torch.device) -> None:
        self.most, self.count, self.next = most, 0, 0
        self.held = torch.zeros(2, most, size, dtype=torch.float64, device=device)
        self.steps, self.changes = self.held  # views
        self._multiply()

    def _multiply(self) -> None:
        """All inner products; a pair that has no curvature is emptied, and then counts for none."""
        curved = (self.steps * self.changes).sum(1) > LEAST
        self.held.mul_(curved[:, None])
        self.sy = self.steps @ self.changes.T
        self.yy = self.changes @ self.changes.T
        self.sy.diagonal().masked_fill_(~curved, 1.0)

    def add(self, step: Tensor, change: Tensor) -> None:
        """Note a pair [A]; the oldest leaves. One without curvature is skipped."""
        if not (step @ change).item() > LEAST:
            return
        here = self.next
        self.steps[here], self.changes[here] = step, change
        products = self.held @ torch.stack([step, change], 1)  # [2, M, 2]
        self.sy[:, here], self.sy[here] = products[0, :, 1], products[1, :, 0]
        self.yy[:, here] = self.yy[here] = products[1, :, 1]
        self.next = (here + 1) % self.most
        self.count = min(self.count + 1, self.most)

    def rescale(self, factor: Tensor, stiffer: Tensor) -> None:
        """To the variables v / factor, for a function that has gained vᵀ diag(stiffer) v / 2."""
        self.changes.addcmul_(self.steps, stiffer)
        self.changes.mul_(factor)
        self.steps.div_(factor)
        self._multiply()

    def inverse_hessian(self, slope: Tensor) -> Tensor:
        """Its product with [A]; ``slope`` itself where nothing is known."""
        if not self.count:
            return slope
        inside = (self.held @ slope).flatten()
        newest = self.next - 1
        order = torch.arange(newest - self.count + 1, newest + 1, device=slope.device) % self.most
        p, q = inside[order], inside[order + self.most]
        sy, yy = self.sy[order][:, order], self.yy[order][:, order]
        upper, along = sy.triu(), yy.diagonal()
        last = (torch.arange(1, self.count + 1, device=slope.device) * (along > 0)).argmax()
        gamma = torch.where(along[last] > 0, sy.diagonal()[last] / along[last], 1.0)
        u = torch.linalg.solve_triangular(upper, p[:, None], upper=True)[:, 0]
        rest = sy.diagonal() * u + gamma * (yy @ u - q)
        a = torch.linalg.solve_triangular(upper.T, rest[:, None], upper=False)[:, 0]
        shares = torch.zeros_like(inside)
        shares[order], shares[order + self.most] = a, -gamma * u
        return gamma * slope + shares @ self.held.flatten(0, 1)

    def forget(self) -> None:
        self.count = 0


def warm_lbfgs(
    value_and_slope: Callable[[Tensor], tuple[float, Tensor]],
    start: Tensor,
    max_iter: int,
    curvature: Curvature,
    tolerance: float = 1e-5,
) -> Tensor:
    """Minimise one function of [A], until no element of the slope is above ``tolerance``.

    Nocedal and Wright, algorithm 7.5, with Armijo backtracking. ``curvature`` is what is known of
    the function, or of one like it, and learns more.
    """
    v = start
    value, slope = value_and_slope(v)
    for _ in range(max_iter):
        if not slope.abs().max().item() > tolerance:
            break
        direction = -curvature.inverse_hessian(slope)
        descent = (direction @ slope).item()
        if not descent < 0:  # what was known is of another function, or rounding
            curvature.forget()
            direction, descent = -slope, -(slope @ slope).item()
        size = 1.0
        for _ in range(30):
            new_v = v + size * direction
            new_value, new_slope = value_and_slope(new_v)
            if new_value <= value + 1e-4 * size * descent + 1e-15 * abs(value):
                break
            size /= 2
        else:
            if not curvature.count:
                break  # not even along the slope is there anything lower
            curvature.forget()
            continue
        curvature.add(new_v - v, new_slope - slope)
        v, value, slope = new_v, new_value, new_slope
    return v
