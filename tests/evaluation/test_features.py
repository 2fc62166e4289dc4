"""Frozen features: compared with the formula of batch norm and with one row at a time."""

import subprocess
import sys
import threading
from functools import reduce
from operator import add

import numpy as np
import pytest
import torch
from audiences import quiet
from resident import STATUS
from tiny import SUITE, make_plan
from torch import nn

from benchbench.evaluation.features import Moments, extract, moments_of
from benchbench.execution.cell import execute
from benchbench.extension.errors import BadInput
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


class Decoded:
    """Inputs that are decoded when they are asked for, and note what was asked, by which thread."""

    device = CPU

    def __init__(self):
        self.asked, self.threads, self.more = [], set(), threading.Semaphore(0)

    def __getitem__(self, rows):
        self.asked += rows.tolist()
        self.threads.add(threading.current_thread())
        self.more.release()
        return IMAGES[rows]


class Waiting(Normed):
    """Encodes a chunk when the inputs of the next one have been asked for."""

    def __init__(self, inputs):
        super().__init__()
        self.inputs, self.ahead = inputs, []

    def forward(self, images):
        chunks = min(len(self.ahead) + 2, 6)  # of the six that there are
        while self.inputs.asked != list(range(min(4 * chunks, 23))):
            assert self.inputs.more.acquire(timeout=30), "nobody reads ahead"
        self.ahead.append(len(self.inputs.asked))
        return super().forward(images)


def test_inputs_of_the_next_chunk_are_decoded_while_one_is_encoded():
    inputs, everyone = Decoded(), torch.arange(23)
    waiting = Waiting(inputs)
    z = extract(waiting, inputs, everyone, CPU, chunk=4)
    assert torch.equal(z, extract(Normed(), IMAGES, everyone, CPU, chunk=4)), "bit for bit"
    assert waiting.ahead == [8, 12, 16, 20, 23, 23], "one chunk, and not all of them"
    assert threading.current_thread() not in inputs.threads


def test_what_decoding_raises_is_raised():
    class Broken(Decoded):
        def __getitem__(self, rows):
            if 9 in rows:
                raise BadInput("image 9 cannot be decoded")
            return super().__getitem__(rows)

    with pytest.raises(BadInput, match="image 9 cannot be decoded"):
        extract(Normed(), Broken(), torch.arange(23), CPU, chunk=4)


def test_moments_in_parts_are_those_of_all_rows():
    """Of features with a large mean, beside numpy's covariance."""
    generator = torch.Generator().manual_seed(3)
    z = torch.randn(500, 5, generator=generator) * torch.logspace(-1, 2, 5) + 1e3
    theirs = np.cov(z.double().numpy().T, bias=True) * 500
    for cuts in ((500,), (1, 499), (100, 3, 397)):
        told = reduce(add, map(Moments.of, z.split(list(cuts))))
        assert told.count == 500
        assert np.allclose(told.mean, z.double().numpy().mean(0), rtol=1e-12)
        assert np.allclose(told.scatter, theirs, rtol=1e-9, atol=1e-9)
    encoder = Normed()
    told = moments_of(encoder, IMAGES, torch.arange(23), CPU, chunk=4)
    x = encoder.formula(IMAGES).detach().numpy()
    assert told.count == 23 and np.allclose(told.mean, x.mean(0), atol=1e-6)
    assert np.allclose(told.scatter, np.cov(x.T, bias=True) * 23, atol=1e-4)


EXTRACTED = """
import torch
from resident import peak_of
from torch import nn

from benchbench.evaluation.features import extract

class Wide(nn.Module):
    def forward(self, images):
        return images.flatten(1).repeat(1, 256)

torch.set_num_threads(1)
images = torch.zeros(50_000, 4, 1, 1, dtype=torch.uint8)
encoder, cpu = Wide(), torch.device("cpu")
extract(encoder, images, torch.arange(600), cpu)
peak, z = peak_of(lambda: extract(encoder, images, torch.arange(50_000), cpu))
print(peak / z.nbytes)
"""


@pytest.mark.skipif(not STATUS.exists(), reason="Linux alone says what is resident")
def test_features_are_extracted_in_hardly_more_memory_than_they_take():
    """200 MB of them."""
    child = subprocess.run([sys.executable, "-c", EXTRACTED], capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    assert 0.9 < float(child.stdout) < 1.2


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
