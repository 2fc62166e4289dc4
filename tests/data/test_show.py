"""What shows a dataset must not become a part of it."""

import os
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from benchbench.cli import main


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """Images at domain/class/image below ``mine``; commands are called from beside it."""
    rng = np.random.default_rng(0)
    lines = ["path,label,domain"]
    for domain in ("a", "b"):
        for name in ("cat", "dog"):
            folder = tmp_path / "mine" / domain / name
            folder.mkdir(parents=True)
            for number in range(8):
                pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
                lines.append(f"mine/{domain}/{name}/{number}.png,{name},{domain}")
    (tmp_path / "table.csv").write_text("\n".join(lines) + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BENCHBENCH_STORE", str(tmp_path / "store"))
    return tmp_path / "mine"


def call(*words):
    result = CliRunner().invoke(main, [*words, "--data", "."])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


def looks(top: Path) -> list:
    return [(p, p.stat().st_mtime_ns, p.stat().st_size) for p in sorted(top.rglob("*"))]


@pytest.mark.parametrize("out", ["mine/sheet.png", "mine/a/sheet.png", "mine/a/cat/new/x.png",
                                 "mine/b/dog/3.png"])  # fmt: skip
@pytest.mark.parametrize("command", ["show", "advise"])
def test_no_page_or_sheet_is_written_into_a_folder_of_images(mine, command, out):
    Path(out).parent.mkdir(exist_ok=True)
    before = looks(mine)
    words = ("data", "show") if command == "show" else ("advise", "--source", "a")
    status, _, err = call(*words, "folder(path='mine', size=8)", "-o", out)
    assert status == 2 and f"{out} would change the dataset, which is read from a folder" in err
    assert looks(mine) == before
    os.chdir(mine)
    status, _, err = call(*words, "folder(size=8)", "-o", "sheet.png")  # the default, from inside
    assert status == 2 and "sheet.png would change the dataset" in err


def test_a_sheet_beside_the_data_is_drawn_again_and_again(mine):
    for _ in range(2):
        status, out, _ = call("data", "show", "folder(path='mine', size=8)")
        assert status == 0 and out.startswith("sheet.png: ") and Path("sheet.png").exists()
    status, _, err = call("data", "verify", "folder(path='mine', size=8)")
    assert (status, err) == (0, "")


def test_an_image_or_the_table_of_a_table_is_not_replaced(mine):
    text = "table(file='table.csv', size=8)"
    for _ in range(2):
        assert call("data", "show", text, "-o", "mine/a/cat/new.png")[0] == 0, "no row names it"
    for out, why in (("table.csv", "read from a file"), ("mine/a/cat/5.png", "a file")):
        content = Path(out).read_bytes()
        status, _, err = call("data", "show", text, "-o", out)
        assert status == 2 and why in err and Path(out).read_bytes() == content


def test_of_more_images_than_are_looked_at_none_is_replaced(mine, monkeypatch):
    monkeypatch.setattr("benchbench.data.preparation.LOOKED_AT", 3)
    text = "table(file='table.csv', size=8)"
    for place in ("a/cat/0", "a/cat/5", "a/dog/7", "b/cat/1"):
        out = Path(f"mine/{place}.png")
        content = out.read_bytes()
        assert call("data", "show", text, "-o", str(out))[0] == 2
        assert out.read_bytes() == content
    assert call("data", "show", text)[0] == call("data", "show", text)[0] == 0


def test_prepare_says_what_has_no_labels(mine):
    """700 images of a domain, and none has a label: they are trained on, and the table says so."""
    folder = mine / "night" / "unlabelled"
    folder.mkdir(parents=True)
    pixels = np.zeros((4, 4, 3), np.uint8)
    for number in range(700):
        Image.fromarray(pixels + number % 256).save(folder / f"{number}.png", compress_level=0)
    status, out, _ = call("data", "prepare", "folder(path='mine', size=4)")
    rows = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in out.splitlines()
            if line.startswith("| ")}  # fmt: skip
    assert status == 0
    assert [*map(int, rows["night"])] == [0, 700, 0, 0, 0]
    assert [*map(int, rows["a"])] == [10, 0, 2, 4, 2]
    assert "domain 'night' has no labels: it can be neither source nor target" in out


def test_prepare_counts_rows_of_an_own_split_that_serve_nothing(tmp_path):
    labels, split = np.array([0, 0, 1, -1, -1, 0] * 4), np.array([0, 1, 2, 1, 2, 0] * 4)
    np.savez(tmp_path / "x.npz", images=np.zeros((24, 8, 8, 3), np.uint8), labels=labels,
             label_names=np.array(["x", "y"]), domain=np.arange(24) // 12, split=split,
             domain_names=np.array(["a", "b"]),
             split_names=np.array(["train", "val", "test"]))  # fmt: skip
    words = ["data", "prepare", "arrays(size=8)", "--data", str(tmp_path)]
    result = CliRunner().invoke(main, [*words, "--store", str(tmp_path / "store")])
    assert result.exit_code == 0
    told = "validation and test rows without a label, which serve nothing: 4"
    assert f"domain 'a': {told}" in result.stdout and f"domain 'b': {told}" in result.stdout
