"""Records as runs of TensorBoard, MLflow and Weights & Biases: loss curves, scores, diagnostics."""

import hashlib
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from benchbench.extension.errors import BadInput
from benchbench.leaderboard.export import Row, of_record, states_of
from benchbench.store.records import Record

Points = Sequence[tuple[int, float]]  # steps and values
Losses = Callable[[str], Sequence[float]]  # of a stage's key, a value for each step; or none


class Tracker(Protocol):
    """Where runs go. A run is complete after ``end``, and not there, or replaced, before."""

    def begin(self, record: Record) -> bool:
        """Start the run of a record with its settings; False if it is there already."""

    def series(self, name: str, points: Points) -> None: ...

    def end(self) -> None: ...


def track(records: Iterable[Record], tracker: Tracker, losses: Losses) -> tuple[int, int]:
    """A run for each record; how many are new, and how many were there."""
    new = there = 0
    for record in records:
        if not tracker.begin(record):
            there += 1
            continue
        for name, points in series_of(record, losses).items():
            tracker.series(name, points)
        tracker.end()
        new += 1
    return new, there


def series_of(record: Record, losses: Losses) -> Mapping[str, Points]:
    """All of a record that is a number at a step of a stage; of scores, of the last one."""
    found: dict[str, list[tuple[int, float]]] = {}
    for number, key in enumerate(record.artifacts.stages if record.artifacts else (), 1):
        if curve := losses(key):
            found[f"loss/stage{number}"] = [*enumerate(curve, 1)]
    states = states_of(record)
    for scores, words in (*states[1:], states[0]):  # the end is the last step
        step = words["step"]
        assert isinstance(step, int)
        said = {f"{s.role}/{s.domain}": s.accuracy if s.value is None else s.value for s in scores}
        for name in words:
            kind, _, what = name.partition("_")
            if kind in ("validator", "diagnostic"):
                value = words[name]
                assert not isinstance(value, str)
                said[f"{kind}/{what}"] = value
        for name, value in said.items():
            if value is not None:
                found.setdefault(name, []).append((step, float(value)))
    return found


def params_of(record: Record) -> Row:
    """What was asked for, without what it cost or where it ran."""
    spent = ("_seconds", "_reused", "_device", "_compiled", "_processes", "_key")
    left_out = ("device", "threads", "platform", "python", "started", "images_seen")
    return {
        name: value
        for name, value in of_record(record).items()
        if value is not None and name not in (*left_out, "peak_memory_gb", "reason", "plugins")
        if not name.startswith("version_") and not name.endswith(spent)
    }


def name_of(record: Record) -> str:
    """Of a run: what its record's file is called."""
    return record.file_name.removesuffix(".json")


def digest_of(record: Record) -> str:
    return hashlib.sha256(record.text().encode()).hexdigest()


def emptied(folder: Path) -> Path:
    """The folder, there and empty, whatever a run that was killed left in it."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    return folder


def missing(module: str, extra: str) -> BadInput:
    return BadInput(f'{module} is not installed; pip install "benchbench-shift[{extra}]"')


class TensorBoard:
    """A folder of events for each record, replaced if it is there."""

    def __init__(self, folder: Path) -> None:
        """BadInput if the package tensorboard is not installed."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise missing("tensorboard", "tensorboard") from None
        self.folder, self.writer_of = folder, SummaryWriter

    def begin(self, record: Record) -> bool:
        from torch.utils.tensorboard.summary import hparams

        self.place = self.folder / name_of(record)
        self.partial = emptied(self.folder / f".{name_of(record)}.part")
        self.writer = self.writer_of(str(self.partial))
        for summary in hparams(params_of(record), {}):
            self.writer._get_file_writer().add_summary(summary)
        return True

    def series(self, name: str, points: Points) -> None:
        for step, value in points:
            self.writer.add_scalar(name, value, step)

    def end(self) -> None:
        self.writer.close()
        emptied(self.place)
        self.partial.replace(self.place)


