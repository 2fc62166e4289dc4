"""A bundle: what a board needs to know of some methods, in one file that a stranger may have made.

A plain tar file of ``suite.json``, ``records/*.json`` with their predictions, ``encoders/*`` (what
the last stages left, named by their keys), ``manifest.json`` with the sha256 of every file, and
perhaps ``manifest.json.sig``. Of the same content it is the same, byte for byte.
"""

import hashlib
import io
import json
import math
import os
import re
import subprocess
import tarfile
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, BinaryIO, Literal, NoReturn, TypeVar
from uuid import uuid4

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from benchbench.extension.errors import BadInput
from benchbench.extension.grammar import instead
from benchbench.store.artifacts import Store, packed
from benchbench.store.keys import snapshot_key
from benchbench.store.records import Part, Record, record_of
from benchbench.suites.suite import MethodTable, Suite

MANIFEST, SIGNATURE, SUITE = "manifest.json", "manifest.json.sig", "suite.json"
NAMESPACE = "benchbench-bundle"  # of signatures
STEM = r"records/[A-Za-z0-9.-]+--[0-9]+--[0-9a-f]{12}"
KINDS = (  # every name that there can be, and the most bytes of such a file
    (re.compile(re.escape(MANIFEST)), 32 << 20),
    (re.compile(re.escape(SIGNATURE)), 16 << 10),
    (re.compile(re.escape(SUITE)), 256 << 10),
    (re.compile(STEM + r"\.json"), 1 << 20),
    (re.compile(STEM + r"\.safetensors"), 256 << 20),
    (re.compile(r"encoders/[0-9a-f]{64}\.safetensors"), (8 << 30) - 1),
)
MOST_FILES, MOST_BYTES = 100_000, 256 << 30
DEEPEST, LONGEST, LONGEST_NAME = 16, 4000, 400  # of JSON, of its texts, of those that are titles
TITLES = ("method", "shift", "suite", "domain", "group", "submitter", "paper", "code")
MOST_HEADER = 16 << 20  # bytes of what a safetensors file says of its tensors
# What a page or a terminal could take for more than text. Reasons quote errors, such as <class …>.
MARKUP = re.compile(r"<[A-Za-z/!?]|(java|vb)script:|\]\(", re.IGNORECASE)
PATH = re.compile(r"""(?<![^\s'"(=:,])(/[^\s/'"]+(/|(?=['"]))|[A-Za-z]:\\|~/)[^\s'",)]*""")

BLOCK, TAR_RECORD = 512, 10240  # bytes; a tar file is padded to the second
COMPRESSED = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ\x00": "xz",
    b"PK": "zip",
    b"\x28\xb5\x2f\xfd": "zstd",
}
NO_FILES = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"5": "a folder",
    b"6": "a pipe",
    b"S": "a sparse file",
    b"g": "an extended header",
    b"x": "an extended header",
}
SIZES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 2),
    **dict.fromkeys(("I32", "U32", "F32"), 4),
    **dict.fromkeys(("I64", "U64", "F64"), 8),
}  # bytes of a number, by its name in a safetensors file
OF_PREDICTIONS = {"I32": np.dtype("<i4"), "F32": np.dtype("<f4")}

SHA256 = r"^[0-9a-f]{64}$"
Told = TypeVar("Told")


class Malformed(BadInput):
    """The file is not safe to read, or not of the form of a bundle."""


class FileFact(Part):
    sha256: str = Field(pattern=SHA256)
    size: int = Field(ge=0)  # bytes


class Credits(Part):
    """Who submits, and where to read on."""

    submitter: str | None = None
    paper: str | None = Field(None, pattern=r"^https?://[^\s<>\"]+$")
    code: str | None = Field(None, pattern=r"^https?://[^\s<>\"]+$")


def credited(submitter: str | None, paper: str | None, code: str | None) -> Credits:
    """BadInput if an address is none."""
    try:
        return Credits(submitter=submitter, paper=paper, code=code)
    except ValidationError as error:
        fault = error.errors()[0]
        raise BadInput(
            f"--{fault['loc'][0]} {fault['input']!r} is no address such as https://example.org"
        ) from None


class Manifest(Credits):
    schema_version: Literal[1]
    suite: str
    protocol: str
    fingerprint: str  # of the data
    methods: tuple[str, ...]
    files: dict[str, FileFact]  # every file but this one and its signature
    benchbench: str  # the version that wrote it


