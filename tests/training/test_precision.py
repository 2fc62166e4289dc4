"""What is said to be float32 has float32's 24 bits, and a program's own torch stays as it was."""

import subprocess
import sys
import warnings

import pytest
import torch
from tiny import tiny
from torch import nn

from benchbench.data.batches import Feed
from benchbench.data.pack import in_memory
from benchbench.evaluation.features import extract
from benchbench.extension.contracts import Objective
from benchbench.training.budget import Budget
from benchbench.training.device import full_fp32
from benchbench.training.loop import Views, train

CPU = torch.device("cpu")
B = torch.backends
PLACES = {
    "matrix products on CUDA": B.cuda.matmul,
    "convolutions of cuDNN": B.cudnn.conv,
    "recurrences of cuDNN": B.cudnn.rnn,
    "matrix products on the CPU": B.mkldnn.matmul,
    "convolutions on the CPU": B.mkldnn.conv,
    "recurrences on the CPU": B.mkldnn.rnn,
}


def settings():
    """All that a program may have set, old way and new."""
    told = {name: place.fp32_precision for name, place in PLACES.items()}
    told |= {"all": B.fp32_precision, "cudnn": B.cudnn.fp32_precision}
    told |= {"mkldnn": B.mkldnn.fp32_precision, "benchmark": B.cudnn.benchmark}
    for name, ask in {
        "old, cuDNN": lambda: B.cudnn.allow_tf32,
        "old, CUDA": lambda: B.cuda.matmul.allow_tf32,
        "old, products": torch.get_float32_matmul_precision,
    }.items():
        try:
            told[name] = ask()
        except RuntimeError:  # where ways are mixed
            told[name] = "mixed"
    return told


def high():
    torch.set_float32_matmul_precision("high")


def medium():
    torch.set_float32_matmul_precision("medium")


def old():
    B.cuda.matmul.allow_tf32 = B.cudnn.allow_tf32 = True


def everything():
    B.fp32_precision = "tf32"


def mixed():
    B.cudnn.conv.fp32_precision, B.mkldnn.matmul.fp32_precision = "tf32", "bf16"


PROGRAMS = [lambda: None, high, medium, old, everything, mixed]


@pytest.fixture(params=PROGRAMS, ids=["nothing", "high", "medium", "old", "everything", "mixed"])
def program(request):
    """A program that has set something, in a torch that is afterwards as it was."""
    before = {name: place.fp32_precision for name, place in PLACES.items()}
    benchmark = B.cudnn.benchmark
    request.param()
    yield
    torch.set_float32_matmul_precision("highest")
    B.fp32_precision, B.cudnn.benchmark = "none", benchmark
    for name, place in PLACES.items():
        place.fp32_precision = before[name]


class Seen(nn.Module):
    """Notes what is set while it computes."""

    num_features = 2

    def __init__(self):
        super().__init__()
        self.weight, self.seen = nn.Parameter(torch.ones(2)), []

    def forward(self, images):
        self.seen.append(settings())
        return images.mean((1, 2, 3))[:, None] * self.weight


class Mean(Objective):
    reads = frozenset()
    n_views = 1

    def forward(self, encoder, batch):
        return encoder(batch.views[0]).mean()


@pytest.mark.filterwarnings("error")
def test_training_and_features_compute_in_full_float32_and_leave_torch_as_it_was(program):
    before, encoder, pack = settings(), Seen(), in_memory(tiny(None))
    feed = Feed(pack, pack.inputs, ("left",), (), 4, 0, CPU)
    budget = Budget(steps=1, batch_size=4, lr=1e-3, weight_decay=0.0, warmup=0.0)
    train(encoder, Mean(), Views(lambda x: x), feed, budget, 0, precision="fp32")
    assert settings() == before
    extract(encoder, pack.inputs, torch.arange(3), CPU)
    assert settings() == before
    trained, extracted = encoder.seen
    for told in (trained, extracted):
        assert {name: told[name] for name in PLACES} == dict.fromkeys(PLACES, "ieee")
    assert trained["benchmark"] and not extracted["benchmark"], "shapes are fixed in training"


def test_what_raises_leaves_torch_as_it_was(program):
    before = settings()
    with pytest.raises(ZeroDivisionError), full_fp32(fixed_shapes=True):
        1 / 0  # noqa: B018
    assert settings() == before


LATER = """
import torch
from benchbench.training.device import full_fp32
with full_fp32():
    pass
torch.backends.fp32_precision = "ieee"
b = torch.backends
assert {b.cuda.matmul.fp32_precision, b.cudnn.conv.fp32_precision, b.cudnn.rnn.fp32_precision,
        b.mkldnn.matmul.fp32_precision, b.mkldnn.conv.fp32_precision} == {"ieee"}
"""  # in a process of its own: what torch begins with cannot be set again


def test_a_later_setting_of_a_program_has_its_effect():
    """What was inherited is inherited again: nothing was pinned down below it."""
    assert subprocess.run([sys.executable, "-c", LATER], check=False).returncode == 0


def test_nothing_is_deprecated():
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        with full_fp32(fixed_shapes=True), full_fp32():
            pass
    assert told == []


def test_products_on_the_cpu_are_as_exact_as_float32_allows(program):
    """Against float64: bf16 would be off by 1e-3, and TF32 by 1e-4."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 64, 512, generator=generator)
    images, kernel = (torch.randn(*s, generator=generator) for s in ((4, 32, 8, 8), (16, 32, 3, 3)))
    with full_fp32():
        product, convolved = x @ y.T, torch.conv2d(images, kernel)
    exact = x.double() @ y.double().T
    assert (product - exact).abs().max() < 1e-5 * exact.abs().max()
    exact = torch.conv2d(images.double(), kernel.double())
    assert (convolved - exact).abs().max() < 1e-5 * exact.abs().max()


@pytest.mark.gpu
@pytest.mark.parametrize(
    "text", ["small_cnn", "timm(model='resnet18')", "timm(model='vit_tiny_patch16_224')"]
)
def test_features_are_the_same_on_a_gpu_and_on_the_cpu(catalog, text):
    """Within 1e-3 of the largest, whatever the program lets convolutions use."""
    from benchbench.extension.contracts import Task
    from benchbench.suites.plan import build_encoder

    side = 224 if "vit" in text else 64
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (16, 3, side, side), dtype=torch.uint8, generator=generator)
    encoder = build_encoder(catalog.resolve("encoder", text), Task((3, side, side), 2, 2), 0)
    here = extract(encoder, images, torch.arange(16), CPU)
    device = torch.device("cuda")
    there = extract(encoder.to(device), images, torch.arange(16), device)
    assert (here - there).abs().max() <= 1e-3 * here.abs().max()
    assert torch.allclose(here, there, rtol=1e-3, atol=1e-4 * float(here.abs().max()))
