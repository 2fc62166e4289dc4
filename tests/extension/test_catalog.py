"""Plugins are found, named, built and set aside."""

import sys

import pytest

from benchbench import hookimpl
from benchbench.extension import hookspecs
from benchbench.extension.catalog import (
    LOCAL_FILE,
    Catalog,
    Loader,
    Plugin,
    Wanted,
    load,
    source_digest,
)
from benchbench.extension.errors import BadInput


def blank(task, *, level=0.0):
    return lambda images: images * 0 + level


class Blank:
    """A plugin as tests write it: an object with one hook."""

    @hookimpl
    def benchbench_augmentations(self):
        return {"blank": blank}


class Other:
    @hookimpl
    def benchbench_augmentations(self):
        return {"other": blank}


def offering(offers, **attributes):
    """A plugin whose one hook returns, or raises, ``offers``."""

    class Offering:
        @hookimpl
        def benchbench_augmentations(self):
            if isinstance(offers, BaseException):
                raise offers
            return offers

    for name, value in attributes.items():
        setattr(Offering, name, value)
    return Offering()


class Misspelt:
    @hookimpl
    def benchbench_augmentation(self):
        return {"blank": blank}


class Unmarked:
    def benchbench_augmentations(self):
        return {"blank": blank}


class Greedy:
    @hookimpl
    def benchbench_augmentations(self, task):
        return {"blank": blank}


def catalog_of(strict=False, **plugins: object) -> Catalog:
    """From objects, or from errors that loading them raises."""
    loader = Loader(strict)

    def get(plugin):
        if isinstance(plugin, BaseException):
            raise plugin
        return plugin

    for name, plugin in plugins.items():
        found = Plugin(name.rstrip("_"), f"dist-{name}", "1", name, "")
        loader.add(found, lambda plugin=plugin: get(plugin))
    return loader.catalog()


def test_a_plugin_is_built_from_text():
    choice = catalog_of(one=Blank()).resolve("augmentation", "blank(level=2)")
    assert choice.build(None)(1) == 2
    assert choice.text == "blank(level=2.0)"


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (ImportError("No module named 'torchfoo'"), "ImportError: No module named 'torchfoo'"),
        (SystemExit(3), "SystemExit: 3"),
        (type("Skipped", (BaseException,), {})("at import"), "Skipped: at import"),
        (Misspelt(), "benchbench_augmentation is no hook; did you mean 'benchbench_augmentations'"),
        (Unmarked(), "benchbench_augmentations is not marked; put @hookimpl above it"),
        (Greedy(), "benchbench_augmentations takes arguments; a hook takes none"),
        (object(), "it offers nothing; a plugin has one of benchbench_datasets"),
        (offering({}), "it offers nothing"),
        (offering([blank]), "benchbench_augmentations returns list, not a dict of name: factory"),
        (offering({"my-blank": blank}), "offers 'my-blank', which is no name"),
        (offering({"none": blank}), "offers 'none', by which suites say that there is nothing"),
        (offering({"blank": 3}), "offers 'blank' as int, which cannot be called"),
        (offering(OSError("no licence file")), "OSError: no licence file"),
        (offering(SystemExit(0)), "SystemExit: 0"),
        (
            offering({"blank": blank}, benchbench_api=">=2"),
            "it is made for benchbench_api >=2, and here is 1.0",
        ),
        (offering({"blank": blank}, benchbench_api="1"), "benchbench_api = '1' is no range"),
        (offering({"blank": blank}, benchbench_api=1.0), "made for benchbench_api 1.0"),
        (
            offering({"blank": blank}, benchbench_expected_failures={"blank": "seeded"}),
            "benchbench_expected_failures should read {entry: {check: reason}}",
        ),
    ],
)
def test_a_plugin_that_does_not_load_is_set_aside_with_its_reason(bad, reason):
    catalog = catalog_of(bad=bad, good=Other())
    assert list(catalog.entries) == [("augmentation", "other")]
    assert [plugin.name for plugin in catalog.plugins] == ["good"]
    (aside,) = catalog.aside
    assert (aside.plugin.name, aside.plugin.distribution) == ("bad", "dist-bad")
    assert reason in aside.reason and "\n" not in aside.reason
    with pytest.raises(BadInput, match=r"; plugin bad \(dist-bad 1\) was set aside: "):
        catalog.resolve("augmentation", "blank")