@dataclass(frozen=True)
class Place:
    """Where something lies in a file, in bytes."""

    start: int
    size: int


@dataclass(frozen=True)
class Bundle:
    """An archive that is safe to read. Nothing is unpacked: files are read in place."""

    path: Path
    file: BinaryIO
    places: Mapping[str, Place]

    def read(self, name: str, most: int | None = None) -> bytes:
        """A file's content, or its first ``most`` bytes."""
        place = self.places[name]
        self.file.seek(place.start)
        return self.file.read(place.size if most is None else min(most, place.size))

    def sha256(self, name: str) -> str:
        place, digest = self.places[name], hashlib.sha256()
        self.file.seek(place.start)
        for start in range(0, place.size, 1 << 20):
            digest.update(self.file.read(min(1 << 20, place.size - start)))
        return digest.hexdigest()


@dataclass(frozen=True)
class TensorFact:
    dtype: str  # as safetensors names it
    shape: tuple[int, ...]
    place: Place  # from the end of the header


@dataclass(frozen=True)
class Submission:
    """What a bundle claims. Whether that is so, `verify` finds out."""

    bundle: Bundle
    manifest: Manifest
    suite: Suite
    records: Mapping[str, Record]  # by the name of the file
    tensors: Mapping[str, Mapping[str, TensorFact]] = field(repr=False)  # of other files, likewise

    def predictions(self, name: str) -> dict[str, np.ndarray]:
        """int32 or float32 [N] by domain, from the file of that name."""
        content, facts = self.bundle.read(name), self.tensors[name]
        base = 8 + int.from_bytes(content[:8], "little")
        return {
            tensor: np.frombuffer(
                content,
                OF_PREDICTIONS[fact.dtype],
                count=fact.shape[0],
                offset=base + fact.place.start,
            )
            for tensor, fact in facts.items()
        }


@contextmanager
def opened(path: Path) -> Iterator[Bundle]:
    """Malformed, before anything of the content is used, if the archive is not safe."""
    try:
        file = path.open("rb")
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None
    with file:
        yield Bundle(path, file, places_of(file))


