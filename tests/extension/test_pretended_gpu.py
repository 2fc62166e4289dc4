"""A pretended GPU finds what is planted, on its line, and nothing in what the project ships.

Every objective, encoder and augmentation is tried by the checks `devices` and `no_waits` of the
conformance kit, in `test_conformance.py`; here are other optimizers, data that are not resident,
and whole cells.
"""

import inspect

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import Text, make_plan
from torch import nn

from benchbench.data.batches import Feed
from benchbench.execution.cell import execute, silent
from benchbench.extension.conformance.fixtures import Probe, bars, jittered, packed, shrunk
from benchbench.extension.conformance.pretended_gpu import PretendedGpu, works
from benchbench.extension.contracts import begun
from benchbench.suites.cost import Calibration
from benchbench.training.budget import Budget
from benchbench.training.loop import Views, train

TRIED = ("2.14",)  # versions of torch
pytestmark = pytest.mark.skipif(
    not torch.__version__.startswith(TRIED),
    reason=f"the pretended GPU was tried with torch {', '.join(TRIED)}; see TRIED for another",
)


def on_device(*shape):
    return torch.rand(*shape, device="cuda", requires_grad=True)


class Doubled(torch.autograd.Function):
    """Its own backward pass asks where its gradient lies, and may leave a tensor on the CPU."""

    @staticmethod
    def forward(ctx, x, mixes=False):
        ctx.mixes = mixes
        return 2 * x

    @staticmethod
    def backward(ctx, gradient):
        assert gradient.device.type == "cuda"
        return gradient * (torch.full((3,), 2.0) if ctx.mixes else 2), None


MIXED = {
    "a sum": lambda x: x + torch.ones(3),
    "a product of matrices": lambda x: torch.ones(3, 3) @ x,
    "a target of a loss": lambda x: F.cross_entropy(x[None], torch.tensor([0])),
    "where": lambda x: torch.where(x > 0, x, torch.zeros(3)),
    "assigned in place": lambda x: x.detach().copy_(x).add_(torch.ones(3)),
    "a layer that was not moved": lambda x: nn.Linear(3, 2)(x),
    "a backward pass": lambda x: Doubled.apply(x, True).sum().backward(),
    "numpy": lambda x: x.detach().numpy(),
    "a generator": lambda x: torch.rand(3, device="cuda", generator=torch.Generator()),
}
WAITED = {
    "item": lambda x: x[0].item(),
    "a branch": lambda x: 1 if x[0] > 0 else 2,
    "tolist": lambda x: x.tolist(),
    "a copy to the host": lambda x: x.cpu(),
    "a copy by its type": lambda x: x.to(torch.device("cpu"), torch.float64),
    "a copy from the host": lambda x: torch.ones(3).to(x.device),
    "a copy to where another lies": lambda x: torch.ones(3).to(x),
    "a list made a tensor": lambda x: torch.tensor([1.0, 2.0], device=x.device),
    "a mask": lambda x: x[x > 0],
    "an assignment by a mask": lambda x: x.detach().index_put_((x > 0,), torch.zeros(())),
    "an index on the host": lambda x: x[torch.tensor([0, 1])],
    "nonzero": lambda x: x.nonzero(),
    "unique": lambda x: x.detach().unique(),
    "eigenvectors": lambda x: torch.linalg.eigh(x.detach() * torch.eye(3, device="cuda")),
    "an inverse": lambda x: torch.linalg.inv(torch.eye(3, device="cuda")),
    "bincount": lambda x: (x > 0).long().bincount(),
    "equal": lambda x: torch.equal(x, x),
    "copied in place": lambda x: torch.zeros(3).copy_(x.detach()),
    "repeated by counts": lambda x: x.repeat_interleave((x > 0).long()),
    "synchronize": lambda x: torch.cuda.synchronize(),
}
CLEAN = {
    "a number": lambda x: (x * 2 + torch.tensor(1.0)).sum().backward(),
    "where": lambda x: torch.where(x > 0, 1.0, x),
    "free": lambda x: torch.ones(3).to(x.device, non_blocking=True) + x,
    "like": lambda x: torch.zeros_like(x) + x.new_ones(3) + torch.arange(3, device=x.device),
    "one hot": lambda x: F.one_hot((x > 0).long(), 3),
    "quantile": lambda x: x.quantile(0.5),
    "there already": lambda x: x.to("cuda").to(x.device, torch.float32).cuda(),
    "an index on the device": lambda x: x[torch.arange(2, device=x.device)],
    "a convolution": lambda x: F.conv1d(x[None, None], x[None, None]).sum().backward(),
    "autocast": lambda x: half_precision(x),
    "a cast there and back": lambda x: (x.bfloat16() * Doubled.apply(x)).sum().backward(),
    "a gradient": lambda x: torch.autograd.grad((x * x).sum(), x, create_graph=True),
    "the host alone": lambda x: [torch.ones(3) + 1, torch.ones(3).tolist(), float(torch.ones(()))],
}


