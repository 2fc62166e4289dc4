"""Objectives in which one branch predicts another that gets no gradient."""

import copy
import math
from collections.abc import Iterable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchbench import BadInput, Batch, Between, Objective, Task, hookimpl, searched


def mlp(*sizes: int, last_norm: bool = False) -> nn.Sequential:
    """Linear maps with batch norm and ReLU between them; ``last_norm``: batch norm at the end."""
    layers: list[nn.Module] = []
    for place, (inside, outside) in enumerate(pairwise(sizes), 2):
        last = place == len(sizes)
        layers.append(nn.Linear(inside, outside, bias=last and not last_norm))
        if not last or last_norm:
            layers.append(nn.BatchNorm1d(outside, affine=not last))
        if not last:
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)


def cosine(p: Tensor, z: Tensor) -> Tensor:
    """Mean cosine of rows [B, D]; no gradient reaches ``z``."""
    return F.cosine_similarity(p, z.detach(), dim=1).mean()


class SimSiam(Objective):
    """A predictor and a stop-gradient suffice (Chen and He 2021, arXiv:2011.10566, equation 2)."""

    def __init__(
        self, encoder: nn.Module, task: Task, *, hidden: int = 512, width: int = 256
    ) -> None:
        super().__init__()
        check_sizes("simsiam", hidden, width)
        self.projector = mlp(encoder.num_features, hidden, width, last_norm=True)
        self.predictor = mlp(width, max(width // 4, 2), width)

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        z = [self.projector(encoder(view)).float() for view in batch.views]
        p = [self.predictor(each).float() for each in z]
        return -(cosine(p[0], z[1]) + cosine(p[1], z[0])) / 2


class Momentum(Objective):
    """An objective with an average of the encoder and of a projector, which get no gradient.

    After every step it moves to (1 − m) of theirs and m of its own; m rises from ``momentum`` to 1
    as half a cosine over the stage, if ``rises``.
    """

    rises = True

    def __init__(self, encoder: nn.Module, projector: nn.Sequential, momentum: float) -> None:
        super().__init__()
        if not 0 <= momentum <= 1:
            raise BadInput(f"momentum = {momentum} should be between 0 and 1")
        self.projector, self.momentum, self.progress = projector, momentum, 0.0
        self.average = copy.deepcopy(nn.Sequential(encoder, projector)).requires_grad_(False)

    def targets(self, views: Iterable[Tensor], progress: float) -> list[Tensor]:
        """What the average makes of each view, float32, at that share of the stage."""
        self.progress = progress
        with torch.no_grad():
            self.average.train()
            return [self.average(view).float() for view in views]

    @torch.no_grad()
    def after_step(self, encoder: nn.Module) -> None:
        m = self.momentum
        if self.rises:
            m = 1 - (1 - m) * (1 + math.cos(math.pi * self.progress)) / 2
        now = [*encoder.parameters(), *self.projector.parameters()]
        torch._foreach_lerp_(list(self.average.parameters()), now, 1 - m)


@searched(momentum=Between(0.98, 0.999))
class BYOL(Momentum):
    """Predict what a momentum encoder sees in the other view (Grill et al. 2020, 2006.07733).

    Equation 2, both ways: 2 − 2 cos(prediction, target), summed.
    """

    def __init__(
        self,
        encoder: nn.Module,
        task: Task,
        *,
        momentum: float = 0.996,
        hidden: int = 512,
        width: int = 128,
    ) -> None:
        check_sizes("byol", hidden, width)
        super().__init__(encoder, mlp(encoder.num_features, hidden, width), momentum)
        self.predictor = mlp(width, hidden, width)

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        p = [self.predictor(self.projector(encoder(view))).float() for view in batch.views]
        z = self.targets(batch.views, batch.progress)
        return 4 - 2 * cosine(p[0], z[1]) - 2 * cosine(p[1], z[0])


@searched(temperature=Between(0.05, 0.5))
class MoCo(Momentum):
    """MoCo v2: a view against a queue of earlier keys (He et al. 2020, arXiv:1911.05722, eq. 1;
    Chen et al. 2020, arXiv:2003.04297).

    The queue starts as random directions. One device needs no shuffled batch norm.
    """

    rises = False

    def __init__(
        self,
        encoder: nn.Module,
        task: Task,
        *,
        momentum: float = 0.999,
        temperature: float = 0.2,
        queue: int = 4096,
        width: int = 128,
    ) -> None:
        check_sizes("moco", queue, width)
        check_temperature("moco", temperature)
        d = encoder.num_features
        projector = nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, width))
        super().__init__(encoder, projector, momentum)
        self.temperature = temperature
        self.register_buffer("queue", F.normalize(torch.randn(queue, width), dim=1))
        self.register_buffer("next", torch.zeros((), dtype=torch.int64))

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        query = F.normalize(self.projector(encoder(batch.views[0])).float(), dim=1)
        self.keys = F.normalize(self.targets(batch.views[1:], batch.progress)[0], dim=1)
        with torch.autocast(query.device.type, enabled=False):
            return info_nce(query, self.keys, self.queue, self.temperature)

    @torch.no_grad()
    def after_step(self, encoder: nn.Module) -> None:
        super().after_step(encoder)
        keys = self.keys[-len(self.queue) :]
        places = (self.next + torch.arange(len(keys), device=keys.device)) % len(self.queue)
        self.queue[places] = keys
        self.next.add_(len(keys)).remainder_(len(self.queue))


