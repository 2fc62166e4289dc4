"""What a bundle claims, done again: cells read off from submitted encoders, or trained.

Both build what the bundle names, from plugins that are installed here: look at the names first.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import groupby
from math import sqrt
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory

import safetensors.torch
import torch
from scipy.stats import t as student
from torch import Tensor, nn

from benchbench.data.preparation import Report
from benchbench.evaluation import metrics
from benchbench.execution.cell import common_of, describe, fit_readout, score, validated
from benchbench.execution.local import Audience, run_cells
from benchbench.extension.catalog import Catalog
from benchbench.extension.contracts import Objective, is_known
from benchbench.extension.errors import BadInput
from benchbench.leaderboard.board_folder import Source, expected_by
from benchbench.leaderboard.bundle import Submission, encoder_name, steps_of
from benchbench.leaderboard.consistency import Finding, known_rows, predictions_name
from benchbench.leaderboard.table import board
from benchbench.leaderboard.true_labels import Truth
from benchbench.store.artifacts import Store
from benchbench.store.records import Record, Validators, prediction_name
from benchbench.suites.plan import Plan, build_encoder
from benchbench.suites.shift_features import Made, shift_features
from benchbench.suites.suite import Cell, Suite
from benchbench.training.loop import below

# Of one machine, features are the same bit for bit. Another rounds differently: that moves the few
# rows that lie on a boundary, and now and then the penalty that validation rows choose. Of 25,020
# predictions of 18 cells, another instruction set (SSE for AVX-512) moved 15; GPUs round more.
MOST_MOVED = 0.05  # of a domain's test rows
CLOSE = 0.01  # of accuracy, or of the range of predictions that are numbers
STEADY = ("source_val", "entropy", "infomax", "target_val")  # validators that rounding hardly moves
CONFIDENCE = 0.95  # of the interval in which a seed that was trained again should lie
WIDE = 0.2  # of such an interval


def plan_for(
    submission: Submission, catalog: Catalog, data: Path, store: Store, device: str, report: Report
) -> Plan:
    """The plan of a bundle's suite. BadInput if its plugins or its data are not here."""
    installed = {plugin.name for plugin in catalog.plugins}
    for record in submission.records.values():
        for plugin in record.plugins:
            if plugin.used and plugin.name not in installed:
                raise BadInput(
                    f"plugin {plugin.name} ({plugin.distribution} {plugin.version}), which offers "
                    f"{', '.join(plugin.used)}, is not installed; install it, or verify at level "
                    "consistent"
                )
    plan = Plan.make(submission.suite, catalog, data, store, device, report)
    if plan.pack.fingerprint != submission.manifest.fingerprint:
        raise BadInput(f"the data here are others than those of {submission.bundle.path.name}")
    return plan


@dataclass(frozen=True)
class Read:
    """A state of a cell that was submitted: its end, or a snapshot."""

    name: str  # of the record's file
    record: Record
    step: int | None

    @property
    def encoder(self) -> str:
        """What the cells have in common that are read off from one encoder."""
        if self.record.spec.chain:
            return encoder_name(self.record, self.step)
        return f"untrained {self.record.spec.encoder}, seed {self.record.seeds.train}"

    @property
    def validators(self) -> Validators | None:
        if self.step is None:
            return self.record.validators
        return next(s.validators for s in self.record.snapshots if s.step == self.step)


def reprobed(submission: Submission, plan: Plan) -> Iterator[Finding]:
    """Read every state of a scored cell off again, from the encoder that was submitted for it."""
    truth, cells = Truth.of(plan.pack), plan_cells(plan)
    scored = [(n, r) for n, r in submission.records.items() if r.status == "scored"]
    states = [Read(n, r, step) for n, r in scored for step in steps_of(r)]
    rows = moved = 0
    for encoder, group in groupby(sorted(states, key=by_encoder), key=by_encoder):
        kept: dict[str, Mapping[str, Tensor]] = {}
        for state in group:
            record = state.record
            cell = cells[record.method, record.shift, record.seeds.train, record.draw]
            where = f"{cell}" if state.step is None else f"{cell}, after step {state.step}"
            if encoder.startswith("encoders/") and encoder not in submission.bundle.places:
                yield Finding("problem", f"there is no encoder of {where}")
                continue
            try:
                plan.check(cell)
                yield from other_sources(record, cell, plan)
                predictions, validators = read_again(submission, encoder, cell, kept, plan)
            except (RuntimeError, ValueError, ArithmeticError, BadInput) as error:
                reason = f"{type(error).__name__}: {error}".partition("\n")[0]
                yield Finding("problem", f"{where} cannot be read off again: {reason}")
                continue
            if state.validators:
                yield from other_validators(where, state.validators, validators, unit_of(plan))
            said = submission.predictions(predictions_name(state.name))
            for domain, values in predictions.items():
                claimed = torch.from_numpy(said[prediction_name(domain, state.step)].copy())
                away = is_away(claimed, values, truth, domain)
                rows, moved = rows + len(values), moved + int(away.sum())
                if text := stray(claimed, values, away, truth, domain):
                    yield Finding("problem", f"{where}, {domain}: {text}")
    yield Finding("note", f"read off again, {moved:,} of {rows:,} predictions are others")