def half_precision(x):
    with torch.autocast(x.device.type, torch.bfloat16):
        assert (x[None] @ x[:, None]).dtype == torch.bfloat16


def found_by(call):
    with PretendedGpu() as gpu:
        x = on_device(3)
        gpu.new()
        call(x)
        return gpu.new()


def line_of(call) -> str:
    return f"extension/test_pretended_gpu.py:{inspect.getsourcelines(call)[1]}"


@pytest.mark.parametrize("call", MIXED.values(), ids=MIXED)
def test_what_cuda_would_refuse_is_found_on_its_line(call):
    seen = found_by(call)
    assert seen.mixes and not seen.waits
    own = inspect.getsourcelines(Doubled.backward)[1] + 3
    wanted = {line_of(call), f"extension/test_pretended_gpu.py:{own}"}
    assert {finding.where for finding in seen.mixes} <= wanted


@pytest.mark.parametrize("call", WAITED.values(), ids=WAITED)
def test_where_the_host_waits_is_found_on_its_line(call):
    seen = found_by(call)
    assert not seen.mixes and {finding.where for finding in seen.waits} == {line_of(call)}
    assert seen.waits.total() == 1


@pytest.mark.parametrize("call", CLEAN.values(), ids=CLEAN)
def test_nothing_is_found_where_nothing_is(call):
    seen = found_by(call)
    assert not seen.mixes and not seen.waits


def test_values_are_those_of_the_cpu_and_what_lies_on_the_device_is_counted():
    with PretendedGpu(memory=10_000) as gpu:
        x = torch.arange(1000.0).to("cuda")
        assert x.is_cuda and x.device == torch.device("cuda", 0) and x.sum().item() == 499_500
        assert torch.cuda.mem_get_info() == (6000, 10_000)
        y = x[:10].view(2, 5)
        assert y.is_cuda and torch.cuda.memory_allocated() == 4000, "a view takes nothing"
        z = (x * 2).cpu()
        assert torch.cuda.max_memory_allocated() == 8000 and torch.cuda.memory_allocated() == 4000
        assert not z.is_cuda and z[-1] == 1998
        del x, y
        assert torch.cuda.memory_allocated() == 0
    assert not torch.cuda.is_available() and gpu.peak == 8000
    assert works()


OBJECTIVES = ("byol", "dann", "dino", "fixmatch", "mae", "swav(small=2)", "vada", "vicreg")