def test_an_interrupt_while_plugins_load_is_an_interrupt():
    with pytest.raises(KeyboardInterrupt):
        catalog_of(slow=KeyboardInterrupt())


def test_an_api_range_that_fits_is_taken():
    catalog = catalog_of(fits=offering({"blank": blank}, benchbench_api=">=1.0,<2"))
    assert not catalog.aside and hookspecs.API == (1, 0)


def test_of_two_plugins_that_offer_one_name_neither_is_taken_and_both_are_named():
    catalog = catalog_of(one=Blank(), two=Blank(), three=Other())
    assert list(catalog.entries) == [("augmentation", "other")]
    first, second = catalog.aside
    assert "'blank' is offered by plugin two (dist-two 1) too; leave one out" in first.reason
    assert "'blank' is offered by plugin one (dist-one 1) too" in second.reason


def test_of_two_distributions_with_one_plugin_name_neither_is_taken():
    catalog = catalog_of(same=Blank(), same_=Other(), third=offering({"third": blank}))
    assert list(catalog.entries) == [("augmentation", "third")]
    assert {aside.plugin.distribution for aside in catalog.aside} == {"dist-same", "dist-same_"}
    for aside in catalog.aside:
        assert "dist-same 1 and dist-same_ 1 both claim the plugin name 'same'" in aside.reason


def test_strict_raises_what_the_plugin_raised():
    with pytest.raises(ImportError, match="torchfoo"):
        catalog_of(strict=True, bad=ImportError("torchfoo"), good=Other())
    with pytest.raises(RuntimeError, match=r"plugin bad \(dist-bad 1\) raised SystemExit: 3"):
        catalog_of(strict=True, bad=SystemExit(3))
    with pytest.raises(BadInput, match="plugin bad .* is no hook"):
        catalog_of(strict=True, bad=Misspelt())


def test_an_unknown_name_or_option_is_refused_with_what_there_is():
    catalog = catalog_of(one=Blank())
    with pytest.raises(BadInput, match="did you mean 'blank'"):
        catalog.resolve("augmentation", "blnk")
    with pytest.raises(BadInput, match="no option 'lvel'; did you mean 'level'"):
        catalog.resolve("augmentation", "blank(lvel=2)")
    with pytest.raises(BadInput, match="no plugin is named 'on'; did you mean 'one'"):
        catalog.named("on")


def test_a_pipeline_may_be_empty():
    catalog = catalog_of(one=Blank())
    assert catalog.pipeline("none") == []
    assert [c.text for c in catalog.pipeline("blank | blank(level=1)")] == [
        "blank(level=0.0)",
        "blank(level=1.0)",
    ]


def test_every_first_party_plugin_is_found_by_its_entry_point():
    catalog = load(Wanted())
    assert not catalog.aside
    offered = {kind: {n for k, n in catalog.entries if k == kind} for kind, _ in catalog.entries}
    assert {"digits", "folder"} <= offered["dataset"]
    assert {"small_cnn", "timm"} <= offered["encoder"]
    assert {"simclr", "erm", "dann", "coral", "finetune"} <= offered["objective"]
    assert {"random_resized_crop", "color_jitter", "gaussian_blur"} <= offered["augmentation"]
    assert all(e.plugin.distribution == "benchbench-shift" for e in catalog.entries.values())


