"""Of every objective's loss, as training computes it: its gradient, its memory, its bias."""

import itertools
from contextlib import contextmanager

import pytest
import torch
from losses import normal
from torch import nn

from benchbench import UNKNOWN, Batch, Task
from benchbench.extension.catalog import Wanted, load
from benchbench.extension.contracts import begun
from benchbench_adversarial.reversal import ReverseGradient

CATALOG = load(Wanted(allowed=()))
NAMES = sorted(name for kind, name in CATALOG.entries if kind == "objective")
VARIANTS = ["afn(radius=2.0)", "cdan(entropy=False)", "coral(means=True)", "swav(queue=8)"]
TASK = Task((3, 8, 8), 3, 3)
PAST = 0.6  # progress after which no schedule changes

AGAIN: dict[str, str] = {}  # for which that is not so, and why


class Toy(nn.Module):
    """Images of any size to 6 features, smoothly."""

    num_features = 6

    def __init__(self, task=TASK, norm=True):
        super().__init__()
        self.linear = nn.Linear(4 * task.input_shape[0], 6)
        self.norm = nn.BatchNorm1d(6) if norm else nn.Identity()

    def forward(self, images):
        pooled = nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)
        return self.norm(self.linear(pooled)).tanh()


def transformer():
    from timm.models.vision_transformer import VisionTransformer

    sizes = {"img_size": 8, "patch_size": 4, "embed_dim": 8, "depth": 1, "num_heads": 2}
    return VisionTransformer(**sizes, num_classes=0)


