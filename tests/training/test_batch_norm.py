"""Batch norm over the rows of several processes, against torch's of all rows in one."""

import inspect

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F

from benchbench.training.batch_norm import BatchNormOverAll, OnTheCPU, OverAll

BACKENDS = [
    pytest.param(("cpu", "gloo"), id="cpu"),
    pytest.param(("cuda", "nccl"), id="cuda", marks=pytest.mark.gpu("NCCL asks for GPUs itself")),
]


@pytest.fixture
def group(tmp_path, request):
    """A group of this process alone, in which all messages are sent as in a larger one."""
    device, backend = request.param
    dist.init_process_group(
        backend, init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1
    )
    yield device
    dist.destroy_process_group()


def case(device, dtype, shape, weights, last):
    torch.manual_seed(0)
    x = (3 + 2 * torch.randn(shape)).to(device, dtype)
    if last:
        x = x.to(memory_format=torch.channels_last)
    exact = torch.promote_types(dtype, torch.float32)
    made = [torch.randn(shape[1], device=device, dtype=exact) for _ in range(4)]
    affine = [w.requires_grad_() for w in made[:2]] if weights else [None, None]
    return x.requires_grad_(), affine, [made[2], made[3].square()], torch.randn_like(x)


@pytest.mark.parametrize("group", BACKENDS, indirect=True)
@pytest.mark.parametrize(
    ("dtype", "shape", "weights", "last", "near"),
    [
        (torch.float64, (6, 4, 5, 3), True, False, 1e-12),
        (torch.float32, (6, 4, 5, 3), True, True, 1e-5),
        (torch.float32, (6, 4), True, False, 1e-5),
        (torch.float64, (5, 3, 7), False, False, 1e-12),
        (torch.bfloat16, (6, 4, 5, 3), True, True, 2e-2),
    ],
)
def test_it_is_torchs_of_all_rows(group, dtype, shape, weights, last, near):
    def left(over_all):
        x, affine, running, wanted = case(group, dtype, shape, weights, last)
        if over_all:
            with BatchNormOverAll():
                made = F.batch_norm(x, *running, *affine, True, 0.3, 1e-4)
        else:
            made = F.batch_norm(x, *running, *affine, True, 0.3, 1e-4)
        (made * wanted).sum().backward()
        return [made, x.grad, *running, *(w.grad for w in affine if w is not None)]

    for ours, theirs in zip(left(True), left(False), strict=True):
        assert ours.dtype == theirs.dtype
        assert torch.allclose(ours.double(), theirs.double(), rtol=near, atol=near)
    x, affine, running, _ = case(group, dtype, shape, weights, last)
    with BatchNormOverAll():
        evaluated = F.batch_norm(x, *running, *affine, False)
    assert torch.equal(evaluated, F.batch_norm(x, *running, *affine, False))


@pytest.mark.parametrize("group", BACKENDS, indirect=True)
@pytest.mark.parametrize(("dtype", "each"), [(torch.bfloat16, 2), (torch.float32, 4)])
@pytest.mark.parametrize("last", [True, False])
def test_of_its_input_it_keeps_what_was_there_and_no_more(group, dtype, each, last):
    x, affine, running, _ = case(group, dtype, (16, 8, 24, 24), True, last)
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        made = OverAll.apply(x, *affine, *running, 0.1, 1e-5)
    del kept[affine[0].data_ptr()]  # a parameter, there anyway
    small = 4 * (2 * 8 + 1)  # mean, inverse standard deviation, and one count
    assert sum(kept.values()) <= each * x.numel() + small and x.data_ptr() in kept
    assert made.is_contiguous(memory_format=torch.channels_last) == last


def test_statistics_of_parts_make_those_of_the_whole():
    """Parts of other sizes and other means; the running ones take the unbiased variance."""
    torch.manual_seed(0)
    parts = [
        torch.randn(rows, 3, 4, dtype=torch.float64) * scale + shift
        for rows, scale, shift in ((2, 1, 0), (5, 3, 10), (1, 0.1, -4))
    ]
    told = [OnTheCPU.batch_norm_stats(part, 1e-5) for part in parts]
    counts = torch.tensor([part.numel() / 3 for part in parts], dtype=torch.float64)
    running = [torch.full((3,), value, dtype=torch.float64) for value in (0.5, 2.0)]
    mean, invstd = OnTheCPU.batch_norm_gather_stats_with_counts(
        parts[0], *map(torch.stack, zip(*told, strict=True)), *running, 0.2, 1e-5, counts
    )
    for channel in range(3):
        values = [float(v) for part in parts for v in part[:, channel].flatten()]
        middle = sum(values) / len(values)
        squares = sum((value - middle) ** 2 for value in values)
        assert float(mean[channel]) == pytest.approx(middle, rel=1e-10)
        assert float(invstd[channel]) == pytest.approx(
            (squares / len(values) + 1e-5) ** -0.5, rel=1e-10
        )
        assert float(running[0][channel]) == pytest.approx(0.8 * 0.5 + 0.2 * middle)
        assert float(running[1][channel]) == pytest.approx(
            0.8 * 2.0 + 0.2 * squares / (len(values) - 1)
        )


@pytest.mark.parametrize(
    "name",
    [name for name in vars(OnTheCPU) if name.startswith("batch_norm")],
)
def test_what_the_cpu_does_by_formulas_cuda_has_under_the_same_name(name):
    schema = getattr(torch.ops.aten, name).default._schema
    assert len(inspect.signature(getattr(OnTheCPU, name)).parameters) == len(schema.arguments)


@pytest.mark.parametrize("group", BACKENDS[:1], indirect=True)
def test_a_gradient_of_a_gradient_is_refused_and_not_wrong_in_silence(group):
    x, affine, running, _ = case(group, torch.float64, (6, 4, 5, 3), True, False)
    made = OverAll.apply(x, *affine, *running, 0.1, 1e-5)
    (gradient,) = torch.autograd.grad(made.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        gradient.square().sum().backward()
