"""One cell from start to end: this file is the protocol."""

import hashlib
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from benchbench.diagnostics.geometry import ROWS as DIAGNOSED
from benchbench.diagnostics.geometry import Side, diagnose, diagnostics_key
from benchbench.evaluation import metrics
from benchbench.evaluation.criteria import Common, common_key, in_common, validate
from benchbench.evaluation.readouts.interface import Fitted
from benchbench.evaluation.readouts.linear_probe import probe
from benchbench.evaluation.readouts.objective_head import head
from benchbench.evaluation.readouts.registry import resolve_readout
from benchbench.evaluation.readouts.row_blocks import where_they_fit
from benchbench.execution.checkpoint_writer import writing_checkpoints
from benchbench.extension.catalog import Choice, Plugin
from benchbench.extension.constants import TEST, TRAIN, VAL
from benchbench.extension.contracts import Objective, Supervised
from benchbench.extension.errors import BadInput
from benchbench.store.artifacts import Artifact, packed
from benchbench.store.locks import LOOK_EVERY, Claim
from benchbench.store.records import (
    SCHEMA_VERSION,
    Artifacts,
    Cost,
    Data,
    Diagnostics,
    PluginSpec,
    Record,
    Score,
    Seeds,
    Selection,
    Snapshot,
    Spec,
    StageCost,
    StageSpec,
    Status,
    Validators,
    prediction_name,
)
from benchbench.suites.plan import Link, Plan, build_encoder, build_views, stage_seed
from benchbench.suites.shift_features import ShiftFeatures, shift_features
from benchbench.suites.suite import Cell, Stage
from benchbench.training.distributed import as_the_first_says, world
from benchbench.training.loop import Checkpoints, Diverged, Watch, below, train
from benchbench.training.seeds import derive_seed
from benchbench.training.stop_signals import held_back

CPU = torch.device("cpu")
Watcher = Callable[[Stage], Watch]  # told that a stage starts; what it returns is told every step


def silent(stage: Stage) -> Watch:
    """A watcher where nobody looks."""
    return lambda done, loss: None


def execute(cell: Cell, plan: Plan, watcher: Watcher) -> Record:
    """Train what is not trained yet, freeze, read off, score, diagnose; keep the record."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    plan.machine.start_counting()
    seconds: dict[str, float] = {}

    links = plan.links(cell)
    encoder, objective, digest, stages = trained(cell, links, plan, watcher)
    end, z = read_off(cell, encoder, objective, plan.encoder_key(cell), plan, seconds)
    with timed("diagnose", seconds):
        diagnostics = diagnosed(cell, z, plan)
    del z  # of one state of the encoder at a time
    earlier: dict[int, Reading] = {}
    for step in links[-1].snapshots if links else ():
        key = links[-1].snapshot_key(step)
        load(encoder, objective, plan.store.read("snapshots", key))
        earlier[step] = read_off(cell, encoder, objective, key, plan, seconds)[0]

    content = packed(named_predictions(end, earlier))
    record = describe(cell, plan).model_copy(
        update={
            "selection": end.selection,
            "scores": end.scores,
            "validators": end.validators,
            "snapshots": tuple(
                Snapshot(
                    step=step,
                    selection=reading.selection,
                    scores=reading.scores,
                    validators=reading.validators,
                )
                for step, reading in earlier.items()
            ),
            "diagnostics": diagnostics,
            "artifacts": Artifacts(
                stages=tuple(link.key for link in links),
                encoder_sha256=digest,
                predictions_sha256=hashlib.sha256(content).hexdigest(),
            ),
            "cost": Cost(
                started=started,
                stages=stages,
                features_seconds=seconds["features"],
                readout_seconds=seconds["readout"],
                validate_seconds=seconds["validate"],
                diagnose_seconds=seconds["diagnose"],
                images_seen=sum(link.stage.budget.images_seen for link in links),
                peak_memory_gb=plan.machine.peak_memory_gb(),
            ),
        }
    )
    plan.store.write_record(record, content)
    return record


@dataclass(frozen=True)
class Reading:
    """What one state of an encoder and its objective give."""

    selection: Selection
    scores: tuple[Score, ...]
    validators: Validators
    predictions: Mapping[str, Tensor]  # by domain, of its test rows


def read_off(
    cell: Cell,
    encoder: nn.Module,
    objective: Objective | None,
    encoder_key: str,
    plan: Plan,
    seconds: dict[str, float],
) -> tuple[Reading, ShiftFeatures]:
    """Freeze, fit the readout, score; and what a rule of selection could choose this state by.

    And the features, which diagnostics read as well.
    """
    with timed("features", seconds):
        z = shift_features(encoder, encoder_key, (cell.shift.sources, cell.shift.targets), plan)
    with timed("readout", seconds):
        fitted = fit_readout(cell, objective, z, plan.machine.device)
        scores, predictions = score(cell, fitted, z)
    with timed("validate", seconds):
        common = common_to_readouts(cell, encoder_key, z, plan)
        validators = validated(cell, fitted, common, z)
    selection = Selection(rule=fitted.selection, chosen=dict(fitted.chosen))
    return Reading(selection, scores, validators, predictions), z


def validated(cell: Cell, fitted: Fitted, common: Common, z: ShiftFeatures) -> Validators:
    """Of the target, labels of validation rows enter the oracle's value alone."""
    val_rows, target_val = z.known(cell.labelled, VAL), z.known(cell.shift.targets, VAL)
    unlabelled = z.sample(cell.shift.targets).z
    return validate(fitted, common, val_rows, unlabelled, target_val, z.pack.task.num_classes)


