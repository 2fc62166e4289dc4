"""Frozen features: compared with the formula of batch norm and with one row at a time."""

import pytest
import torch
from audiences import quiet
from tiny import SUITE, make_plan
from torch import nn

from benchbench.evaluation.features import extract
from benchbench.execution.cell import execute
from benchbench.suites.plan import build_encoder
from benchbench.suites.shift_features import stored_features

CPU = torch.device("cpu")
IMAGES = torch.randint(0, 256, (23, 3, 2, 2), generator=torch.Generator().manual_seed(0)).byte()


class Normed(nn.Module):
    """Batch norm whose statistics have moved, and dropout, which matter in training alone."""

    num_features = 12

    def __init__(self):
        super().__init__()
        self.norm, self.dropout = nn.BatchNorm1d(12), nn.Dropout(0.5)
        generator = torch.Generator().manual_seed(1)
        for values in (*self.norm.parameters(), *self.norm.buffers()):
            if values.is_floating_point():
                values.data.copy_(torch.rand(12, generator=generator) + 0.2)
        self.modes: list[tuple[bool, bool]] = []

    def forward(self, images):
        self.modes.append((self.training, torch.is_grad_enabled()))
        return self.dropout(self.norm(images.flatten(1)))

    def formula(self, images):
        """In float64, with the running statistics."""
        x, norm = images.flatten(1).double() / 255, self.norm
        scale = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
        return (x - norm.running_mean.double()) * scale + norm.bias.double()


@pytest.fixture
def encoder():
    return Normed().train()  # as a stage leaves it


@pytest.mark.parametrize("chunk", [1, 4, 22, 23, 512])
def test_features_are_those_of_the_running_statistics_whatever_the_chunk(encoder, chunk):
    rows = torch.tensor([7, 0, 22, 5, 5, 11, 3])
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    z = extract(encoder, IMAGES, rows, CPU, chunk)
    assert (z.dtype, z.requires_grad) == (torch.float32, False)
    assert torch.allclose(z.double(), encoder.formula(IMAGES[rows]).detach(), rtol=0, atol=1e-6)
    assert set(encoder.modes) == {(False, False)}, "in evaluation, without gradient"
    assert len(encoder.modes) == -(-len(rows) // chunk)
    after = encoder.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before), "nothing is learned"


def test_other_rows_beside_it_do_not_change_a_row(encoder):
    others = IMAGES.clone()
    others[1:] = 255 - others[1:]
    everyone = torch.arange(len(IMAGES))
    here, there = (extract(encoder, images, everyone, CPU) for images in (IMAGES, others))
    assert torch.equal(here[0], there[0]) and not torch.equal(here[1], there[1])
    turned = extract(encoder, IMAGES, everyone.flip(0), CPU, chunk=5).flip(0)
    assert torch.allclose(here, turned, rtol=0, atol=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_a_cell_keeps_is_what_the_trained_encoder_makes_of_each_row_alone(tmp_path, precision):
    """In float32, also where bf16 trained; a row of the pack for each row of the features."""
    text = SUITE.replace('"simclr"', '"erm"').replace('"fp32"', f'"{precision}"')
    plan = make_plan(text, tmp_path / "store", tmp_path)
    (cell,) = plan.cells
    execute(cell, plan, quiet)
    (link,) = plan.links(cell)
    kept = plan.store.read("stages", link.key).tensors
    encoder = build_encoder(plan.catalog.resolve("encoder", cell.method.encoder), plan.pack.task, 0)
    start = {name: value.clone() for name, value in encoder.state_dict().items()}
    encoder.load_state_dict({n[8:]: v for n, v in kept.items() if n.startswith("encoder.")})
    encoder.eval()
    moved = [name for name, value in encoder.state_dict().items()
             if "running" in name and not torch.equal(value, start[name])]  # fmt: skip
    assert moved, "a test of running statistics needs some that moved"
    for number, domain in enumerate(("left", "right")):
        rows = (plan.pack.domains == number).nonzero().flatten()
        found = stored_features(link.key, ((domain,),), plan).of(rows)
        assert torch.equal(found.labels, plan.pack.labels[rows])
        with torch.no_grad():
            for place in range(0, len(rows), 7):
                image = plan.pack.inputs[rows[place]][None].float() / 255
                assert torch.allclose(found.z[place], encoder(image)[0], rtol=1e-4, atol=1e-5)
    assert stored_features(link.key, (("odd",),), plan) is None, (
        "no row of a domain beside the shift"
    )