def by_encoder(state: Read) -> str:
    return state.encoder


def plan_cells(plan: Plan) -> dict[tuple[str, str, int, int], Cell]:
    """With the settings that were drawn."""
    return {(c.method.name, str(c.shift), c.seed, c.draw): c for c in plan.cells}


def other_sources(record: Record, cell: Cell, plan: Plan) -> Iterator[Finding]:
    """Where what is installed here is not what the record was made with."""
    here = describe(cell, plan)
    spec = here.spec.model_copy(update={"precision": record.spec.precision})
    if record.spec != spec:
        yield Finding("problem", f"{cell} did something else than its suite asks for")
    digests = {plugin.name: plugin.digest for plugin in here.plugins}
    for plugin in record.plugins:
        if plugin.used and digests[plugin.name] != plugin.digest:
            text = f"plugin {plugin.name} has other source here than where it was run"
            yield Finding("flag", text, record.method)


def read_again(
    submission: Submission,
    encoder: str,
    cell: Cell,
    kept: dict[str, Mapping[str, Tensor]],
    plan: Plan,
) -> tuple[Mapping[str, Tensor], Validators]:
    """Predictions on the test rows of the cell's domains, and what rules of selection choose by.

    ``kept`` has what was extracted of the encoder.
    """
    network, objective = loaded(submission, encoder, cell, plan)

    def once(key: str, work: str, made: Made) -> Mapping[str, Tensor]:
        if key not in kept:
            kept[key] = made()
        return kept[key]

    z = shift_features(network, encoder, (cell.shift.sources, cell.shift.targets), plan, once)
    fitted = fit_readout(cell, objective, z)
    return score(cell, fitted, z)[1], validated(cell, fitted, common_of(cell, z), z)


def unit_of(plan: Plan) -> float:
    """Beside which a validator is large or small: 1, or the variance of labels that are numbers."""
    if plan.pack.task.num_classes:
        return 1.0
    labels = plan.pack.labels[is_known(plan.pack.labels)].double()
    return labels.var(correction=0).item()


def other_validators(
    where: str, said: Validators, again: Validators, unit: float
) -> Iterator[Finding]:
    """What would have a rule of selection prefer this state, and is not so."""
    for name in STEADY:
        mine, theirs = getattr(said, name), getattr(again, name)
        if (mine is None) != (theirs is None) or (
            mine is not None and abs(mine - theirs) > MOST_MOVED * max(unit, abs(theirs))
        ):
            yield Finding("problem", f"{where}: its {name} is {mine}, and read off again {theirs}")


def loaded(
    submission: Submission, encoder: str, cell: Cell, plan: Plan
) -> tuple[nn.Module, Objective | None]:
    """The submitted encoder and its last objective. RuntimeError if they do not fit."""
    task, device = plan.pack.task, plan.machine.device
    network = build_encoder(plan.catalog.resolve("encoder", cell.method.encoder), task, cell.seed)
    network = network.to(device).to(memory_format=torch.channels_last)
    if not cell.method.chain:
        return network, None
    objective: Objective = plan.links(cell)[-1].objective.build(network, task).to(device)
    tensors = safetensors.torch.load(submission.bundle.read(encoder))
    network.load_state_dict(below("encoder", tensors))
    objective.load_state_dict(below("objective", tensors))
    return network, objective


def is_away(claimed: Tensor, again: Tensor, truth: Truth, domain: str) -> Tensor:
    """bool [N]: the rows with another prediction."""
    if truth.class_names:
        return claimed != again
    spread = claimed.max() - claimed.min() if len(claimed) else torch.zeros(())
    return (claimed - again).abs() > CLOSE * spread