def common_to_readouts(cell: Cell, encoder_key: str, z: ShiftFeatures, plan: Plan) -> Common:
    """What validators take from features alone, computed once for all readouts of an encoder."""
    pack, targets = plan.pack, cell.shift.targets
    key = common_key(encoder_key, pack.fingerprint, cell.labelled, targets)
    kept = plan.store.once(
        "diagnostics",
        key,
        f"validators of {cell}",
        lambda: common_of(cell, z, plan.machine.device).packed(),
    )
    return Common.unpacked(kept.tensors, kept.note)


def common_of(cell: Cell, z: ShiftFeatures, device: torch.device = CPU) -> Common:
    labelled = (z.known(cell.labelled, split) for split in (TRAIN, VAL))
    train, val, target = where_they_fit((*labelled, z.sample(cell.shift.targets)), device)
    return in_common(train.z, val.z, target.z, z.pack.task.num_classes)


def named_predictions(end: Reading, earlier: Mapping[int, Reading]) -> dict[str, Tensor]:
    named = {prediction_name(domain): values for domain, values in end.predictions.items()}
    for step, reading in earlier.items():
        for domain, values in reading.predictions.items():
            named[prediction_name(domain, step)] = values
    return named


def load(encoder: nn.Module, objective: Objective | None, kept: Artifact | None) -> None:
    """Make them what they were when they were kept."""
    if kept is None:
        raise BadInput("a snapshot is damaged, and was set aside; run the suite again")
    encoder.load_state_dict(below("encoder", kept.tensors))
    if objective is not None:
        objective.load_state_dict(below("objective", kept.tensors))


def trained(
    cell: Cell, links: list[Link], plan: Plan, watcher: Watcher
) -> tuple[nn.Module, Objective | None, str | None, tuple[StageCost, ...]]:
    """The encoder after its chain, the last objective, the sha256 of their file, and the cost."""
    encoder = first_encoder(cell, plan)
    objective: Objective | None = None
    digest, costs = None, []
    for link in links:
        before = objective
        objective = first_objective(cell, link, encoder, plan)
        with stage_claimed(cell, link, plan) as claim:
            there = as_the_first_says(plan.trained(link))
            kept = plan.store.read("stages", link.key) if there else None
            if kept:
                load(encoder, objective, kept)
                digest, cost = kept.sha256, StageCost(**stage_cost(kept.note), reused=True)
                plan.store.remove("checkpoints", link.key)  # of a run that was killed at its end
            else:
                if objective.begins != "fresh":
                    objective.begin(first_head(cell, link, encoder, objective, before, plan))
                watch = told_to(claim, watcher(link.stage), link.stage.budget.steps)
                with held_back() as stopping:
                    digest, note = train_stage(
                        cell, link, encoder, objective, plan, watch, stopping
                    )
                cost = StageCost(**stage_cost(note), reused=False)
        costs.append(cost)
    return encoder, objective, digest, tuple(costs)


