"""Augment some rows of a batch as they would be augmented among all of it.

An augmentation draws a number, or a tensor, for each row of the batch that it is given. Here it is
given some rows alone: what it draws for as many rows is drawn for the whole batch, from the same
state of torch's generator, and the rows at hand get theirs. So any number of processes, each with
its own rows, makes the views that one process makes.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

FRESH = (torch.rand, torch.randn, torch.randint)
LIKE = (torch.rand_like, torch.randn_like, torch.randint_like)
IN_PLACE = (
    *(Tensor.uniform_, Tensor.normal_, Tensor.random_, Tensor.exponential_, Tensor.log_normal_),
    *(Tensor.cauchy_, Tensor.geometric_),
)
OF_ALL_ROWS = (  # what these draw hangs on the values of other rows, or on how many there are
    *(torch.bernoulli, Tensor.bernoulli, Tensor.bernoulli_, torch.multinomial, Tensor.multinomial),
    *(torch.normal, torch.poisson, torch.binomial, torch._standard_gamma, torch._sample_dirichlet),
    *(torch.dropout, torch.alpha_dropout, torch.feature_dropout, torch.rrelu, F.rrelu),
    *(F.dropout, F.dropout1d, F.dropout2d, F.dropout3d, F.alpha_dropout, F.feature_alpha_dropout),
    *(F.gumbel_softmax,),
)


class NotByRow(Exception):
    """What is drawn cannot be told apart by rows."""


class DrawsOfAll(TorchFunctionMode):
    """Within, draws for the rows at hand are those that they have in a batch of ``total`` rows."""

    def __init__(self, total: int, rows: slice) -> None:
        super().__init__()
        self.total, self.rows, self.count = total, rows, len(range(total)[rows])

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._mixes_rows(func, args):
            raise NotByRow(func.__name__)
        if func in FRESH:
            return self._fresh(func, *args, **kwargs)
        if func in LIKE:
            return self._mine(args[0], lambda wide: func(wide, *args[1:], **kwargs))
        if func in IN_PLACE:
            x: Tensor = args[0]
            return x.copy_(self._mine(x, lambda wide: func(wide, *args[1:], **kwargs)))
        return func(*args, **kwargs)

    def _mixes_rows(self, func: Any, args: Any) -> bool:
        if func is torch.randperm:
            return bool(args[0] == self.count)
        shapes = [argument.shape for argument in args if isinstance(argument, Tensor)]
        one_for_all = shapes and not any(self.count in shape for shape in shapes)
        return func in OF_ALL_ROWS and not one_for_all

    def _fresh(self, func: Any, *args: Any, **kwargs: Any) -> Tensor:
        """What is not drawn into a tensor, but made as it is drawn."""
        if kwargs.get("generator") is not None or kwargs.get("out") is not None:
            raise NotByRow(func.__name__)
        like = func(*args, **{**kwargs, "device": "meta"})
        if func == torch.randint:
            bounds = [bound for bound in args if isinstance(bound, int)]
            return self._mine(like, lambda wide: func(*bounds, **{**kwargs, "size": wide.shape}))
        kwargs.pop("size", None)
        return self._mine(like, lambda wide: func(wide.shape, **kwargs))

    def _mine(self, like: Tensor, draw: Callable[[Tensor], Tensor]) -> Tensor:
        """Of what is drawn for all rows, these rows'; one draw for the batch stays as it is."""
        if self.count not in like.shape:
            return draw(like)
        axis = like.shape.index(self.count)
        shape = [*like.shape]
        shape[axis] = self.total
        last = like.ndim == 4 and like.shape[1] > 1 and like.stride(1) == 1
        wide = torch.empty(
            shape,
            dtype=like.dtype,
            device=like.device,
            memory_format=torch.channels_last if last else torch.contiguous_format,
        )
        return draw(wide)[(*[slice(None)] * axis, self.rows)]
