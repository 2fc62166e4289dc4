"""What a stranger's archive may be: each of these is refused before anything of it is used."""

import bz2
import getpass
import gzip
import io
import json
import lzma
import pickle
import socket
import struct
import tarfile
import zipfile
from pathlib import Path
from tempfile import gettempdir

import pytest
from bundles import (
    SUITE,
    Files,
    Honest,
    changed,
    hashed,
    judged,
    once,
    predictions_of,
    record_name,
    tar_of,
    with_record,
)
from click.testing import CliRunner
from tiny import Text

from benchbench.api.submissions import recorded
from benchbench.cli import main
from benchbench.extension.errors import BadInput
from benchbench.leaderboard.bundle import (
    Credits,
    Malformed,
    check_text,
    credited,
    narrowed,
    opened,
    strict_json,
    texts_of,
    write_bundle,
)
from benchbench.store.records import unsealed
from benchbench.suites.suite import Suite

BLOCK = 512


@pytest.fixture(scope="session")
def honest(tmp_path_factory) -> Honest:
    return once(SUITE, tmp_path_factory.getbasetemp())


class Bomb:
    """Unpickled, it leaves a file."""

    def __reduce__(self):
        return Path.touch, (Path("executed"),)


def packed_with(files: Files, info: tarfile.TarInfo, content=b"", form=tarfile.GNU_FORMAT) -> bytes:
    """The bundle, and a member more."""
    out = io.BytesIO(tar_of(files))
    with tarfile.open(fileobj=out, mode="a", format=form) as tar:
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def named(name: str):
    return lambda files: packed_with(files, tarfile.TarInfo(name), b"{}")


def of_type(kind: bytes, name: str = "records/a--b--0--0123456789ab.json"):
    def make(files):
        info = tarfile.TarInfo(name)
        info.type, info.linkname = kind, "/etc/passwd"
        return packed_with(files, info)

    return make


def said(**fields):
    """A member whose header says more than a name and a size."""

    def make(files):
        info = tarfile.TarInfo("records/a--b--0--0123456789ab.json")
        for name, value in fields.items():
            setattr(info, name, value)
        return packed_with(files, info, b"{}")

    return make


def header_patched(offset: int, content: bytes, *, checksum: bool = True):
    """The first header, with other bytes at a place."""

    def make(files):
        archive = bytearray(tar_of(files))
        archive[offset : offset + len(content)] = content
        if checksum:
            archive[148:156] = b" " * 8
            archive[148:156] = b"%06o\0 " % sum(archive[:BLOCK])
        return bytes(archive)

    return make


def sparse(files):
    info = tarfile.TarInfo("records/a--b--0--0123456789ab.json")
    info.type = tarfile.GNUTYPE_SPARSE
    return packed_with(files, info, b"x" * BLOCK)


def pax(files):
    info = tarfile.TarInfo("records/a--b--0--0123456789ab.json")
    info.pax_headers = {"path": "../out.json"}
    return packed_with(files, info, b"{}", tarfile.PAX_FORMAT)


def long_name_that_lies(files):
    """A long name that belongs to a header of another."""
    archive = packed_with(files, tarfile.TarInfo("records/" + "a" * 120), b"{}")
    return archive.replace(b"a" * 120, b"b" * 120, 1)


def between(files):
    """A byte where the first file's last block is padded."""
    archive = bytearray(tar_of(files))
    size = len(next(iter(files.values())))
    archive[BLOCK + size] = 1
    return bytes(archive)


