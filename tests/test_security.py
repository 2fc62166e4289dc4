"""What strangers made is read, and never run: archives, suites, records, boards, and our own code.

Plugins are code of the user's choice; see docs. A suite, a record, a bundle or an archive is not.
"""

import ast
import contextlib
import gzip
import hashlib
import io
import json
import stat
import tarfile
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from suites import FULL

from benchbench.data import archive
from benchbench.data.archive import extract
from benchbench.extension.errors import BadInput
from benchbench.extension.grammar import parse, seconds_of, settle, split_chain, split_pipeline
from benchbench.leaderboard.board_folder import (
    LEVEL_OF,
    LOSSES,
    WHY_STALE,
    read_connectivity,
    read_if_there,
    read_predictions,
    read_reported,
)
from benchbench.leaderboard.bundle import opened, submission_of
from benchbench.leaderboard.true_labels import Truth
from benchbench.store.artifacts import Store, artifact_of
from benchbench.store.merge import import_store
from benchbench.store.records import read_many, read_record, read_status
from benchbench.suites.suite import Cell, Method, Shift, Suite, conditions_of, matches

ROOT = Path(__file__).parent.parent
SOURCES = sorted([*(ROOT / "benchbench").rglob("*.py"), *(ROOT / "plugins").rglob("*.py")])
RECORD = min((ROOT / "leaderboards").glob("*/records/*.json"))

# Our own code


def calls(path: Path) -> list[tuple[str, str, ast.Call]]:
    """Every call of a file: the function it is in, what is called, and the call."""
    found = []

    def walk(node: ast.AST, place: str) -> None:
        for child in ast.iter_child_nodes(node):
            inside = child.name if isinstance(child, ast.FunctionDef) else place
            if isinstance(child, ast.Call):
                found.append((place, ast.unparse(child.func), child))
            walk(child, inside)

    walk(ast.parse(path.read_text()), "")
    return found


