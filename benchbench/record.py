"""What one cell measured, and all that is needed to measure it again: one JSON file."""

import json
import re
from pathlib import Path
from statistics import mean
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from benchbench.terms import BadInput, Optimizer, Precision

SCHEMA_VERSION: Literal[1] = 1
Status = Literal["scored", "diverged", "oom", "failed"]


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


class PluginSpec(Part):
    """A plugin that was loaded."""

    name: str
    distribution: str
    version: str
    entry_point: str
    digest: str  # sha256 of its source
    used: tuple[str, ...]  # what of it the cell used, such as "encoder small_cnn"


class Data(Part):
    dataset: str
    fingerprint: str
    licence: str
    metric: str = "accuracy"  # the dataset's own
    sources: tuple[str, ...]
    targets: tuple[str, ...]
    n_labelled: int  # rows whose labels were used for training
    n_unlabelled: int  # other rows that some stage saw


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


class Artifacts(Part):
    stages: tuple[str, ...]  # the key of every stage
    encoder_sha256: str | None  # of the last stage's file; None where nothing was trained
    predictions_sha256: str


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
    images_seen: int  # steps × rows per step, over the chain
    peak_memory_gb: float


class Environment(Part):
    benchbench: str
    python: str
    platform: str
    device: str
    threads: int
    packages: dict[str, str]


class Record(Part):
    schema_version: Literal[1]
    cell_id: str
    suite: str
    protocol: str
    method: str
    shift: str
    status: Status
    reason: str | None
    spec: Spec
    plugins: tuple[PluginSpec, ...]
    data: Data
    seeds: Seeds
    selection: Selection | None
    scores: tuple[Score, ...]
    artifacts: Artifacts | None
    cost: Cost | None
    environment: Environment

    @property
    def file_name(self) -> str:
        return file_stem(self.method, self.shift, self.seeds.train, self.cell_id) + ".json"

    def text(self) -> str:
        fields = self.model_dump(mode="json")
        return json.dumps(fields, indent=1, sort_keys=True, allow_nan=False) + "\n"

    def value(self, role: Literal["source", "target"]) -> float | None:
        """The dataset's own metric, its mean over the role's domains; None if none has test rows.

        Ask scored records only.
        """
        mine = [score for score in self.scores if score.role == role]
        values = [score.accuracy if score.value is None else score.value for score in mine]
        return mean(value for value in values if value is not None) if values else None


def file_stem(method: str, shift: str, seed: int, cell_id: str) -> str:
    words = [re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-") for text in (method, shift)]
    return f"{words[0][:80]}--{words[1][:80]}--{seed}--{cell_id[:12]}"


def read_record(path: Path) -> Record:
    """BadInput if the file is no record, or says something a record cannot say."""
    try:
        return Record.model_validate_json(path.read_bytes())
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"])) or "the file"
        raise BadInput(f"{path} is not a record: {place}: {fault['msg']}") from None
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror}") from None


def read_records(folder: Path) -> list[Record]:
    """Every record of a folder, ordered by file name."""
    return [read_record(path) for path in sorted(folder.glob("*.json"))]
