"""Views of a batch of which a process has its own rows, and makes the others only if asked."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

Segments = tuple[tuple[int, int], ...]  # stretches of a batch's rows, one after the other

FACTS = {  # what is known of a view without its values
    *(Tensor.__len__, Tensor.size, Tensor.dim, Tensor.ndimension, Tensor.numel, Tensor.nelement),
    *(Tensor.is_floating_point, torch.is_floating_point, torch.numel),
    *(
        getattr(Tensor, name).__get__
        for name in ("shape", "dtype", "device", "ndim", "layout", "requires_grad", "is_cuda")
    ),
}
JOINED = {torch.cat, torch.concat, torch.concatenate}


class View(Tensor):
    """A view, or views in a row, of which this process has ``own``: its rows of the batch.

    To all but the encoder it is the whole tensor, which is made when its values are asked for.
    Joined with others, or cut along the rows, it stays as it is.
    """

    own: Tensor
    segments: Segments
    rank: int
    ranks: int
    made: Tensor | None
    make: Callable[[], Tensor]

    @staticmethod
    def __new__(
        cls, own: Tensor, segments: Segments, rank: int, ranks: int, make: Callable[[], Tensor]
    ) -> "View":
        shape = (length(segments), *own.shape[1:])
        view: View = Tensor._make_wrapper_subclass(cls, shape, dtype=own.dtype, device=own.device)
        view.own, view.segments, view.rank, view.ranks = own, segments, rank, ranks
        view.made, view.make = None, make
        return view

    def whole(self) -> Tensor:
        if self.made is None:
            self.made = self.make()
        return self.made

    def cut(self, start: int, stop: int) -> "View":
        """The entries from ``start`` to ``stop``."""
        segments, before = [], 0
        for low, high in self.segments:
            first, last = max(low, low + start - before), min(high, low + stop - before)
            if first < last:
                segments.append((first, last))
            before += high - low
        mine = positions(self.segments, self.ranks, torch.device("cpu"))[self.rank]
        low, high = torch.searchsorted(mine, torch.tensor([start, stop])).tolist()
        return View(
            self.own[low:high],
            tuple(segments) or ((0, 0),),
            self.rank,
            self.ranks,
            lambda: self.whole()[start:stop],
        )

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in FACTS:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        if func in JOINED and joins(*args, **kwargs):
            return joined(args[0])
        if func is Tensor.__getitem__ and isinstance(args[1], slice) and args[1].step in (None, 1):
            start, stop, _ = args[1].indices(len(args[0]))
            return args[0].cut(start, max(start, stop))
        args, kwargs = tree_map_only(View, View.whole, (args, kwargs))
        return func(*args, **kwargs)

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Where torch gets at it below Python: the whole tensor, too."""
        args, kwargs = tree_map_only(View, View.whole, (args, kwargs or {}))
        return func(*args, **kwargs)


def joins(tensors: Any = (), dim: int = 0, **others: Any) -> bool:
    """Whether tensors that are put together are all views of one kind, not looked at so far."""
    unseen = [tensor for tensor in tensors if isinstance(tensor, View) and tensor.made is None]
    shapes = {(tensor.shape[1:], tensor.dtype) for tensor in unseen}
    return not (dim or others) and len(unseen) == len(tensors) and len(shapes) == 1


def joined(views: list[View]) -> View:
    return View(
        torch.cat([view.own for view in views]),
        tuple(segment for view in views for segment in view.segments),
        views[0].rank,
        views[0].ranks,
        lambda: torch.cat([view.whole() for view in views]),
    )


def length(segments: Segments) -> int:
    return sum(stop - start for start, stop in segments)


@lru_cache(64)
def positions(segments: Segments, ranks: int, device: torch.device) -> list[Tensor]:
    """Where in the stretches the rows of each process lie, int64 on the device.

    Row i of a batch belongs to process i modulo their number, so that each has rows of all parts of
    the batch.
    """
    rows = torch.cat([torch.arange(start, stop) for start, stop in segments])
    return [(rows % ranks == rank).nonzero().flatten().to(device) for rank in range(ranks)]