@pytest.fixture(autouse=True)
def no_settings(monkeypatch):
    monkeypatch.delenv("BENCHBENCH_PLUGINS", raising=False)
    monkeypatch.delenv("BENCHBENCH_STRICT_PLUGINS", raising=False)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """Puts a distribution on the path, as an installer would."""

    def install(name, source, *requires):
        (tmp_path / f"{name}_module.py").write_text(source)
        folder = tmp_path / f"{name}-1.5.dist-info"
        folder.mkdir()
        needs = "".join(f"Requires-Dist: {line}\n" for line in requires)
        (folder / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n{needs}"
        )
        (folder / "entry_points.txt").write_text(f"[benchbench]\n{name} = {name}_module\n")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, f"{name}_module", raising=False)

    return install


SOURCE = """
from benchbench import hookimpl

def blank(task):
    return lambda images: images

@hookimpl
def benchbench_augmentations():
    return {{"{0}": blank}}
"""


def test_others_plugins_are_loaded_unless_an_allow_list_leaves_them_out(installed, monkeypatch):
    installed("stranger", SOURCE.format("strange"))
    installed("friend", SOURCE.format("friendly"))
    everything = load()
    assert {("augmentation", "strange"), ("augmentation", "friendly")} <= set(everything.entries)

    monkeypatch.setenv("BENCHBENCH_PLUGINS", "friend")
    some = load()
    assert ("augmentation", "friendly") in some.entries
    assert [str(aside) for aside in some.aside] == [
        "plugin stranger (stranger 1.5) was set aside: BENCHBENCH_PLUGINS does not name it"
    ]
    monkeypatch.setenv("BENCHBENCH_PLUGINS", "")
    first_party = load()
    assert {p.distribution for p in first_party.plugins} == {"benchbench-shift"}
    assert len(first_party.aside) == 2

    monkeypatch.setenv("BENCHBENCH_PLUGINS", "frend")
    with pytest.raises(BadInput, match="BENCHBENCH_PLUGINS names 'frend', but did you mean 'fri"):
        load()
    with pytest.raises(BadInput, match="--no-plugin names 'contrastiv', but did you mean"):
        load(Wanted(without=("contrastiv",)))
    without = load(Wanted(without=("contrastive", "stranger")))
    assert ("objective", "simclr") not in without.entries
    assert {aside.reason for aside in without.aside} == {"--no-plugin names it"}


def test_a_distribution_for_another_benchbench_is_set_aside_unimported(installed):
    installed("future", "raise RuntimeError('imported')", "benchbench-shift>=7", "numpy>=1")
    (aside,) = load(Wanted()).aside
    assert str(aside) == (
        "plugin future (future 1.5) was set aside: it needs benchbench-shift >=7, and here is 0.1.0"
    )


def test_a_file_is_a_plugin(tmp_path):
    path = tmp_path / "idea.py"
    path.write_text(SOURCE.format("fresh"))
    catalog = load(Wanted(files=(str(path),)))
    entry = catalog.entries["augmentation", "fresh"]
    assert (entry.plugin.name, entry.plugin.distribution) == ("idea", LOCAL_FILE)
    assert entry.plugin.entry_point == "idea.py" and len(entry.plugin.digest) == 64


@pytest.mark.parametrize(
    ("name", "source", "reason"),
    [
        ("absent.py", None, "there is no such file"),
        ("idea.txt", "", "it is no Python file"),
        ("broken.py", "import torchfoo", "ModuleNotFoundError: No module named 'torchfoo'"),
        ("wrong.py", "def (", "SyntaxError"),
        ("clash.py", SOURCE.format("invert"), "'invert' is offered by plugin augmentations"),
        ("digits.py", SOURCE.format("x"), "both claim the plugin name 'digits'"),
    ],
)
def test_a_file_that_is_no_plugin_is_refused_at_once(tmp_path, name, source, reason):
    path = tmp_path / name
    if source is not None:
        path.write_text(source)
    with pytest.raises(BadInput, match=reason) as refusal:
        load(Wanted(files=(str(path),)))
    assert name in str(refusal.value)


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
    (package / "words.txt").write_text("good fine\n")  # what the package reads is its source, too
    assert source_digest("some_plugin") != between