class MLflow:
    """A run for each record, in the experiment of its suite.

    A record's run is left where it is complete, and replaced where it is not, or where the record
    has changed, as when a cell that failed was scored later.
    """

    def __init__(self, uri: str) -> None:
        """BadInput if mlflow is not installed, or can keep nothing there."""
        try:
            from mlflow import MlflowClient
            from mlflow.exceptions import MlflowException
        except ImportError:
            raise missing("mlflow", "mlflow") from None
        try:
            self.client = MlflowClient(tracking_uri=uri)
            self.client.search_experiments(max_results=1)  # says whether anybody is there
        except (ImportError, MlflowException, OSError) as error:
            said = f"{error}".partition("\n")[0].partition(". ")[0]
            raise BadInput(
                f"mlflow cannot keep runs at {uri}: {said}; try mlflow:sqlite:///mlflow.db"
            ) from None

    def begin(self, record: Record) -> bool:
        from mlflow.entities import Param

        experiment = self.experiment(record.suite)
        digest, wanted = digest_of(record), f"tags.`benchbench.cell_id` = '{record.cell_id}'"
        for run in self.client.search_runs([experiment], wanted):
            if run.data.tags["benchbench.record"] == digest and run.info.status == "FINISHED":
                return False
            self.client.delete_run(run.info.run_id)
        tags = {"benchbench.cell_id": record.cell_id, "benchbench.record": digest}
        run = self.client.create_run(experiment, tags=tags, run_name=name_of(record))
        self.run = run.info.run_id
        params = [Param(name, f"{value}"[:500]) for name, value in params_of(record).items()]
        for start in range(0, len(params), 100):  # as many as a request may have
            self.client.log_batch(self.run, params=params[start : start + 100])
        return True

    def experiment(self, suite: str) -> str:
        found = self.client.get_experiment_by_name(suite)
        return found.experiment_id if found else self.client.create_experiment(suite)

    def series(self, name: str, points: Points) -> None:
        from mlflow.entities import Metric

        spelled = "".join(c if c.isalnum() or c in "_-./ " else "_" for c in name)
        metrics = [Metric(spelled, value, 0, step) for step, value in points]
        for start in range(0, len(metrics), 1000):  # likewise
            self.client.log_batch(self.run, metrics=metrics[start : start + 1000])

    def end(self) -> None:
        self.client.set_terminated(self.run)


class WandB:
    """A run for each record, offline, in the folder ``wandb`` here; `wandb sync` uploads them.

    The id of a run is of the record's text, and so one that is there is left.
    """

    def __init__(self, project: str, folder: Path) -> None:
        """BadInput if wandb is not installed."""
        try:
            import wandb
        except ImportError:
            raise missing("wandb", "wandb") from None
        self.wandb, self.project, self.folder = wandb, project, folder

    def begin(self, record: Record) -> bool:
        key = digest_of(record)[:32]
        if any(self.folder.glob(f"wandb/offline-run-*-{key}")):
            return False
        self.staging = emptied(self.folder / "wandb" / f".{key}.part")
        quiet: dict[str, Any] = {"silent": True, "console": "off", "disable_git": True}
        bare = {"save_code": False, "x_disable_stats": True, "x_disable_meta": True}
        self.run = self.wandb.init(
            project=self.project,
            id=key,
            name=name_of(record),
            group=record.suite,
            config=dict(params_of(record)),
            mode="offline",
            dir=str(self.staging),
            settings=self.wandb.Settings(**quiet, **bare),
        )
        return True

    def series(self, name: str, points: Points) -> None:
        axis = f"{name}/step"  # its own, as stages count their steps each from 1
        self.run.define_metric(axis, hidden=True)
        self.run.define_metric(name, step_metric=axis)
        for step, value in points:
            self.run.log({name: value, axis: step})

    def end(self) -> None:
        self.run.finish()
        (place,) = self.staging.glob("wandb/offline-run-*")
        place.rename(self.folder / "wandb" / place.name)
        shutil.rmtree(self.staging)
