"""What one cell measured, and all that is needed to measure it again: one JSON file."""

import gc
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from statistics import fmean
from typing import Any, Literal, Self, TypeVar, get_args, get_type_hints

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    model_serializer,
    model_validator,
)

from benchbench.extension.constants import Optimizer, Precision
from benchbench.extension.errors import BadInput

SCHEMA_VERSION: Literal[1] = 1
DEV_VERSION: Literal[2] = 2  # of the formula of `Validators.dev`
Told = TypeVar("Told")
Status = Literal["scored", "diverged", "oom", "failed"]
STATUS = b'\n "status": "'  # how the line begins; no text in a record has a line of its own
NAMED = 5  # classes that a sentence has room for
STATUSES: dict[bytes, Status] = {status.encode(): status for status in get_args(Status)}


class Part(BaseModel):
    """A part of a record: unknown fields, numbers as text and NaN are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class StageSpec(Part):
    objective: str  # with every default written out, as are the augmentation and the encoder
    augmentation: str
    weak: str | None = None  # where the objective asks for such views
    small: str | None = None
    sees: str
    reads: tuple[str, ...]  # what the objective gets to see beside the images
    domains: tuple[str, ...]  # whose rows it was given
    steps: int
    batch_size: int
    lr: float
    weight_decay: float
    warmup: float
    optimizer: Optimizer = "adamw"
    parts: int = 1


class Spec(Part):
    encoder: str
    chain: tuple[StageSpec, ...]
    readout: str
    labels: Literal["source", "target"]
    precision: Precision
    weights_sha256: str | None = None  # what the encoder began with, if somebody trained that


class PluginSpec(Part):
    """A plugin that was loaded."""

    name: str
    distribution: str
    version: str
    entry_point: str
    digest: str  # sha256 of its source
    used: tuple[str, ...]  # what of it the cell used, such as "encoder small_cnn"


class Unseen(Part):
    """Classes of the target that no labelled training row has: predictions of them are errors."""

    classes: dict[str, int] = Field(min_length=1)  # the target's test rows of each
    n_classes: int  # all that its test rows have
    n: int = Field(ge=1)  # all of its test rows with a label

    def sentence(self, shift: str, labels: Literal["source", "target"]) -> str:
        """``labels`` says whose were used."""
        names, rows = [*self.classes], sum(self.classes.values())
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        share = 100 * rows / self.n
        return (
            f"shift {shift}: {len(names)} of {self.n_classes} classes of the target "
            f"{'has' if len(names) == 1 else 'have'} no labelled {labels} row for training "
            f"({', '.join(names[:NAMED])}{more}): "
            f"{share:{'.0f' if share >= 1 else '.1g'}} % of its test rows ({rows:,} of {self.n:,}) "
            "are counted as errors"
        )


class Data(Part):
    dataset: str
    fingerprint: str
    licence: str
    metric: str = "accuracy"  # the dataset's own
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    n_labelled: int  # rows whose labels were used for training
    n_unlabelled: int  # other rows that some stage saw
    unseen: Unseen | None = None

    @model_serializer(mode="wrap")
    def _without_none(self, written: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """``unseen`` is written where it says something, so that other records are as they were."""
        fields: dict[str, Any] = written(self)
        return {name: value for name, value in fields.items() if value or name != "unseen"}


class Seeds(Part):
    """Data split, hyper-parameter draw and training are drawn apart."""

    split: int
    hparams: int
    train: int


class GroupScore(Part):
    group: str
    value: float  # its accuracy, or Pearson's r where labels are numbers
    n: int


class Score(Part):
    domain: str
    role: Literal["source", "target"]
    accuracy: float | None  # None where labels are numbers
    per_class_mean: float | None
    value: float | None = None  # of the dataset's own metric, at most 1; None: it is the accuracy
    groups: tuple[GroupScore, ...] = ()  # those with a name and test rows
    n: int


class Selection(Part):
    rule: str  # "source-val", or "last" where nothing was chosen
    chosen: dict[str, float]


class Validators(Part):
    """What rules of selection choose by, of one state of a cell: of two, the higher is preferred.

    None where it cannot be told. Only ``target_val`` reads target labels. The descriptions are what
    boards say of the rules.
    """

    source_val: float | None = Field(
        None, description="accuracy on validation rows of the source, or minus the squared error"
    )
    dev: float | None = Field(
        None,
        description="minus the source's validation risk, weighted to look like the target's, with "
        "a control variate (You et al. 2019); nothing where the weights do not tell it",
    )
    entropy: float | None = Field(
        None, description="minus the mean entropy of predictions on the target"
    )
    infomax: float | None = Field(
        None, description="that, plus the entropy of the mean prediction (Shi and Sha 2012)"
    )
    snd: float | None = Field(
        None, description="soft neighbourhood density of predictions (Saito et al. 2021)"
    )
    bnm: float | None = Field(
        None, description="nuclear norm of the predictions, of its largest value (Cui et al. 2020)"
    )
    class_ami: float | None = Field(
        None,
        description="adjusted mutual information of predictions and clusters of target features "
        "(Musgrave et al. 2022)",
    )
    rankme: float | None = Field(
        None, description="effective rank of target features (Garrido et al. 2023)"
    )
    target_val: float | None = Field(
        None, description="accuracy on validation rows of the target: the oracle, by its labels"
    )


class Artifacts(Part):
    stages: tuple[str, ...]  # the key of every stage
    encoder_sha256: str | None  # of the last stage's file; None where nothing was trained
    predictions_sha256: str


class Snapshot(Part):
    """A cell read off before its last stage was over."""

    step: int  # of the last stage
    selection: Selection
    scores: tuple[Score, ...]
    validators: Validators


class StageCost(Part):
    seconds: float
    reused: bool  # trained for an earlier cell, and paid there
    device: str  # that it was trained on
    compiled: bool = False  # by torch.compile
    processes: int = 1  # that trained it together


class Cost(Part):
    started: str  # UTC
    stages: tuple[StageCost, ...]
    features_seconds: float
    readout_seconds: float
    diagnose_seconds: float = 0.0
    validate_seconds: float = 0.0
    images_seen: int  # steps × rows per step, over the chain
    peak_memory_gb: float


class Diagnostics(Part):
    """What the frozen features of a shift tell beside the score; None where it cannot be known.

    The descriptions are what tables say of the numbers.
    """

    class_cosine: float | None = Field(
        None,
        description="mean |cosine| of a class's head fitted on source labels and the one fitted on "
        "target labels; 1 is best: the source's heads serve the target",
    )
    domain_cosine: float | None = Field(
        None,
        description="mean |cosine| of source class heads and the axis from source to target; 0 is "
        "best: class and domain are disentangled; directions drawn at random from d have 0.8 / √d",
    )
    domain_cosine_within: float | None = Field(
        None,
        description="the same with an axis fitted within each class; 0 is best, and here classes "
        "that are more frequent on one side change nothing",
    )
    domain_accuracy: float | None = Field(
        None,
        description="balanced accuracy of a linear probe that tells source from target; 0.5 is "
        "invariant, 1 told apart, and neither is better in itself",
    )
    domain_accuracy_within: float | None = Field(
        None,
        description="the same of probes within a class, mean over classes; neither end is better",
    )
    a_distance: float | None = Field(
        None,
        description="proxy A-distance, 2 (1 − 2 err) of that probe with its balanced error; 0 is "
        "invariant, 2 told apart, and neither is better in itself",
    )
    coral_distance: float | None = Field(
        None,
        description="‖C_S − C_T‖² / 4d² of covariances, features scaled to a mean square of 1; "
        "chance alone gives (1/n + 1/m) / 4 of n and m rows, and neither end is better",
    )
    mmd_squared: float | None = Field(
        None,
        description="squared maximum mean discrepancy, unbiased, by a Gaussian kernel as wide as "
        "the median distance; 0 is invariant, and neither end is better",
    )
    effective_rank: float | None = Field(
        None,
        description="RankMe, exp of the entropy of the singular values; higher is healthier, at "
        "most d; 1 is collapsed to a line",
    )
    alignment: float | None = Field(
        None,
        description="mean squared distance, on the unit sphere, of two source rows of one class; "
        "lower is better",
    )
    alignment_across: float | None = Field(
        None,
        description="the same of a source row and a target row of one class; lower is better",
    )
    uniformity: float | None = Field(
        None,
        description="log of the mean of exp(−2 squared distance) over pairs of rows on the unit "
        "sphere; lower is more evenly spread, 0 is collapsed to a point",
    )
    normalised_sd: float | None = Field(
        None,
        description="standard deviation of a feature on the unit sphere, times √d; 1 is healthy, "
        "0 collapsed to a point",
    )


class Environment(Part):
    benchbench: str
    python: str
    platform: str
    device: str
    threads: int
    packages: dict[str, str]


class Measured(Part):
    """What differs between the records of a suite."""

    schema_version: Literal[1]
    cell_id: str
    suite: str
    protocol: str
    method: str
    shift: str
    status: Status
    reason: str | None
    seeds: Seeds
    selection: Selection | None
    scores: tuple[Score, ...]
    diagnostics: Diagnostics | None = None  # None in records that are older than these
    draw: int = 0  # of hyper-parameters; 0 is what the suite says
    validators: Validators | None = None  # likewise
    dev_version: Literal[2] = DEV_VERSION
    snapshots: tuple[Snapshot, ...] = ()
    artifacts: Artifacts | None
    cost: Cost | None

    @model_validator(mode="after")
    def without_first_dev(self, info: ValidationInfo) -> Self:
        """A file without ``dev_version`` has the first: its ``dev`` is read as None.

        Where domains are separable, that was 0, the best, of every readout.
        """
        if info.mode != "json" or "dev_version" in self.model_fields_set:
            return self
        end = self.validators and self.validators.model_copy(update={"dev": None})
        snapshots = tuple(
            s.model_copy(update={"validators": s.validators.model_copy(update={"dev": None})})
            for s in self.snapshots
        )
        return self.model_copy(update={"validators": end, "snapshots": snapshots})


class Record(Measured):
    spec: Spec
    plugins: tuple[PluginSpec, ...]
    data: Data
    environment: Environment

    @property
    def file_name(self) -> str:
        return file_stem(self.method, self.shift, self.seeds.train, self.cell_id) + ".json"

    def text(self) -> str:
        """JSON whose first field is the sha256 of all that comes after it."""
        fields = self.model_dump(mode="json")
        body = json.dumps(fields, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"
        return (SEAL + _sha256(body) + SEALED + body[1:]).decode()

    @property
    def cell(self) -> str:
        """As a cell is named."""
        drawn = f" · draw {self.draw}" if self.draw else ""
        return f"{self.method} · {self.shift} · seed {self.seeds.train}{drawn}"

    @property
    def started(self) -> str:
        """UTC; nothing where nothing was measured."""
        return self.cost.started if self.cost else ""

    def value(self, role: Literal["source", "target"]) -> float | None:
        """The dataset's own metric, its mean over the role's domains; None if none has test rows.

        Ask scored records only.
        """
        return value_of(self.scores, role)


LINE, END = b'\n "', b"\n}\n"  # how a field of a record as `text` writes it begins; how all ends
SEAL, SEALED = b'{\n "sha256": "', b'",'  # before and after that of all other fields
COMMON: dict[bytes, TypeAdapter[Any]] = {  # what records of a suite have in common
    name.encode(): TypeAdapter(annotation)
    for name, annotation in get_type_hints(Record).items()
    if name not in Measured.model_fields and name in Record.model_fields
}


def value_of(scores: Sequence[Score], role: Literal["source", "target"]) -> float | None:
    """The dataset's own metric, its mean over the role's domains; None if none has test rows."""
    mine = [score for score in scores if score.role == role]
    values = [score.accuracy if score.value is None else score.value for score in mine]
    return fmean(value for value in values if value is not None) if values else None


def prediction_name(domain: str, step: int | None = None) -> str:
    """Of a tensor in the file beside a record: of the end, or of the snapshot after ``step``."""
    return domain if step is None else f"after step {step}: {domain}"


def file_stem(method: str, shift: str, seed: int, cell_id: str) -> str:
    return f"{_in_names(method)}--{_in_names(shift)}--{seed}--{cell_id[:12]}"


@cache
def _in_names(text: str) -> str:
    """As much of a method or shift as the name of a file tells."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-")[:80]