def places_of(file: BinaryIO) -> dict[str, Place]:
    """Where an archive's files lie. Malformed unless every byte of it but these is as `submit`'s.

    So there are no links, devices, paths, owners, dates, compression or data between the files.
    """
    whole = file.seek(0, os.SEEK_END)
    _check_beginning(file, whole)
    places: dict[str, Place] = {}
    taken: set[str] = set()
    at = 0
    while (header := _block(file, at)).strip(b"\0"):
        name, size, start = _member(file, at, header)
        _check_name(name, size, taken)
        at = -(-(start + size) // BLOCK) * BLOCK
        if at > whole:
            raise Malformed(f"{name} is longer than what is left of the archive: it was cut off")
        file.seek(start + size)
        if file.read(at - start - size).strip(b"\0"):
            raise Malformed(f"there is something between {name} and the file after it")
        places[name] = Place(start, size)
        taken.add(name.lower())
    end = -(-(at + 2 * BLOCK) // TAR_RECORD) * TAR_RECORD
    if whole < end:
        raise Malformed("the end of the archive is missing: it was cut off")
    file.seek(at)
    if whole > end or file.read().strip(b"\0"):
        raise Malformed("there is something after the end of the archive")
    return places


def _check_beginning(file: BinaryIO, whole: int) -> None:
    if whole > MOST_BYTES:
        raise Malformed(f"it has more than {MOST_BYTES >> 30} GB")
    file.seek(0)
    first = file.read(BLOCK)
    for magic, packer in COMPRESSED.items():
        if first.startswith(magic):
            raise Malformed(f"it is compressed by {packer}; a bundle is a plain tar file")
    if first[257:262] != b"ustar":
        raise Malformed("it is no tar file")


def _block(file: BinaryIO, at: int) -> bytes:
    file.seek(at)
    block = file.read(BLOCK)
    if len(block) < BLOCK:
        raise Malformed("the end of the archive is missing: it was cut off")
    return block


def _member(file: BinaryIO, at: int, header: bytes) -> tuple[str, int, int]:
    """The name and size of the file whose header is at ``at``, and where its content starts."""
    start, name = at + BLOCK, header[:100]
    if header[156:157] == b"L":  # a long name has a block of its own, before the header
        name, header, start = _block(file, start), _block(file, start + BLOCK), start + 2 * BLOCK
    text = name.rstrip(b"\0").decode("latin-1")
    if header[156:157] != b"0":
        what = NO_FILES.get(header[156:157], "something else")
        raise Malformed(f"{_shown(text)} is {what}, and no file")
    size = re.match(rb"([0-7]{11})\0", header[124:136])
    file.seek(at)
    if not size or file.read(start - at) != _header(text, int(size[1], 8)):
        raise Malformed(f"the header of {_shown(text)} is not as benchbench submit writes it")
    return text, int(size[1], 8), start


def _header(name: str, size: int) -> bytes:
    """Says nothing of who made the file, and when."""
    return _info(name, size).tobuf(tarfile.GNU_FORMAT, "latin-1")


def _info(name: str, size: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = size
    return info


def _check_name(name: str, size: int, taken: Collection[str]) -> None:
    """``taken`` are lower-case: some file systems know no other names."""
    most = next((most for pattern, most in KINDS if pattern.fullmatch(name)), None)
    if most is None:
        raise Malformed(f"{_shown(name)} is no name of a file in a bundle")
    if size > most:
        raise Malformed(f"{name} has {size:,} bytes; the most is {most:,}")
    if name.lower() in taken:
        raise Malformed(f"it has {name} twice")
    if len(taken) == MOST_FILES:
        raise Malformed(f"it has more than {MOST_FILES:,} files")


def _shown(name: str) -> str:
    """A name of which nothing is known, to be printed."""
    return ascii(name if len(name) <= 80 else f"{name[:80]}…")


def submission_of(bundle: Bundle) -> Submission:
    """What the bundle claims. Malformed if it says something that a bundle cannot say."""
    for name in (MANIFEST, SUITE):
        if name not in bundle.places:
            raise Malformed(f"it has no {name}")
    names = sorted(bundle.places.keys() - {MANIFEST, SIGNATURE, SUITE})
    records = {n: _read(bundle, n, record_of) for n in names if n.endswith(".json")}
    tensors = {n: tensors_of(bundle, n) for n in names if not n.endswith(".json")}
    for name, facts in tensors.items():
        if name.startswith("records/"):
            _check_predictions(name, facts)
    suite = _read(bundle, SUITE, Suite.model_validate_json)
    try:
        suite.methods()
    except BadInput as error:
        raise Malformed(f"{SUITE}: {error}") from None
    manifest = _read(bundle, MANIFEST, Manifest.model_validate_json)
    return Submission(bundle, manifest, suite, records, tensors)


def _read(bundle: Bundle, name: str, validate: Callable[[bytes], Told]) -> Told:
    content = bundle.read(name)
    strict_json(content, name)
    try:
        return validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise Malformed(f"{name}: {place}: {first['msg']}") from None
    except (BadInput, ValueError, RecursionError) as error:
        # a record that was changed; a chain is read as Python is
        raise Malformed(f"{name}: {error}") from None


def strict_json(content: bytes, name: str) -> Any:
    """What the JSON says. Malformed if readers could differ on it, or a text could do harm.

    No key twice, no NaN or infinity, no deep nesting; of texts, no control characters, nothing that
    changes the direction of writing, no markup, no absurd length.
    """

    def once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        table = dict(pairs)
        if len(table) < len(pairs):
            twice, _ = Counter(key for key, _ in pairs).most_common(1)[0]
            raise ValueError(f"it has the key {_shown(twice)} twice")
        return table

    def no_number(text: str) -> NoReturn:
        raise ValueError(f"it has the number {text}")

    def finite(text: str) -> float:
        return float(text) if math.isfinite(float(text)) else no_number(text[:20])

    try:
        value = json.loads(
            content.decode(),
            object_pairs_hook=once_each,
            parse_constant=no_number,
            parse_float=finite,
        )
    except RecursionError:
        raise Malformed(f"{name} is nested deeper than {DEEPEST} levels") from None
    except ValueError as error:
        raise Malformed(f"{name} cannot be read as JSON: {error}") from None
    for key, text in texts_of(value, name):
        check_text(text, key, name)
    return value


def texts_of(value: Any, name: str, key: str = "", depth: int = 0) -> Iterator[tuple[str, str]]:
    """Every text of a JSON value, with the key that it belongs to; keys are texts, too."""
    if depth > DEEPEST:
        raise Malformed(f"{name} is nested deeper than {DEEPEST} levels")
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, list):
        for member in value:
            yield from texts_of(member, name, key, depth + 1)
    elif isinstance(value, dict):
        for inner, member in value.items():
            yield "", inner
            yield from texts_of(member, name, inner, depth + 1)


def check_text(text: str, key: str, name: str) -> None:
    """Malformed if a page or a terminal could do more with it than show it."""
    where = f"{name}: {key}" if key else name
    if len(text) > (LONGEST_NAME if key in TITLES else LONGEST):
        raise Malformed(f"{where} has a text of {len(text):,} characters: {_shown(text)}")
    if not text.isprintable():
        raise Malformed(f"{where} has a character that cannot be printed: {_shown(text)}")
    if key != "reason" and MARKUP.search(text):
        raise Malformed(f"{where} has markup: {_shown(text)}")


def tensors_of(bundle: Bundle, name: str) -> dict[str, TensorFact]:
    """What a safetensors file says of its tensors. Malformed if that is not all there is of it."""
    size = bundle.places[name].size
    length = int.from_bytes(bundle.read(name, 8), "little")
    if size < 8 or length > min(size - 8, MOST_HEADER):
        raise Malformed(f"{name} is no safetensors file: its header is longer than it can be")
    said = strict_json(bundle.read(name, 8 + length)[8:], name)
    if not isinstance(said, dict):
        raise Malformed(f"{name} is no safetensors file: its header is no table")
    facts = {tensor: _tensor(name, tensor, entry) for tensor, entry in said.items()}
    at = 0
    for tensor, fact in sorted(facts.items(), key=lambda item: (item[1].place.start, item[0])):
        if fact.place.start != at:
            raise Malformed(f"{name}: there is a gap or an overlap before tensor {tensor!r}")
        at += fact.place.size
    if at != size - 8 - length:
        raise Malformed(f"{name}: the tensors are not all of the file")
    return facts


def _tensor(name: str, tensor: str, entry: Any) -> TensorFact:
    fault = Malformed(f"{name}: what is said of tensor {tensor!r} cannot be")
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise fault
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    numbers = [shape, offsets] if isinstance(shape, list) and isinstance(offsets, list) else [[-1]]
    if any(type(n) is not int or n < 0 for group in numbers for n in group):
        raise fault
    if not isinstance(dtype, str) or dtype not in SIZES or len(offsets) != 2 or len(shape) > 8:
        raise fault
    size = offsets[1] - offsets[0]
    if size != math.prod(shape) * SIZES[dtype]:
        raise fault
    return TensorFact(dtype, tuple(shape), Place(offsets[0], size))


def _check_predictions(name: str, facts: Mapping[str, TensorFact]) -> None:
    for tensor, fact in facts.items():
        if fact.dtype not in OF_PREDICTIONS or len(fact.shape) != 1:
            raise Malformed(f"{name}: tensor {tensor!r} is no row of int32 or float32")


def write_bundle(
    out: Path,
    suite: Suite,
    records: Sequence[Record],
    store: Store,
    credits: Credits,
    *,
    encoders: bool = True,
    key: Path | None = None,
) -> Manifest:
    """Write some methods' records as a bundle, complete or not at all.

    The suite's methods are those that are submitted. ``key`` is of SSH, and signs the manifest.
    BadInput if predictions or encoders are not in the store, or something names a path.
    """
    partial = out.with_name(f".{out.name}.{uuid4().hex}.part")
    files: dict[str, FileFact] = {}
    try:
        with tarfile.open(partial, "w", format=tarfile.GNU_FORMAT) as tar:
            for name, content in _contents(suite, records, store, encoders):
                files[name] = FileFact(
                    sha256=hashlib.sha256(content).hexdigest(), size=len(content)
                )
                _add(tar, name, content)
            manifest = Manifest(
                schema_version=1,
                suite=suite.name,
                protocol=suite.protocol,
                fingerprint=records[0].data.fingerprint,
                methods=tuple(method.name for method in suite.methods()),
                files=files,
                benchbench=version("benchbench-shift"),
                **credits.model_dump(),
            )
            said = _json(manifest)
            _add(tar, MANIFEST, said)
            if key:
                _add(tar, SIGNATURE, signed(said, key))
        with opened(partial) as bundle:
            submission_of(bundle)  # a name may be one that no board takes
        partial.replace(out)
    except OSError as error:
        raise BadInput(f"{out} cannot be written: {error.strerror}") from None
    finally:
        partial.unlink(missing_ok=True)
    return manifest


def _contents(
    suite: Suite, records: Sequence[Record], store: Store, encoders: bool
) -> Iterator[tuple[str, bytes]]:
    yield SUITE, _open_to_all(_json(suite), SUITE)
    done: set[str] = set()
    for record in sorted(records, key=lambda record: record.file_name):
        name = f"records/{record.file_name}"
        yield name, _open_to_all(_without_paths(record).text().encode(), name)
        if not record.artifacts:
            continue
        beside = store.records(record.suite) / Path(record.file_name).with_suffix(".safetensors")
        yield f"records/{beside.name}", _predictions(record, beside)
        for step in steps_of(record) if encoders and record.artifacts.stages else ():
            if (named := encoder_name(record, step)) not in done:
                done.add(named)
                yield named, _encoder(record, step, store)


def steps_of(record: Record) -> tuple[int | None, ...]:
    """The states that were read off: the end, and after which steps."""
    return None, *(snapshot.step for snapshot in record.snapshots)


def encoder_name(record: Record, step: int | None = None) -> str:
    """Of the file with what the last stage left, or with a snapshot of it.

    Ask records of a chain only.
    """
    assert record.artifacts is not None, "a record without a score has no encoder"
    key = record.artifacts.stages[-1]
    return f"encoders/{key if step is None else snapshot_key(key, step)}.safetensors"


def _predictions(record: Record, path: Path) -> bytes:
    """BadInput if they are not those that the record was scored by."""
    assert record.artifacts is not None, "only scored records have predictions"
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None
    if hashlib.sha256(content).hexdigest() != record.artifacts.predictions_sha256:
        raise BadInput(f"{path} holds other predictions than its record says")
    return content


def _encoder(record: Record, step: int | None, store: Store) -> bytes:
    """The tensors without a note: the file's sha256 is what the record says of the encoder."""
    assert record.artifacts is not None, "only scored records have an encoder"
    key, known = record.artifacts.stages[-1], record.artifacts.encoder_sha256
    if step is None:
        kept = store.read("stages", key)
    else:
        kept = store.read("snapshots", snapshot_key(key, step))
    if kept is None or (step is None and kept.sha256 != known):
        raise BadInput(
            f"store {store.root} has no longer what {record.method} · {record.shift} · seed "
            f"{record.seeds.train} was read off from; run it again, or submit --no-encoders"
        )
    return packed(kept.tensors)


def _without_paths(record: Record) -> Record:
    """With a reason, if it has one, that names no folder of the machine."""
    return record.model_copy(update={"reason": record.reason and PATH.sub("…", record.reason)})


def _open_to_all(content: bytes, name: str) -> bytes:
    """BadInput if the JSON names a place on somebody's machine."""
    for key, text in texts_of(json.loads(content), name):
        if found := PATH.search(text):
            raise BadInput(f"{name}: {key} names {found[0]!r}; name a path that starts at --data")
    return content


def _json(said: BaseModel) -> bytes:
    fields = said.model_dump(mode="json", exclude_none=True)
    return (json.dumps(fields, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    tar.addfile(_info(name, len(content)), io.BytesIO(content))


def narrowed(suite: Suite, names: Sequence[str]) -> Suite:
    """The suite with these of its methods only, each in a table of its own.

    BadInput if it has none of a name.
    """
    known = [method.name for method in suite.methods()]
    for name in names:
        if name not in known:
            raise BadInput(f"suite {suite.name} has no method {name!r}; {instead(name, known)}")
    tables: list[MethodTable] = []
    for table in suite.method:
        alone = suite.model_copy(update={"method": (table,), "baseline": None})
        tables += [
            table.model_copy(update={"name": method.name, "readout": (method.readout,)})
            for method in alone.methods()
            if method.name in names
        ]
    baseline = suite.baseline if suite.baseline in names else None
    return suite.model_copy(update={"method": tuple(tables), "baseline": baseline})


def signed(content: bytes, key: Path) -> bytes:
    """A signature by ssh-keygen. BadInput if it cannot sign."""
    words = ("-Y", "sign", "-n", NAMESPACE, "-f", str(key))
    done = ssh_keygen(*words, said=content)
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise BadInput(f"--sign {key}: ssh-keygen does not sign: {reason}")
    return done.stdout


def ssh_keygen(*words: str, said: bytes) -> "subprocess.CompletedProcess[bytes]":
    """BadInput if this machine has none."""
    try:
        return subprocess.run(["ssh-keygen", *words], input=said, capture_output=True)  # noqa: S603, S607
    except FileNotFoundError:
        raise BadInput("ssh-keygen, which signs, is not on this machine; install OpenSSH") from None
