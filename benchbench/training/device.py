"""Where a suite runs, and what is worth knowing of that place. No host and no user name."""

import ctypes
import os
import platform
import re
import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch

from benchbench.extension.constants import Precision
from benchbench.extension.errors import BadInput
from benchbench.store.records import Environment

PACKAGES = (
    *("numpy", "pillow", "scikit-learn", "timm", "tokenizers", "torch", "torchvision", "wilds"),
    *(("transformers",) if find_spec("transformers") else ()),
)


@dataclass(frozen=True)
class Machine:
    """The device, and how exactly it computes."""

    device: torch.device
    precision: Precision
    compiled: bool = False  # whether encoders are, by torch.compile
    memory_share: float = 1.0  # of a GPU's memory, what this process may take

    @classmethod
    def choose(
        cls, device: str, precision: Precision | Literal["auto"], *, compiled: bool = False
    ) -> "Machine":
        """``auto`` takes the GPU where there is one, and bf16 where the hardware has it."""
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        try:
            chosen = torch.device(("cuda" if count else "cpu") if device == "auto" else device)
        except RuntimeError:
            chosen = torch.device("meta")
        if chosen.type not in ("cpu", "cuda"):
            raise BadInput(f"no device is named {device!r}; there is auto, cpu, cuda")
        if chosen.type == "cpu":
            chosen = torch.device("cpu")
        elif chosen.index is None and count:
            chosen = torch.device("cuda", torch.cuda.current_device())
        if chosen.type == "cuda" and (chosen.index or 0) >= count:
            there = f"{count} CUDA devices" if count else "no CUDA device; use cpu"
            raise BadInput(f"device {device!r} was asked for, but there is {there}")
        native = cpu_has_bf16() if chosen.type == "cpu" else torch.cuda.is_bf16_supported(False)
        exactness = ("bf16" if native else "fp32") if precision == "auto" else precision
        return cls(chosen, exactness, compiled)

    @property
    def name(self) -> str:
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else cpu_name()

    def start_counting(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak_memory_gb(self) -> float:
        """Of the device since ``start_counting``; of the whole process where that is the CPU."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device) / 1e9
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9

    def free_memory(self) -> int:
        """Bytes of the device that this process can still take, of a GPU within its share."""
        if self.device.type == "cuda":
            free, total = torch.cuda.mem_get_info(self.device)
            reserved = torch.cuda.memory_reserved(self.device)
            unused = reserved - torch.cuda.memory_allocated(self.device)
            mine = int(self.memory_share * total) - reserved
            return max(0, min(free, mine) + unused)
        return min([available_memory(), *left_by_groups()])

    def environment(self) -> Environment:
        return Environment(
            benchbench=version("benchbench-shift"),
            python=platform.python_version(),
            platform=f"{platform.system()} {platform.machine()}",
            device=self.name,
            threads=torch.get_num_threads(),
            packages=installed(),
        )


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Within, a forward pass computes as the precision says."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


@contextmanager
def full_fp32(*, fixed_shapes: bool = False) -> Iterator[None]:
    """Within, what is computed in float32 has the 24 bits of float32, on every device.

    By default cuDNN's convolutions use TF32, which has 11 bits, and a program may have let matrix
    products use it, or bf16 on the CPU. With ``fixed_shapes`` cuDNN tries its kernels on the first
    batch of each shape and takes the fastest. Afterwards every setting is what it was.
    """
    whole: Any = torch.backends
    cudnn, mkldnn = whole.cudnn, whole.mkldnn
    places = (  # what is general first: the others inherit it, unless they were set
        *(whole, cudnn, whole.cuda.matmul, cudnn.conv, cudnn.rnn),
        *(mkldnn.matmul, mkldnn.conv, mkldnn.rnn),
    )
    before, benchmark = [place.fp32_precision for place in places], cudnn.benchmark
    products: str | None = None
    with suppress(RuntimeError):  # torch does not tell it where it was set in two ways
        products = torch.get_float32_matmul_precision()
    try:
        if products not in (None, "highest"):
            torch.set_float32_matmul_precision("highest")
        set_precisions(places, ["ieee"] * len(places))
        cudnn.benchmark = fixed_shapes
        yield
    finally:
        cudnn.benchmark = benchmark
        if products not in (None, "highest"):
            torch.set_float32_matmul_precision(products)
        set_precisions(places, before)


def set_precisions(places: Sequence[Any], precisions: Sequence[str]) -> None:
    """What already is so, such as by inheritance, is left alone, and goes on to inherit."""
    for place, precision in zip(places, precisions, strict=True):
        if place.fp32_precision != precision:
            place.fp32_precision = precision


@cache
def installed() -> dict[str, str]:
    """The versions of the packages that a record names."""
    return {name: version(name) for name in PACKAGES}


def cpu_has_bf16() -> bool:
    """Whether bf16 products are instructions of this CPU, not emulated."""
    try:
        flags = Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split()
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def available_memory() -> int:
    """Bytes that programs can take without swapping; of all there are, where that is not told."""
    try:
        told = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.M)
    except OSError:
        told = None
    return int(told[1]) * 1024 if told else os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def held_memory(device: torch.device) -> int:
    """Bytes of the device that this process holds already; of the CPU those of the whole process.

    There it is what the program itself takes, and the data that it has read.
    """
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device)
    try:
        told = re.search(r"^VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    except OSError:
        told = None
    return (
        int(told[1]) * 1024 if told else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )


def left_by_groups(
    own: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")
) -> list[int]:
    """Bytes that each limit on this process leaves (cgroup v2); page cache gives way, so is free.

    Limits of containers, of systemd and of Slurm are of this kind.
    """
    try:
        group = root / own.read_text().partition("0::/")[2].partition("\n")[0]
    except OSError:
        return []
    left = []
    for folder in (group, *group.parents):
        try:
            limit = (folder / "memory.max").read_text().strip()
            used = re.search(r"^anon (\d+)", (folder / "memory.stat").read_text(), re.M)
        except OSError:
            continue
        if limit != "max" and used:
            left.append(max(0, int(limit) - int(used[1])))
    return left


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.processor()}, {os.cpu_count()} cores"


def keep_freed_memory() -> None:
    """Tell glibc to keep large blocks: page faults of fresh activations cost up to 40 % of a step.

    See docs/performance.md. Does nothing where the C library is another.
    """
    trim_threshold, mmap_threshold = -1, -3  # mallopt(3)
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(mmap_threshold, 1 << 30)
    mallopt(trim_threshold, 1 << 30)
