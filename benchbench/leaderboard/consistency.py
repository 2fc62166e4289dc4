"""What a bundle and a board contradict, as far as no plugin is needed to know it."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from benchbench.evaluation import metrics
from benchbench.extension.errors import BadInput
from benchbench.extension.grammar import parse, split_pipeline
from benchbench.leaderboard.bundle import (
    MANIFEST,
    SIGNATURE,
    SUITE,
    Submission,
    encoder_name,
    steps_of,
)
from benchbench.leaderboard.true_labels import NAME, Truth
from benchbench.store.records import (
    Data,
    Record,
    Score,
    StageSpec,
    Unseen,
    prediction_name,
    read_records,
)
from benchbench.suites.suite import Cell, Method, Shift, Stage, Suite

EXACT, ROUNDED = 1e-9, 1e-6  # of float64, and of what is a mean of float32
FEW = 5  # mistakes that two seeds may have in common and no others
FAR_ABOVE = 0.1  # by which a target above its source is worth a look
ABOVE = 0.01  # what may be chance
CLASSES_OR_NUMBERS = {True: np.dtype(np.int32), False: np.dtype(np.float32)}


class Finding(NamedTuple):
    """A problem refuses the bundle, a flag asks for a person to look, a note tells."""

    kind: Literal["problem", "flag", "note"]
    text: str
    method: str = ""


@dataclass(frozen=True)
class Board:
    """A folder with ``suite.toml``, ``truth.safetensors`` and ``records``."""

    folder: Path
    suite: Suite
    truth: Truth
    records: tuple[Record, ...]

    @classmethod
    def read(cls, folder: Path) -> "Board":
        """BadInput if the folder is no board, or one without truth."""
        suite, truth = Suite.read(str(folder / "suite.toml")), Truth.read(folder / NAME)
        return cls(folder, suite, truth, tuple(read_records(folder / "records")))

    @property
    def domain_names(self) -> tuple[str, ...]:
        return tuple(self.truth.labels)


def inconsistencies(submission: Submission, board: Board) -> list[Finding]:
    """What a bundle and a board contradict, and what about it is implausible.

    What is compared first has to hold for the rest to mean anything.
    """
    for check in (_files, _suites, _cells, _records, _copied):
        if texts := list(check(submission, board)):
            return [Finding("problem", text) for text in texts]
    return list(_implausible(submission, board))


def _files(submission: Submission, board: Board) -> Iterator[str]:
    """Files that are not what the manifest says."""
    bundle, said = submission.bundle, submission.manifest.files
    there = bundle.places.keys() - {MANIFEST, SIGNATURE}
    for name in sorted(there - said.keys()):
        yield f"{name} is not in {MANIFEST}"
    for name in sorted(said.keys() - there):
        yield f"{name[:80]} is in {MANIFEST}, and not in the bundle"
    for name in sorted(said.keys() & there):
        if bundle.places[name].size != said[name].size:
            yield f"{name} has another size than {MANIFEST} says"
        elif bundle.sha256(name) != said[name].sha256:
            yield f"{name} has another sha256 than {MANIFEST} says"


def _suites(submission: Submission, board: Board) -> Iterator[str]:
    """Where the bundle is of another suite or of other data than the board."""
    manifest, suite = submission.manifest, submission.suite
    mine, theirs = suite.model_dump(mode="json"), board.suite.model_dump(mode="json")
    for name in sorted(mine.keys() - {"method", "baseline"}):
        if mine[name] != theirs[name]:
            yield f"{SUITE}: {name} is {_short(mine[name])}, and the board's {_short(theirs[name])}"
    methods = {method.name: method for method in suite.methods()}
    said = (manifest.suite, manifest.protocol, manifest.methods)
    if said != (suite.name, suite.protocol, tuple(methods)):
        yield f"{MANIFEST} names another suite, protocol or methods than {SUITE}"
    if manifest.fingerprint != board.truth.fingerprint:
        yield (
            f"it is of data with fingerprint {manifest.fingerprint[:12]}, and the board of "
            f"{board.truth.fingerprint[:12]}"
        )
    for method in board.suite.methods():
        if method.name in methods and methods[method.name] != method:
            yield f"method {method.name} is another than the board's suite has under this name"


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


Key = tuple[str, str, int, int]  # method, shift, seed, draw


def _key_of(record: Record) -> Key:
    return record.method, record.shift, record.seeds.train, record.draw


def cells_of(suite: Suite, domain_names: Sequence[str]) -> dict[Key, Cell]:
    """What the suite asks for. BadInput if its shifts are not of these domains."""
    cells = suite.cells(suite.named_domains or domain_names)
    return {(c.method.name, str(c.shift), c.seed, c.draw): c for c in cells}


def _cells(submission: Submission, board: Board) -> Iterator[str]:
    """Cells that are missing, doubled or not of the suite; files that belong to none."""
    try:
        wanted = cells_of(submission.suite, board.domain_names)
    except BadInput as error:
        yield f"{SUITE}: {error}"
        return
    found: dict[Key, str] = {}
    belongs = {SUITE}
    for name, record in submission.records.items():
        key, cell = _key_of(record), record.cell
        if name != f"records/{record.file_name}":
            yield f"{name} is of {cell}, and should be named {record.file_name}"
        if key not in wanted:
            yield f"{name} is of {cell}, which the suite does not ask for"
        if key in found:
            yield f"{name} and {found[key]} are both of {cell}"
        found[key] = name
        belongs |= {name, *_beside(name, record)}
    for cell_asked in (cell for key, cell in wanted.items() if key not in found):
        yield f"there is no record of {cell_asked}"
    for name in sorted(submission.manifest.files.keys() - belongs):
        yield f"{name} belongs to no record"


def _beside(name: str, record: Record) -> Iterator[str]:
    """The files that a record may have beside it."""
    if record.artifacts:
        yield predictions_name(name)
        if record.artifacts.stages:
            yield from (encoder_name(record, step) for step in steps_of(record))


def predictions_name(name: str) -> str:
    """Of the file with the predictions of the record in a file of that name."""
    return name.removesuffix(".json") + ".safetensors"


def _records(submission: Submission, board: Board) -> Iterator[str]:
    """What records say that the suite, their files or the truth contradict."""
    wanted = cells_of(submission.suite, board.domain_names)
    for name, record in submission.records.items():
        cell = wanted[_key_of(record)]
        for text in (
            *_foreign(record, cell, submission.suite, board.truth),
            *_misspelt(record, cell.method, cell.draw, cell.shift),
            *_other_snapshots(record, cell.method, submission.suite),
            *_unfounded(submission, name, record),
            *_wrong_scores(submission, name, record, board.truth),
        ):
            yield f"{name}: {text}"


def _foreign(record: Record, cell: Cell, suite: Suite, truth: Truth) -> Iterator[str]:
    """Where a record is of another suite, protocol, shift or data."""
    data, seeds = record.data, record.seeds
    for what, said, wanted in (
        ("suite", record.suite, suite.name),
        ("protocol", record.protocol, suite.protocol),
        ("data fingerprint", data.fingerprint, truth.fingerprint),
        ("metric", data.metric, truth.metric),
        ("sources", data.sources, cell.shift.sources),
        ("targets", data.targets, cell.shift.targets),
        ("split seed", seeds.split, suite.split_seed),
        ("seed of draws", seeds.hparams, suite.tune.seed),
    ):
        if said != wanted:
            yield f"its {what} is {_short(said)}, not {_short(wanted)}"
    if data.unseen is not None and data.unseen != (true := _counted(data, truth)):
        said, wanted = (_short(u.model_dump() if u else None) for u in (data.unseen, true))
        yield f"its unseen is {said}, and the labels of test rows give {wanted}"
    if not alike(suite.dataset, data.dataset):
        yield f"its dataset is {_short(data.dataset)}, not {_short(suite.dataset)}"
    if suite.precision not in ("auto", record.spec.precision):
        yield f"its precision is {record.spec.precision}, not {suite.precision}"


def _counted(data: Data, truth: Truth) -> Unseen | None:
    """The classes that a record's data call unseen, counted in the truth."""
    mine = [truth.labels[name] for name in data.targets if name in truth.labels]
    if data.unseen is None or not truth.class_names or not mine:
        return None
    labels = np.concatenate(mine)
    tests = np.bincount(labels[labels >= 0], minlength=len(truth.class_names))
    counts = dict(zip(truth.class_names, tests.tolist(), strict=True))
    return Unseen(
        classes={name: counts.get(name, 0) for name in data.unseen.classes},
        n_classes=int((tests > 0).sum()),
        n=int(tests.sum()),
    )


