"""Stores, data, submissions and exported records as functions: what they return is on the disk."""

import csv
import shutil
import tarfile
import tomllib
from pathlib import Path

import pytest
import torch
from tiny import Text

from benchbench import BadInput, api
from benchbench.extension.conformance.fixtures import bars

PLUGIN = """
from benchbench import hookimpl
from benchbench.extension.conformance.fixtures import bars


def bars_by_name(root):
    return bars(40)


@hookimpl
def benchbench_datasets():
    return {"bars_by_name": bars_by_name}
"""
SUITE = Text("""
name = "bars"
dataset = "bars_by_name"
shifts = ["left > right"]
seeds = [0]
encoder = "small_cnn(width=4)"
precision = "fp32"
stage = { steps = 2, batch_size = 12, lr = 0.01 }
[[method]]
chain = "erm"
sees = "source"
readout = "head"
""")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> dict:
    """Arguments that say which plugins, data and store; the store has the suite's record."""
    folder = tmp_path_factory.mktemp("stores")
    (folder / "named.py").write_text(PLUGIN)
    (folder / "bars.toml").write_text(SUITE)
    where = {
        "store": folder / "store",
        "data": folder,
        "plugins": [folder / "named.py"],
        "progress": False,
    }
    api.run(folder / "bars.toml", device="cpu", **where)
    return {**where, "suite": folder / "bars.toml"}


@pytest.fixture
def where(trained) -> dict:
    return without(trained, "suite")


def without(given: dict, *names: str) -> dict:
    return {name: value for name, value in given.items() if name not in names}


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_sizes_are_those_of_the_files(trained):
    store, found = trained["store"], api.store_list(trained["store"])
    assert {"records", "stages", "packs"} <= found.kinds.keys()
    for kind, (count, size) in found.kinds.items():
        files = files_below(store / kind)
        assert (count, size) == (len(files), sum(path.stat().st_size for path in files))
    assert str(found).splitlines()[-1].startswith("| all ")


def test_what_one_store_exports_another_has_and_its_damage_is_found(trained, where, tmp_path):
    whole = api.store_export(tmp_path / "whole.tar", store=trained["store"])
    small = api.store_export(
        tmp_path / "small.tar", suite=trained["suite"], only="erm", records_only=True, **where
    )
    with tarfile.open(small.archive) as tar:
        names = tar.getnames()
    assert sorted(Path(name).suffix for name in names) == [".json", ".safetensors"]
    assert (small.files, small.size) == (2, small.archive.stat().st_size)
    assert whole.files == 3 and str(whole).startswith(f"{whole.archive}: 3 files, ")

    other = tmp_path / "other"
    first, again = (api.store_import(whole.archive, store=other) for _ in range(2))
    assert (first.records, first.stages, first.known, first.refused) == (1, 1, 0, ())
    assert (again.records, again.stages, again.known) == (0, 0, 2)

    sound = api.store_verify(other, progress=False)
    assert (sound.faults, str(sound)) == ((), f"store {other} is as it was written")
    (stage,) = (other / "stages").glob("*.safetensors")
    stage.write_bytes(stage.read_bytes()[:-1])
    heard = []
    spoilt = api.store_verify(other, set_aside=True, tell=heard.append, progress=False)
    fault = f"{stage} is damaged; set aside, and made anew when it is needed"
    assert heard == [*spoilt.faults] == [str(spoilt)] == [fault]

    (aside,) = (other / "stages").iterdir()
    kept = api.store_clean(other)
    assert [piece.path for piece in kept.young] == [aside] and kept.waste == ()
    would = api.store_clean(other, older_than=0, dry_run=True)
    assert [piece.path for piece in would.waste] == [aside] and aside.exists()
    gone = api.store_clean(other, older_than=0)
    assert [piece.path for piece in gone.waste] == [aside] and not aside.exists()


def test_where_there_is_no_store_nothing_is_made(tmp_path):
    nowhere = tmp_path / "nowhere"
    for call in (
        lambda: api.store_list(nowhere),
        lambda: api.store_verify(nowhere),
        lambda: api.store_clean(nowhere),
        lambda: api.store_export(tmp_path / "a.tar", store=nowhere),
    ):
        with pytest.raises(BadInput, match="there is no store .*nowhere"):
            call()
    assert [*tmp_path.iterdir()] == []