def losses_and_findings(catalog, name, optimizer, *, ahead):
    """Of four steps, the second by itself; ``ahead`` leaves the data on the host, as if many."""
    from benchbench.extension.conformance.fixtures import TokenProbe

    pack, device, steps = packed(bars()), torch.device("cuda"), []
    with PretendedGpu() as gpu:
        encoder = (TokenProbe if name == "mae" else Probe)(pack.task).to(device)
        objective = catalog.resolve("objective", name).build(encoder, pack.task)
        objective = begun(objective, encoder, pack.task).to(device)
        inputs = pack.inputs if ahead else pack.inputs.to(device)
        feed = Feed(pack, inputs, ("left", "right"), ("left",), 12, 0, device)
        gpu.new()
        losses = train(
            encoder,
            objective,
            Views(jittered, small=shrunk),
            feed,
            Budget(4, 12, 1e-2, 1e-4, 0.1, optimizer=optimizer),
            0,
            precision="fp32",
            watch=lambda done, loss: steps.append(gpu.new()),
        )
    return losses, sum((seen.mixes for seen in steps), steps[0].mixes), steps[1].waits


@pytest.mark.parametrize("optimizer", ["sgd", "lars"])
def test_steps_of_other_optimizers_neither_mix_nor_wait(catalog, optimizer):
    _, mixes, waits = losses_and_findings(catalog, "dann", optimizer, ahead=False)
    assert not mixes and not waits


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["sgd", "lars"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_steps_of_all_sorts_of_objectives_with_them_neither_mix_nor_wait(catalog, name, optimizer):
    _, mixes, waits = losses_and_findings(catalog, name, optimizer, ahead=False)
    assert not mixes and not waits


def test_data_that_are_fetched_ahead_neither_mix_nor_wait(catalog):
    losses, mixes, waits = losses_and_findings(catalog, "simclr", "adamw", ahead=True)
    assert not mixes and not waits
    assert losses == losses_and_findings(catalog, "simclr", "adamw", ahead=False)[0]


# --- whole cells

SUITE = Text("""
name = "rehearsed"
dataset = "tiny"
shifts = ["left > right"]
seeds = [0]
encoder = "small_cnn(width=4)"
precision = "bf16"
snapshots = 1
stage = { steps = 4, batch_size = 12, lr = 0.01, augmentation = "noise", small = "shrink" }
[[method]]
chain = "CHAIN"
readout = "READOUT"
""")
READOUTS = ("linear", "ridge", "knn", "prototype", "pfa", "zero_shot(embeddings='E')")
CELLS = [
    *(("simclr", readout) for readout in READOUTS),
    *((chain, "head") for chain in ("dann", "simclr > lp_ft", "erm > noisy_student")),
    *((chain, "head") for chain in ("vada > dirt_t", "erm > fixmatch(start='head')")),
]
MAY_WAIT = {  # where, and for what
    "data/batches.py": "labels and what fits are copied to the device, once a stage",
    "data/gathering.py": "inputs are copied to the device, once a stage",
    "training/loop.py": "the losses are looked at once in 50 steps, and read at the end",
    "training/memory.py": "its counter stands between an operation and the line of it",
    "store/": "what is kept is written",
    "execution/": "modules are moved, and states are loaded",
    "suites/": "a trial's clock waits, and builds its own modules",
    "evaluation/": "features and scores are read",
    "readouts/": "fits look at whether they have converged",
    "diagnostics/": "figures are read",
    "extension/contracts.py": "what an objective begins with is loaded",
}


@pytest.mark.slow
@pytest.mark.parametrize(("chain", "readout"), CELLS)
def test_a_whole_cell_is_scored_and_mixes_nothing(tmp_path, chain, readout):
    np.save(tmp_path / "e.npy", np.eye(3, 32, dtype=np.float32))
    readout = readout.replace("'E'", f"'{tmp_path / 'e.npy'}'")
    text = SUITE.replace("CHAIN", chain).replace("READOUT", readout)
    with PretendedGpu() as gpu:
        plan = make_plan(text, tmp_path / "store", tmp_path, device="cuda")
        (cell,) = plan.cells
        plan.check(cell)
        Calibration(plan).work(cell)
        record = execute(cell, plan, silent)
        seen = gpu.new()
    assert record.status == "scored"
    assert not seen.mixes
    others = [f for f in seen.waits if not any(place in f.where for place in MAY_WAIT)]
    assert not others, "; ".join(map(str, others))
