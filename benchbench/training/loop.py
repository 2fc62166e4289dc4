"""The one training loop. It knows no disk, no catalog and no command line."""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from benchbench.extension.constants import Precision
from benchbench.extension.contracts import Batch, Objective, Rows, as_read
from benchbench.training.budget import Budget
from benchbench.training.device import autocast, full_fp32
from benchbench.training.distributed import average_gradients, same_everywhere, spread, world
from benchbench.training.seeds import derive_seed
from benchbench.training.shared_batches import SharedBatches

Augment = Callable[[Tensor], Tensor]
Watch = Callable[[int, Tensor], None]  # after each step: steps done, the loss, on the device
Lap = Callable[[str], object]  # told when a part of a step is over: gather, views, …


def as_it_is(inputs: Tensor) -> Tensor:
    return inputs


@dataclass(frozen=True)
class Views:
    """What makes views of each kind; an objective says how many of each it wants."""

    full: Augment
    weak: Augment = as_it_is
    small: Augment = as_it_is


MOMENTUM = 0.9  # of SGD and LARS
CHECK_EVERY = 50  # steps between two looks at whether the loss is still a number


class Diverged(Exception):
    """The loss became NaN or infinite."""


@dataclass(frozen=True)
class Checkpoints:
    """Where the loop leaves its state: once in ``every`` seconds at most, and when it stops."""

    save: Callable[[dict[str, Tensor]], object]
    every: float
    stopping: Callable[[], bool] = lambda: False  # asked after each step


def train(
    encoder: nn.Module,
    objective: Objective,
    views: Views,
    feed: Callable[..., Rows],
    budget: Budget,
    seed: int,
    *,
    precision: Precision,
    compiled: bool = False,
    watch: Watch | None = None,
    pauses: Mapping[int, Callable[[], object]] = MappingProxyType({}),
    lap: Lap | None = None,
    checkpoints: Checkpoints | None = None,
    resume: Mapping[str, Tensor] | None = None,
) -> list[float]:
    """Train encoder and objective in place, on their device; return the loss of every step.

    The learning rate rises linearly and falls as a cosine to zero; norms and biases are not
    decayed. ``pauses`` are called after so many steps. ``resume`` is a state that ``checkpoints``
    saved: going on from it gives, bit for bit, what an uninterrupted run gives. In a group of
    processes (torch.distributed) each calls it with the same, and ends where one process would;
    ``feed`` then takes the rows whose inputs it has to give, too, a slice.
    Raises Diverged, and KeyboardInterrupt where ``checkpoints`` say that it has to stop.
    """
    encoder.train(objective.encoder_lr > 0)  # a frozen encoder keeps its statistics too
    objective.train()
    groups = parameter_groups(encoder, objective, budget)
    optimizer = make_optimizer(groups, budget)
    members = [p for group in groups for p in group["params"]]
    device = next(encoder.parameters()).device
    losses = torch.full((budget.steps,), torch.nan, device=device)
    start = restore(resume, encoder, objective, optimizer, losses) if resume else 0
    if not same_everywhere(start):
        raise RuntimeError("the processes of a stage found different checkpoints")
    if world() > 1:
        shared = SharedBatches(feed, whole=objective.looks_inside)
        feed = shared.rows
        views = Views(
            shared.augment(views.full, objective.n_views),
            shared.augment(views.weak, objective.n_weak),
            shared.augment(views.small, objective.n_small),
        )
    ended = lap or (lambda part: None)
    saved = time.monotonic()
    whole = spread(encoder, objective, parts=budget.parts, compiled=compiled)
    with full_fp32(fixed_shapes=True), whole:
        for step in range(start, budget.steps):
            for group in optimizer.param_groups:
                group["lr"] = group["scale"] * learning_rate(budget, step)
            rows = feed(step)
            ended("gather")
            batch = make_batch(rows, views, objective, seed, step, step / budget.steps)
            ended("views")
            torch.manual_seed(derive_seed(seed, "model", step))
            with autocast(device, precision):
                loss = objective(encoder, batch)
            check_loss(loss)
            ended("forward")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            average_gradients(members)
            ended("backward")
            optimizer.step()
            objective.after_step(encoder)
            ended("update")
            losses[step] = loss.detach()
            done = step + 1
            if done % CHECK_EVERY == 0 or done == budget.steps:
                check_finite(losses[:done])
            if watch:
                watch(done, loss.detach())
            if done in pauses:
                check_finite(losses[:done])
                pauses[done]()
            if checkpoints and done < budget.steps:
                stops = checkpoints.stopping()
                if stops or time.monotonic() - saved > checkpoints.every:
                    check_finite(losses[:done])
                    checkpoints.save(state(encoder, objective, optimizer, losses, done))
                    saved = time.monotonic()
                if stops:
                    raise KeyboardInterrupt
            ended("other")
    return losses.tolist()