def first_encoder(cell: Cell, plan: Plan) -> nn.Module:
    """The encoder before any stage, on the plan's device."""
    choice = plan.catalog.resolve("encoder", cell.method.encoder)
    encoder = build_encoder(choice, plan.pack.task, cell.seed)
    return encoder.to(plan.machine.device).to(memory_format=torch.channels_last)


def first_objective(cell: Cell, link: Link, encoder: nn.Module, plan: Plan) -> Objective:
    """A stage's objective before its first step, on the plan's device."""
    torch.manual_seed(derive_seed(stage_seed(cell, link.depth), "objective"))
    objective: Objective = link.objective.build(encoder, plan.pack.task)
    return objective.to(plan.machine.device)


@contextmanager
def stage_claimed(cell: Cell, link: Link, plan: Plan) -> Iterator[Claim | None]:
    """While a stage is missing, for this process alone; waits for another that trains it.

    Of processes that train together, the first one has the claim, and all wait with it.
    """
    store, claim = plan.store, None
    while True:
        there = plan.trained(link)
        if not there and store.writes:
            claim = store.claims.take(link.key, f"{cell}: {link.stage.objective}")
        if as_the_first_says(there or claim is not None):
            break
        time.sleep(LOOK_EVERY)
    with claim or nullcontext():
        yield claim


def told_to(claim: Claim | None, watch: Watch, steps: int) -> Watch:
    """A watch that tells the claim, too, how far the stage is."""

    def both(done: int, loss: Tensor) -> None:
        if claim:
            claim.tell(done, steps)
        watch(done, loss)

    return both


def stage_cost(note: Mapping[str, Any]) -> dict[str, Any]:
    """What is said of a stage, but for its losses."""
    return {name: value for name, value in note.items() if name != "losses"}


def first_head(
    cell: Cell,
    link: Link,
    encoder: nn.Module,
    objective: Objective,
    before: Objective | None,
    plan: Plan,
) -> nn.Linear:
    """The head that the objective begins with: that of the stage before, or a probe."""
    if objective.begins == "head" and isinstance(before, Supervised):
        return before.classifier
    alone = [(domain,) for domain in cell.labelled]
    z = shift_features(encoder, link.start, alone, plan)
    labelled = (z.known(cell.labelled, split) for split in (TRAIN, VAL))
    train_rows, val_rows = where_they_fit(labelled, plan.machine.device)
    return probe(train_rows, val_rows, plan.pack.task.num_classes).to(plan.machine.device)


