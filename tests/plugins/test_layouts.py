"""Benchmarks in folders: found under their official names, counted, refused where they differ."""

import pytest
from PIL import Image
from tiny import make_catalog, smoke
from trees import of_layout

from benchbench import BadInput
from benchbench.data.dataset_loading import described, packed
from benchbench.data.inspection import miscounted
from benchbench.extension.errors import MissingData
from benchbench.store.artifacts import Store
from benchbench_files.layouts import LAYOUTS, vlcs

BY_NAME = {factory.__name__: layout for factory, layout in LAYOUTS.items()}


@pytest.mark.parametrize("name", BY_NAME)
def test_it_is_read_under_its_official_names(tmp_path, name):
    layout, choice = BY_NAME[name], make_catalog().resolve("dataset", f"{name}(size=4)")
    with pytest.raises(MissingData, match=f"{name} needs {next(iter(layout.folders.values()))}"):
        described(choice, tmp_path)
    of_layout(tmp_path, layout)
    pack = packed(choice, tmp_path, Store(tmp_path / "store"), 0, lambda done, total: None)
    assert pack.domain_names == tuple(layout.folders)
    assert len(pack.class_names) == layout.classes
    assert set(layout.rows) <= set(layout.folders)
    each = 5 * layout.classes
    assert [int((pack.domains == d).sum()) for d in range(len(layout.folders))] == [
        each for _ in layout.folders
    ]
    first = pack.inputs[:: 5 * layout.classes, :, 0, 0]  # of class 0: blue is the shot, 0
    assert first[:, 1].tolist() == [60 * number % 256 for number in range(len(layout.folders))]
    told = miscounted(pack, layout.rows)
    assert len(told) == len(layout.rows)
    assert all(f"has {each:,} rows, its authors have" in fault for fault in told)


@pytest.mark.parametrize("name", BY_NAME)
def test_prepared_pre_trained_read_off_and_recorded(tmp_path, name):
    of_layout(tmp_path, BY_NAME[name])
    source, target = list(BY_NAME[name].folders)[:2]
    smoke(f"{name}(size=8)", f"{source} > {target}", tmp_path, tmp_path)


def test_another_number_of_classes_is_refused(tmp_path):
    of_layout(tmp_path, BY_NAME["vlcs"])
    (tmp_path / "VLCS" / "SUN09" / "more").mkdir()
    Image.new("RGB", (2, 2)).save(tmp_path / "VLCS" / "SUN09" / "more" / "1.png")
    choice = make_catalog().resolve("dataset", "vlcs")
    with pytest.raises(BadInput, match=r"VLCS has 5 classes, but .* has 6: class_00, "):
        described(choice, tmp_path)
    Image.new("RGB", (2, 2)).save(tmp_path / "VLCS" / "SUN09" / "deep.png")
    with pytest.raises(BadInput, match=r"must lie at class/image: deep.png"):
        described(choice, tmp_path)


def test_what_is_left_out_is_told_or_refused_as_by_folder(tmp_path):
    of_layout(tmp_path, BY_NAME["vlcs"])
    home = tmp_path / "VLCS" / "SUN09"
    (home / "__MACOSX" / "class_00").mkdir(parents=True)
    (home / "class_00" / "._1.png").write_bytes(b"x")
    (home / "class_00" / "1.gif").write_bytes(b"x")
    with pytest.warns(match=r"are not read, .*: 1 .gif; in VLCS/SUN09/class_00: 1 of 1"):
        data = vlcs(tmp_path)
    assert len(data.inputs) == 4 * 5 * 5
    with pytest.raises(BadInput, match="size = -1 must lie between 1 and 65,535"):
        vlcs(tmp_path, size=-1)
    for image in (home / "class_00").glob("?.png"):
        image.unlink()
    with pytest.raises(BadInput, match=r"SUN09/class_00 of a class has no image .* 1 other file"):
        vlcs(tmp_path)