def make_batch(
    rows: Rows, views: Views, objective: Objective, seed: int, step: int, progress: float
) -> Batch:
    """The views of a step, which depend on (seed, step) alone; undeclared reads stay hidden."""
    inputs = as_read(rows.inputs)
    torch.manual_seed(derive_seed(seed, "views", step))
    return Batch(
        views=tuple(views.full(inputs) for _ in range(objective.n_views)),
        labels=rows.labels if "labels" in objective.reads else None,
        domains=rows.domains if "domains" in objective.reads else None,
        progress=progress,
        weak=tuple(views.weak(inputs) for _ in range(objective.n_weak)),
        small=tuple(views.small(inputs) for _ in range(objective.n_small)),
    )


def check_loss(loss: Any) -> None:
    """TypeError unless it is one number that has a gradient."""
    wanted = "one number that depends on a parameter, a tensor of shape []"
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        shape = f"a tensor of shape {list(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
        raise TypeError(f"the objective returns {shape}, and should return {wanted}")
    if not loss.requires_grad:
        raise TypeError(f"the objective's loss has no gradient; it should be {wanted}")


def learning_rate(budget: Budget, step: int) -> float:
    """Linear warm-up over the first share of the steps, then half a cosine to zero."""
    rise = budget.warmup * budget.steps
    if step < rise:
        return budget.lr * (step + 1) / (math.ceil(rise) + 1)
    return budget.lr * 0.5 * (1 + math.cos(math.pi * (step - rise) / (budget.steps - rise)))


def make_optimizer(groups: list[dict[str, Any]], budget: Budget) -> torch.optim.Optimizer:
    if budget.optimizer == "adamw":
        return torch.optim.AdamW(groups, fused=True)
    if budget.optimizer == "sgd":
        # not fused: that fails where a parameter gets its first gradient later than others
        return torch.optim.SGD(groups, lr=budget.lr, momentum=MOMENTUM, foreach=True)
    from timm.optim.lars import Lars  # You et al. 2017, arXiv:1708.03888

    return Lars(groups, lr=budget.lr, momentum=MOMENTUM)


def parameter_groups(
    encoder: nn.Module, objective: Objective, budget: Budget
) -> list[dict[str, Any]]:
    """Encoder and objective, each its matrices apart from its norms and biases.

    A tensor that both share counts once. Norms and biases are not decayed, and LARS does not adapt
    their learning rate; it adapts that of matrices whether they are decayed or not.
    """
    seen: set[int] = set()

    def fresh(parameters: Iterable[nn.Parameter]) -> list[nn.Parameter]:
        new = [p for p in parameters if p.requires_grad and id(p) not in seen]
        seen.update(map(id, new))
        return new

    groups = []
    for module, scale in ((encoder, objective.encoder_lr), (objective, 1.0)):
        parameters = fresh(module.parameters())
        matrices = [p for p in parameters if p.ndim > 1]
        vectors = [p for p in parameters if p.ndim <= 1]
        for members, decay, adapts in (
            (matrices, budget.weight_decay, True),
            (vectors, 0.0, False),
        ):
            if members:
                group = {"params": members, "weight_decay": decay, "scale": scale}
                groups.append({**group, "always_adapt": adapts})
    return groups


def check_finite(losses: Tensor) -> None:
    bad = (~losses.isfinite()).nonzero().flatten()
    if len(bad):
        step = int(bad[0])
        raise Diverged(f"the loss became {losses[step].item()} at step {step + 1}")


def state(
    encoder: nn.Module,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    losses: Tensor,
    done: int,
) -> dict[str, Tensor]:
    """Everything the next step depends on, as named tensors. Seeds need none: see Feed, Batch."""
    tensors = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    tensors |= {f"objective.{name}": value for name, value in objective.state_dict().items()}
    for number, slots in optimizer.state_dict()["state"].items():
        kept = {name: value for name, value in slots.items() if isinstance(value, Tensor)}
        tensors |= {f"optimizer.{number}.{name}": value for name, value in kept.items()}
    return tensors | {"losses": losses, "done": torch.tensor(done)}


def restore(
    tensors: Mapping[str, Tensor],
    encoder: nn.Module,
    objective: Objective,
    optimizer: torch.optim.Optimizer,
    losses: Tensor,
) -> int:
    """Undo ``state``; return the number of steps done."""
    encoder.load_state_dict(below("encoder", tensors))
    objective.load_state_dict(below("objective", tensors))
    members = [p for group in optimizer.param_groups for p in group["params"]]
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in below("optimizer", tensors).items():
        number, _, slot = name.partition(".")
        like = members[int(number)]
        if value.shape == like.shape:  # the fused update walks memory: its order must be the same
            value = torch.empty_like(like, requires_grad=False).copy_(value)
        slots.setdefault(int(number), {})[slot] = value
    blank = optimizer.state_dict()
    optimizer.load_state_dict({"state": slots, "param_groups": blank["param_groups"]})
    losses.copy_(tensors["losses"])
    return int(tensors["done"])


def below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of one part, by the names they have in that part."""
    start = prefix + "."
    return {name[len(start) :]: t for name, t in tensors.items() if name.startswith(start)}