def stray(claimed: Tensor, again: Tensor, away: Tensor, truth: Truth, domain: str) -> str | None:
    """Why predictions cannot be those of the same encoder, if they cannot.

    Rounding moves few rows, and as many to the right class as away from it: of m moved rows, the
    number of right ones changes by about √m. Over all rows, and over those of each group, by which
    a score could be raised by a few.
    """
    count, most = int(away.sum()), max(1, int(MOST_MOVED * len(away)))
    if count > most:
        return f"{count} of {len(away)} predictions are others, more than {most}"
    known = known_rows(truth, domain)
    if not len(known):
        return None
    labels = torch.from_numpy(truth.labels[domain])
    if not truth.class_names:
        mine, theirs = (metrics.pearson(p[known], labels[known]) for p in (claimed, again))
        return None if abs(mine - theirs) <= CLOSE else f"r is {theirs:.4f}, not {mine:.4f}"
    gain = (claimed == labels).int() - (again == labels).int()
    parts = [known]
    if truth.groups:
        inside = metrics.rows_of_groups(torch.from_numpy(truth.groups[domain])[known])
        parts += [known[rows] for _, rows in inside]
    for rows in parts:
        raised = int(gain[rows].sum())
        if abs(raised) > max(CLOSE * len(rows), 3 * sqrt(int(away[rows].sum()))):
            return f"{raised} more of {len(rows)} rows are right by the claim than again"
    return None


def reproduced(
    submission: Submission,
    plan: Plan,
    seed: int | None,
    audience: Callable[[int], AbstractContextManager[Audience]],
) -> Iterator[Finding]:
    """Train every method with a seed that was not submitted, the next one if ``seed`` is None.

    What the board would show of it should lie where that of one seed more does with a probability
    of 95 %, if values are normal: so of honest methods one in twenty does not. Settings are drawn
    anew, and chosen by the board's rule. ``audience`` is made for so many cells. BadInput if there
    are no two seeds, or this one was submitted.
    """
    suite = submission.suite
    new = max(suite.seeds) + 1 if seed is None else seed
    if new in suite.seeds or len(suite.seeds) < 2:
        raise BadInput(
            f"seed {new} cannot tell whether seeds {', '.join(map(str, suite.seeds))} can be "
            "reproduced; it takes two that were submitted, and one that was not"
        )
    with TemporaryDirectory() as scratch:
        other = suite.model_copy(update={"seeds": (new,)})
        again = replace(plan, suite=other, store=Store(Path(scratch)))
        shifts = suite.ranked_shifts(again.cells)
        for cell in again.cells:
            again.check(cell)
        with audience(len(again.cells)) as told:
            records = run_cells(again, again.cells, told)
    before = averages(suite, shifts, submission.records.values())
    now = averages(other, shifts, records)
    for method in submission.manifest.methods:
        yield from compared(method, before[method], now[method], new)


def averages(
    suite: Suite, shifts: tuple[str, ...], records: Iterable[Record]
) -> dict[str, tuple[float, ...]]:
    """What a board shows of every method: shares, one for each seed; none if one lacks a score."""
    made = board(Source(suite.name, expected_by(suite, shifts), tuple(records)))
    return {row.method: tuple(value / 100 for value in row.average) for row in made.rows}


def compared(
    method: str, before: Sequence[float], now: Sequence[float], seed: int
) -> Iterator[Finding]:
    """Whether a seed more is what the seeds before let one expect."""
    if not now:
        yield Finding("problem", f"{method}, trained with seed {seed}, has no score")
        return
    if not before:
        yield Finding("problem", f"{method} has a seed that lacks a score")
        return
    low, high = interval(before)
    if high - low > WIDE:
        text = f"{method}: where a seed more should lie is {high - low:.2f} wide, which tells too "
        yield Finding("problem", text + "little to reproduce anything; send more seeds")
        return
    text = f"{method}: trained with seed {seed} it has {now[0]:.4f}, and one seed more than the "
    text += f"{len(before)} submitted should have {low:.4f} to {high:.4f}"
    yield Finding("note" if low <= now[0] <= high else "problem", text)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Where one value more of the same normal distribution lies, with a probability of 95 %.

    Never narrower than a point on each side: seeds may agree by chance, and test rows are few.
    """
    n = len(values)
    quantile = float(student.ppf((1 + CONFIDENCE) / 2, n - 1))
    half = max(CLOSE, quantile * stdev(values) * sqrt(1 + 1 / n))
    return mean(values) - half, mean(values) + half