def zipped(files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("manifest.json", b"0" * 10_000_000)
    return out.getvalue()


def cut(share: float):
    return lambda files: tar_of(files)[: int(share * len(tar_of(files)))]


ARCHIVES = {
    "a path upwards": (named("../out.json"), "'../out.json' is no name"),
    "a path upwards, inside": (named("records/../../out.json"), "is no name of a file in a bundle"),
    "a path upwards, hidden": (named("encoders/" + "../" * 40 + "out"), "is no name"),
    "an absolute path": (named("/etc/out.json"), "'/etc/out.json' is no name"),
    "a drive": (named("C:\\out.json"), "is no name"),
    "a backslash": (named("records\\a--b--0--0123456789ab.json"), "is no name"),
    "a dot first": (named("./suite.json"), "is no name"),
    "two slashes": (named("records//a--b--0--0123456789ab.json"), "is no name"),
    "a newline in a name": (named("records/a\n--b--0--0123456789ab.json"), r"a\\n--b.* is no name"),
    "an escape in a name": (named("records/\x1b[2J--b--0--0123456789ab.json"), r"\\x1b.* is no"),
    "a name that is no ASCII": (named("records/é--b--0--0123456789ab.json"), "is no name"),
    "a script": (named("run.py"), "'run.py' is no name"),
    "a pickle": (named("encoders/model.pt"), "is no name"),
    "an encoder that is no key": (named("encoders/best.safetensors"), "is no name"),
    "a name of capitals": (named("SUITE.JSON"), "is no name"),
    "a symbolic link": (of_type(tarfile.SYMTYPE), "is a symbolic link, and no file"),
    "a hard link": (of_type(tarfile.LNKTYPE), "is a hard link, and no file"),
    "a character device": (of_type(tarfile.CHRTYPE), "is a device, and no file"),
    "a block device": (of_type(tarfile.BLKTYPE), "is a device, and no file"),
    "a pipe": (of_type(tarfile.FIFOTYPE), "is a pipe, and no file"),
    "a folder": (of_type(tarfile.DIRTYPE, "records"), "is a folder, and no file"),
    "a file of another kind": (of_type(tarfile.CONTTYPE), "is something else, and no file"),
    "an old file": (of_type(tarfile.AREGTYPE), "is something else, and no file"),
    "a sparse file": (sparse, "is a sparse file, and no file"),
    "an extended header": (pax, "is an extended header, and no file"),
    "a long name that lies": (long_name_that_lies, "is not as benchbench submit writes it"),
    "an owner": (said(uname="person"), "header .* is not as benchbench submit writes it"),
    "a number of an owner": (said(uid=1000), "is not as benchbench submit writes it"),
    "a date": (said(mtime=1_700_000_000), "is not as benchbench submit writes it"),
    "rights": (said(mode=0o777), "is not as benchbench submit writes it"),
    "a link's name": (said(linkname="x"), "is not as benchbench submit writes it"),
    "a wrong checksum": (header_patched(150, b"9", checksum=False), "is not as benchbench"),
    "a size without end": (header_patched(124, b"77777777777\0"), "has 8,589,934,591 bytes; the"),
    "a size into another file": (header_patched(124, b"00000777777\0"), "is something else, and"),
    "a size of base 256": (header_patched(124, b"\x80" + b"\0" * 10 + b"\1"), "is not as benchb"),
    "a negative size": (header_patched(124, b"-0000000100\0"), "is not as benchbench submit"),
    "a prefix": (header_patched(345, b"up"), "is not as benchbench submit writes it"),
    "another format": (header_patched(257, b"ustar\00000"), "is not as benchbench submit writes"),
    "the same file twice": (named("suite.json"), "it has suite.json twice"),
    "a file past the most": (
        lambda files: tar_of({**files, "suite.json": b" " * (1 + (256 << 10))}),
        "suite.json has 262,145 bytes; the most",
    ),
    "gzip": (lambda files: gzip.compress(tar_of(files)), "it is compressed by gzip"),
    "bzip2": (lambda files: bz2.compress(tar_of(files)), "it is compressed by bzip2"),
    "xz": (lambda files: lzma.compress(tar_of(files)), "it is compressed by xz"),
    "zstd": (lambda files: b"\x28\xb5\x2f\xfd" + b"\0" * 999, "it is compressed by zstd"),
    "a zip bomb": (zipped, "it is compressed by zip"),
    "a pickle as a whole": (lambda files: pickle.dumps(Bomb()), "it is no tar file"),
    "nothing": (lambda files: b"", "it is no tar file"),
    "words": (lambda files: b"words" * 999, "it is no tar file"),
    "an empty archive": (lambda files: tar_of({}), "it is no tar file"),
    "cut off early": (cut(0.001), "it is no tar file|cut off"),
    "cut off in the middle": (cut(0.5), "it was cut off"),
    "cut off late": (cut(0.9), "it was cut off"),
    "without its end": (lambda files: tar_of(files)[:-BLOCK], "it was cut off"),
    "something after the end": (lambda files: tar_of(files) + b"x", "something after the end"),
    "zeros after the end": (lambda files: tar_of(files) + b"\0" * 10240, "something after the end"),
    "a byte in the padding of the end": (
        lambda files: tar_of(files)[:-1] + b"x", "something after the end"
    ),
    "names that differ in capitals": (
        lambda files: tar_of({**files, **dict.fromkeys(
            (f"records/{a}--b--0--0123456789ab.json" for a in "aA"), b"{}")}),
        "it has records/[aA]--b--0--0123456789ab.json twice",
    ),
    "two archives": (lambda files: tar_of(files) * 2, "something after the end"),
    "something between files": (between, "there is something between .* and the file after it"),
}  # fmt: skip


@pytest.fixture
def away(tmp_path, monkeypatch) -> Path:
    """A folder beside others, where whoever is executed would leave something."""
    (tmp_path / "in" / "here").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "in")
    return tmp_path / "in" / "here"


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_that_is_not_safe_is_malformed(honest, away, name):
    make, reason = ARCHIVES[name]
    with pytest.raises(Malformed, match=reason):
        judged(make(honest.files), None, away, "claimed")


