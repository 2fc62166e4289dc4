"""TOML in, cells out; everything else is refused in one sentence."""

from pathlib import Path

import pytest
from suites import FULL
from tiny import SUITE

from benchbench.extension.errors import BadInput
from benchbench.suites.suite import (
    SUITES,
    Shift,
    Suite,
    conditions_of,
    matches,
    shipped_suites,
    text_of,
)

BOARDS = Path(__file__).parents[2] / "leaderboards"


@pytest.fixture
def read(tmp_path):
    def read_text(text: str) -> Suite:
        path = tmp_path / "suite.toml"
        path.write_text(text)
        return Suite.read(str(path))

    return read_text


def test_a_method_per_readout_with_defaults_from_the_levels_above(read):
    methods = {method.name: method for method in read(FULL).methods()}
    assert list(methods) == [
        "random encoder",
        "simclr(temperature=0.1) + linear",
        "simclr(temperature=0.1) + knn(k=(3,))",
        "simclr > finetune",
        "erm",
    ]
    first, second = methods["simclr > finetune"].chain
    assert (first.budget.steps, second.budget.steps, second.budget.lr) == (10, 5, 0.1)
    assert first.augmentation == second.augmentation == "noise"
    assert methods["erm"].chain[0].sees == "source"
    assert methods["erm"].chain[0].augmentation == "none"
    assert methods["random encoder"].chain == ()


