"""Which rows a stage meets is a function of (seed, step)."""

import io
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import tiny
from torch import nn

from benchbench.data.batches import AHEAD, Feed, shares
from benchbench.data.encoded_images import Encoded, starts_of
from benchbench.data.gathering import Streamed, resident
from benchbench.data.pack import in_memory
from benchbench.evaluation.features import extract
from benchbench.extension.constants import TRAIN, UNKNOWN
from benchbench.extension.errors import BadInput
from benchbench.training.device import Machine

CPU = torch.device("cpu")


@pytest.fixture
def pack(tmp_path):
    return in_memory(tiny(None))


def test_a_step_asked_for_out_of_order_is_the_same(pack):
    feed = Feed(pack, pack.inputs, ("left", "right"), ("left",), 20, 3, CPU)
    forward = [feed(step).inputs for step in range(30)]
    backward = [feed(step).inputs for step in reversed(range(30))]
    assert all(torch.equal(a, b) for a, b in zip(forward, reversed(backward), strict=True))
    other = Feed(pack, pack.inputs, ("left", "right"), ("left",), 20, 4, CPU)
    assert not torch.equal(other(0).inputs, forward[0])


def test_an_epoch_meets_every_training_row_once_and_no_other(pack):
    sizes = (24, 20, 67)  # a divisor of the 72 rows of a domain, and two whose steps span epochs
    assert [72 % size == 0 for size in sizes] == [True, False, False]
    for size in sizes:
        feed = Feed(pack, pack.inputs, ("left",), ("left",), size, 0, CPU)
        drawn = [tuple(image.flatten().tolist()) for s in range(12) for image in feed(s).inputs]
        assert len(drawn) == 12 * size, "no batch is short"
        rows = pack.inputs[pack.rows("left", TRAIN)]
        wanted = Counter(tuple(image.flatten().tolist()) for image in rows)
        epochs = [drawn[start : start + 72] for start in range(0, len(drawn) - 71, 72)]
        assert len(epochs) >= 3
        assert all(Counter(epoch) == wanted for epoch in epochs)
        assert all(one != other for one, other in pairwise(epochs)), "each in an order of its own"


def test_two_domains_are_met_in_orders_of_their_own(pack):
    """Of equal sizes: what is drawn of one is not what is drawn, by its place, of the other."""
    feed = Feed(pack, pack.inputs, ("left", "right"), (), 24, 0, CPU)
    places = []
    for domain in range(2):
        index = [feed._walk(domain, step) for step in range(6)]
        order = {row: n for n, row in enumerate(pack.rows(("left", "right")[domain], 0).tolist())}
        places.append([order[row] for rows in index for row in rows.tolist()])
    assert sorted(places[0]) == sorted(places[1]) == list(range(72))
    assert places[0] != places[1]


def test_domains_are_met_equally_and_only_labelled_domains_show_labels(pack):
    rows = Feed(pack, pack.inputs, ("left", "right", "odd"), ("right",), 20, 0, CPU)(5)
    assert torch.bincount(rows.domains).tolist() == [7, 7, 6]
    assert (rows.labels[rows.domains != 1] == UNKNOWN).all()
    assert (rows.labels[rows.domains == 1] != UNKNOWN).all()
    where = [(pack.inputs == image).flatten(1).all(1).nonzero().item() for image in rows.inputs]
    assert torch.equal(pack.domains[where], rows.domains)
    right = rows.domains == 1
    assert torch.equal(pack.labels[where][right], rows.labels[right])


def test_a_batch_larger_than_the_data_is_refused(pack):
    with pytest.raises(BadInput, match="batch_size = 150 takes 75 rows of domain 'left'.* has 72"):
        shares(pack, ("left", "right"), (), 150)
    assert shares(pack, ("left", "right"), (), 144) == [72, 72]


def test_where_labels_are_read_only_rows_that_have_one_are_drawn(pack):
    some = pack.labels.clone()
    rows = pack.rows("left", TRAIN)
    some[rows[::3]] = UNKNOWN
    partly = replace(pack, labels=some)
    read = Feed(partly, pack.inputs, ("left", "right"), ("left",), 20, 0, CPU)
    unread = Feed(partly, pack.inputs, ("left", "right"), (), 20, 0, CPU)
    left = [(feed(step).labels[:10] != UNKNOWN).tolist() for feed in (read,) for step in range(20)]
    assert all(all(known) for known in left)
    assert len(unread.pools[0]) == len(rows) > len(read.pools[0])
    assert len(read.pools[1]) == len(pack.rows("right", TRAIN))
    with pytest.raises(BadInput, match=f"'left' per step, but it has {len(read.pools[0])} train"):
        Feed(partly, pack.inputs, ("left", "right"), ("left",), 2 * len(rows), 0, CPU)


def test_encoded_images_are_fed_and_read_off_as_pixels_are(pack, tmp_path):
    place = tmp_path / "all.bytes"
    contents = []
    for image in pack.inputs:
        buffer = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, "PNG")
        contents.append(buffer.getvalue())
    place.write_bytes(b"".join(contents))
    np.save(starts_of(place), np.cumsum([0, *map(len, contents)]))
    encoded = Encoded(place, pack.inputs.shape[2], None)
    streamed = resident(encoded, Machine(CPU, "fp32"))
    assert isinstance(streamed, Streamed) and streamed.near is None
    for step in (0, 7):
        rows, wanted = (
            Feed(pack, images, ("left", "right"), ("left",), 20, 3, CPU)(step)
            for images in (streamed, pack.inputs)
        )
        assert torch.equal(rows.inputs, wanted.inputs)
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    index = torch.tensor([5, 3, 300])
    z, wanted = (extract(network, images, index, CPU) for images in (streamed, pack.inputs))
    assert torch.equal(z, wanted)
    assert all(map(torch.equal, encoded, pack.inputs))


def test_what_is_not_on_the_device_is_fetched_ahead(pack):
    """Rows that are decoded: the same ones, whatever is asked for in turn, each batch once."""

    class Slow(Encoded):
        shape = pack.inputs.shape

        def __init__(self):
            self.asked = []

        def __len__(self):
            return len(pack.inputs)

        def read(self, rows, pixels):
            self.asked.append(rows)
            pixels.copy_(pack.inputs[rows])

    slow = Slow()
    feed = Feed(pack, slow, ("left", "right"), (), 20, 3, CPU)
    plain = Feed(pack, pack.inputs, ("left", "right"), (), 20, 3, CPU)
    for step in (*range(6), 40, 41, 3, 4):
        assert torch.equal(feed(step).inputs, plain(step).inputs)
        assert set(feed.coming) == {step + 1, step + 2}
    feed.thread.shutdown()
    assert len(slow.asked) == (6 + AHEAD) + (2 + AHEAD) + (2 + AHEAD)


def test_rows_that_cannot_be_decoded_stop_the_step_that_wants_them(pack):
    class Broken(Encoded):
        shape = pack.inputs.shape

        def __init__(self):
            pass

        def read(self, rows, pixels):
            raise OSError("the file is gone")

    feed = Feed(pack, Broken(), ("left", "right"), (), 20, 3, CPU)
    with pytest.raises(OSError, match="is gone"):
        feed(0)
