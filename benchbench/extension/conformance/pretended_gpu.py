"""A pretended GPU: computes real values on the CPU, and knows where each tensor would lie.

Within a `PretendedGpu` the device ``cuda`` is there. A mode for functions answers ``.device``,
``.to`` and factories; a mode below autograd, which sees backward passes and optimizers as well,
carries the device from the inputs of every operation to its outputs. What CUDA would refuse, since
tensors lie on both devices, is a mix; where the host would stop until the device is done, a wait.

It tells nothing of time, of numbers (TF32, order of sums), of which dtypes a kernel takes, of
streams, of torch.compile and of NCCL. A thread other than the one that entered is not watched.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cache
from importlib import import_module
from types import SimpleNamespace
from typing import Any, Literal, NamedTuple
from unittest import mock
from weakref import WeakKeyDictionary, finalize

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
Place = torch.device | None  # None is of what an operation made for itself: where it is needed
Running = Literal["a factory", "an operation", "a move"]

WAITS = {  # operations after which the host waits, in torch's sources for CUDA
    **dict.fromkeys(
        (
            *("nonzero", "masked_select", "_unique", "_unique2", "unique_dim"),
            *("unique_consecutive", "unique_dim_consecutive"),
        ),
        "its shape depends on values",  # native/cuda/Nonzero.cu, IndexKernel.cpp, Unique.cu
    ),
    **dict.fromkeys(
        ("_linalg_eigh", "_linalg_svd", "_linalg_eigvals", "linalg_eig", "linalg_lstsq"),
        "it reads an error code",  # native/BatchLinearAlgebra.cpp
    ),
    "_linalg_check_errors": "it reads an error code",  # of inv, cholesky, solve and so on
    "bincount": "it reads the largest value",  # native/cuda/SummaryOps.cu
    "histc": "it reads the range",
    "multinomial": "it checks its probabilities",  # native/Distributions.cpp
    "equal": "it reads the answer",  # native/cuda/Equal.cpp
    "_local_scalar_dense": "it reads a value",  # item, bool, float, int, and what asks for one
}
UNCHECKED = {  # functions that look at values on the CPU alone: native/Onehot.cpp, Sorting.cpp
    *("torch.nn.functional.one_hot", "torch.nanquantile", "torch.quantile"),
    *("torch.Tensor.nanquantile", "torch.Tensor.quantile"),
}
BETWEEN = {"copy_", "_to_copy", "set_", "_local_scalar_dense", "detach", "alias", "lift_fresh"}
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_"}
READ_ON_THE_HOST = (Tensor.numpy, Tensor.__array__)
TO_THE_HOST, TO_THE_DEVICE = "a copy to the host", "a blocking copy to the device"
OPERATION = type(torch.ops.aten.add.Tensor)
LIBRARIES = {*sys.stdlib_module_names, *("numpy", "timm", "torch", "torchvision", "transformers")}


class Finding(NamedTuple):
    """What was found, and the line that is nearest to it outside of libraries."""

    what: str
    where: str

    def __str__(self) -> str:
        return f"{self.what}, at {self.where}"


class Seen(NamedTuple):
    """How often was found what."""

    mixes: Counter[Finding]
    waits: Counter[Finding]


class PretendedGpu(ExitStack):
    """A context in which the device ``cuda`` is there, with so many bytes of memory."""

    def __init__(self, memory: int = 140 * 10**9) -> None:
        super().__init__()
        self.memory, self.held, self.peak = memory, 0, 0
        self.places: WeakKeyDictionary[torch.UntypedStorage, Place] = WeakKeyDictionary()
        self.seen = Seen(Counter(), Counter())
        self.freeing: WeakKeyDictionary[torch.UntypedStorage, Callable[[], Any]]
        self.freeing = WeakKeyDictionary()
        self.running: list[Running] = []  # what Python has called, as far as it has not returned
        self.unchecked = 0  # how many of these look at values on the CPU alone
        self.raises = False  # where the host waits, as `torch.cuda.set_sync_debug_mode` can

    def __enter__(self) -> "PretendedGpu":
        import_module("torch._dynamo")  # which would list what torch.cuda offers, replacements too
        super().__enter__()
        for owner, name, replacement in self._replaced():
            if hasattr(owner, name):  # not every version of torch has all
                self.enter_context(mock.patch.object(owner, name, replacement))
        self.enter_context(Operations(self))
        self.enter_context(Functions(self))
        return self

    def new(self) -> Seen:
        """What was found since this was asked last."""
        seen, self.seen = self.seen, Seen(Counter(), Counter())
        return seen

    # Where tensors lie

    def place(self, tensor: Tensor) -> Place:
        return self.places.get(tensor.untyped_storage(), CPU)

    def device(self, tensor: Tensor) -> torch.device:
        return self.place(tensor) or CPU

    def known(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage() in self.places

    def put(self, tensor: Tensor, place: Place) -> None:
        storage = tensor.untyped_storage()
        before = self.places.get(storage)
        self.places[storage] = place
        if place == CUDA != before:
            self.held += storage.nbytes()
            self.peak = max(self.peak, self.held)
            self.freeing[storage] = finalize(storage, self._freed, storage.nbytes())
        elif before == CUDA != place:
            self.freeing.pop(storage)()

    def _freed(self, size: int) -> None:
        self.held -= size

    # What is found

    def mix(self, what: str) -> None:
        self.seen.mixes[Finding(what, own_line())] += 1

    def wait(self, what: str) -> None:
        if self.unchecked:
            return
        finding = Finding(what, own_line())
        self.seen.waits[finding] += 1
        if self.raises:
            raise RuntimeError(f"called a synchronizing CUDA operation: {finding}")

    @contextmanager
    def inside(self, what: Running, name: str = "") -> Iterator[None]:
        """While a function that Python has called runs."""
        self.running.append(what)
        self.unchecked += name in UNCHECKED
        try:
            yield
        finally:
            self.unchecked -= name in UNCHECKED
            self.running.pop()

    # torch.cuda, as it is where there is a GPU

    def _replaced(self) -> Iterator[tuple[object, str, object]]:
        autocast = torch.autocast.__init__
        name = "_engine_run_backward"  # of torch.autograd, under backward and grad
        engine = getattr(torch.autograd, name, nothing)

        def on_the_cpu(this: Any, device_type: str, *args: Any, **options: Any) -> None:
            autocast(this, "cpu" if device_type == "cuda" else device_type, *args, **options)

        def watched(*args: Any, **options: Any) -> Any:
            with Functions(self):  # a backward pass of one's own asks where tensors lie, too
                return engine(*args, **options)

        yield torch.autograd, name, watched
        for name, answer in self._answers().items():
            yield torch.cuda, name, answer
        for name in ("manual_seed", "manual_seed_all"):
            yield torch.cuda.random, name, nothing
        yield torch.autocast, "__init__", on_the_cpu
        yield Tensor, "pin_memory", lambda this, *args: this.clone()  # threads do so, too
        yield Tensor, "record_stream", nothing  # its arguments are read before a mode is asked
        for name in ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check"):
            yield torch.optim.Optimizer, name, nothing

    def _answers(self) -> dict[str, Callable[..., Any]]:
        properties = SimpleNamespace(
            name="pretended GPU", total_memory=self.memory, major=9, minor=0,
            multi_processor_count=132,
        )  # fmt: skip

        stream = type("Stream", (Stream,), {"gpu": self})

        def waited(*args: object) -> None:
            self.wait("torch.cuda.synchronize")

        def debug(mode: int | str) -> None:
            self.raises = mode in (2, "error")

        def forget_peak(*args: object) -> None:
            self.peak = self.held

        return {
            "is_available": lambda: True,
            "is_initialized": lambda: True,
            "device_count": lambda: 1,
            "current_device": lambda: 0,
            "get_device_name": lambda *args: properties.name,
            "get_device_properties": lambda *args: properties,
            "get_device_capability": lambda *args: (properties.major, properties.minor),
            "is_bf16_supported": lambda *args, **options: True,
            "mem_get_info": lambda *args: (self.memory - self.held, self.memory),
            "memory_allocated": lambda *args: self.held,
            "memory_reserved": lambda *args: self.held,
            "max_memory_allocated": lambda *args: self.peak,
            "reset_peak_memory_stats": forget_peak,
            "synchronize": waited,
            "set_sync_debug_mode": debug,
            "get_rng_state": lambda *args: torch.get_rng_state(),
            "is_current_stream_capturing": lambda: False,
            "_is_in_bad_fork": lambda: False,
            "Stream": stream,
            "Event": stream,
            "current_stream": stream,
            "default_stream": stream,
            "stream": lambda stream: nullcontext(),
            "device": lambda index: nullcontext(),
            **dict.fromkeys(
                (
                    *("_lazy_init", "empty_cache", "set_device", "set_rng_state"),
                    *("manual_seed", "manual_seed_all", "set_per_process_memory_fraction"),
                    "set_stream",
                ),
                nothing,
            ),
        }


def nothing(*args: object, **options: object) -> None:
    pass


class Stream:
    """A stream of the pretended GPU, or an event on it: all that is asked for is done."""

    gpu: PretendedGpu

    def __init__(self, *args: object, **options: object) -> None:
        pass

    def synchronize(self) -> None:
        self.gpu.wait("it waits for a stream")

    def query(self) -> bool:
        return True

    def record_event(self, event: "Stream | None" = None) -> "Stream":
        return event or type(self)()

    record = wait = wait_event = wait_stream = nothing


class Functions(TorchFunctionMode):
    """What Python asks of tensors, and where it wants them."""

    def __init__(self, gpu: PretendedGpu) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        gpu, options = self.gpu, dict(kwargs or {})
        name = getattr(func, "__name__", "")
        if name == "__get__":
            return self._attribute(func, *args)
        if isinstance(func, OPERATION) or name in ("__set__", "_parse_to"):
            # what `Operations` runs in a backward pass; and what reads the arguments of Module.to
            return func(*args, **options)
        if func is Tensor.get_device:
            return gpu.device(args[0]).index if gpu.device(args[0]) == CUDA else -1
        if func in (Tensor.to, Tensor.cuda, Tensor.cpu):
            return self._moved(func, *args, **options)
        if func in READ_ON_THE_HOST and gpu.device(args[0]) == CUDA:
            gpu.mix(f"{name} of a tensor on the device")
        if func is Tensor.tolist and gpu.device(args[0]) == CUDA:
            gpu.wait("tolist reads values")
        return self._called(func, args, options)

    def _attribute(self, func: Any, this: Any, *rest: Any) -> Any:
        owner = func.__self__
        if isinstance(this, Tensor) and owner in (Tensor.device, Tensor.is_cuda, Tensor.is_cpu):
            device = self.gpu.device(this)
            if owner is Tensor.device:
                return device
            return device == (CUDA if owner is Tensor.is_cuda else CPU)
        return func(this, *rest)

    def _called(self, func: Any, args: Any, options: dict[str, Any]) -> Any:
        """The call on the CPU; what it makes lies where it was asked for, if it was."""
        gpu = self.gpu
        name = resolve_name(func) or getattr(func, "__name__", str(func))
        if name in ("torch.as_tensor", "torch.asarray") and isinstance(args[0], Tensor):
            return self._moved(Tensor.to, *args, **options)
        asked = [a for a in args if isinstance(a, torch.device)]
        args = [CPU if isinstance(a, torch.device) else a for a in args]
        if options.get("device") is not None:
            asked = [device_of(options["device"])]
            options["device"] = CPU
        options.pop("pin_memory", None)
        takes = any(isinstance(leaf, Tensor) for leaf in tree_leaves((args, options)))
        with gpu.inside("an operation" if takes else "a factory", name):
            result = func(*args, **options)
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        if asked:
            place = CUDA if asked[-1].type == "cuda" else CPU
            if place == CUDA and name in ("torch.tensor", "torch.as_tensor", "torch.asarray"):
                gpu.wait(f"{name} on the device is {TO_THE_DEVICE}")
            for tensor in made:
                gpu.put(tensor, place)
        elif not takes:
            for tensor in made:
                if not gpu.known(tensor):
                    gpu.put(tensor, CPU)
        if options.get("generator") is not None and any(gpu.place(t) == CUDA for t in made):
            gpu.mix(f"{name} on the device with a generator of the host")
        return result

    def _moved(self, func: Any, tensor: Tensor, *args: Any, **options: Any) -> Tensor:
        """As ``to``, ``cuda`` and ``cpu`` do: what is there already is not copied."""
        gpu, words = self.gpu, list(args)
        here = gpu.device(tensor)
        if func is Tensor.to:
            like = options.pop("other", None)
            if words and isinstance(words[0], Tensor):
                like = words.pop(0)
            elif words and not isinstance(words[0], torch.dtype):
                options["device"] = words.pop(0)
            if like is not None:
                options |= {"device": gpu.device(like), "dtype": like.dtype}
            asked = options.pop("device", None)
            there = here if asked is None else CUDA if device_of(asked).type == "cuda" else CPU
            options |= dict(zip(("dtype", "non_blocking", "copy"), words, strict=False))
        else:
            there = CPU if func is Tensor.cpu else CUDA
            options.pop("device", None)
            options |= dict(zip(("non_blocking",), words[1:], strict=False))
        blocking = not options.pop("non_blocking", False)
        if here != there:
            if blocking and tensor.numel():
                gpu.wait(TO_THE_HOST if here == CUDA else TO_THE_DEVICE)
            options["copy"] = True
        given = {name: value for name, value in options.items() if value is not None}
        if not given:
            return tensor
        dtype = given.pop("dtype", tensor.dtype)
        with gpu.inside("a move"):
            result = Tensor.to(tensor, dtype, **given)
        if here != there or not gpu.known(result):
            gpu.put(result, there)
        return result


class Operations(TorchDispatchMode):
    """Every operation that runs, also of backward passes and optimizers."""

    def __init__(self, gpu: PretendedGpu) -> None:
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        gpu, options = self.gpu, kwargs or {}
        inputs = [leaf for leaf in tree_leaves((args, options)) if isinstance(leaf, Tensor)]
        places = [gpu.place(tensor) for tensor in inputs]
        device = CUDA if CUDA in places else CPU if CPU in places else None
        if device == CUDA:
            name = func._overloadpacket.__name__
            self._look_for_mixes(name, inputs, places, args)
            self._look_for_waits(name, places, args, options)
            for tensor, place in zip(inputs, places, strict=True):
                if place is None:
                    gpu.put(tensor, CUDA)
        result = func(*args, **options)
        running = gpu.running[-1] if gpu.running else None
        for made in tree_leaves(result):
            if not isinstance(made, Tensor) or gpu.known(made) or running == "a move":
                continue  # what is moved, is put where it should be by who moves it
            if inputs:
                gpu.put(made, device)
            elif running != "a factory":  # which puts it where it was asked for
                gpu.put(made, None if running else CPU)
        return result

    def _look_for_mixes(
        self, name: str, inputs: list[Tensor], places: list[Place], args: Any
    ) -> None:
        on_host = [t for t, place in zip(inputs, places, strict=True) if place == CPU and t.ndim]
        if name in INDEXING:  # an index may lie on the host
            values = [args[0]] if name == "index" else [args[0], args[2]]
            on_host = [t for t in values if self.gpu.place(t) == CPU and t.ndim]
        if on_host and name not in BETWEEN:
            told = [
                f"{list(t.shape)} on {'the device' if place == CUDA else 'the host'}"
                for t, place in zip(inputs, places, strict=True)
            ]
            self.gpu.mix(f"{name} of {', '.join(told[:4])}")

    def _look_for_waits(
        self, name: str, places: list[Place], args: Any, options: dict[str, Any]
    ) -> None:
        gpu = self.gpu
        if name in WAITS:
            gpu.wait(f"{name}: {WAITS[name]}")
        if name in INDEXING:
            indices = [index for index in args[1] if index is not None]
            if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
                gpu.wait("an index of truth values: its shape depends on values")
            if any(gpu.place(index) == CPU and index.ndim for index in indices):
                gpu.wait(f"an index on the host: {TO_THE_DEVICE}")
        if name == "repeat_interleave" and options.get("output_size") is None:
            gpu.wait("repeat_interleave: its shape depends on values")
        if name == "copy_" and {*places[:2]} == {CPU, CUDA} and args[1].numel():
            free = options.get("non_blocking") or (len(args) > 2 and args[2])
            if not free and (args[1].ndim or places[1] == CUDA):
                gpu.wait(TO_THE_HOST if places[1] == CUDA else TO_THE_DEVICE)


def device_of(named: Any) -> torch.device:
    return torch.device("cuda", named) if isinstance(named, int) else torch.device(named)


def own_line() -> str:
    """The nearest line that is neither of a library nor of this file: ``folder/file.py:12``."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        module = str(frame.f_globals.get("__name__"))
        if module != __name__ and module.partition(".")[0] not in LIBRARIES:
            break
        frame = frame.f_back
    return "/".join(frame.f_code.co_filename.split("/")[-2:]) + f":{frame.f_lineno}"


@cache
def works() -> bool:
    """Whether it finds here what it should, and nothing else: torch's insides may change."""
    try:
        with torch.random.fork_rng([]), PretendedGpu() as gpu:
            layer = torch.nn.Linear(2, 2).to("cuda")
            moved = gpu.new()

            def found(call: Callable[[Tensor], object], shift: Tensor) -> tuple[int, int]:
                loss = (layer(torch.ones(3, 2, device="cuda")) + shift).square().mean()
                loss.backward()
                torch.optim.AdamW(layer.parameters(), fused=True).step()
                call(loss)
                seen = gpu.new()
                return seen.mixes.total(), seen.waits.total()

            there = torch.zeros(2, device="cuda")
            clean, waited = found(Tensor.detach, there), found(Tensor.item, there)
            mixed = found(Tensor.detach, torch.zeros(2))
    except Exception:
        return False
    return moved.waits.total() == 2 and clean == (0, 0) and waited == (0, 1) and mixed == (1, 0)