def info_nce(query: Tensor, keys: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """−log of a query's share for its own key among that and the queue; rows of unit length."""
    own = (query * keys).sum(1, keepdim=True)
    logits = torch.cat([own, query @ queue.T], 1) / temperature
    return F.cross_entropy(logits, torch.zeros(len(query), dtype=torch.int64, device=query.device))


@searched(temperature=Between(0.05, 1.0))
class MoCoV3(Momentum):
    """MoCo v3: no queue, a predictor, both ways (Chen et al. 2021, arXiv:2104.02057, algorithm 1).

    The loss is 2 τ times the cross-entropy of each direction, added.
    """

    def __init__(
        self,
        encoder: nn.Module,
        task: Task,
        *,
        momentum: float = 0.99,
        temperature: float = 0.2,
        hidden: int = 512,
        width: int = 128,
    ) -> None:
        check_sizes("moco_v3", hidden, width)
        check_temperature("moco_v3", temperature)
        projector = mlp(encoder.num_features, hidden, width, last_norm=True)
        super().__init__(encoder, projector, momentum)
        self.predictor = mlp(width, hidden, width, last_norm=True)
        self.temperature = temperature

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        queries = [self.predictor(self.projector(encoder(view))).float() for view in batch.views]
        keys = self.targets(batch.views, batch.progress)
        with torch.autocast(keys[0].device.type, enabled=False):
            return sum(
                two_tau_nce(query, key, self.temperature)
                for query, key in zip(queries, reversed(keys), strict=True)
            )


@searched(temperature=Between(0.05, 0.3))
class DINO(Momentum):
    """Self-distillation with no labels (Caron et al. 2021, arXiv:2104.14294, algorithm 1).

    Each large view is a target for all other views, of which ``small`` are of the stage's small
    augmentation. Targets are centred, by an average that keeps 0.9, and sharpened; their
    temperature rises linearly from 0.04 to ``target_temperature`` over the first 30 % of the stage.
    The last layer, whose rows have norm 1, stays as it is for the first 1 %. What is read off is
    the average of the encoder, the teacher, as in the paper.
    """

    def __init__(
        self,
        encoder: nn.Module,
        task: Task,
        *,
        small: int = 4,
        momentum: float = 0.996,
        temperature: float = 0.1,
        target_temperature: float = 0.07,
        hidden: int = 512,
        width: int = 128,
        outputs: int = 1024,
    ) -> None:
        check_sizes("dino", hidden, width, outputs)
        check_temperature("dino", min(temperature, target_temperature))
        if small < 0:
            raise BadInput(f"dino: small = {small} should not be negative")
        head = nn.Sequential(
            nn.Linear(encoder.num_features, hidden),
            nn.GELU(),
            nn.Linear(hidden, hidden),
            nn.GELU(),
            nn.Linear(hidden, width),
            Directions(width, outputs),
        )
        super().__init__(encoder, head, momentum)
        self.n_small = small
        self.temperature, self.target_temperature = temperature, target_temperature
        self.register_buffer("centre", torch.zeros(outputs))

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        self.projector[-1].frozen = batch.progress < 0.01
        seen = [encoder(torch.cat(kind)) for kind in (batch.views, batch.small) if kind]
        students = self.projector(torch.cat(seen)).float().chunk(len(batch.views + batch.small))
        targets = self.targets(batch.views, batch.progress)
        self.latest = torch.cat(targets).mean(0)
        rise = min(batch.progress / 0.3, 1.0)
        sharp = 0.04 + (self.target_temperature - 0.04) * rise
        wanted = [((scores - self.centre) / sharp).softmax(1) for scores in targets]
        return cross_view(wanted, [scores / self.temperature for scores in students])

    @torch.no_grad()
    def after_step(self, encoder: nn.Module) -> None:
        super().after_step(encoder)
        self.centre.lerp_(self.latest, 0.1)

    def trained_encoder(self, encoder: nn.Module) -> nn.Module:
        return self.average[0]


class Directions(nn.Module):
    """Cosines with some directions."""

    def __init__(self, width: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, width))
        self.frozen = False

    def forward(self, z: Tensor) -> Tensor:
        weight = self.weight.detach() if self.frozen else self.weight
        return F.normalize(z, dim=1) @ F.normalize(weight, dim=1).T


def cross_view(wanted: list[Tensor], logits: list[Tensor]) -> Tensor:
    """Mean cross-entropy of each view's logits [B, K] with the wanted shares of every other view.

    The first views of ``logits`` are those of ``wanted``, in the same order.
    """
    pairs = [
        -(share * scores.log_softmax(1)).sum(1).mean()
        for i, share in enumerate(wanted)
        for j, scores in enumerate(logits)
        if i != j
    ]
    return torch.stack(pairs).mean()


def two_tau_nce(query: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """2 τ times the cross-entropy of telling each query's own key from the batch's."""
    query, keys = F.normalize(query, dim=1), F.normalize(keys, dim=1)
    own = torch.arange(len(query), device=query.device)
    return 2 * temperature * F.cross_entropy(query @ keys.T / temperature, own)


def check_sizes(owner: str, *sizes: int) -> None:
    if min(sizes) < 2:
        raise BadInput(f"{owner}: sizes {sizes} should be at least 2")


def check_temperature(owner: str, temperature: float) -> None:
    if temperature <= 0:
        raise BadInput(f"{owner}: temperature = {temperature} should be positive")


@hookimpl
def benchbench_objectives():
    return {"byol": BYOL, "dino": DINO, "moco": MoCo, "moco_v3": MoCoV3, "simsiam": SimSiam}