CALLS = [(path.relative_to(ROOT).as_posix(), *call) for path in SOURCES for call in calls(path)]
LOADERS = ("cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "jsonpickle", "yaml")


def imported(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    plain = {alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names}
    return plain | {n.module for n in nodes if isinstance(n, ast.ImportFrom) and n.module}


def of_calls(*names: str) -> list[tuple[str, str]]:
    """Where functions of these names are called, whatever they are called on."""
    return [(file, place) for file, place, name, _ in CALLS if name.rpartition(".")[2] in names
            or name in names]  # fmt: skip


def said(call: ast.Call, argument: str) -> object:
    found = [k.value for k in call.keywords if k.arg == argument]
    return ast.literal_eval(found[0]) if found else None


def test_nothing_unpickles_but_a_check_what_it_has_just_pickled():
    for path in SOURCES:
        roots = {name.split(".")[0] for name in imported(path)}
        assert not roots & {*LOADERS}, path
        if "pickle" in roots:
            assert path == ROOT / "benchbench/extension/conformance/all_kinds.py"
    (loads,) = [c for c in CALLS if c[2] in ("pickle.loads", "pickle.load", "pickle.Unpickler")]
    assert loads[:2] == ("benchbench/extension/conformance/all_kinds.py", "pickled")
    assert ast.unparse(loads[3]) == "pickle.loads(pickle.dumps(value))"


def test_nothing_loads_with_torch():
    """Tensors are kept as safetensors, and there alone."""
    assert [c[:2] for c in CALLS if c[2] in ("torch.load", "torch.save", "torch.hub.load")] == []
    assert of_calls("load_state_dict_from_url", "read_pickle", "unsafe_load") == []


def test_arrays_of_objects_are_refused():
    loads = [call for _, _, name, call in CALLS if name in ("np.load", "numpy.load")]
    assert loads and all(said(call, "allow_pickle") is False for call in loads)
    assert of_calls("fromfile") == []


def test_no_text_becomes_code():
    named = [(file, name) for file, _, name, _ in CALLS
             if name in ("eval", "exec", "compile", "__import__", "builtins.eval")]  # fmt: skip
    assert named == []
    assert [(file, place) for file, place, name, _ in CALLS if name == "ast.parse"] == [
        ("benchbench/extension/grammar.py", "_expression")  # it reads, and runs nothing
    ]
    loads = [(file, call.args[0]) for file, _, name, call in CALLS if name == "import_module"]
    modules = {file for file, named in loads if not isinstance(named, ast.Constant)}
    assert modules == {
        "benchbench/__init__.py",  # of a table of its own
        "benchbench/extension/conformance/two_processes.py",  # a plugin, in another process
        "benchbench/extension/objects.py",  # what a user's own function imports when it runs
        "plugins/benchbench_wilds/package.py",  # of a table of its own
    }


def test_no_shell_no_guessable_file_and_no_archive_but_by_one_function():
    assert not [file for file, _, _, call in CALLS if said_shell(call)]
    assert of_calls("mktemp", "os.system", "popen", "tempnam", "tmpnam") == []
    assert {file for file, _ in of_calls("extractall", "extract", "unpack_archive")
            if file != "benchbench/data/archive.py"} <= {
        "benchbench/data/download.py",  # which calls that
        *with_features(),
    }  # fmt: skip
    assert of_calls("extractall") == [("benchbench/data/archive.py", "extract")] * 2
    assert of_calls("unpack_archive") == []


def with_features() -> set[str]:
    """Files whose `extract` is that of features."""
    return {path.relative_to(ROOT).as_posix() for path in SOURCES
            if "benchbench.evaluation.features" in imported(path)}  # fmt: skip


def said_shell(call: ast.Call) -> bool:
    return any(k.arg == "shell" for k in call.keywords)


def test_lint_looks_for_such_things_everywhere():
    told = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]
    assert "S" in told["select"] and not {*told["ignore"]} & {"S", "S3", "S6"}
    assert [rule for rule in told["ignore"] if rule.startswith("S")] == ["S101"]
    notebooks = told["per-file-ignores"].pop("docs/notebooks/*")
    assert not [rule for rule in notebooks if rule.startswith("S")]
    assert {*told["per-file-ignores"]} == {"tests/*"}


# Archives


def tar_of(path: Path, *members: tuple[str, bytes, int], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:
        for name, content, kind in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            info.size = len(content) if kind == tarfile.REGTYPE else 0
            info.linkname = "/etc/passwd"
            tar.addfile(info, io.BytesIO(content))
    return path


def zip_of(path: Path, *members: tuple[str, bytes], mode: int = stat.S_IFREG) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as zipped:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.external_attr = (mode | 0o644) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            zipped.writestr(info, content)
    return path


FILE = tarfile.REGTYPE
GOOD = ("good.txt", b"good", FILE)


@pytest.mark.parametrize(
    "name", ["../out", "a/../../out", "/etc/out", "a/../b", "C:\\out", "..\\out", "C:out"]
)
def test_what_would_lie_elsewhere_is_refused_before_anything_is_written(tmp_path, name):
    made = [
        tar_of(tmp_path / "a.tar", GOOD, (name, b"x", FILE)),
        tar_of(tmp_path / "a.tar.gz", GOOD, (name, b"x", FILE), mode="w:gz"),
        zip_of(tmp_path / "a.zip", ("good.txt", b"good"), (name, b"x")),
    ]
    for path in made:
        refused(path, tmp_path, "would lie elsewhere")


def refused(path: Path, tmp_path: Path, why: str) -> None:
    before = set(tmp_path.rglob("*"))
    folder = tmp_path / f"into-{path.name}"
    folder.mkdir()
    with pytest.raises(BadInput, match=f"{path.name} is not unpacked: .*{why}"):
        extract(path, folder)
    assert set(tmp_path.rglob("*")) == before | {folder}


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_are_refused(tmp_path, kind):
    refused(tar_of(tmp_path / "a.tar", GOOD, ("x", b"", kind)), tmp_path, "a link or device")


def test_a_link_in_a_zip_is_refused(tmp_path):
    path = zip_of(tmp_path / "a.zip", ("x", b"/etc/passwd"), mode=stat.S_IFLNK)
    refused(path, tmp_path, "a link or device")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_of_one_name_are_refused(tmp_path):
    refused(tar_of(tmp_path / "a.tar", GOOD, GOOD), tmp_path, "in it twice")
    refused(tar_of(tmp_path / "b.tar", GOOD, ("./good.txt", b"", FILE)), tmp_path, "in it twice")
    refused(zip_of(tmp_path / "a.zip", ("a", b"1"), ("a", b"2")), tmp_path, "in it twice")


def test_what_grows_too_much_is_refused(tmp_path):
    zeros = b"0" * (20 << 20)
    refused(zip_of(tmp_path / "a.zip", ("zeros", zeros)), tmp_path, "more than .* bytes")
    many = [(f"part{n}", zeros[: 6 << 20]) for n in range(2)]
    refused(zip_of(tmp_path / "b.zip", *many), tmp_path, "more than .* bytes")
    tar = tar_of(tmp_path / "a.tar.gz", ("zeros", zeros, FILE), mode="w:gz")
    refused(tar, tmp_path, "more than .* bytes")
    single = tmp_path / "one.gz"
    single.write_bytes(gzip.compress(zeros))
    refused(single, tmp_path, "suspiciously large")


def test_a_header_that_promises_more_than_there_is_room_for_is_refused_at_once(tmp_path):
    info = tarfile.TarInfo("huge")
    info.size = 1 << 60
    path = tmp_path / "a.tar"
    path.write_bytes(info.tobuf() + bytes(10240))
    refused(path, tmp_path, "more than .* bytes")


def test_too_many_files_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MOST_FILES", 3)
    path = tar_of(tmp_path / "a.tar", *((f"{n}", b"", FILE) for n in range(4)))
    refused(path, tmp_path, "or 3 files")


def test_what_is_as_it_should_be_is_unpacked(tmp_path):
    members = ("a/", b"", tarfile.DIRTYPE), ("a/b.txt", b"b", FILE), ("./c", bytes(5 << 20), FILE)
    for mode, name in (("w", "a.tar"), ("w:gz", "a.tar.gz"), ("w:xz", "a.tar.xz")):
        folder = tmp_path / f"of-{name}"
        folder.mkdir()
        extract(tar_of(tmp_path / name, *members, mode=mode), folder)
        assert (folder / "a/b.txt").read_bytes() == b"b" and (
            folder / "c"
        ).stat().st_size == 5 << 20
    folder = tmp_path / "of-zip"
    folder.mkdir()
    extract(zip_of(tmp_path / "a.zip", ("a/b.txt", b"b"), ("c", b"c")), folder)
    assert sorted(p.name for p in folder.rglob("*")) == ["a", "b.txt", "c"]
    (tmp_path / "words.csv.gz").write_bytes(gzip.compress(b"a,b\n"))
    extract(tmp_path / "words.csv.gz", folder)
    assert (folder / "words.csv").read_bytes() == b"a,b\n"


FUZZ = settings(
    max_examples=200,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def spoilt(content: bytes) -> st.SearchStrategy[bytes]:
    """The content cut off, with bytes changed, or with some put in."""
    place = st.integers(0, len(content))
    changed = st.lists(st.tuples(place, st.binary(max_size=8)), min_size=1, max_size=6)

    def made(changes: list[tuple[int, bytes]]) -> bytes:
        text = bytearray(content)
        for at, new in changes:
            text[at : at + len(new)] = new
        return bytes(text)

    return changed.map(made) | place.map(lambda end: content[:end]) | st.binary(max_size=200)


@FUZZ
@given(data=st.data())
@pytest.mark.parametrize("form", ["zip", "tar", "tar.gz"])
def test_an_archive_that_is_broken_is_told_and_nothing_else(tmp_path_factory, form, data):
    folder = tmp_path_factory.mktemp("archive")
    whole = folder / f"whole.{form}"
    if form == "zip":
        zip_of(whole, ("a/b", b"content"), ("c", b"other"))
    else:
        tar_of(whole, ("a/b", b"content", FILE), GOOD, mode="w:gz" if form == "tar.gz" else "w")
    broken, into = folder / f"broken.{form}", folder / "into"
    into.mkdir()
    broken.write_bytes(data.draw(spoilt(whole.read_bytes())))
    with contextlib.suppress(BadInput):
        extract(broken, into)
    assert {p.name for p in folder.iterdir()} == {whole.name, broken.name, "into"}


# Texts


SIGNS = "()[]{}=,.|>+-*'\"\\#:%@~ \n\t0123456789abcxyz_"
texts = st.text(max_size=80) | st.text(SIGNS, max_size=80) | st.sampled_from(
    ["(" * 1900, "-" * 1900 + "1", "[" * 1900, "a(x=" + "-" * 1900 + "1)", "a|" * 900 + "a",
     "a" + ">a" * 900, "x" * 2001, "a(b=" + "[" * 90 + "]" * 90 + ")", "a(b=9**9**9)", "a.b" * 600,
     "a(b=" + "1" * 1990 + ")", "a(b=1e999)", "\ud800", "a(\x00)", "ａ(b=1)", "a(b=f'{c}')",
     "not " * 400 + "a", "a(b=" + "(" * 900 + ")", "lambda: 0", "a if b else c", "a(b=1, b=2)",
     "a(b=-1j+2)", "a(b={1: [2]})", "a(b=b'x')", "a(b=...)", "a if a else " * 150 + "a"]
)  # fmt: skip


@FUZZ
@given(texts)
def test_whatever_is_spelled_is_read_or_refused(text):
    for read in (parse, split_pipeline, split_chain):
        with contextlib.suppress(BadInput):
            read(text)
    seconds_of(text)
    conditions_of(text)


@pytest.mark.parametrize("text", ["(" * 1900, "-" * 1990 + "1", "a|" * 999 + "a", "a.b" * 600])
def test_what_is_nested_too_deeply_is_told(text):
    with pytest.raises(BadInput):
        parse(text)
    with pytest.raises(BadInput):
        split_chain(text)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@FUZZ
@given(st.dictionaries(st.sampled_from(["a", "b", "c", "d", "e", "x"]), values, max_size=4))
def test_whatever_is_chosen_for_an_option_fits_or_is_refused(chosen):
    options = {"a": 0.5, "b": (1.0, 2.0), "c": None, "d": "x", "e": ()}
    with contextlib.suppress(BadInput):
        assert settle("x", options, chosen).keys() == options.keys()


@FUZZ
@given(texts)
def test_whatever_is_said_of_shifts_and_cells_is_read_or_refused(text):
    with contextlib.suppress(BadInput):
        Shift.parse(text, ("a", "b"))
    cell = Cell(Method("m", "e", (), "linear", "source"), Shift(("a",), ("b",)), 0)
    with contextlib.suppress(BadInput):
        matches(cell, conditions_of(text))


# Files


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("files")


def read_suite(folder: Path, content: bytes) -> None:
    place = folder / "suite.toml"
    place.write_bytes(content)
    with contextlib.suppress(BadInput):
        suite = Suite.read(str(place))
        suite.cells(("a", "b", "c"))


@FUZZ
@given(spoilt(FULL.encode()) | texts.map(lambda text: text.encode(errors="surrogatepass")))
def test_whatever_a_suite_says_is_read_or_refused(folder, content):
    read_suite(folder, content)


KEYS = ["name", "protocol", "dataset", "shifts", "seeds", "split_seed", "precision", "encoder",
        "readout", "baseline", "rule", "snapshots", "tune", "leave_one_out", "stage", "method",
        "extends"]  # fmt: skip
toml_values = st.sampled_from(
    ["1", "-1", "1.5", "nan", "inf", "true", '""', '"a"', '"all"', '"a > b"', "[]", '["a", 1]',
     "{}", "{a = 1}", "1979-05-27", "07:32:00", "[[]]", "9223372036854775807", "1e400",
     "999999999999999999999999999", '"suite.toml"', '"quickstart"', "'''a\n\nb'''", '"a(b=["',
     '[{chain = "a > b", readout = []}]', '{steps = 1, lr = 1e-300}', '"../../etc/passwd"',
     '"\\u0000"', '"' + "[" * 400 + '"', "[" * 60 + "]" * 60, "[" * 900 + "]" * 900]
)  # fmt: skip


@FUZZ
@given(st.dictionaries(st.sampled_from(KEYS), toml_values, max_size=4))
def test_whatever_a_key_of_a_suite_holds_is_read_or_refused(folder, changes):
    kept = [line for line in FULL.split("[stage]")[0].splitlines()
            if line.partition(" =")[0] not in changes]  # fmt: skip
    below = "" if {"stage", "method"} & changes.keys() else "\n[stage]" + FULL.split("[stage]")[1]
    text = "\n".join([*kept, *(f"{key} = {value}" for key, value in changes.items())]) + below
    read_suite(folder, text.encode())


WHOLE = json.loads(RECORD.read_text())


def places(value: object, above: tuple = ()) -> list[tuple]:
    """Where everything in some JSON is."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(
        value, list) else ()  # fmt: skip
    return [above, *(place for key, below in inner for place in places(below, (*above, key)))]


def with_other(place: tuple, value: object) -> bytes:
    made = json.loads(RECORD.read_text())
    if not place:
        return json.dumps(value).encode()
    inside = made
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = value
    return json.dumps(made, indent=1, sort_keys=True).encode() + b"\n"


@FUZZ
@given(
    spoilt(RECORD.read_bytes())
    | st.builds(with_other, st.sampled_from(places(WHOLE)), values)
    | st.sampled_from([b"", b"[" * 100_000, b'{"a":' * 100_000, b"\xff", b"1" * 5000, b"null"])
)
def test_whatever_a_record_says_is_read_or_refused(folder, content):
    place = folder / "record.json"
    place.write_bytes(content)
    for read in (read_record, lambda path: read_status(str(path))):
        with contextlib.suppress(BadInput):
            read(place)


def outcome(read: Callable[[], object]) -> object:
    try:
        return read()
    except BadInput as error:
        return str(error)


LINES = RECORD.read_bytes().splitlines(keepends=True)
moved = st.permutations(range(len(LINES))).map(lambda order: b"".join(LINES[n] for n in order))
without = st.sets(st.integers(0, len(LINES) - 1), max_size=3).map(
    lambda left: b"".join(line for n, line in enumerate(LINES) if n not in left)
)
twice = st.integers(0, len(LINES) - 1).map(lambda n: b"".join([*LINES[:n], *LINES[n - 1 :]]))


@FUZZ
@given(
    spoilt(RECORD.read_bytes())
    | st.builds(with_other, st.sampled_from(places(WHOLE)), values)
    | st.one_of(moved, without, twice)
    | st.sampled_from([json.dumps(WHOLE).encode(), json.dumps(WHOLE, indent=2).encode()])
)
def test_many_records_are_read_as_one_is(folder, content):
    place, good = folder / "one.json", folder / "good.json"
    place.write_bytes(content)
    good.write_bytes(RECORD.read_bytes())
    one = outcome(lambda: read_record(place))
    many = outcome(lambda: read_many([good, place, good]))
    assert many == (one if isinstance(one, str) else [read_record(good), one, read_record(good)])
    if not isinstance(one, str):
        assert read_status(str(place)) == one.status


@FUZZ
@given(content=st.binary(max_size=60) | st.sampled_from(
    [b"[" * 100_000, b'{"a": [1e999]}', b'{"a": {"level": "reproduced"}}', b'{"a": "b"}', b"[[]]",
     b"[reported]", b"reported = 1",
     b"[[reported]]\nmethod = 'a'\nsource = 'b'\nvalues = {a = nan}",
     b"a = 1979-05-27", b"a=" + b"[" * 5000]
))  # fmt: skip
def test_whatever_lies_beside_records_is_read_or_refused(folder, content):
    place = folder / "beside"
    place.write_bytes(content)
    for kind in (LEVEL_OF, WHY_STALE, LOSSES):
        with contextlib.suppress(BadInput):
            read_if_there(place, kind)
    for read in (read_connectivity, lambda path: read_reported(path, ["a > b"]), Truth.read):
        with contextlib.suppress(BadInput):
            read(place)


TENSORS = RECORD.with_suffix(".safetensors").read_bytes()


@FUZZ
@given(spoilt(TENSORS[:400]) | spoilt(TENSORS) | st.sampled_from(
    [b"", b"\xff" * 8, (1 << 62).to_bytes(8, "little") + b"{}", (2).to_bytes(8, "little") + b"{}",
     (100_000).to_bytes(8, "little") + b"[" * 100_000]
))  # fmt: skip
def test_whatever_a_file_of_tensors_says_is_read_or_refused(folder, content):
    place = folder / "tensors.safetensors"
    place.write_bytes(content)
    record = read_record(RECORD)
    told = {"predictions_sha256": hashlib.sha256(content).hexdigest()}  # as if these were its own
    own = record.model_copy(update={"artifacts": record.artifacts.model_copy(update=told)})
    for read in (lambda path: read_predictions(path, own), Truth.read):
        with contextlib.suppress(BadInput):
            read(place)
    assert artifact_of(io.BytesIO(content)) is None, "it lacks its sha256"


def test_a_store_of_a_stranger_is_taken_in_or_refused(tmp_path):
    key, good = "a" * 64, tmp_path / "good.tar"
    members = [
        (f"stages/{key}.safetensors", b"not tensors", FILE),
        ("../../x", b"", FILE),
        ("/etc/passwd", b"", FILE),
        ("records/a/../../../x.json", b"{}", FILE),
        ("records/tiny/a--b--0--aaaaaaaaaaaa.json", b"[" * 100_000, FILE),
        ("stages/link", b"", tarfile.SYMTYPE),
    ]
    tar_of(good, *members)
    taken = import_store(Store(tmp_path / "store"), good)
    assert (taken.records, taken.stages) == (0, 0) and len(taken.refused) == 5
    left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert left == {"good.tar"}


@settings(FUZZ, max_examples=100)
@given(data=st.data())
def test_a_broken_archive_of_a_store_is_told(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("gathered")
    whole = tar_of(folder / "a.tar", (f"stages/{'a' * 64}.safetensors", b"x", FILE), GOOD)
    whole.write_bytes(data.draw(spoilt(whole.read_bytes())))
    with contextlib.suppress(BadInput):
        import_store(Store(folder / "store"), whole)


@settings(FUZZ, max_examples=100)
@given(data=st.data())
def test_a_broken_bundle_is_told(folder, data):
    whole = tar_of(folder / "a.tar", ("manifest.json", b"{}", FILE), ("suite.json", b"{}", FILE))
    whole.write_bytes(data.draw(spoilt(whole.read_bytes()[:2048]) | spoilt(whole.read_bytes())))
    with contextlib.suppress(BadInput), opened(whole) as bundle:
        submission_of(bundle)
