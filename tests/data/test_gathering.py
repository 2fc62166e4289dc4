"""Rows are copied, whatever their type, size and place: compared with plain indexing."""

import numpy as np
import pytest
import torch
from tiny import tiny

from benchbench.data.batches import Feed
from benchbench.data.gathering import Streamed, resident, take, words
from benchbench.data.pack import in_memory
from benchbench.training.device import Machine

CPU = torch.device("cpu")
COUNT = 53
INDEX = torch.tensor([52, 0, 7, 7, 31, *range(40, 10, -1)])
SHAPES = {  # of a row: how many bytes of it divide by 8, 4, 2 or nothing
    "uint8": [(3, 8, 8), (3, 2, 2), (2, 3, 1), (3, 5, 5)],
    "float16": [(3, 8, 8), (3, 2, 1), (5, 3, 3)],
    "int64": [(6,), (1,)],
}
CASES = [(dtype, shape) for dtype, shapes in SHAPES.items() for shape in shapes]


def some(dtype: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Every bit pattern, NaN among them."""
    size = int(np.prod(shape)) * getattr(torch, dtype).itemsize
    bits = torch.randint(0, 256, (COUNT, size), generator=torch.Generator().manual_seed(0))
    return bits.to(torch.uint8).view(getattr(torch, dtype)).view(COUNT, *shape)


def same(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    """Bit for bit, with NaN."""
    alike = (found.dtype, found.shape) == (wanted.dtype, wanted.shape) and found.is_contiguous()
    return alike and found.numpy().tobytes() == wanted.numpy().tobytes()


@pytest.mark.parametrize(("dtype", "shape"), CASES)
@pytest.mark.parametrize("index", [INDEX, INDEX[:1], INDEX[:0]], ids=["many", "one", "none"])
def test_rows_are_those_of_plain_indexing(dtype, shape, index):
    rows = some(dtype, shape)
    assert same(take(rows, index), rows[index])
    assert same(Streamed(rows, CPU)[index], rows[index])
    for near in (1, 20, COUNT):
        assert same(Streamed(rows, CPU, near)[index], rows[index])


def test_rows_are_shared_among_threads_where_they_are_large(monkeypatch):
    """Whatever number of rows a thread has, the last fewer."""
    rows = some("float16", (3, 5, 5))
    for at_once in (1, 150, 1000, 10_000):
        monkeypatch.setattr("benchbench.data.gathering.READ_AT_ONCE", at_once)
        assert same(Streamed(rows, CPU, 9)[INDEX], rows[INDEX])


def test_rows_that_do_not_lie_one_after_the_other_are_taken_too():
    rows = some("uint8", (4, 6, 6))
    for odd in (rows.permute(0, 2, 3, 1), rows[:, 1:], rows[::2].expand(27, 4, 6, 6), rows[:, :0]):
        index = INDEX.clamp(max=len(odd) - 1)
        assert torch.equal(take(odd, index), odd[index])
        assert torch.equal(Streamed(odd, CPU)[index], odd[index])


def test_rows_that_do_not_begin_at_a_multiple_of_eight_bytes_are_taken_too():
    whole = torch.arange(9 * COUNT, dtype=torch.uint8)
    for start, dtype in ((0, torch.int64), (1, torch.uint8), (2, torch.int16), (4, torch.int32)):
        rows = whole[start : start + 8 * COUNT].view(COUNT, 8)
        assert words(rows).dtype == dtype
        assert torch.equal(take(rows, INDEX), rows[INDEX])


def test_rows_are_read_from_a_memory_mapped_file(tmp_path):
    rows = some("uint8", (3, 5, 5))
    np.save(tmp_path / "rows.npy", rows.numpy())
    mapped = torch.from_numpy(np.load(tmp_path / "rows.npy", mmap_mode="c"))
    assert torch.equal(take(mapped, INDEX), rows[INDEX])
    assert torch.equal(Streamed(mapped, CPU)[INDEX], rows[INDEX])


@pytest.mark.parametrize("near", [0, 20])
def test_a_row_that_is_not_there_is_an_error(near):
    rows = some("uint8", (3, 8, 8))
    for wrong in (torch.tensor([3, COUNT]), torch.tensor([-1, 3, 21])):
        with pytest.raises(IndexError):
            Streamed(rows, CPU, near)[wrong]


def test_batches_are_the_same_whatever_part_of_the_rows_lies_on_the_device():
    pack = in_memory(tiny(None))
    domains = ("left", "right")

    def fed(images):
        feed = Feed(pack, images, domains, ("left",), 20, 3, CPU)
        return [feed(step) for step in (0, 1, 2, 9, 4)]

    plain = fed(pack.inputs)
    for near in (0, 1, len(pack.inputs) // 2, len(pack.inputs)):
        found = fed(Streamed(pack.inputs, CPU, near))
        for column in ("inputs", "labels", "domains"):
            mine, theirs = (
                torch.cat([getattr(rows, column) for rows in x]) for x in (found, plain)
            )
            assert torch.equal(mine, theirs)


def test_a_batch_that_somebody_holds_is_not_written_over():
    pack = in_memory(tiny(None))
    feed = Feed(pack, Streamed(pack.inputs, CPU), ("left", "right"), (), 20, 3, CPU)
    held = [feed(step).inputs for step in range(12)]
    plain = Feed(pack, pack.inputs, ("left", "right"), (), 20, 3, CPU)
    assert all(torch.equal(rows, plain(step).inputs) for step, rows in enumerate(held))


def test_as_many_rows_lie_on_a_gpu_as_half_of_what_the_process_may_take(monkeypatch):
    """The largest number of rows whose bytes are not above it, of a machine with so much free."""
    near = []

    class Noted(Streamed):
        def __init__(self, inputs, device, rows):
            near.append(rows)
            super().__init__(inputs, CPU)

    monkeypatch.setattr("benchbench.data.gathering.Streamed", Noted)
    rows = some("uint8", (3, 8, 8))  # of 192 bytes
    machine = Machine(torch.device("cuda"), "fp32")
    for free in (2 * 192 * COUNT - 1, 192 * COUNT, 400, 383, 0):
        monkeypatch.setattr(Machine, "free_memory", lambda self, free=free: free)
        resident(rows, machine)
        assert near.pop() == max(n for n in range(COUNT + 1) if 192 * n <= free / 2)
        on_cpu = resident(rows, Machine(CPU, "fp32"))
        assert isinstance(on_cpu, Streamed) and near.pop() == 0, "the file is mapped already"
    monkeypatch.setattr(Machine, "free_memory", lambda self: 2 * 192 * COUNT)
    assert resident(rows, Machine(CPU, "fp32")) is rows
    resident(rows, machine, room=192 * 5)
    assert near.pop() == 5


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "shape"), CASES)
def test_rows_reach_a_gpu_from_wherever_they_lie(dtype, shape):
    rows, device = some(dtype, shape), torch.device("cuda")
    assert same(take(rows.to(device), INDEX.to(device)).cpu(), rows[INDEX])
    for near in (0, 1, 20, COUNT):
        batch = Streamed(rows, device, near)[INDEX]
        assert batch.is_cuda and same(batch.cpu(), rows[INDEX])


@pytest.mark.gpu
def test_batches_that_are_read_ahead_arrive_on_a_gpu_before_they_are_used():
    """Large ones, of which the device computes while others are copied: their sums are right."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(0, 256, (600, 3, 128, 128), dtype=torch.uint8, generator=generator)
    device = torch.device("cuda")
    for near in (0, 200):
        streamed = Streamed(rows, device, near)
        batches = [torch.randint(600, (256,), generator=generator) for _ in range(20)]
        found = [streamed[index].long().sum((1, 2, 3)) for index in batches]
        wanted = torch.cat([rows[index].long().sum((1, 2, 3)) for index in batches])
        assert torch.equal(torch.cat(found).cpu(), wanted)