def test_cells_are_every_method_shift_and_seed_once(read):
    cells = read(FULL).cells(("a", "b", "c"))
    assert len(cells) == len(set(cells)) == 5 * 6 * 2
    assert {str(cell.shift) for cell in cells} == {
        "a > b", "a > c", "b > a", "b > c", "c > a", "c > b",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("steps = 10", "stpes = 10", "unknown key 'stpes' in stage; did you mean 'steps'"),
        ('name = "full"', 'name = "full"\nbasline = "erm"', "'basline'; did you mean 'baseline'"),
        ("sees =", "sese =", r"unknown key 'sese' in method\[3\]; did you mean 'sees'"),
        ("objective =", "objectiv =", r"'objectiv' in method\[2\].chain\[1\]; did you mean"),
        ("lr = 1\n", 'lr = "1"\n', 'lr = "1" in stage: input should be a valid number'),
        ("lr = 1\n", "lr = nan\n", "lr = NaN in stage: input should be a finite number"),
        ("lr = 1\n", "", "a stage has no lr"),
        ("steps = 10", "steps = 0", "steps = 0 in stage: input should be greater than or equal"),
        ("steps = 10", "steps = 1.5", "steps = 1.5 in stage: input should be a valid integer"),
        ("steps = 10", "steps = true", "steps = true in stage: input should be a valid integer"),
        ("steps = 10", f"steps = {10**400}", "stage.steps is a number of more than 64 bits"),
        ("steps = 10", "steps = 1" + 5000 * "0", "has a number of more than 64 bits"),
        ("steps = 10", f"steps = {hex(10**5000)}", "stage.steps is a number of more than 64"),
        ("steps = 10", "steps = 10_000_000_000", "should be less than or equal to 1000000000"),
        ("steps = 10", "steps = -1", "steps = -1 in stage: input should be greater"),
        ("steps = 10", "steps = 1979-05-27", "stage.steps = 1979-05-27 is a date or a time"),
        ('name = "full"', "name = 1979-05-27", "name = 1979-05-27 is a date or a time"),
        ('name = "full"', f'name = "{"n" * 10**6}"', "should have at most 200 characters"),
        (
            "batch_size = 32",
            f"batch_size = {10**12}",
            "batch_size = 1.* in stage: .* 1000",
        ),
        ("batch_size = 32", "batch_size = 1", "batch_size = 1 in stage: input should be greater"),
        ("lr = 1\n", f"lr = {10**400}\n", "stage.lr is a number of more than 64 bits"),
        ("lr = 1\n", "lr = 1e400\n", "lr = Infinity in stage: input should be a finite number"),
        (
            "lr = 1\n",
            "lr = 1\nwarmup = 1.5\n",
            "warmup = 1.5 in stage: .* less than 1",
        ),
        ("lr = 1\n", f"lr = 1\nparts = {2**40}\n", "parts = .* in stage: .* equal to 1000000000"),
        (
            "seeds = [0, 1]",
            f"seeds = [0, {10**400}]",
            r"seeds\[1\] is a number of more",
        ),
        ("seeds = [0, 1]", f"seeds = {[*range(10_001)]}", "should have at most 10000 items"),
        (
            "seeds = [0, 1]",
            "seeds = [0, 1.0]",
            r"seeds\[1\] = 1.0: input should be a valid integer",
        ),
        (
            "seeds = [0, 1]",
            f"seeds = [0]\ntune = {{ draws = {10**9} }}",
            "draws = .* equal to 10000",
        ),
        ("seeds = [0, 1]", f"seeds = [0]\nsnapshots = {10**9}", "snapshots = .* equal to 10000"),
        ('"erm"\nsees', f'"{"erm > " * 10**5}erm"\nsees', "expected names"),
        ('"source"', '"sorce"', "input should be 'source', 'target'"),
        ('baseline = "erm"', 'baseline = "em"', "did you mean 'erm'"),
        ('name = "full"', "", "'name' is missing"),
        ('name = "full"', 'name = "../x"', "should match pattern"),
        ("[stage]", "[stage", "is not TOML"),
        ("seeds = [0, 1]", "seeds = [0, 0]", "names a seed twice"),
        ("seeds = [0, 1]", "seeds = []", "seeds is empty"),
        ("seeds = [0, 1]", "seeds = [-1]", r"seeds\[0\] = -1: input should be greater"),
        ("seeds = [0, 1]", "seeds = [0]\nreadout = []", "readout is empty"),
        ('chain = "erm"', 'chain = "erm ="', "expected names"),
        ('chain = "erm"', 'chain = ""\nname = "random encoder"', "two methods are named"),
        ('name = "full"', 'name = "full"\nprotocol = "uda/9"', "input should be 'uda/1'"),
    ],
    ids=lambda text: text[:40],
)
def test_a_fault_is_told_in_one_sentence_with_its_place(read, old, new, sentence):
    with pytest.raises(BadInput, match=sentence) as refusal:
        read(FULL.replace(old, new, 1))
    assert "suite.toml" in str(refusal.value)
    # the parser of TOML has words of its own
    assert "\n" not in str(refusal.value).strip() or "TOML" in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("quikstart", "did you mean 'quickstart'.*digits, digits-shift"),
        ("living71", "did you mean 'connect-not-collapse/living17'"),
        (
            "leaderboards/u-wilds/camelyon17.toml",
            "mean 'targeted-augmentations/camelyon17' or 'u-wilds/camelyon17'",
        ),
        (
            "connect-not-collapse",
            "is the name of several suites: connect-not-collapse/cifar-stl, .*/living17; name one",
        ),
        ("u-wilds/common", "suite u-wilds/common: 'name' is missing"),
        ("../templates/objective", "no suite or file"),
        (str(SUITES / "digits"), "no suite or file"),
        ("x" * 5000, "no suite or file 'x{200}…'"),
        ("a\0b", "no suite or file"),
        ("", "no suite or file ''"),
    ],
)
def test_an_unknown_suite_names_the_shipped_ones(name, sentence):
    with pytest.raises(BadInput, match=sentence) as refusal:
        Suite.read(name)
    assert "\n" not in str(refusal.value)