def raw(content: bytes, which: str = "predictions"):
    """Other content of a file, with a manifest that says so."""

    def make(files):
        name = record_name(files)
        places = {
            "predictions": predictions_of(name),
            "record": name,
            "encoder": next(n for n in files if n.startswith("encoders/")),
        }
        return hashed({**files, places.get(which, which): content})

    return make


def tensors(header: object, body: bytes = b"", length: int | None = None, which="predictions"):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    size = len(text) if length is None else length
    return raw(struct.pack("<Q", size) + text + body, which)


def tensor(dtype="I32", shape=(2,), offsets=(0, 8), **more):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets), **more}


BODY = b"\0" * 8
TENSORS = {
    "a pickle as predictions": (raw(pickle.dumps(Bomb())), "its header is longer than it can be"),
    "a pickle as an encoder": (raw(pickle.dumps(Bomb()), "encoder"), "its header is longer than"),
    "no predictions": (raw(b""), "is no safetensors file"),
    "a header past the end": (tensors({"left": tensor()}, BODY, 1 << 40), "longer than it can be"),
    "a header of all bits": (tensors({}, BODY, 2**64 - 1, "encoder"), "longer than it can be"),
    "a header that is a list": (tensors([]), "its header is no table"),
    "a header that is a pickle": (tensors(pickle.dumps(Bomb())), "cannot be read as JSON"),
    "a header with a tensor twice": (
        tensors(b'{"left":%b,"left":%b}' % ((json.dumps(tensor()).encode(),) * 2), BODY),
        "it has the key 'left' twice",
    ),
    "metadata": (tensors({"__metadata__": {"x": "y"}}), "'__metadata__' cannot be"),
    "overlapping tensors": (
        tensors({"left": tensor(), "right": tensor(offsets=(4, 12))}, BODY + BODY),
        "there is a gap or an overlap before tensor 'right'",
    ),
    "overlapping tensors of an encoder": (
        tensors({"a": tensor("F32"), "b": tensor("F32")}, BODY, which="encoder"),
        "there is a gap or an overlap before tensor 'b'",
    ),
    "a gap": (
        tensors({"left": tensor(), "right": tensor(offsets=(12, 20))}, BODY * 3),
        "a gap or an overlap before tensor 'right'",
    ),
    "something after the tensors": (tensors({"left": tensor()}, BODY + b"x"), "are not all of the"),
    "tensors past the end": (tensors({"left": tensor()}, b"\0"), "the tensors are not all of the"),
    "negative offsets": (tensors({"left": tensor(offsets=(-8, 0))}), "'left' cannot be"),
    "offsets that are text": (tensors({"left": tensor(offsets=("0", "8"))}, BODY), "cannot be"),
    "offsets that are true": (tensors({"left": tensor(offsets=(False, 8))}, BODY), "cannot be"),
    "a negative shape": (tensors({"left": tensor(shape=(-2,))}, BODY), "cannot be"),
    "another shape": (tensors({"left": tensor(shape=(1 << 62,))}, BODY), "'left' cannot be"),
    "an unknown type": (tensors({"left": tensor("OBJECT")}, BODY), "'left' cannot be"),
    "an unknown field of a tensor": (tensors({"left": tensor(code="x")}, BODY), "'left' cannot be"),
    "a tensor that is a number": (tensors({"left": 1}), "'left' cannot be"),
    "predictions of another type": (
        tensors({"left": tensor("F64", (1,))}, BODY),
        "'left' is no row of int32 or float32",
    ),
    "predictions of two dimensions": (
        tensors({"left": tensor(shape=(1, 2))}, BODY),
        "'left' is no row of int32",
    ),
    "an escape in a tensor's name": (tensors({"\x1b[2J": tensor()}, BODY), "cannot be printed"),
}  # fmt: skip


