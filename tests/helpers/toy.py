"""An encoder and batches so small that what an objective does with them can be followed."""

import torch
from losses import normal
from torch import nn

from benchbench import UNKNOWN, Batch, Task

TASK = Task((3, 2, 2), 3, 3)


class Flat(nn.Module):
    """An encoder that is one linear map."""

    num_features = 5

    def __init__(self, task=TASK):
        super().__init__()
        self.linear = nn.Linear(task.input_shape[0] * 4, 5, bias=False)

    def forward(self, images):
        return self.linear(images.flatten(1))


def batch_of(n=12, progress=0.5, seed=0, views=1, weak=0, labelled=1):
    """Rows of two domains in turn, with labels of the first, or of both."""
    labels, domains = torch.arange(n) % 3, torch.arange(n) % 2
    images = normal(views + weak, n, 3, 2, 2, seed=seed).float()
    labels = labels.masked_fill(domains >= labelled, UNKNOWN)
    return Batch(tuple(images[:views]), labels, domains, progress, weak=tuple(images[views:]))


def built(factory, **options):
    torch.manual_seed(0)
    encoder = Flat()
    return encoder, factory(encoder, TASK, **options)


def descend(objective, encoder, batch_at, steps, lr=0.05):
    """Adam on encoder and objective together."""
    members = [p for p in (*encoder.parameters(), *objective.parameters()) if p.requires_grad]
    optimizer = torch.optim.Adam(members, lr=lr)
    for step in range(steps):
        torch.manual_seed(step)
        optimizer.zero_grad()
        objective(encoder, batch_at(step)).backward()
        optimizer.step()
        objective.after_step(encoder)


def two_axes(n=256, seed=0, progress=0.99):
    """Class along one pixel, domain along another in place and spread, and noise.

    A batch in which one domain is labelled, and the labels of all rows.
    """
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(2, (n,), generator=generator)
    domains = torch.arange(n) % 2
    images = 0.3 * torch.randn(n, 3, 2, 2, generator=generator)
    images[:, 0, 0, 0] += 2.0 * labels - 1
    images[:, 1, 0, 0] = images[:, 1, 0, 0] * (1 + 3 * domains) + 2 * domains - 1
    shown = labels.where(domains == 0, torch.tensor(UNKNOWN))
    return Batch((images,), shown, domains, progress), labels


CLASS_AXIS, DOMAIN_AXIS = 0, 4  # of the flattened image


def share_of_domain(encoder):
    """How much an encoder listens to the domain's pixel, as a share of how much to the class's."""
    weight = encoder.linear.weight.detach()
    return (weight[:, DOMAIN_AXIS].norm() / weight[:, CLASS_AXIS].norm()).item()