def test_every_shipped_suite_is_read_by_its_name_and_has_a_folder_of_its_own_in_a_store():
    files = {path.relative_to(SUITES).as_posix() for path in Path(str(SUITES)).rglob("*.toml")}
    assert {f"{name}.toml" for name in shipped_suites()} == {
        name for name in files if not name.endswith("common.toml")
    }
    read = {name: Suite.read(name) for name in shipped_suites()}
    assert len({suite.name for suite in read.values()}) == len(read)
    for path in BOARDS.glob("**/suite.toml"):  # a board keeps the text that it was published with
        name = path.parent.relative_to(BOARDS).as_posix()
        assert path.read_text() == text_of(name), f"{path} is not the suite {name}"


def test_shifts_between_several_domains():
    shift = Shift.parse("a + b > c", ("a", "b", "c"))
    assert (shift.sources, shift.targets) == (("a", "b"), ("c",))
    assert str(shift) == "a + b > c"
    names = ("c", "b", "a")
    assert shift.seen("source+target", names) == names
    assert shift.seen("source", names) == ("b", "a")
    assert shift.seen("target", names) == ("c",)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a > a", "leads from 'a' to itself"),
        ("a + b > b", "leads from 'b' to itself"),
        ("a + a > b", "names 'a' twice"),
        ("a > d", "no domain 'd'; there is a, b, c"),
        ("a", "should read 'source > target'"),
        ("a > b > c", "should read 'source > target'"),
    ],
)
def test_a_shift_that_is_none_is_refused(text, sentence):
    with pytest.raises(BadInput, match=sentence):
        Shift.parse(text, ("a", "b", "c"))


def test_only_picks_cells_by_pattern_or_by_a_part_of_their_name(read):
    cells = read(SUITE.replace("[0]", "[0, 1]")).cells(("left", "right", "odd"))

    def meant(only: str) -> list:
        return [cell for cell in cells if matches(cell, conditions_of(only))]

    assert len(meant("seed=1")) == 1
    assert len(meant("method=sim*, shift=left > *")) == 2
    assert meant("erm") == []
    assert meant("method=erm, no augmentation,seed=1") == []
    assert len(meant("method=simclr , seed = 1")) == 1
    assert len(meant("")) == 2
    with pytest.raises(BadInput, match="'sed' is not known; did you mean 'seed'"):
        meant("sed=1")


@pytest.fixture
def write(tmp_path):
    def write_text(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write_text


def test_a_suite_extends_another_key_by_key_and_adds_methods(write):
    write("full.toml", FULL)
    more = 'name = "more"\nextends = "full.toml"\nseeds = [7]\n[stage]\nlr = 0.5\n'
    suite = Suite.read(write("more.toml", more + '[[method]]\nchain = "dann"\n'))
    full = Suite.read(write("full.toml", FULL))
    assert (suite.name, suite.seeds, suite.dataset) == ("more", (7,), "tiny")
    assert suite.stage.lr == 0.5 and suite.stage.steps == full.stage.steps == 10
    names = [method.name for method in full.methods()]
    assert [method.name for method in suite.methods()] == [*names, "dann"]


def test_a_shipped_suite_can_be_extended(write):
    text = 'name = "mine"\nextends = "quickstart"\n[[method]]\nchain = "simclr"\nname = "mine"\n'
    suite, base = Suite.read(write("mine.toml", text)), Suite.read("quickstart")
    assert suite.method[:-1] == base.method and suite.method[-1].name == "mine"
    assert suite.model_copy(update={"name": base.name, "method": base.method}) == base


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('extends = "quickstart"', "needs a name beside it"),
        ('name = "a"\nextends = 3', "extends is the name of a suite"),
        ('name = "a"\nextends = "quikstart"', "no suite or file .*did you mean 'quickstart'"),
        ('name = "a"\nextends = "a.toml"', "extends itself"),
        ('name = "a"\nextends = "quickstart"\nstage = 3', "stage"),
        ('name = "a"\nextends = "quickstart"\n[[method]]\nchain = ""', "two methods are named"),
    ],
)
def test_an_extension_that_cannot_be_is_told(write, text, sentence):
    with pytest.raises(BadInput, match=sentence) as refusal:
        Suite.read(write("a.toml", text))
    assert "a.toml" in str(refusal.value)
