"""What a store holds, whether it is intact, and what of it no record needs."""

import hashlib
import os
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import BaseModel

from benchbench.data.preparation import opened, pixels_in
from benchbench.diagnostics.geometry import diagnostics_key
from benchbench.evaluation.criteria import common_key
from benchbench.extension.contracts import Task
from benchbench.extension.errors import BadInput
from benchbench.store.artifacts import Store, artifact_of
from benchbench.store.keys import first_key, snapshot_key
from benchbench.store.records import read_record, unsealed, why_none
from benchbench.suites.plan import Plan, versions_of
from benchbench.suites.shift_features import every_key
from benchbench.suites.suite import Cell

KINDS = {  # of artifacts, and what they are
    "stages": "encoders and objectives at the end of a stage",
    "snapshots": "the same, earlier in it",
    "features": "of the rows of a domain",
    "diagnostics": "of features",
    "checkpoints": "stages that are not over",
    "diverged": "words on stages that had no end",
    "connectivity": "of domains under augmentations",
    "pseudo": "labels that nobody gave",
    "packs": "datasets, decoded",
    "summaries": "of records, as they were last told",
}
CLEANED = ("stages", "snapshots", "features", "diagnostics", "checkpoints")
ENDS = (".safetensors", ".safetensors.damaged")


def existing(root: Path) -> Store:
    """The store in a folder; BadInput if there is none."""
    if not root.is_dir():
        raise BadInput(f"there is no store {root}; say --store FOLDER, or run a suite first")
    return Store(root)


def entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """The files of a folder, in no order; none where there is no folder."""
    with suppress(FileNotFoundError), os.scandir(folder) as found:
        yield from (entry for entry in found if entry.is_file(follow_symlinks=False))


def folders(folder: Path) -> list[Path]:
    with suppress(FileNotFoundError), os.scandir(folder) as found:
        return sorted(Path(entry) for entry in found if entry.is_dir(follow_symlinks=False))
    return []


# Sizes


def sizes(store: Store) -> dict[str, tuple[int, int]]:
    """Files and bytes of every folder of the store, with all that is below it."""
    return {folder.name: size_below(folder) for folder in folders(store.root)}


def size_below(folder: Path) -> tuple[int, int]:
    count = total = 0
    for entry in entries(folder):
        with suppress(FileNotFoundError):  # of a process that was quicker
            total += entry.stat().st_size
            count += 1
    for below in folders(folder):
        more, bigger = size_below(below)
        count, total = count + more, total + bigger
    return count, total


# Whether it is intact