def _misspelt(record: Record, method: Method, draw: int, shift: Shift) -> Iterator[str]:
    """Where a record did something else than the suite asks, as far as plugins need not say."""
    spec = record.spec
    if spec.labels != method.labels:
        yield f"it was given labels of the {spec.labels}, not of the {method.labels}"
    for what, asked, done in (
        ("encoder", method.encoder, spec.encoder),
        ("readout", method.readout, spec.readout),
    ):
        if not alike(asked, done):
            yield f"its {what} is {_short(done)}, not {_short(asked)}"
    if len(spec.chain) != len(method.chain):
        yield f"its chain has {len(spec.chain)} stages, not {len(method.chain)}"
        return
    for depth, stage in enumerate(method.chain):
        for text in _misspelt_stage(stage, spec.chain[depth], draw, shift):
            yield f"stage {depth}: {text}"


def _other_snapshots(record: Record, method: Method, suite: Suite) -> Iterator[str]:
    steps, parts = method.chain[-1].budget.steps if method.chain else 0, suite.snapshots
    wanted = sorted({steps * part // parts for part in range(1, parts)} - {0})
    said = [snapshot.step for snapshot in record.snapshots]
    if record.status == "scored" and said != wanted:
        yield f"its snapshots are of steps {_short(said)}, not {_short(wanted)}"


def _misspelt_stage(stage: Stage, done: StageSpec, draw: int, shift: Shift) -> Iterator[str]:
    """A draw decides the learning rate and options; all else is the suite's."""
    for name, wanted in {**asdict(stage.budget), "sees": stage.sees}.items():
        said = getattr(done, name)
        if said != wanted and not (draw and name == "lr"):
            yield f"its {name} is {_short(said)}, not {_short(wanted)}"
    if not alike(stage.objective, done.objective):
        yield f"its objective is {_short(done.objective)}, not {_short(stage.objective)}"
    for kind, text in (("augmentation", done.augmentation), ("weak", done.weak)):
        asked = getattr(stage, kind)
        if text not in (None, "none") and not alike_in_turn(asked, text):
            yield f"its {kind} is {_short(text)}, not {_short(asked)}"
    if done.small is not None and not alike_in_turn(stage.small or "none", done.small):
        yield f"its small is {_short(done.small)}, not {_short(stage.small)}"
    seen = set(done.domains)
    named = set(shift.seen(stage.sees, tuple({*shift.sources, *shift.targets})))
    if seen != named if stage.sees != "all" else not named <= seen:
        yield f"it saw {', '.join(sorted(seen)) or 'no domain'}, not {', '.join(sorted(named))}"


def alike(asked: str, done: str) -> bool:
    """Whether ``done``, with every option written out, may be what ``asked`` spells with some."""
    try:
        (name, chosen), (other, options) = parse(asked), parse(done)
    except (BadInput, RecursionError):
        return False
    plain = {option: _plain(value) for option, value in options.items()}
    return name == other and all(
        option in plain and plain[option] == _plain(value) for option, value in chosen.items()
    )


def alike_in_turn(asked: str, done: str) -> bool:
    """The same of the steps of a pipeline."""
    try:
        steps, others = split_pipeline(asked), split_pipeline(done)
    except (BadInput, RecursionError):
        return False
    return len(steps) == len(others) and all(map(alike, steps, others))


def _plain(value: Any) -> Any:
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


def _unfounded(submission: Submission, name: str, record: Record) -> Iterator[str]:
    """Files of the record that are missing or others, and what does not go with its status."""
    kept = record.artifacts
    scored = record.status == "scored"
    if not re.fullmatch("[0-9a-f]{64}", record.cell_id):
        yield "its cell_id is no sha256"
    if (scored, scored, scored) != (kept is not None, bool(record.scores), record.cost is not None):
        yield f"it is {record.status}, and should have scores, files and a cost if it is scored"
    if kept is None:
        return
    if len(kept.stages) != len(record.spec.chain):
        yield f"it has {len(record.spec.chain)} stages, and the files of {len(kept.stages)}"
    if bool(kept.stages) != (kept.encoder_sha256 is not None):
        yield "its encoder has a sha256 without a stage, or a stage without a sha256"
    files = submission.manifest.files
    beside = predictions_name(name)
    if beside not in files:
        yield "its predictions are missing"
    elif files[beside].sha256 != kept.predictions_sha256:
        yield "its predictions are others than it says"
    encoder = files.get(encoder_name(record)) if kept.stages else None
    if encoder and encoder.sha256 != kept.encoder_sha256:
        yield "its encoder is another than it says"


def _wrong_scores(submission: Submission, name: str, record: Record, truth: Truth) -> Iterator[str]:
    if record.artifacts is not None and predictions_name(name) in submission.tensors:
        yield from wrong_scores(record, submission.predictions(predictions_name(name)), truth)


def wrong_scores(
    record: Record, predictions: Mapping[str, np.ndarray], truth: Truth
) -> Iterator[str]:
    """Scores that are not those of the predictions in the file beside the record."""
    states: list[tuple[int | None, Sequence[Score]]] = [(None, record.scores)]
    states += [(snapshot.step, snapshot.scores) for snapshot in record.snapshots]
    domains = (*record.data.sources, *record.data.targets)
    named = {prediction_name(d, step): d for step, _ in states for d in domains}
    if predictions.keys() != named.keys():
        yield f"its predictions are of {_short(sorted(predictions))}, not of {_short([*named])}"
        return
    if faults := [*_impossible(predictions, named, truth)]:
        yield from faults
        return
    for step, said in states:
        where = "" if step is None else f"after step {step}, "
        found = rescored(record, predictions, truth, step)
        for text in _differences(said, found):
            yield where + text


def _impossible(
    predictions: Mapping[str, np.ndarray], named: Mapping[str, str], truth: Truth
) -> Iterator[str]:
    """Predictions that are of other rows, or of no class."""
    classes = len(truth.class_names)
    for name, values in predictions.items():
        rows = len(truth.labels.get(named[name], ()))
        if len(values) != rows:
            yield f"there are {len(values)} predictions on {name}, which has {rows} test rows"
        elif values.dtype != CLASSES_OR_NUMBERS[bool(classes)]:
            yield f"the predictions on {name} are {values.dtype}"
        elif classes and rows and not (values.min() >= 0 and values.max() < classes):
            yield f"a prediction on {name} is of no class"
        elif not np.isfinite(values).all():
            yield f"a prediction on {name} is not finite"


def rescored(
    record: Record, predictions: Mapping[str, np.ndarray], truth: Truth, step: int | None = None
) -> list[Score]:
    """The scores that predictions have, by the protocol; see `benchbench.execution.cell.score`."""
    scores: list[Score] = []
    sides: tuple[tuple[Literal["source", "target"], tuple[str, ...]], ...] = (
        ("source", record.data.sources),
        ("target", record.data.targets),
    )
    for role, domain in ((role, domain) for role, domains in sides for domain in domains):
        if domain not in truth.labels:
            continue
        found = metrics.score_of(
            domain,
            role,
            torch.from_numpy(predictions[prediction_name(domain, step)].copy()),
            torch.from_numpy(truth.labels[domain]),
            torch.from_numpy(truth.groups[domain]) if truth.groups else None,
            truth.metric,
            truth.class_names,
            truth.group_names,
        )
        scores += [found] if found else []
    return scores


def known_rows(truth: Truth, domain: str) -> Tensor:
    """int64 indices of the test rows of a domain whose label is known."""
    labels = truth.labels.get(domain, np.empty(0))
    known = labels >= 0 if truth.class_names else np.isfinite(labels)
    return torch.from_numpy(np.flatnonzero(known))


def _differences(said: Sequence[Score], found: Sequence[Score]) -> Iterator[str]:
    """Where scores are not those that were computed again."""
    if [(s.domain, s.role) for s in said] != [(s.domain, s.role) for s in found]:
        yield "its scores are not of the domains of its shift"
        return
    for score, again in zip(said, found, strict=True):
        whole = (
            score if score.value is not None else score.model_copy(update={"value": score.accuracy})
        )
        for name in ("n", "accuracy", "per_class_mean", "value"):
            mine, theirs = getattr(whole, name), getattr(again, name)
            if not _close(mine, theirs, ROUNDED if name == "per_class_mean" else EXACT):
                yield f"its {name} on {score.domain} is {mine}, and its predictions give {theirs}"
        groups = [(g.group, g.n) for g in score.groups]
        if groups != [(g.group, g.n) for g in again.groups]:
            yield f"its groups on {score.domain} are others than those of the rows"
            continue
        for group, other in zip(score.groups, again.groups, strict=True):
            if not _close(group.value, other.value, EXACT):
                yield (
                    f"its value on {score.domain}, group {group.group}, is {group.value}, and its "
                    f"predictions give {other.value}"
                )


def _close(a: float | None, b: float | None, tolerance: float) -> bool:
    return a == b if a is None or b is None else abs(a - b) <= tolerance


def _copied(submission: Submission, board: Board) -> Iterator[str]:
    """Seeds of one trained method that cannot have been trained apart."""
    seen: dict[tuple[object, ...], str] = {}
    for name, record in submission.records.items():
        if record.artifacts is None or not record.spec.chain:
            continue
        end = _end_of(submission, name)
        digest = hashlib.sha256(b"".join(values.tobytes() for values in end.values())).hexdigest()
        cell = (record.method, record.shift, record.draw)
        other = seen.setdefault((*cell, "encoder", record.artifacts.encoder_sha256), name)
        if other != name:
            yield f"{name} and {other} are of two seeds, and have the same encoder"
        other = seen.setdefault((*cell, "predictions", digest), name)
        if other != name and not _by_chance(end, board.truth):
            yield f"{name} and {other} are of two seeds, and have the same predictions"


def _end_of(submission: Submission, name: str) -> dict[str, np.ndarray]:
    """A scored record's predictions by domain, without those of snapshots."""
    data = submission.records[name].data
    predictions = submission.predictions(predictions_name(name))
    return {domain: predictions[domain] for domain in (*data.sources, *data.targets)}


def _by_chance(predictions: Mapping[str, np.ndarray], truth: Truth) -> bool:
    """Whether two trained encoders may predict so alike: hardly a mistake, or always one class."""
    mistakes = 0
    for domain, values in predictions.items():
        rows = known_rows(truth, domain).numpy()
        if len(rows) and len(np.unique(values)) > 1:
            mistakes += int((values[rows] != truth.labels[domain][rows]).sum())
    return mistakes < FEW


def _implausible(submission: Submission, board: Board) -> Iterator[Finding]:
    """What a person should look at before believing it."""
    ceilings = _by_shift([*board.records, *submission.records.values()], labels="target")
    for method in submission.suite.methods():
        mine = [r for r in submission.records.values() if r.method == method.name]
        scored = [record for record in mine if record.status == "scored"]
        if len(scored) < len(mine):
            text = f"{len(mine) - len(scored)} of {len(mine)} cells have no score"
            yield Finding("flag", text, method.name)
        for shift, values in _by_shift(scored).items():
            for text in _flags(values, ceilings.get(shift), method, board):
                yield Finding("flag", f"{shift}: {text}", method.name)
        drawn = sum(stage.budget.images_seen for stage in method.chain)
        allowed = (board.suite.stage.steps or 0) * (board.suite.stage.batch_size or 0)
        if allowed and drawn > allowed:
            text = f"it draws {drawn:,} rows in training, {drawn / allowed:.3g} times those of "
            yield Finding("flag", text + "the board's [stage]", method.name)


class Pair(NamedTuple):
    """A cell's value on its target, and on its source, if that has test rows."""

    target: float
    source: float | None


def _by_shift(records: Iterable[Record], labels: str | None = None) -> dict[str, list[Pair]]:
    """Of scored records, one for each seed, of draw 0."""
    found: dict[str, list[Pair]] = {}
    for record in records:
        if record.status == "scored" and record.draw == 0 and labels in (None, record.spec.labels):
            target = record.value("target")
            if target is not None:
                found.setdefault(record.shift, []).append(Pair(target, record.value("source")))
    return found


def _flags(
    values: Sequence[Pair], ceiling: Sequence[Pair] | None, method: Method, board: Board
) -> Iterator[str]:
    targets = [pair.target for pair in values]
    classes = len(board.truth.class_names)
    chance = 1 / classes if classes else 0.0
    if mean(targets) <= chance:
        yield f"{mean(targets):.3f} is not above chance, {chance:.3f}"
    if method.chain and len(targets) > 1 and stdev(targets) == 0:
        yield f"all of {len(targets)} seeds have {targets[0]:.4f}"
    sources = [pair.source for pair in values if pair.source is not None]
    if method.labels == "source" and sources and mean(targets) > mean(sources) + FAR_ABOVE:
        yield f"the target's {mean(targets):.3f} is far above the source's {mean(sources):.3f}"
    best = mean(pair.target for pair in ceiling) if ceiling else None
    if method.labels == "source" and best is not None and mean(targets) > best + ABOVE:
        yield f"{mean(targets):.3f} is above the ceiling, {best:.3f}, which reads target labels"
