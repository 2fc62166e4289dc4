"""Each kind of objective is of use: on the target its encoder beats the one it began with.

The world is planted: a class along one pixel, a domain along another in place and spread. Pixels
are as they are, or turned by an orthogonal matrix, which no objective may mind. What is compared is
the accuracy on target rows of the prototypes of source rows, for three seeds each.
"""

from dataclasses import replace

import pytest
import torch
from toy import Flat, descend, two_axes

from benchbench import Task
from benchbench.evaluation.features import Features
from benchbench.evaluation.readouts.nearest_class_mean import prototype

TASK, SEEDS, STEPS, ROWS = Task((3, 2, 2), 2, 2), (0, 1, 2), 50, 96
LOUD = 3  # times as much as the class: who encodes at random hears the domain
MARGIN = 0.08  # of accuracy, beyond twice what seeds differ by
KINDS = {
    "erm": "supervised",
    "simclr": "contrastive",
    "barlow_twins": "decorrelation",
    "supcon": "contrastive with labels",
    "coral": "invariance by moments",
    "dann(width=16)": "adversarial",
    "pseudo_label": "self-training",
}
MORE = ("noisy_student", "fixmatch")
COORDINATES = {"as they are": None, "turned": 14}


def turn(seed: int | None) -> torch.Tensor:
    if seed is None:
        return torch.eye(12)
    drawn = torch.randn(12, 12, generator=torch.Generator().manual_seed(seed))
    return torch.linalg.qr(drawn).Q


def turned(images: torch.Tensor, matrix: torch.Tensor) -> torch.Tensor:
    images = images.clone()
    images[:, 1, 0, 0] *= LOUD
    return (images.flatten(1) @ matrix).view_as(images)


def accuracy(encoder, seed: int, matrix: torch.Tensor) -> float:
    """On target rows, of prototypes of source rows."""
    batch, labels = two_axes(800, seed=77 + seed)
    with torch.no_grad():
        z = encoder(turned(batch.views[0], matrix))
    source, target = batch.domains == 0, batch.domains == 1
    fitted = prototype()(Features(z[source], labels[source]), Features(z[:0], labels[:0]), z, 2)
    return (fitted.scores(z[target]).argmax(1) == labels[target]).double().mean().item()


def trained(catalog, name: str, seed: int, matrix: torch.Tensor) -> tuple[float, float]:
    """The accuracy before and after some steps on views that differ along the domain's pixel."""
    torch.manual_seed(seed)
    encoder = Flat(TASK)
    objective = catalog.resolve("objective", name).build(encoder, TASK)
    before = accuracy(encoder, seed, matrix)

    def batch_at(step: int):
        batch, _ = two_axes(ROWS, seed=1000 * seed + step, progress=step / STEPS)
        generator = torch.Generator().manual_seed(1000 * seed + step)

        def view():
            noise = 0.3 * torch.randn(batch.views[0].shape, generator=generator)
            noise[:, 1, 0, 0] += 3 * torch.randn(ROWS, generator=generator)
            return turned(batch.views[0] + noise, matrix)

        return replace(
            batch,
            views=tuple(view() for _ in range(objective.n_views)),
            weak=tuple(view() for _ in range(objective.n_weak)),
            labels=batch.labels if "labels" in objective.reads else None,
            domains=batch.domains if "domains" in objective.reads else None,
        )

    descend(objective, encoder, batch_at, STEPS, lr=0.03)
    return before, accuracy(encoder, seed, matrix)


@pytest.mark.parametrize("coordinates", COORDINATES)
@pytest.mark.parametrize(
    "name", [*KINDS, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)]
)
def test_a_kind_of_objective_beats_the_encoder_it_begins_with(catalog, name, coordinates):
    matrix = turn(COORDINATES[coordinates])
    runs = torch.tensor([trained(catalog, name, seed, matrix) for seed in SEEDS])
    before, after = runs.T
    assert before.max() < 0.85, "a world that a random encoder solves shows nothing"
    assert (after - before).min() > MARGIN, runs
    assert after.min() > before.mean() + 2 * after.std() + MARGIN, runs
