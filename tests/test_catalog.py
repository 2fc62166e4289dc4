"""Plugins are found, named, built and set aside."""

import pluggy
import pytest

from benchbench import hookimpl, hookspecs
from benchbench.catalog import Catalog, Plugin, collect, load, source_digest
from benchbench.terms import BadInput


class Blank:
    """A plugin as tests write it: an object with one hook."""

    @hookimpl
    def benchbench_augmentations(self):
        return {"blank": lambda task, *, level=0.0: lambda images: images * 0 + level}


class Raises:
    @hookimpl
    def benchbench_augmentations(self):
        raise OSError("no licence file")


def catalog_of(**plugins: object) -> Catalog:
    manager = pluggy.PluginManager("benchbench")
    manager.add_hookspecs(hookspecs)
    for name, plugin in plugins.items():
        manager.register(plugin, name=name)
    known = {name: Plugin(name, f"dist-{name}", "1", name, "") for name in plugins}
    return Catalog(*collect(manager, known))


def test_a_plugin_is_built_from_text():
    choice = catalog_of(one=Blank()).resolve("augmentation", "blank(level=2)")
    assert choice.build(None)(1) == 2
    assert choice.text == "blank(level=2.0)"


def test_of_two_plugins_that_share_a_name_neither_is_taken():
    catalog = catalog_of(one=Blank(), two=Blank())
    assert not catalog.entries
    assert set(catalog.aside) == {"one", "two"}


def test_a_plugin_that_raises_is_set_aside_and_told_of_where_it_is_missed():
    catalog = catalog_of(good=Blank(), bad=Raises())
    assert ("augmentation", "blank") in catalog.entries
    with pytest.raises(BadInput, match="plugin bad was set aside: OSError: no licence file"):
        catalog.resolve("augmentation", "other")


def test_an_unknown_name_or_option_is_refused_with_what_there_is():
    catalog = catalog_of(one=Blank())
    with pytest.raises(BadInput, match="did you mean 'blank'"):
        catalog.resolve("augmentation", "blnk")
    with pytest.raises(BadInput, match="no option 'lvel'; did you mean 'level'"):
        catalog.resolve("augmentation", "blank(lvel=2)")


def test_a_pipeline_may_be_empty():
    catalog = catalog_of(one=Blank())
    assert catalog.pipeline("none") == []
    assert [c.text for c in catalog.pipeline("blank | blank(level=1)")] == [
        "blank(level=0.0)",
        "blank(level=1.0)",
    ]


def test_every_first_party_plugin_is_found_by_its_entry_point():
    catalog = load()
    assert not catalog.aside
    offered = {kind: {n for k, n in catalog.entries if k == kind} for kind, _ in catalog.entries}
    assert {"digits", "folder"} <= offered["dataset"]
    assert {"small_cnn", "timm"} <= offered["encoder"]
    assert {"simclr", "erm", "dann", "coral", "finetune"} <= offered["objective"]
    assert {"random_resized_crop", "color_jitter", "gaussian_blur"} <= offered["augmentation"]
    assert all(e.plugin.distribution == "benchbench-shift" for e in catalog.entries.values())


def test_the_digest_follows_the_source(tmp_path, monkeypatch):
    package = tmp_path / "some_plugin"
    package.mkdir()
    (package / "__init__.py").write_text("a = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = source_digest("some_plugin")
    (package / "inner.py").write_text("b = 1\n")
    between = source_digest("some_plugin.inner")
    (package / "inner.py").write_text("b = 2\n")
    assert len({before, between, source_digest("some_plugin")}) == 3
    (package / "inner.py").write_text("b = 1\n")
    assert source_digest("some_plugin") == between
