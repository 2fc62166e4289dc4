"""A folder of real images as a user has it, from its files to the board."""

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from benchbench.cli import main

SUITE = """
name = "post"
dataset = "folder(path='post', size=16)"
shifts = ["usps > mnist"]
seeds = [0]
encoder = "small_cnn(width=8)"
stage = { steps = 60, batch_size = 64, lr = 0.005, augmentation = "affine" }
[[method]]
chain = "erm"
sees = "source"
readout = "head"
"""


@pytest.fixture
def post(real_data, tmp_path):
    """200 images of each of three digits, from letters (USPS) and from forms (MNIST)."""
    for domain in ("usps", "mnist"):
        with np.load(real_data / f"digits_{domain}.npz", allow_pickle=False) as file:
            images, labels = file["images"][..., 0], file["labels"]
        for label in (0, 1, 7):
            folder = tmp_path / "data" / "post" / domain / str(label)
            folder.mkdir(parents=True)
            for row in np.flatnonzero(labels == label)[:200]:
                Image.fromarray(images[row]).save(folder / f"{row}.png")
    (tmp_path / "post.toml").write_text(SUITE)
    return tmp_path


def run(folder):
    places = ["--data", str(folder / "data"), "--store", str(folder / "store")]
    result = CliRunner().invoke(main, ["run", str(folder / "post.toml"), *places])
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.data
def test_a_classifier_of_envelopes_reads_forms(post):
    status, board, _ = run(post)
    assert status == 0
    row = next(line for line in board.splitlines() if line.startswith("| erm"))
    cells = row.split("|")
    target, source = float(cells[5]), float(cells[8])
    assert source > 90 and target > 60  # one in three by chance
    assert len(list((post / "store" / "packs" / "pixels").glob("*.npy"))) == 1


@pytest.mark.data
def test_one_broken_image_is_named_before_anything_is_trained(post):
    broken = post / "data" / "post" / "usps" / "7" / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n but no more")
    status, out, err = run(post)
    assert (status, out) == (2, "")
    assert str(broken) in err and "cannot be decoded" in err
    assert not (post / "store" / "stages").exists()