def train_stage(
    cell: Cell,
    link: Link,
    encoder: nn.Module,
    objective: Objective,
    plan: Plan,
    watch: Watch,
    stopping: Callable[[], bool],
) -> tuple[str, dict[str, Any]]:
    """Train, from where a stopped run left off, and keep the result: its sha256, and a note.

    ``encoder`` is then what is kept of it, which is the objective's ``trained_encoder``.
    """
    store = plan.store
    if no_end := store.read("diverged", link.key):
        raise Diverged(no_end.note)
    part = store.read("checkpoints", link.key)
    before = part.note["seconds"] if part else 0.0
    start = time.perf_counter()

    def spent() -> float:
        return before + time.perf_counter() - start

    def keep_checkpoint(state: Mapping[str, Tensor]) -> None:
        store.write("checkpoints", link.key, state, {"seconds": spent()})

    def keep_snapshot(step: int) -> None:
        if not store.writes:
            return
        tensors = state_of(objective.trained_encoder(encoder), objective)
        store.write("snapshots", link.snapshot_key(step), tensors)

    every = plan.checkpoint_every
    try:
        with writing_checkpoints(keep_checkpoint, every, stopping) as checkpoints:
            losses = train(
                encoder,
                objective,
                build_views(link, plan.pack.task),
                plan.feed(cell, link),
                link.stage.budget,
                stage_seed(cell, link.depth),
                precision=plan.machine.precision,
                compiled=plan.machine.compiled,
                watch=watch,
                pauses={step: partial(keep_snapshot, step) for step in link.snapshots},
                checkpoints=Checkpoints(
                    checkpoints.save if store.writes else passed_over, every, stopping
                ),
                resume=part.tensors if part else None,
            )
    except Diverged as error:
        store.write("diverged", link.key, {}, str(error))
        raise
    note = {
        "seconds": spent(),
        "device": plan.machine.name,
        "compiled": plan.machine.compiled,
        "processes": world(),
        "losses": losses,
    }
    result = objective.trained_encoder(encoder)
    digest = store.write("stages", link.key, state_of(result, objective), note)
    if result is not encoder:
        encoder.load_state_dict(result.state_dict())
    store.remove("checkpoints", link.key)
    return digest, note


def passed_over(state: Mapping[str, Tensor]) -> None:
    """Of processes that train together, the first one alone keeps checkpoints."""


def state_of(encoder: nn.Module, objective: Objective) -> dict[str, Tensor]:
    tensors = {f"encoder.{name}": tensor for name, tensor in encoder.state_dict().items()}
    return tensors | {f"objective.{name}": value for name, value in objective.state_dict().items()}


def fit_readout(
    cell: Cell, objective: Objective | None, z: ShiftFeatures, device: torch.device = CPU
) -> Fitted:
    """Fit on the labelled domains' training rows, choose on their validation rows.

    Training rows of every domain of the shift are there too, without labels. It is fitted on the
    device, where the labelled rows fit there.
    """
    _, build = resolve_readout(cell.method.readout)
    if build is None:
        assert objective is not None, "Plan.check refuses a head where there is no objective"
        build = partial(head, objective.cpu().eval().predict)
    labelled = (z.known(cell.labelled, split) for split in (TRAIN, VAL))
    train_rows, val_rows = where_they_fit(labelled, device)
    return build()(train_rows, val_rows, z.moments, z.pack.task.num_classes)


def score(
    cell: Cell, fitted: Fitted, z: ShiftFeatures
) -> tuple[tuple[Score, ...], dict[str, Tensor]]:
    """Scores on the test rows of every domain of the shift, and predictions in row order.

    These are int32 of classes, float32 of numbers.
    """
    scores: list[Score] = []
    pack = z.pack
    predictions, classes = {}, bool(pack.class_names)
    roles: tuple[tuple[Literal["source", "target"], tuple[str, ...]], ...] = (
        ("source", cell.shift.sources),
        ("target", cell.shift.targets),
    )
    for role, domain in ((role, domain) for role, domains in roles for domain in domains):
        test = z.held_out((domain,), TEST)
        outputs = fitted.scores(test.z)
        if not outputs.isfinite().all():
            raise FloatingPointError(f"some predictions on domain {domain!r} are not finite")
        predictions[domain] = outputs.argmax(1).int() if classes else outputs[:, 0].float()
        groups = None if pack.groups is None else pack.groups[pack.rows(domain, TEST)]
        found = metrics.score_of(
            domain,
            role,
            predictions[domain],
            test.labels,
            groups,
            pack.metric,
            pack.class_names,
            pack.group_names,
        )
        scores += [found] if found else []
    return tuple(scores), predictions


