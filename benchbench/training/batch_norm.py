"""Batch norm over the rows of all processes that train a stage together.

The algorithm, and on CUDA the kernels, are those of torch.nn.SyncBatchNorm. Of the forward pass it
keeps the input as it is, and a mean and an inverse standard deviation for each channel.
"""

from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode


class BatchNormOverAll(TorchFunctionMode):
    """Whatever normalises a batch, by a layer of torch or of timm, does it over all processes."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        called = batch_norm if func is F.batch_norm else func
        return called(*args, **(kwargs or {}))


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """As torch.nn.functional.batch_norm of [B, C, …], the statistics those of all processes."""
    if not training:
        return F.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    normalised: Tensor = OverAll.apply(x, weight, bias, running_mean, running_var, momentum, eps)
    return normalised


class OverAll(torch.autograd.Function):
    """One message forward, of each process's statistics, and one backward, of two sums."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        momentum: float,
        eps: float,
    ) -> Tensor:
        x, kernels = in_order(x), kernels_for(x)
        channels, rank = x.shape[1], dist.get_rank()
        every = torch.zeros(
            dist.get_world_size(),
            2 * channels + 1,
            dtype=torch.promote_types(x.dtype, torch.float32),
            device=x.device,
        )
        if x.numel():
            mine = every[rank]
            mine[:channels], mine[channels:-1] = kernels.batch_norm_stats(x, eps)
            mine[-1].fill_(x.numel() // channels)
        dist.all_reduce(every)  # the rows of the others are zero here
        if len(x) < 2:  # another process may have none
            every = every[every[:, -1] > 0]
        means, deviations, counts = every.split([channels, channels, 1], 1)
        mean, invstd = kernels.batch_norm_gather_stats_with_counts(
            x,
            means.contiguous(),
            deviations.contiguous(),
            running_mean,
            running_var,
            momentum,
            eps,
            counts.flatten(),
        )
        ctx.save_for_backward(x, weight, mean, invstd, counts.flatten().int())
        if not x.numel():
            return torch.empty_like(x)
        normalised: Tensor = kernels.batch_norm_elemt(x, weight, bias, mean, invstd, eps)
        return normalised

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, invstd, counts = ctx.saved_tensors
        of_x, of_weight, of_bias = ctx.needs_input_grad[:3]
        gradient, kernels = in_order(gradient), kernels_for(x)
        sums, by_weight, by_bias = mean.new_zeros(2, len(mean)), None, None
        if x.numel():
            sums[0], sums[1], by_weight, by_bias = kernels.batch_norm_backward_reduce(
                gradient, x, mean, invstd, weight, True, of_weight, of_bias
            )
        by_x = None
        if of_x:
            dist.all_reduce(sums)
            scale = weight if weight is None else weight.to(mean.dtype)
            by_x = (
                kernels.batch_norm_backward_elemt(
                    gradient, x, mean, invstd, scale, sums[0], sums[1], counts
                )
                if x.numel()
                else torch.empty_like(x)
            )
        there = weight is not None
        return (
            by_x,
            by_weight if there and of_weight else None,
            by_bias if of_bias else None,
            *[None] * 4,
        )


def in_order(x: Tensor) -> Tensor:
    """As the kernels read it: with the channels last, or in the usual order."""
    last = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.ndim)
    return x if last and x.is_contiguous(memory_format=last) else x.contiguous()


def kernels_for(x: Tensor) -> "ModuleType | type[OnTheCPU]":
    return torch if x.is_cuda else OnTheCPU


class OnTheCPU:
    """What torch has for CUDA alone, under the same names, by formulas."""

    @staticmethod
    def batch_norm_stats(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """Mean and inverse standard deviation of each channel, [C]."""
        var, mean = torch.var_mean(exactly(x), over(x), correction=0)
        return mean, (var + eps).rsqrt()

    @staticmethod
    def batch_norm_gather_stats_with_counts(
        x: Tensor,
        means: Tensor,
        invstds: Tensor,
        running_mean: Tensor | None,
        running_var: Tensor | None,
        momentum: float,
        eps: float,
        counts: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Those of all rows, from those of parts with so many values, [parts, C] and [parts]."""
        shares = (counts / counts.sum())[:, None]
        mean = (shares * means).sum(0)
        var = (shares * (invstds**-2 - eps + (means - mean).square())).sum(0)
        if running_mean is not None and running_var is not None:
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            unbiased = var * counts.sum() / (counts.sum() - 1).clamp(min=1)
            running_var.lerp_(unbiased.to(running_var.dtype), momentum)
        return mean, (var + eps).rsqrt()

    @staticmethod
    def batch_norm_elemt(
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        invstd: Tensor,
        eps: float,
    ) -> Tensor:
        return F.batch_norm(x, mean, invstd**-2 - eps, weight, bias, False, 0.0, eps)

    @staticmethod
    def batch_norm_backward_reduce(
        gradient: Tensor,
        x: Tensor,
        mean: Tensor,
        invstd: Tensor,
        weight: Tensor | None,
        of_x: bool,
        of_weight: bool,
        of_bias: bool,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The sums of the gradient, and of it times x − mean; gradients of weight and bias."""
        exact, dtype = exactly(gradient), mean.dtype if weight is None else weight.dtype
        total = exact.sum(over(x))
        centred = (exact * (exactly(x) - per_channel(mean, x))).sum(over(x))
        return total, centred, (centred * invstd).to(dtype), total.to(dtype)

    @staticmethod
    def batch_norm_backward_elemt(
        gradient: Tensor,
        x: Tensor,
        mean: Tensor,
        invstd: Tensor,
        weight: Tensor | None,
        total: Tensor,
        centred: Tensor,
        counts: Tensor,
    ) -> Tensor:
        scale = invstd if weight is None else invstd * weight
        count = counts.sum()
        slope = invstd.square() * centred / count
        by_x = exactly(gradient) - per_channel(total / count, x)
        by_x -= (exactly(x) - per_channel(mean, x)) * per_channel(slope, x)
        return (by_x * per_channel(scale, x)).to(x.dtype)


def exactly(x: Tensor) -> Tensor:
    """In float32 or better."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def over(x: Tensor) -> list[int]:
    """The dimensions of [B, C, …] but for the channels."""
    return [0, *range(2, x.ndim)]


def per_channel(values: Tensor, x: Tensor) -> Tensor:
    return values.view(1, -1, *[1] * (x.ndim - 2))