def text_in(key: str, text: str):
    """A record with another text."""
    return lambda files: with_record(files, lambda fields: fields.update({key: text}))


def spelled(old: bytes, new: bytes, which: str = "record"):
    """A record or the suite with other bytes."""

    def make(files):
        name = record_name(files) if which == "record" else which
        content = unsealed(files[name])
        assert old in content
        return hashed({**files, name: content.replace(old, new, 1)})

    return make


def fields_of(which: str, **fields):
    return lambda files: hashed(changed(files, which, lambda said: said.update(fields)))


def after_hash(which: str, **fields):
    return lambda files: changed(files, which, lambda said: said.update(fields))


STEPS = b'"steps": 4'
TEXTS = {
    "no JSON": (raw(b"words", "record"), "cannot be read as JSON"),
    "no UTF-8": (raw(b'{"a": "\xff"}', "record"), "cannot be read as JSON"),
    "a byte order mark": (raw(b"\xef\xbb\xbf{}", "record"), "cannot be read as JSON"),
    "a pickle as a record": (raw(pickle.dumps(Bomb()), "record"), "cannot be read as JSON"),
    "NaN": (spelled(STEPS, b'"steps": NaN'), "it has the number NaN"),
    "infinity": (spelled(STEPS, b'"steps": -Infinity'), "it has the number -Infinity"),
    "infinity as a number": (spelled(STEPS, b'"steps": 1e999'), "it has the number 1e999"),
    "a number of 9,999 digits": (spelled(STEPS, b'"steps": ' + b"9" * 9999), "cannot be read as J"),
    "a key twice": (spelled(STEPS, STEPS + b"," + STEPS), "it has the key 'steps' twice"),
    "deep nesting": (spelled(STEPS, STEPS + b', "x": ' + b"[" * 40 + b"]" * 40), "nested deeper"),
    "very deep nesting": (
        spelled(STEPS, STEPS + b', "x": ' + b"[" * 99_999 + b"]" * 99_999),
        "nested deeper than",
    ),
    "a number as text": (spelled(STEPS, b'"steps": "4"'), "steps: Input should be a valid integer"),
    "a number for a text": (text_in("method", 7), "method: Input should be a valid string"),
    "an unknown field": (text_in("trusted", "yes"), "trusted: Extra inputs are not permitted"),
    "a missing field": (spelled(b'"protocol"', b'"protocoll"'), "protocol: Field required"),
    "a record that was changed": (
        lambda f: hashed({**f, record_name(f): f[record_name(f)].replace(b": 4,", b": 5,", 1)}),
        "it was changed after it was written",
    ),
    "another schema": (text_in("schema_version", 2), "schema_version: Input should be 1"),
    "a script in a name": (text_in("method", "<script>alert(1)</script>"), "method has markup"),
    "an image in a name": (text_in("shift", "<img src=x onerror=y>"), "shift has markup"),
    "a link to a script": (text_in("method", "JavaScript:alert(1)"), "method has markup"),
    "a link": (text_in("method", "[best](https://x.org)"), "method has markup"),
    "markup in a package": (
        lambda f: with_record(f, lambda r: r["environment"]["packages"].update({"<b>": "1"})),
        "has markup: '<b>'",
    ),
    "an escape sequence": (text_in("method", "\x1b[31mbest"), "cannot be printed: '.x1b.31mbest'"),
    "a newline": (text_in("reason", "a\nb"), "reason has a character that cannot be printed"),
    "a null": (text_in("method", "a\0b"), "cannot be printed"),
    "writing from the right": (text_in("method", "a\u202eb"), r"cannot be printed: 'a\\u202eb'"),
    "an isolate": (text_in("method", "a\u2067b"), "cannot be printed"),
    "nothing to see": (text_in("method", "simclr\u200b"), "cannot be printed"),
    "a half character": (text_in("method", "a\ud800b"), "cannot be printed"),
    "a name without end": (text_in("method", "a" * 401), "a text of 401 characters"),
    "a text without end": (text_in("reason", "a" * 4001), "a text of 4,001 characters"),
    "no manifest": (lambda f: {n: c for n, c in f.items() if n != "manifest.json"}, "has no manif"),
    "no suite": (lambda f: hashed({n: c for n, c in f.items() if n != "suite.json"}), "no suite.j"),
    "a suite with unknown keys": (fields_of("suite.json", run="rm"), "suite.json: run: Extra inp"),
    "a suite of no steps": (
        fields_of("suite.json", stage={"steps": 0}),
        "suite.json: stage.steps: Input should be greater",
    ),
    "a suite whose name is a path": (fields_of("suite.json", name="../x"), "suite.json: name:"),
    "a suite with a method twice": (
        lambda f: hashed(changed(f, "suite.json", lambda s: s["method"].append(s["method"][0]))),
        "two methods are named",
    ),
    "a suite that is a puzzle": (
        lambda f: hashed(changed(f, "suite.json", lambda s: s["method"][0].update(
            {"chain": "-" * 1500 + "1"}))),
        "suite.json: ",
    ),
    "a paper that is a script": (after_hash("manifest.json", paper="javascript:x"), "has markup"),
    "a paper that is no address": (after_hash("manifest.json", paper="file:///x"), "paper: String"),
    "a hash that is none": (
        lambda f: changed(f, "manifest.json", lambda m: m["files"]["suite.json"].update(
            {"sha256": "../x"})),
        "sha256: String should match",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", [*TENSORS, *TEXTS])
def test_what_a_bundle_cannot_say_is_malformed(honest, away, name):
    make, reason = {**TENSORS, **TEXTS}[name]
    with pytest.raises(Malformed, match=reason):
        judged(tar_of(make(honest.files)), None, away, "claimed")


def test_the_tables_of_faults_name_none_twice():
    assert len({*TENSORS, *TEXTS}) == len(TENSORS) + len(TEXTS)


def test_the_bombs_would_have_gone_off(away):
    pickle.loads(pickle.dumps(Bomb()))  # noqa: S301
    assert Path("executed").exists()


def test_a_bundle_is_a_function_of_what_it_holds(honest, tmp_path):
    plan = honest.plan
    names = ["simclr(temperature=0.2)", "erm"]
    credits = Credits(submitter="A. Person", paper="https://example.org/paper")
    for records in (recorded(plan, names), recorded(plan, names)[::-1]):
        write_bundle(tmp_path / "a.tar", narrowed(plan.suite, names), records, plan.store, credits)
        assert (tmp_path / "a.tar").read_bytes() == honest.content == tar_of(honest.files)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar"]


def test_a_bundle_names_no_host_no_user_and_no_folder(honest):
    content, files = honest.content, honest.files
    for word in (str(Path.home()) + "/", gettempdir(), str(honest.plan.store.root)):
        assert word.encode() not in content
    said = {text for n in files if ".json" in n for _, text in texts_of(json.loads(files[n]), n)}
    assert not said & {socket.gethostname(), getpass.getuser(), str(Path.home())}
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        assert {(m.uname, m.gname, m.uid, m.mtime) for m in tar} == {("", "", 0, 0)}


def test_a_path_in_a_reason_is_left_out_and_one_in_a_suite_refused(honest, tmp_path):
    plan, names = honest.plan, ["erm"]
    suite = narrowed(plan.suite, names)
    lost = [
        r.model_copy(update={
            "status": "failed", "scores": (), "snapshots": (), "artifacts": None, "cost": None,
            "reason": "OSError: [Errno 2] No such file: '/home/person/secret/x.npy' of ~/data",
        })
        for r in recorded(plan, names)
    ]  # fmt: skip
    write_bundle(tmp_path / "a.tar", suite, lost, plan.store, Credits())
    content = (tmp_path / "a.tar").read_bytes()
    assert b"No such file: '\\u2026' of \\u2026" in content and b"person" not in content
    own = suite.model_copy(update={"dataset": "folder(path='/home/person/x')"})
    with pytest.raises(BadInput, match="suite.json: dataset names '/home/person/x'; name a path"):
        write_bundle(tmp_path / "b.tar", own, lost, plan.store, Credits())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.tar"]


def test_what_cannot_be_submitted_leaves_nothing(honest, tmp_path):
    plan, names = honest.plan, ["erm"]
    suite, records = narrowed(plan.suite, names), recorded(plan, names)
    where = plan.store.records("tiny") / Path(records[0].file_name).with_suffix(".safetensors")
    kept = where.read_bytes()
    out = tmp_path / "a.tar"
    try:
        where.write_bytes(kept[:-1] + b"!")
        with pytest.raises(BadInput, match="holds other predictions than its record says"):
            write_bundle(out, suite, records, plan.store, Credits())
    finally:
        where.write_bytes(kept)
    strange = records[0].model_copy(update={"artifacts": records[0].artifacts.model_copy(
        update={"encoder_sha256": "0" * 64})})  # fmt: skip
    with pytest.raises(BadInput, match="has no longer what erm · left > right · seed 0 was read"):
        write_bundle(out, suite, [strange], plan.store, Credits())
    write_bundle(out, suite, [strange], plan.store, Credits(), encoders=False)
    out.unlink()
    with pytest.raises(BadInput, match="suite tiny has no method 'ermm'; did you mean 'erm'"):
        narrowed(plan.suite, ["ermm"])
    with pytest.raises(Malformed, match="method has markup"):
        gone = {"status": "failed", "scores": (), "artifacts": None, "method": "<b>"}
        bad = records[0].model_copy(update=gone)
        write_bundle(out, suite, [bad], plan.store, Credits())
    with pytest.raises(BadInput, match="cannot be written: No such file"):
        write_bundle(tmp_path / "no" / "a.tar", suite, records, plan.store, Credits())
    with pytest.raises(BadInput, match="--paper 'x.org' is no address such as https"):
        credited("A", "x.org", None)
    assert not [*tmp_path.iterdir()]


def test_a_suite_that_is_narrowed_has_the_same_methods():
    suite = Suite.read("quickstart")
    for method in suite.methods():
        assert narrowed(suite, [method.name]).methods() == (method,)
    assert narrowed(suite, [m.name for m in suite.methods()]).methods() == suite.methods()


def test_honest_texts_are_taken():
    for text in ("simclr(temperature=0.1) > finetune", "naïve · 方法 2", "a < b", "x [1] (y)"):
        check_text(text, "method", "x")
        assert strict_json(json.dumps([text]).encode(), "x") == [text]
    check_text("TypeError: <class 'int'>", "reason", "x")


def test_a_long_name_is_read_as_it_was_written(honest, tmp_path):
    name = f"records/{'a' * 80}--{'b' * 80}--12--0123456789ab.safetensors"
    (tmp_path / "a.tar").write_bytes(tar_of({**honest.files, name: b"x"}))
    with opened(tmp_path / "a.tar") as bundle:
        assert bundle.read(name) == b"x"
        assert {n: bundle.read(n) for n in honest.files} == honest.files


PLUGIN = """
from benchbench import hookimpl
from benchbench.extension.conformance.fixtures import bars

def tiny(root, *, rows=40, seed=0):
    return bars(rows, seed=seed)

@hookimpl
def benchbench_datasets():
    return {"tiny": tiny}
"""


def test_submit_packs_what_trains_and_refuses_what_is_missing(honest, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("shapes.py").write_text(PLUGIN)
    suite = Path(honest.board.folder / "suite.toml")
    words = ["--plugin", "shapes.py", "--store", str(honest.plan.store.root), "--device", "cpu"]

    def submit(*more, text=suite):
        result = CliRunner().invoke(main, ["submit", str(text), "--out", "x.tar", *words, *more])
        assert not result.exception or isinstance(result.exception, SystemExit), result.exception
        return result

    told = submit("--submitter", "A. Person", "--paper", "https://example.org/paper")
    assert told.exit_code == 0, told.stderr
    assert told.stdout.startswith("x.tar: simclr(temperature=0.2), erm; 4 records, 0.")
    assert Path("x.tar").read_bytes() == honest.content
    assert submit("--method", "erm", "--no-encoders").exit_code == 0
    with opened(Path("x.tar")) as bundle:
        assert not [name for name in bundle.places if name.startswith("encoders")]
    Path("x.tar").unlink()
    (tmp_path / "more.toml").write_text(Text(suite.read_text()).replace("[0, 1]", "[0, 1, 2]"))
    told = submit(text=tmp_path / "more.toml")
    assert told.exit_code == 2
    assert (
        "2 of 6 cells have no record, such as simclr(temperature=0.2) · left > right · seed 2"
        in (told.stderr)
    )
    assert "suite tiny has no method 'x'" in submit("--method", "x").stderr
    assert "--code 'x' is no address" in submit("--code", "x").stderr
    assert not Path("x.tar").exists()
