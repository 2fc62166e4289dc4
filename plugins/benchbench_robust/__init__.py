"""Objectives that want one classifier to be good in each of several labelled domains.

They read domains as environments, and only rows whose label is known. With one labelled domain
`vrex`, `fishr` and `group_dro` are cross-entropy; `irm` keeps its penalty, which is a domain's own.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchbench import (
    UNKNOWN,
    BadInput,
    Batch,
    Between,
    Objective,
    Supervised,
    Task,
    hookimpl,
    searched,
)


class Environments(Supervised):
    """The mean over domains of cross-entropy, plus a penalty, weighed 1 until ``anneal``.

    From there on it is weighed ``weight``. ``anneal`` is a share of the stage.
    """

    reads = {"labels", "domains"}
    entries = 1  # that the penalty is a sum over, where the weight is for their mean

    def __init__(self, encoder: nn.Module, task: Task, weight: float, anneal: float) -> None:
        if not 0 <= anneal <= 1:
            raise BadInput(f"anneal = {anneal} should be between 0 and 1, a share of the stage")
        super().__init__(encoder, task)
        self.num_domains, self.weight, self.anneal = task.num_domains, weight, anneal

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        z = encoder(batch.views[0]).float()
        with torch.autocast(z.device.type, enabled=False):
            logits = self.predict(z)
            member = membership(batch.labels, batch.domains, self.num_domains)
            risks = risk_of_each(logits, batch.labels, member)
            weight = self.weight if batch.progress >= self.anneal else 1.0
            price = self.penalty(z, logits, batch, member) / self.entries
            return mean_of(risks, member) + weight * price

    def penalty(self, z: Tensor, logits: Tensor, batch: Batch, member: Tensor) -> Tensor:
        raise NotImplementedError


@searched(weight=Between(0.1, 1e5), anneal=Between(0.0, 0.5, log=False))
class IRM(Environments):
    """Invariant risk minimisation, IRMv1 (Arjovsky et al. 2019, arXiv:1907.02893).

    The penalty is the mean over domains of the squared gradient of the risk with respect to a
    scale of the logits, at 1 (section 3.1). The square is estimated without bias, as the product of
    the gradients of two halves of a domain's labelled rows: the first, third, … and the second,
    fourth, … (section 3.2, appendix D). So it may be negative. A domain with fewer than two
    labelled rows in the batch is left out of the mean.
    """

    def __init__(
        self, encoder: nn.Module, task: Task, *, weight: float = 100.0, anneal: float = 0.1
    ) -> None:
        super().__init__(encoder, task, weight, anneal)

    def penalty(self, z: Tensor, logits: Tensor, batch: Batch, member: Tensor) -> Tensor:
        one, other = halves(member)
        first, second = (scale_gradients(logits, batch.labels, half) for half in (one, other))
        return mean_of(first * second, other)


@searched(weight=Between(0.1, 1e5), anneal=Between(0.0, 0.5, log=False))
class VREx(Environments):
    """Risk extrapolation (Krueger et al. 2021, arXiv:2003.00688): the variance of the risks."""

    def __init__(
        self, encoder: nn.Module, task: Task, *, weight: float = 10.0, anneal: float = 0.1
    ) -> None:
        super().__init__(encoder, task, weight, anneal)

    def penalty(self, z: Tensor, logits: Tensor, batch: Batch, member: Tensor) -> Tensor:
        risks = risk_of_each(logits, batch.labels, member)
        return mean_of((risks - mean_of(risks, member)).square(), member)


@searched(weight=Between(10.0, 10_000.0))
class Fishr(Environments):
    """Invariant gradient variances (Rame et al. 2022, arXiv:2109.02934).

    The penalty is the squared distance of each domain's variance of the head's gradients, over its
    rows, from the mean over domains; variances are averaged over steps with ``momentum``. Its
    gradient is that with respect to the averaged variances, handed on to the batch's own, so that
    ``momentum`` does not scale it. ``weight`` is for the mean over the K (D + 1) entries of a
    variance, as in DomainBed, not for the sum over them.
    """

    def __init__(
        self,
        encoder: nn.Module,
        task: Task,
        *,
        weight: float = 1000.0,
        anneal: float = 0.3,
        momentum: float = 0.95,
    ) -> None:
        super().__init__(encoder, task, weight, anneal)
        self.momentum = momentum
        self.entries = task.num_classes * (encoder.num_features + 1)
        self.register_buffer("variances", torch.zeros(task.num_domains, self.entries))
        self.register_buffer("seen", torch.zeros(task.num_domains, dtype=torch.bool))

    def penalty(self, z: Tensor, logits: Tensor, batch: Batch, member: Tensor) -> Tensor:
        now = gradient_variances(z, logits, batch.labels, member)
        smooth = torch.where(self.seen[:, None], self.momentum, 0.0)
        there = member.any(1)
        averaged = (smooth * self.variances + (1 - smooth) * now).detach()
        self.latest = torch.where(there[:, None], averaged, self.variances), there
        averaged = averaged + (now - now.detach())
        return mean_of((averaged - mean_of(averaged, member)).square().sum(1), member)

    @torch.no_grad()
    def after_step(self, encoder: nn.Module) -> None:
        variances, there = self.latest
        self.variances.copy_(variances)
        self.seen.logical_or_(there)


@searched(eta=Between(1e-3, 0.1))
class GroupDRO(Supervised):
    """Group distributionally robust optimisation (Sagawa et al. 2020, 1911.08731, algorithm 1).

    Domains are the groups; the weight of each grows with exp(``eta`` times its risk).
    """

    reads = {"labels", "domains"}

    def __init__(self, encoder: nn.Module, task: Task, *, eta: float = 0.01) -> None:
        super().__init__(encoder, task)
        self.num_domains, self.eta = task.num_domains, eta
        self.register_buffer("weights", torch.full((task.num_domains,), 1 / task.num_domains))

    def forward(self, encoder: nn.Module, batch: Batch) -> Tensor:
        logits = self.predict(encoder(batch.views[0])).float()
        member = membership(batch.labels, batch.domains, self.num_domains)
        risks = risk_of_each(logits, batch.labels, member)
        self.latest = raised(self.weights, risks.detach(), self.eta)
        here = self.latest * member.any(1)
        return (here * risks).sum() / here.sum().clamp(min=torch.finfo(here.dtype).tiny)

    @torch.no_grad()
    def after_step(self, encoder: nn.Module) -> None:
        self.weights.copy_(self.latest)


def membership(labels: Tensor, domains: Tensor, num_domains: int) -> Tensor:
    """bool [M, B]: which rows are of each domain and have a known label."""
    numbers = torch.arange(num_domains, device=domains.device)
    return (domains == numbers[:, None]) & (labels != UNKNOWN)


def halves(member: Tensor) -> tuple[Tensor, Tensor]:
    """The first, third, … and the second, fourth, … row of each domain; bool [M, B] each."""
    odd = member.cumsum(1) % 2 == 1
    return member & odd, member & ~odd


def risk_of_each(logits: Tensor, labels: Tensor, member: Tensor) -> Tensor:
    """Mean cross-entropy of each domain, [M]; zero where it has no row."""
    rows = F.cross_entropy(logits, labels, ignore_index=UNKNOWN, reduction="none")
    return share_of_each(member, rows) @ rows


def scale_gradients(logits: Tensor, labels: Tensor, member: Tensor) -> Tensor:
    """d risk(w · logits) / dw at w = 1, of each domain, [M]."""
    p = logits.softmax(1)
    own = logits.gather(1, labels.clamp(min=0)[:, None])[:, 0]
    rows = (p * logits).sum(1) - own
    return share_of_each(member, rows) @ rows


def gradient_variances(z: Tensor, logits: Tensor, labels: Tensor, member: Tensor) -> Tensor:
    """Variance over rows (n) of the gradient of cross-entropy in head and bias, [M, K · (D + 1)].

    A row's gradient is (p − y) ⊗ (z, 1), so its square is the product of squares.
    """
    error = logits.softmax(1) - F.one_hot(labels.clamp(min=0), logits.shape[1])
    inputs = F.pad(z, (0, 1), value=1.0)
    share = share_of_each(member, error)
    mean = torch.einsum("mb,bk,bd->mkd", share, error, inputs)
    square = torch.einsum("mb,bk,bd->mkd", share, error.square(), inputs.square())
    return (square - mean.square()).flatten(1)


def raised(weights: Tensor, risks: Tensor, eta: float) -> Tensor:
    """Weights times exp(eta · risk), with sum 1."""
    return (weights.log() + eta * risks).softmax(0)


def share_of_each(member: Tensor, like: Tensor) -> Tensor:
    """Rows of ``member`` as averages; zero where it is empty."""
    return member.to(like.dtype) / member.sum(1, keepdim=True).clamp(min=1)


def mean_of(values: Tensor, member: Tensor) -> Tensor:
    """Mean of values [M, …] over the domains that have a row."""
    there = member.any(1)
    shape = [-1] + [1] * (values.ndim - 1)
    return torch.where(there.view(shape), values, 0.0).sum(0) / there.sum().clamp(min=1)


benchbench_expected_failures = {
    "irm": {"order_of_rows": "it multiplies the gradients of two halves of a batch's rows"}
}


@hookimpl
def benchbench_objectives() -> dict[str, Callable[..., Objective]]:
    return {"fishr": Fishr, "group_dro": GroupDRO, "irm": IRM, "vrex": VREx}