@pytest.fixture(autouse=True)
def exact(monkeypatch):
    """Everything in float64, also what an objective makes float32, and no kinks between layers."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    monkeypatch.setattr(nn.functional, "relu", lambda x, inplace: nn.functional.softplus(x))
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def built(name, encoder=None):
    torch.manual_seed(0)
    if encoder is None:
        encoder = transformer() if name == "mae" else Toy()
    objective = CATALOG.resolve("objective", name).build(encoder, TASK)
    objective = begun(objective, encoder, TASK).train()
    for module in objective.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return encoder.train(), objective


def batch_of(objective, seed=0, rows=18):
    """Rows of three domains in turn; the labels of the last are unknown."""
    count = objective.n_views + objective.n_weak
    images = normal(count, rows, *TASK.input_shape, seed=seed).sigmoid()
    small = normal(max(objective.n_small, 1), rows, 3, 4, 4, seed=seed + 100).sigmoid()
    numbers = torch.arange(rows)
    domains = numbers % 3
    labels = ((numbers + numbers // 3) % 3).masked_fill(domains == 2, UNKNOWN)
    return Batch(
        views=tuple(images[: objective.n_views]),
        labels=labels if "labels" in objective.reads else None,
        domains=domains if "domains" in objective.reads else None,
        progress=PAST,
        weak=tuple(images[objective.n_views :]),
        small=tuple(small[: objective.n_small]),
    )


class Held:
    """What a loss says gets no gradient, kept at the values of a first pass.

    That is what is detached, and a gradient taken inside a loss. A reversed gradient is that of
    z − (1 + scale) (z − z now), whose value is z now.
    """

    def __init__(self):
        self.kept, self.replays = [], False

    def __call__(self, compute):
        if self.replays:
            self.place += 1
            return self.kept[self.place - 1]
        self.kept.append(compute())
        return self.kept[-1]

    @contextmanager
    def within(self, replays):
        self.replays, self.place = replays, 0
        detach, grad, reverse = torch.Tensor.detach, torch.autograd.grad, ReverseGradient.apply

        def surrogate(z, scale):
            now = self(lambda: detach(z).clone())
            return now - scale * (z - now) if replays else reverse(z, scale)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.Tensor, "detach", lambda x: self(lambda: detach(x).clone()))
            patch.setattr(torch.autograd, "grad", lambda *a, **k: self(lambda: grad(*a, **k)))
            patch.setattr(ReverseGradient, "apply", surrogate)
            yield


def loss_of(objective, encoder, batch):
    torch.manual_seed(3)
    return objective(encoder, batch)


def trained_by(*modules):
    members = {id(p): p for m in modules for p in m.parameters() if p.requires_grad}
    return list(members.values())


def lived(name, steps):
    """An encoder and its objective after some steps in which every weight has moved a little."""
    encoder, objective = built(name)
    for step in range(steps):
        loss_of(objective, encoder, batch_of(objective, seed=10 + step))
        with torch.no_grad():
            for number, p in enumerate(trained_by(encoder, objective)):
                p.add_(0.02 * normal(*p.shape, seed=100 * step + number))
        objective.after_step(encoder)
    return encoder, objective


@pytest.mark.parametrize("name", NAMES + VARIANTS)
def test_the_gradient_is_that_of_the_loss_at_any_step(name):
    """By finite differences of the whole loss, what is said to get no gradient held fixed."""
    for steps in (0, 1, 5):
        encoder, objective = lived(name, steps)
        batch = batch_of(objective)
        loss_of(objective, encoder, batch)  # dirt_t takes over its teacher at the first
        held = Held()
        with held.within(replays=False):
            loss = loss_of(objective, encoder, batch)
        sides = [trained_by(encoder), trained_by(objective)]
        assert any(sides)
        for members in [side for side in sides if side]:
            gradients = torch.autograd.grad(loss, members, retain_graph=True, allow_unused=True)
            directions = [normal(*p.shape, seed=n) for n, p in enumerate(members)]
            wanted = sum(
                (g * v).sum().item()
                for g, v in zip(gradients, directions, strict=True)
                if g is not None
            )
            ends = []
            for by in (1e-6, -1e-6):
                with torch.no_grad():
                    torch._foreach_add_(members, directions, alpha=by)
                    with held.within(replays=True):
                        ends.append(loss_of(objective, encoder, batch).item())
                    torch._foreach_sub_(members, directions, alpha=by)
            slope = (ends[0] - ends[1]) / 2e-6
            assert slope == pytest.approx(wanted, rel=2e-5, abs=1e-6), (steps, len(members))


@pytest.mark.parametrize("name", NAMES + VARIANTS)
def test_the_same_batch_again_has_about_the_same_loss_and_gradient(name):
    """An average, a queue or a schedule changes neither by a factor, unless it is said."""
    encoder, objective = built(name)
    batch, found = batch_of(objective), []
    for _ in range(3):
        loss = loss_of(objective, encoder, batch)
        gradients = torch.autograd.grad(loss, trained_by(encoder))
        found.append((loss.item(), sum(g.square().sum() for g in gradients).sqrt().item()))
        objective.after_step(encoder)
    ratios = [
        abs(later[k]) / abs(found[0][k]) if found[0][k] else 1.0
        for later in found[1:]
        for k in (0, 1)
    ]
    assert (min(ratios) > 0.5 and max(ratios) < 2) != (name in AGAIN), found


BATCH_NORM = "batch norm of the projector takes its statistics of the batch"
NEGATIVES = "the other rows of the batch are what a row is told from"
BIASED = {  # by the size of the batch: the mean over batches is not the value of all rows
    "afn(radius=2.0)": "the square of a mean of norms",
    "barlow_twins": f"squares of correlations of the batch; {BATCH_NORM}",
    "bnm": "the nuclear norm of a batch, which is not a mean over rows",
    "byol": BATCH_NORM,
    "cdan": "weights of rows have mean 1 over the batch",
    "coral": "a square of covariances of the batch, as in the paper",
    "coral(means=True)": "squares of means and covariances of the batch, as in DomainBed",
    "dan": "all pairs, a row and itself among them: zero for equal samples, else too large",
    "fishr": "a square of variances of the batch, as in DomainBed",
    "group_dro": "a domain's weight grows with the risk of the same batch, as in algorithm 1",
    "jan": "as dan",
    "mcc": "a confusion of the batch, whose rows are scaled to sum 1",
    "moco_v3": f"{NEGATIVES}; {BATCH_NORM}",
    "simclr": NEGATIVES,
    "simsiam": BATCH_NORM,
    "spectral": f"{BATCH_NORM}; of given projections the loss is unbiased, see its test",
    "supcon": NEGATIVES,
    "swav": "codes use every prototype equally over the batch",
    "swav(queue=8)": "codes use every prototype equally over the batch and the queue",
    "vicreg": f"squares of covariances of the batch; {BATCH_NORM}",
    "vrex": "the variance of the batch's risks, as in the paper",
}
DRAWS = {  # random numbers for each row, so that a row's part depends on its place
    "dirt_t",
    "mae",
    "mixup",
    "rotnet",
    "vada",
}


@pytest.mark.parametrize("name", [n for n in NAMES + VARIANTS if n not in DRAWS])
def test_the_mean_over_all_batches_is_the_loss_of_all_rows_unless_it_is_said_not_to_be(name):
    """Every batch of two rows of each domain, drawn with replacement from three of each.

    The loss of all rows is that of a batch that has each of them twice, side by side.
    """
    encoder, objective = built(name, Toy(norm=False))
    two_domains = {"fishr", "group_dro", "irm", "vrex"}  # read labels of both
    whole = batch_of(objective, rows=6)
    domains = torch.arange(6) // 3
    labels = torch.tensor([0, 1, 2, 2, 0, 1])
    if name not in two_domains:
        labels = labels.masked_fill(domains == 1, UNKNOWN)

    def taken(rows):
        rows = torch.tensor(rows)
        return Batch(
            views=tuple(view[rows] for view in whole.views),
            labels=labels[rows] if "labels" in objective.reads else None,
            domains=domains[rows] if "domains" in objective.reads else None,
            progress=PAST,
            weak=tuple(view[rows] for view in whole.weak),
            small=tuple(view[rows] for view in whole.small),
        )

    drawn = [
        [*first, *second]
        for first in itertools.product(range(3), repeat=2)
        for second in itertools.product(range(3, 6), repeat=2)
    ]
    with torch.no_grad():
        values = [loss_of(objective, encoder, taken(rows)).item() for rows in drawn]
        truth = loss_of(objective, encoder, taken([r for r in range(6) for _ in range(2)])).item()
    mean = sum(values) / len(values)
    assert (abs(mean - truth) > 1e-9) == (name in BIASED), (mean, truth)