def record_of(content: bytes) -> Record:
    """ValueError if this is no record, or not as it was written."""
    return Record.model_validate_json(unsealed(content))


def unsealed(content: bytes) -> bytes:
    """A record's fields but for the sha256 of the others. ValueError if that is of something else.

    Records of 2026-11 and before may have none.
    """
    if not content.startswith(SEAL):
        if b'"sha256"' in content and "sha256" in json.loads(content):
            raise ValueError(
                "it was written anew by something else, and its sha256 no longer holds"
            )
        return content
    said, _, rest = content.removeprefix(SEAL).partition(SEALED)
    body = b"{" + rest
    if _sha256(body) != said:
        raise ValueError("it was changed after it was written")
    return body


def why_none(error: ValueError) -> str:
    """Of what `record_of` raised: the first thing that is wrong."""
    return str(error.errors()[0]["msg"] if isinstance(error, ValidationError) else error)


def _sha256(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()


def read_record(path: Path) -> Record:
    """BadInput if the file is no record, or says something a record cannot say."""
    return read_strictly(path, record_of, "is not a record")


def read_status(path: str) -> Status | None:
    """What became of a cell; None if there is no such file.

    That is one line of a record as `Record.text` writes it, and there may be 100,000 of them. A
    file of another form is read as a whole, with BadInput as of `read_record`.
    """
    try:
        content = read_bytes(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None
    found = content.rfind(STATUS)
    told = content[found + len(STATUS) :].partition(b'"')[0] if found >= 0 else b""
    said = STATUSES.get(told) if content.endswith(END) else None
    return said or read_record(Path(path)).status


def read_bytes(path: str) -> bytes:
    """As Path.read_bytes, which takes twice as long."""
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        return file.read()


def read_strictly(path: Path, validate: Callable[[bytes], Told], fault: str) -> Told:
    """What a JSON file says. BadInput names the first place that it cannot say, and the fault."""
    try:
        return validate(path.read_bytes())
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the file"
        raise BadInput(f"{path} {fault}: {place}: {first['msg']}") from None
    except ValueError as error:
        raise BadInput(f"{path} {fault}: {error}") from None
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None


def read_records(folder: Path) -> list[Record]:
    """Every record of a folder, ordered by file name."""
    return read_many(map(str, sorted(folder.glob("*.json"))))


def read_many(paths: Iterable[str]) -> list[Record]:
    """As `read_record`; of what one record says as another did there is one copy."""
    parts: dict[tuple[bytes, bytes], Any] = {}
    with nothing_collected():
        return [_read_sharing(path, parts) or read_record(Path(path)) for path in paths]


@contextmanager
def nothing_collected() -> Iterator[None]:
    """Meanwhile no garbage is looked for: where all that is made stays, that finds none."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _read_sharing(path: str, parts: dict[tuple[bytes, bytes], Any]) -> Record | None:
    """A record as `Record.text` writes it; None where the file is of another form, or no record."""
    try:
        content = unsealed(read_bytes(path))
        if not (content.startswith(b"{" + LINE) and content.endswith(END)):
            return None
        own: list[bytes] = []
        shared: dict[str, Any] = {}
        for line in content.removesuffix(END).split(LINE)[1:]:
            name, _, value = line.removesuffix(b",").partition(b'": ')
            if name not in COMMON:
                own.append(LINE + line)
                continue
            if (name, value) not in parts:
                parts[name, value] = COMMON[name].validate_json(value)
            if name.decode() in shared or not line.endswith(b","):
                return None
            shared[name.decode()] = parts[name, value]
        if len(shared) < len(COMMON):
            return None
        rest = Measured.model_validate_json(b"".join((b"{", *own, b"}")))
    except (OSError, ValueError):  # `read_record` tells of it
        return None
    return Record.model_construct(**vars(rest), **shared)
