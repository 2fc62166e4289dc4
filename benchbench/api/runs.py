"""Suites are run, and encoders evaluated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchbench.extension.errors import BadInput, MissingData

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from benchbench.execution.local import Audience
    from benchbench.leaderboard.results import Results
    from benchbench.suites.plan import Plan
    from benchbench.suites.suite import Cell

from benchbench.api.opening import Where, chosen_cells, data_place, opened, wanted_of

EVALUATED = "evaluate"  # the suite that `evaluate` runs


def run(
    suite: Any,
    *,
    only: str = "",
    store: Where = None,
    data: Where = None,
    device: str = "auto",
    launch: str = "local",
    resources: Sequence[str] = (),
    ranks: int = 1,
    compiled: bool = False,
    checkpoint_every: float = 60.0,
    budget: float | None = None,
    plugins: Sequence[str | Path] = (),
    without_plugins: Sequence[str] = (),
    strict_plugins: bool = False,
    progress: bool = True,
    debug: bool = False,
) -> Results:
    """Train and score every cell of a suite that has no record yet.

    A cell is one method on one shift with one seed. ``suite`` is the name of a shipped suite, the
    path of a TOML file, a `Suite`, or a dict of what such a file says. In a dict, objects may stand
    for names, with ``launch="local"``:

    * ``"dataset"``: `DomainData`, a torch Dataset of (image, label, domain), or arrays (images,
      labels, domains), as `domain_data` takes them;
    * ``"encoder"``: a module, a function from a batch to features, or a factory whose first
      argument is ``task``, such as a class of modules, which every cell calls anew;
    * ``"augmentation"``: a function from a batch, float32 [B, C, H, W] in [0, 1], to its view, a
      factory, or a list of such and of names, in turn;
    * in a ``"chain"``: an `Objective` class, or a function ``loss(encoder, batch)`` of an encoder
      and a `Batch` that returns a scalar. What it reads beside views is said by an attribute:
      ``loss.reads = {"labels"}``.

    ``only`` chooses cells, such as ``"method=erm*,seed=0"``; ``checkpoint_every`` and ``budget``
    are seconds; ``launch``, ``resources``, ``ranks`` and ``compiled`` are as the options of
    ``benchbench run``. A cell that fails is recorded as failed, and the others go on; with
    ``debug`` its exception is raised, no record is kept, and nothing runs in another process. After
    KeyboardInterrupt all that was finished is kept.

    BadInput says what is wrong with the suite, its data, this machine or a plugin.
    """
    from benchbench.execution.launchers import processes_here, run_on
    from benchbench.execution.local import run_cells
    from benchbench.store.artifacts import enough_space
    from benchbench.suites.cost import Calibration, total
    from benchbench.suites.plan import DONE
    from benchbench.training.stop_signals import raised_by

    if debug and (launch != "local" or ranks > 1):
        raise BadInput("debug keeps everything in this process: leave out launch and ranks")
    with opened(
        suite,
        store,
        data,
        device,
        wanted=wanted_of(plugins, without_plugins, strict_plugins),
        progress=progress,
        launch=launch,
        resources=resources,
        writes=True,
        compiled=compiled,
        ranks=ranks,
        checkpoint_every=checkpoint_every,
    ) as made:
        plan, tell, engine = made.plan, made.tell, made.engine
        cells = chosen_cells(plan, only)
        notes = [one.sentence for one in made.objects.given] + plan.remarks(cells)
        for note in notes:
            tell(note)
        known = plan.statuses(plan.state())
        to_do = [cell for cell in cells if known[cell] not in DONE]
        for cell in to_do:
            plan.check(cell)
        told = Calibration(plan, timed=budget is not None, processes=processes_here(engine))
        for cell in [] if debug else to_do:  # by two tiny batches, at which no debugger should stop
            told.check(cell)
        if budget is not None:
            to_do = _within(told, to_do, budget, tell)
            cells = [cell for cell in cells if cell in to_do or known[cell] in DONE]
        if not debug:
            enough_space(plan.store.root, total(told.in_turn(to_do)).disk)
        tell(
            f"{plan.suite.name}: {len(cells)} cells, {len(to_do)} to run on {plan.machine.name} in "
            f"{plan.machine.precision}; store {made.shown_store}; the data's licence: "
            f"{plan.pack.licence}"
        )
        with raised_by(), _audience(len(to_do), progress) as audience:
            if debug:
                run_cells(plan, to_do, audience, debug=True)
            else:
                run_on(engine, made.job, plan, to_do, audience)
        return made.results(cells, notes)


def preview(
    suite: Any,
    *,
    only: str = "",
    store: Where = None,
    data: Where = None,
    device: str = "auto",
    launch: str = "local",
    resources: Sequence[str] = (),
    ranks: int = 1,
    compiled: bool = False,
    checkpoint_every: float = 60.0,
    budget: float | None = None,
    plugins: Sequence[str | Path] = (),
    without_plugins: Sequence[str] = (),
    strict_plugins: bool = False,
    progress: bool = True,
) -> Preview:
    """What `run` would do with every cell, and its cost in time, memory and disk.

    The cost is estimated from a few steps of every kind of stage; nothing is kept of them. Where
    files of the dataset are missing, the preview says which, and lists the cells of a suite that
    names its shifts. BadInput says what is wrong with the suite or a plugin.
    """
    from benchbench.execution.launchers import processes_here

    wanted = wanted_of(plugins, without_plugins, strict_plugins)
    try:
        with opened(
            suite,
            store,
            data,
            device,
            wanted=wanted,
            progress=progress,
            launch=launch,
            resources=resources,
            compiled=compiled,
            ranks=ranks,
            checkpoint_every=checkpoint_every,
        ) as made:
            cells = chosen_cells(made.plan, only)
            for note in [one.sentence for one in made.objects.given] + made.plan.remarks(cells):
                made.tell(note)
            return _previewed(made.plan, cells, budget, processes_here(made.engine))
    except MissingData as error:
        return _without_data(suite, only, data_place(data), error)


@dataclass(frozen=True)
class Preview:
    """What a run would do; printed, one line for each cell and one for their sum."""

    lines: tuple[str, ...]
    refused: int = 0  # cells that cannot run
    fault: BadInput | None = None  # why no cell can run: missing data, too small a disk

    def __str__(self) -> str:
        return "\n".join(self.lines)

    __repr__ = __str__


def _without_data(suite: Any, only: str, data: Path, error: MissingData) -> Preview:
    from benchbench.suites.suite import Suite, chosen

    read = suite if isinstance(suite, Suite) else Suite.read(str(suite))
    cells = chosen(read.cells(read.named_domains), only)
    lines = [f"{cell}: cannot run, because its data are missing" for cell in cells]
    lines += [f"missing: {data / path}" for path in error.files]
    return Preview(tuple(lines), len(cells), error)


def _previewed(
    plan: Plan, cells: list[Cell], budget: float | None, processes: int | None
) -> Preview:
    from benchbench.store.artifacts import enough_space
    from benchbench.suites.cost import Calibration, affordable, sized, span, total

    told, to_do, refused = Calibration(plan, processes=processes), [], 0
    lines = []
    for cell in cells:
        try:
            plan.check(cell)
            if plan.done(cell):
                lines.append(f"{cell}: cached")
                continue
            told.work(cell)
        except BadInput as error:
            lines.append(f"{cell}: cannot run, because {error}")
            refused += 1
            continue
        to_do.append(cell)
    fit = to_do if budget is None else affordable(told, to_do, budget)
    lines += [
        f"{cell}: to run, about {span(cost.seconds)}, {sized(cost.memory)} of memory, "
        f"{sized(cost.disk)} on disk"
        for cell, cost in zip(fit, told.in_turn(fit), strict=True)
    ]
    if plan.machine.compiled:
        for name, steps, eager, compiled in told.compiling(fit):
            gain = eager.of(steps) - compiled.of(steps)
            lines.append(
                f"--compile {'spares' if gain > 0 else 'costs'} about {span(abs(gain))} in a "
                f"stage of {name}: {span(compiled.first)} at first, then "
                f"{1e3 * compiled.step:.0f} ms a step and not {1e3 * eager.step:.0f}, for "
                f"{steps:,} steps"
            )
    over = [cell for cell in to_do if cell not in fit]
    lines += [f"{cell}: over the budget" for cell in over]
    whole = total(told.in_turn(fit))
    lines.append(
        f"{len(cells) - len(to_do) - refused} cached, {len(fit)} to run, {refused} cannot; "
        f"{told.stages(fit)} stages to train, about {span(whole.seconds)} on "
        f"{plan.machine.name}, {sized(whole.memory)} of memory, {sized(whole.disk)} on disk, "
        f"{sized(whole.features)} of them features"
        + (f"; {len(over)} over the budget of {span(budget)}" if budget is not None else "")
    )
    fault = None
    if not refused:
        try:
            enough_space(plan.store.root, whole.disk)
        except BadInput as error:
            fault = error
    return Preview(tuple(lines), refused, fault)


def evaluate(
    encoder: Any,
    dataset: Any,
    *,
    shifts: str | Sequence[str] = "all",
    readouts: Sequence[str] = ("linear", "knn"),
    seeds: Sequence[int] | None = None,
    name: str = EVALUATED,
    precision: str = "auto",
    split_seed: int = 0,
    compare_with: Where = None,
    store: Where = None,
    data: Where = None,
    device: str = "auto",
    plugins: Sequence[str | Path] = (),
    progress: bool = True,
    debug: bool = False,
) -> Results:
    """How well the features of a frozen encoder carry labels of one domain to another.

    ``encoder`` is a name such as ``"timm(model='resnet18')"``, a module, a function from a batch
    of images, float32 [B, C, H, W] in [0, 1], to features [B, …], which are flattened, or a factory
    whose first argument is ``task``. The encoder is evaluated as it is: nothing of it is trained.
    Each of ``readouts`` is fitted to features of the source, and scored on test rows of both
    domains. ``dataset`` and the rest are as in `run`.

    With ``compare_with``, the name or the folder of a published board, the board's methods stand
    beside the encoder, on the shifts that both have; `load_board` says which boards there are.
    ``seeds`` are those of that board, else 0, unless they are given: only a factory that draws
    weights gives another result for another seed.

    BadInput says what is wrong, such as an encoder that does not return one row for each input.
    """
    from benchbench.api.boards import load_board

    beside = load_board(compare_with) if compare_with is not None else None
    if seeds is None:
        seeds = beside.source.expected.seeds if beside else (0,)
    text = encoder if isinstance(encoder, str) else None
    fields: dict[str, Any] = {
        "name": name,
        "dataset": dataset,
        "shifts": shifts if isinstance(shifts, str) else list(shifts),
        "seeds": list(seeds),
        "split_seed": split_seed,
        "precision": precision,
        "encoder": encoder,
        "readout": [readouts] if isinstance(readouts, str) else list(readouts),
        "method": [{"name": text or _title(encoder), "chain": []}],
    }
    results = run(
        fields,
        store=store,
        data=data,
        device=device,
        plugins=plugins,
        progress=progress,
        debug=debug,
    )
    return results.beside(beside) if beside else results


def status(
    suite: Any,
    *,
    only: str = "",
    store: Where = None,
    data: Where = None,
    device: str = "auto",
    plugins: Sequence[str | Path] = (),
    without_plugins: Sequence[str] = (),
    strict_plugins: bool = False,
    progress: bool = True,
) -> Status:
    """How many cells of a suite are scored, failed or to run; nothing is trained.

    BadInput as of `run`.
    """
    wanted = wanted_of(plugins, without_plugins, strict_plugins)
    with opened(suite, store, data, device, wanted=wanted, progress=progress) as made:
        plan = made.plan
        cells = chosen_cells(plan, only)
        older, known = plan.older_records(), plan.statuses(plan.state())
        states = {
            cell: known[cell] or ("stale, to run again" if cell in older else "to run")
            for cell in cells
        }
        odd = [cell for cell in cells if known[cell] not in (None, "scored")]
        reasons = {cell: record.reason or "" for cell in odd if (record := plan.record(cell))}
        signs = tuple(map(_told_of, plan.store.claims.signs().values()))
        return Status(plan.suite.name, states, reasons, signs)


@dataclass(frozen=True)
class Status:
    """The states of a suite's cells; printed, one line of counts and one for each failure."""

    suite: str
    states: Mapping[Cell, str]
    reasons: Mapping[Cell, str]  # of those that have no score
    working: tuple[str, ...]  # who works on what, a line each

    def __str__(self) -> str:
        from collections import Counter

        states = Counter(self.states.values())
        counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        lines = [f"{self.suite}: {len(self.states)} cells: {counts}"]
        lines += [f"  {cell}: {self.states[cell]}: {why}" for cell, why in self.reasons.items()]
        return "\n".join([*lines, *(f"  {sign}" for sign in self.working)])

    __repr__ = __str__