def faults(
    store: Store, report: Callable[[int, int], None], *, set_aside: bool = False
) -> Iterator[str]:
    """A sentence for every artifact, record and file of predictions that is not as it was written.

    ``report`` is told bytes: read so far, and in all. With ``set_aside`` damaged artifacts, and
    nothing else, are moved aside as `Store.read` does, so that they are made anew.
    """
    artifacts = [(kind, Path(e)) for kind in KINDS for e in entries(store.root / kind)]
    artifacts = sorted(pair for pair in artifacts if pair[1].suffix == ".safetensors")
    records = sorted(p for f in folders(store.root / "records") for p in f.glob("*.json"))
    paths = [path for _, path in artifacts] + [p.with_suffix(".safetensors") for p in records]
    total, done = sum(map(size_of, paths)), 0
    for kind, path in artifacts:
        done += size_of(path)
        if fault := fault_of_artifact(path):
            if set_aside and set_aside_by(store, kind, path):
                fault += "; set aside, and made anew when it is needed"
            yield fault
        report(done, total)
    for path in records:
        done += size_of(path.with_suffix(".safetensors"))
        if fault := fault_of_record(path):
            yield fault
        report(done, total)


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def fault_of_artifact(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return f"{path} is damaged" if artifact_of(file) is None else None
    except FileNotFoundError:  # removed meanwhile
        return None
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"


def set_aside_by(store: Store, kind: str, path: Path) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the caller tells
        try:
            return store.read(kind, path.stem) is None
        except OSError:
            return False


def fault_of_record(path: Path) -> str | None:
    try:
        record = read_record(path)
    except BadInput as error:
        return str(error)
    if record.artifacts is None:
        return None
    predictions = path.with_suffix(".safetensors")
    try:
        digest = hashlib.sha256(predictions.read_bytes()).hexdigest()
    except OSError as error:
        return f"{predictions} cannot be read: {error.strerror}"
    if digest != record.artifacts.predictions_sha256:
        return f"{predictions} does not hold the predictions that its record names"
    return None


# What records need


class Told(BaseModel):
    """A part of what `Needs` reads; all else of a record is skipped, which is four times faster."""


class _Artifacts(Told):
    stages: tuple[str, ...]


class _Snapshot(Told):
    step: int


class _Data(Told):
    fingerprint: str
    sources: tuple[str, ...]
    targets: tuple[str, ...]


class _Spec(Told):
    encoder: str
    labels: str
    weights_sha256: str | None = None


class _Seeds(Told):
    train: int


class _Plugin(Told):
    digest: str
    used: tuple[str, ...]


class _Environment(Told):
    packages: dict[str, str]


class Needs(Told):
    """What of a record says which artifacts it rests on."""

    artifacts: _Artifacts | None
    snapshots: tuple[_Snapshot, ...] = ()
    data: _Data
    spec: _Spec
    seeds: _Seeds
    protocol: str
    plugins: tuple[_Plugin, ...]
    environment: _Environment

    def first_key(self, task: Mapping[str, object], versions: Mapping[str, str]) -> str | None:
        """That of the encoder before any stage, as `Plan` makes it; None if its plugin is unnamed.

        No record names it, though the features of a random encoder are under it. ``versions`` are
        today's, which stand for those that the record does not name.
        """
        used = f"encoder {self.spec.encoder.partition('(')[0]}"
        digest = next((p.digest for p in self.plugins if used in p.used), None)
        if digest is None:
            return None
        versions = {n: self.environment.packages.get(n, v) for n, v in versions.items()}
        encoder = (self.spec.encoder, digest)
        weights = self.spec.weights_sha256
        return first_key(encoder, task, self.seeds.train, self.protocol, versions, weights)


def all_needs(store: Store) -> Iterator[Needs]:
    """Of every record. BadInput if one cannot be read: then nobody knows what it needs."""
    for folder in folders(store.root / "records"):
        for entry in entries(folder):
            if not entry.name.endswith(".json"):
                continue
            try:
                content = Path(entry).read_bytes()
                yield Needs.model_validate_json(unsealed(content))
            except ValueError as error:
                raise BadInput(
                    f"{entry.path} is not a record: {why_none(error)}; what it needs is unknown, "
                    "and nothing is removed"
                ) from None
            except OSError as error:
                raise BadInput(f"{entry.path} cannot be read: {error.strerror}") from None


def tasks_of(store: Store) -> dict[str, Task]:
    """What the store's packs let an encoder know, by their fingerprints."""
    found = {}
    for entry in entries(store.root / "packs"):
        if not entry.name.endswith(ENDS[0]):
            continue
        with Path(entry).open("rb") as file:
            kept = artifact_of(file)
        if kept is None or not (place := pixels_in(store) / kept.note["pixels"]).exists():
            continue
        note = kept.note
        found[note["fingerprint"]] = Task(
            tuple(opened(place).shape[1:]),
            len(note["class_names"]),
            len(note["domain_names"]),
            tuple(note.get("vocabulary", ())),
        )
    return found


# An encoder, data, and the domains on each side
OfShift = tuple[str, str, tuple[str, ...], tuple[str, ...]]


def needed(store: Store) -> dict[str, Set[str]]:
    """The keys that records rest on, by kind.

    Of a record: the stages of its chain and its snapshots; features of all of these, and of the
    encoder before them, on its domains; its diagnostics, and what validators took from its
    features and its snapshots'. An unfinished stage is needed where a record names a stage that is
    not here. A record without scores needs nothing.
    """
    tasks = {data: (asdict(task), versions_of(task)) for data, task in tasks_of(store).items()}
    stages: set[str] = set()
    snapshots: set[str] = set()
    features: set[OfShift] = set()
    diagnostics: set[OfShift] = set()
    common: set[OfShift] = set()
    for one in all_needs(store):
        if one.artifacts is None:
            continue
        chain, data = one.artifacts.stages, one.data
        stages.update(chain)
        task = tasks.get(data.fingerprint)
        first = one.first_key(*task) if task else None
        earlier = [snapshot_key(chain[-1], snapshot.step) for snapshot in one.snapshots]
        snapshots.update(earlier)
        encoders = [*chain, *([first] if first else []), *earlier]
        features.update((key, data.fingerprint, data.sources, data.targets) for key in encoders)
        if encoders:
            end = chain[-1] if chain else encoders[0]
            diagnostics.add((end, data.fingerprint, data.sources, data.targets))
            labelled = data.sources if one.spec.labels == "source" else data.targets
            common.update(
                (state, data.fingerprint, labelled, data.targets) for state in (end, *earlier)
            )
    here = {entry.name.removesuffix(ENDS[0]) for entry in entries(store.root / "stages")}
    return {
        "stages": stages,
        "snapshots": snapshots,
        "features": {
            key for encoder, data, *sides in features for key in every_key(encoder, sides, data)
        },
        "diagnostics": {diagnostics_key(*one) for one in diagnostics}
        | {common_key(*one) for one in common},
        "checkpoints": stages - here,
    }


# What none needs


@dataclass(frozen=True)
class Piece:
    """A file that no record needs."""

    kind: str
    path: Path
    size: int  # bytes
    age: float  # seconds since it was written

    @property
    def key(self) -> str:
        return self.path.name.partition(".")[0]


@dataclass
class Sorted:
    """Files that no record needs, by what becomes of them."""

    waste: list[Piece] = field(default_factory=list)
    young: list[Piece] = field(default_factory=list)  # a suite may be about to need it
    busy: list[Piece] = field(default_factory=list)  # a living process may be


def unneeded(store: Store) -> Iterator[Piece]:
    """What no record needs of the kinds that are `CLEANED`, and files that were set aside.

    Never records and predictions. Nor what no record could name and is dear to make again, or
    tiny: packs, connectivity, pseudo-labels, and the word that a stage diverged.
    """
    keys, now = needed(store), time.time()
    for kind in KINDS:
        for entry in entries(store.root / kind):
            intact, damaged = (entry.name.endswith(end) for end in ENDS)
            known = kind not in CLEANED or entry.name.removesuffix(ENDS[0]) in keys[kind]
            if damaged or (intact and not known):
                with suppress(FileNotFoundError):
                    told = entry.stat()
                    yield Piece(kind, Path(entry), told.st_size, now - told.st_mtime)


def sorted_out(store: Store, older_than: float, living: Set[str]) -> Sorted:
    """What can go of what no record needs: nothing younger than ``older_than`` seconds.

    Nor what one of the ``living`` claims is of. While there is one, stages and snapshots stay: its
    cell may have begun with any of them.
    """
    found = Sorted()
    for piece in unneeded(store):
        if piece.key in living or (living and piece.kind in ("stages", "snapshots")):
            found.busy.append(piece)
        elif piece.age < older_than:
            found.young.append(piece)
        else:
            found.waste.append(piece)
    return found


def clean(store: Store, older_than: float) -> Sorted:
    """Remove what `sorted_out` says can go; meanwhile nobody starts anything in this store.

    Whenever it is stopped, all that records need is there. BadInput if a record cannot be read or
    a file not removed.
    """
    with store.claims.paused() as living:
        found = sorted_out(store, older_than, living.keys())
        for piece in found.waste:
            piece.path.unlink(missing_ok=True)
    return found


# What moves to another machine


def files_of(plan: Plan, cells: Iterable[Cell], *, records_only: bool) -> list[Path]:
    """What the store has of some cells: records with predictions, and all that was trained."""
    store, paths = plan.store, set()
    for cell in cells:
        record = store.records(plan.suite.name) / f"{plan.stem(cell)}.json"
        paths |= {record, record.with_suffix(".safetensors")}
        for link in [] if records_only else plan.links(cell):
            paths |= {store.root / k / f"{link.key}.safetensors" for k in ("stages", "diverged")}
            keys = map(link.snapshot_key, link.snapshots)
            paths |= {store.root / "snapshots" / f"{key}.safetensors" for key in keys}
    return sorted(path for path in paths if path.exists())