def diagnosed(cell: Cell, z: ShiftFeatures, plan: Plan) -> Diagnostics | None:
    """What the features tell beside the score, computed once for all readouts of an encoder.

    None, with a warning, if that fails: it costs no cell its score.
    """
    pack, sides = plan.pack, (cell.shift.sources, cell.shift.targets)
    key = diagnostics_key(plan.encoder_key(cell), pack.fingerprint, *sides)

    def made() -> tuple[dict[str, Tensor], dict[str, float | None]]:
        source, target = (
            Side.of(
                z.sample(domains, DIAGNOSED),
                *(z.held_out(domains, split) for split in (VAL, TEST)),
            )
            for domains in sides
        )
        return {}, diagnose(source, target, pack.task.num_classes).model_dump()

    try:
        kept = plan.store.once("diagnostics", key, f"diagnostics of {cell}", made)
    except BadInput:
        raise
    except Exception as error:
        warnings.warn(f"{cell}: no diagnostics: {type(error).__name__}: {error}", stacklevel=2)
        return None
    return Diagnostics(**kept.note)


def describe(
    cell: Cell, plan: Plan, status: Status = "scored", reason: str | None = None
) -> Record:
    """The cell's record but for what it measured."""
    suite, pack, method, links = plan.suite, plan.pack, cell.method, plan.links(cell)
    encoder = plan.catalog.resolve("encoder", method.encoder)
    used = [
        plan.dataset,
        encoder,
        *(link.objective for link in links),
        *(c for link in links for choices in link.views.values() for c in choices),
    ]
    seen = {domain for link in links for domain in link.domains} | set(cell.labelled)
    rows = {domain: pack.rows(domain, TRAIN) for domain in seen}
    n_labelled = sum(len(pack.with_label(rows[domain])) for domain in cell.labelled)
    return Record(
        schema_version=SCHEMA_VERSION,
        cell_id=plan.cell_id(cell),
        suite=suite.name,
        protocol=suite.protocol,
        method=method.name,
        shift=str(cell.shift),
        status=status,
        reason=reason,
        spec=Spec(
            encoder=encoder.text,
            chain=tuple(stage_spec(link) for link in links),
            readout=resolve_readout(method.readout)[0],
            labels=method.labels,
            precision=plan.machine.precision,
            weights_sha256=plan.weights(method.encoder),
        ),
        plugins=plugin_specs(plan, used),
        data=Data(
            dataset=plan.dataset.text,
            fingerprint=pack.fingerprint,
            licence=pack.licence,
            metric=pack.metric,
            sources=cell.shift.sources,
            targets=cell.shift.targets,
            n_labelled=n_labelled,
            n_unlabelled=sum(map(len, rows.values())) - n_labelled,
            unseen=plan.unseen(cell),
        ),
        seeds=Seeds(split=suite.split_seed, hparams=suite.tune.seed, train=cell.seed),
        draw=cell.draw,
        selection=None,
        scores=(),
        artifacts=None,
        cost=None,
        environment=plan.machine.environment(),
    )


def stage_spec(link: Link) -> StageSpec:
    stage = link.stage
    texts = {
        kind: " | ".join(choice.text for choice in choices) or "none"
        for kind, choices in link.views.items()
    }
    return StageSpec(
        objective=link.objective.text,
        augmentation=texts.get("full", "none"),
        weak=texts.get("weak"),
        small=texts.get("small"),
        sees=stage.sees,
        reads=link.reads,
        domains=link.domains,
        **asdict(stage.budget),
    )


def plugin_specs(plan: Plan, used: Iterable[Choice]) -> tuple[PluginSpec, ...]:
    """Every plugin that was loaded, and what of it was used."""
    names: dict[Plugin, dict[str, None]] = {plugin: {} for plugin in plan.catalog.plugins}
    for choice in used:
        names[choice.entry.plugin][f"{choice.entry.kind} {choice.entry.name}"] = None
    return tuple(PluginSpec(**asdict(plugin), used=tuple(mine)) for plugin, mine in names.items())


@contextmanager
def timed(phase: str, seconds: dict[str, float]) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[phase] = seconds.get(phase, 0.0) + time.perf_counter() - start