def test_a_store_and_data_are_where_the_environment_says(trained, monkeypatch):
    monkeypatch.setenv("BENCHBENCH_STORE", str(trained["store"]))
    monkeypatch.setenv("BENCHBENCH_DATA", str(trained["data"]))
    assert api.store_list() == api.store_list(trained["store"])
    assert api.data_list().data == trained["data"]
    assert str(api.data_doctor()).endswith(
        f"in store {trained['store']} and data {trained['data']}"
    )


def test_a_prepared_dataset_has_the_rows_of_its_plugin_and_nothing_is_told(where, capfd):
    source = bars(40)
    prepared = api.data_prepare("bars_by_name", **where)
    assert torch.equal(prepared.pack.labels.cpu(), torch.as_tensor(source.labels))
    assert str(prepared).startswith("| domain ")
    found = api.data_verify("bars_by_name", **where)
    assert found.faults == ()
    assert f"bars_by_name: {len(source.labels):,} rows, unchanged since" in found.conclusion
    assert str(found) == "\n".join([*found.notes, found.conclusion])
    (facts,) = (f for f in api.data_list(**without(where, "store", "progress")).datasets
                if f.name == "bars_by_name")  # fmt: skip
    assert (facts.files, facts.missing, facts.home) == ((), (), None)
    assert capfd.readouterr() == ("", "")


def test_a_sheet_is_the_picture_that_was_drawn(where, tmp_path):
    from PIL import Image

    sheet = api.data_show("bars_by_name", tmp_path / "sheet.png", classes=2, images=1, **where)
    with Image.open(sheet.path) as drawn:
        assert drawn.size == (sheet.width, sheet.height)
    for option in ("classes", "images", "views"):
        with pytest.raises(BadInput, match=f"{option} = 0 should be 1 or more"):
            api.data_show("bars_by_name", tmp_path / "none.png", **{option: 0}, **where)


def test_without_an_address_nothing_is_fetched(where):
    with pytest.raises(BadInput, match="^bars_by_name cannot be downloaded from here$"):
        api.data_download("bars_by_name", **without(where, "store"))


def test_what_is_submitted_is_what_is_verified(trained, where, tmp_path):
    done = api.submit(trained["suite"], tmp_path / "bundle.tar", submitter="A. Person", **where)
    assert (done.manifest.methods, done.records, done.signed) == (("erm",), 1, False)
    assert done.size == done.path.stat().st_size
    found = api.verify(done.path, level="claimed", **where)
    assert (found.verdict.status, found.verdict.level, found.taken) == (0, "claimed", None)
    assert str(found).startswith("accepted: asked for claimed, reached claimed\nmethods: erm")

    (tmp_path / "broken.tar").write_bytes(done.path.read_bytes()[:-512])
    broken = api.verify(tmp_path / "broken.tar", **where)
    assert (broken.verdict.status, broken.verdict.level, broken.taken) == (2, None, None)
    with pytest.raises(BadInput, match="level = 'sure' is not known"):
        api.verify(done.path, level="sure", **where)
    with pytest.raises(BadInput, match="there is no file .*nobody"):
        api.verify(done.path, allowed_signers=tmp_path / "nobody", **where)
    with pytest.raises(BadInput, match="level consistent needs a board"):
        api.verify(done.path, **where)


def test_a_table_has_the_rows_that_are_told(trained, where, tmp_path):
    done = api.export_records(trained["suite"], tmp_path / "records.csv", **where)
    rows = [*csv.DictReader((tmp_path / "records.csv").read_text().splitlines())]
    assert (done.records, done.rows) == (1, len(rows)) == (1, 2)
    assert str(done) == f"{tmp_path / 'records.csv'}: 1 records, 2 rows"

    shutil.copytree(trained["store"] / "records" / "bars", tmp_path / "board" / "records")
    again = api.export_records(tmp_path / "board", str(tmp_path / "again.csv"))
    assert (again.records, again.rows) == (1, 2)
    assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "records.csv").read_bytes()
    unknown = {**tomllib.loads(str(SUITE)), "seeds": [1]}
    with pytest.raises(BadInput, match="^the suite has no records yet$"):
        api.export_records(unknown, tmp_path / "none.csv", device="cpu", **where)
    with pytest.raises(BadInput, match="1 of 1 cells have no record, such as erm"):
        api.submit(unknown, tmp_path / "none.tar", device="cpu", **where)
    with pytest.raises(BadInput, match="has nothing to export yet"):
        api.store_export(tmp_path / "none.tar", suite=unknown, device="cpu", **where)
    assert [*tmp_path.glob("none*")] == []