def _title(thing: Any) -> str:
    """The name of a method that is an encoder."""
    named = thing if hasattr(thing, "__name__") else type(thing)
    return "encoder" if named.__name__ == "<lambda>" else str(named.__name__)


def _audience(count: int, progress: bool) -> AbstractContextManager[Audience]:
    from benchbench.execution.progress import Progress, Silence

    return Progress(count) if progress else Silence()


def _within(told: Any, cells: list[Cell], budget: float, tell: Callable[[str], None]) -> list[Cell]:
    """Those that fit into a time; BadInput if none does."""
    from benchbench.suites.cost import affordable, span, total

    fit: list[Cell] = affordable(told, cells, budget)
    if cells and not fit:
        least = min(told.beyond(cell, set()).seconds for cell in cells)
        raise BadInput(
            f"--budget {span(budget)} is not enough for a cell; the cheapest takes about "
            f"{span(least)}"
        )
    seconds = total(told.in_turn(fit)).seconds
    tell(f"{len(fit)} of {len(cells)} cells fit into {span(budget)} and take about {span(seconds)}")
    return fit


def _told_of(sign: Any) -> str:
    """Who works on what, and how far it is."""
    from benchbench.suites.cost import span

    who = f"process {sign.pid} on {sign.host}, heard of {span(sign.seen)} ago"
    done = f" step {sign.step} of {sign.steps}," if sign.steps else ""
    if sign.lost:
        return f"died: {sign.work},{done} {who}; run the suite again to go on"
    left = sign.seconds_left
    rest = f", about {span(left)} left" if left is not None else ""
    return f"runs: {sign.work},{done} {who}{rest}"
