"""The commands but `bench` and those of `data`."""

from __future__ import annotations

import json
import shlex
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchbench import API, __version__
from benchbench.cli.advise import advise
from benchbench.cli.bench import bench
from benchbench.cli.board import compare, leaderboard, publish
from benchbench.cli.data import data
from benchbench.cli.diagnose import diagnose
from benchbench.cli.export import export
from benchbench.cli.options import (
    Place,
    budget_option,
    catalog,
    chosen_cells,
    compile_option,
    data_option,
    device_option,
    launch_options,
    make_job,
    make_plan,
    only_option,
    plugin_options,
    store_option,
)
from benchbench.cli.output import guarded
from benchbench.cli.search import search
from benchbench.cli.store import store
from benchbench.cli.submit import submit, verify
from benchbench.cli.theory import theory
from benchbench.extension.errors import BadInput, MissingData
from benchbench.leaderboard.escaping import visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchbench.extension.catalog import Catalog
    from benchbench.store.locks import Sign
    from benchbench.suites.cost import Calibration
    from benchbench.suites.plan import Plan
    from benchbench.suites.suite import Cell

KINDS = ("datasets", "encoders", "augmentations", "objectives")


class Main(click.Group):
    """Bad input, and what the system says of a file, end in one sentence and status 2; an interrupt
    in 130. A warning is a sentence. Of full devices and closed pipes see `guarded`."""

    def main(self, *args: Any, **how: Any) -> Any:
        with guarded():
            return super().main(*args, **how)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = lambda message, *place: click.echo(
                    f"benchbench: {message}", err=True
                )
                return super().invoke(ctx)
        except (BadInput, OSError) as error:
            said = said_of(error) if isinstance(error, OSError) else str(error)
            told = "\n".join(map(visible, said.split("\n")))  # of strangers' words, too
            click.echo(f"benchbench: {told}", err=True)
            sys.exit(2)
        except KeyboardInterrupt as interrupt:
            again = shlex.join(["benchbench", *sys.argv[1:]])
            where = f" while {interrupt}" if interrupt.args else ""
            said = f"\nStopped{where}. What was finished is kept; go on with: {again}"
            click.echo(said, err=True)
            sys.exit(130)


def said_of(error: OSError) -> str:
    """Which file, and what the system says of it."""
    reason = error.strerror or str(error) or type(error).__name__
    return f"{error.filename} cannot be used: {reason}" if error.filename else reason


@click.group(cls=Main, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="benchbench")
def main() -> None:
    """Will it transfer? Contrastive pre-training against invariance methods under domain shift.

    SUITE is the name of a shipped suite (quickstart, u-wilds/camelyon17; `benchbench list suites`)
    or the path of a TOML file.
    """


main.add_command(data)
main.add_command(bench)
main.add_command(advise)
main.add_command(diagnose)
main.add_command(theory)
main.add_command(search)
main.add_command(submit)
main.add_command(verify)
main.add_command(store)
main.add_command(export)
main.add_command(leaderboard)
main.add_command(publish)
main.add_command(compare)


@main.command("list")
@plugin_options
@click.argument("kind", type=click.Choice((*KINDS, "suites")), required=False)
@click.option("--json", "as_json", is_flag=True, help="Everything that is known, for programs.")
def list_(kind: str | None, as_json: bool) -> None:
    """Show what the installed plugins offer, with every option and its default, and all suites."""
    from benchbench.extension.grammar import spell
    from benchbench.suites.suite import shipped_suites

    known = catalog()
    chosen = [e for e in known.entries.values() if kind is None or f"{e.kind}s" == kind]
    suites = shipped_suites() if kind in (None, "suites") else []
    if as_json:
        offers = [
            {
                "kind": entry.kind,
                "name": entry.name,
                "options": {name: repr(value) for name, value in entry.options.items()},
                "summary": entry.summary,
                "plugin": vars(entry.plugin),
            }
            for entry in chosen
        ]
        told = {"offers": offers, "suites": suites, **plugins_told(known)}
        click.echo(json.dumps(told, indent=1))
        return
    for group in KINDS:
        members = [entry for entry in chosen if f"{entry.kind}s" == group]
        if members:
            click.secho(group, bold=True)
        for entry in sorted(members, key=lambda e: e.name):
            click.echo(f"  {spell(entry.name, entry.options)}")
            click.echo(f"      {entry.summary} [{entry.plugin.distribution}]")
    if suites:
        click.secho("suites", bold=True)
        click.echo("\n".join(f"  {name}" for name in suites))
    for aside in known.aside:
        click.echo(f"{aside}", err=True)


def plugins_told(known: Catalog) -> dict[str, Any]:
    """Every plugin that was found, for programs."""
    return {
        "api": ".".join(map(str, API)),
        "plugins": [
            {
                **vars(plugin),
                "offers": [f"{entry.kind} {entry.name}" for entry in known.offered_by(plugin)],
            }
            for plugin in known.plugins
        ],
        "set_aside": [{**vars(aside.plugin), "reason": aside.reason} for aside in known.aside],
    }


@main.command()
@plugin_options
@click.argument("suite")
@store_option
@data_option
@device_option
@only_option
@budget_option
@compile_option
@launch_options
@click.option(
    "--dry-run",
    is_flag=True,
    help="Show what would be done, and the time, memory and disk it takes.",
)
def run(
    suite: str,
    store: Path,
    data: Path,
    device: str,
    only: str,
    budget: float | None,
    compiled: bool,
    launch: str,
    resources: tuple[str, ...],
    ranks: int,
    checkpoint_every: float,
    dry_run: bool,
) -> None:
    """Train and score every cell of SUITE that has no record yet, then print the board.

    Run it again after an interruption: what was finished is kept, and nothing is done twice.
    """
    from benchbench.execution.launchers import engine_of, processes_here, run_on
    from benchbench.execution.progress import Counting, Progress
    from benchbench.leaderboard.publishing import board_of_plan
    from benchbench.store.artifacts import Store, enough_space
    from benchbench.suites.cost import Calibration, total
    from benchbench.suites.plan import DONE
    from benchbench.training.stop_signals import raised_by

    job = make_job(
        suite,
        store,
        data,
        device,
        compiled=compiled,
        ranks=ranks,
        checkpoint_every=checkpoint_every,
    )
    engine = engine_of(launch, resources, job)
    if not dry_run:
        Store(store).check()
    try:
        plan = job.plan(Counting("decoding", "image"))
    except MissingData as error:
        if dry_run:
            show_without_data(suite, only, data, error.files)
        raise
    cells = chosen_cells(plan, only)
    for remark in plan.remarks(cells):
        click.echo(remark, err=True)
    if dry_run:
        show_plan(plan, cells, budget, processes_here(engine))
        return
    state = plan.state()
    known = plan.statuses(state)
    to_do = [cell for cell in cells if known[cell] not in DONE]
    for cell in to_do:
        plan.check(cell)
    told = Calibration(plan, timed=budget is not None, processes=processes_here(engine))
    for cell in to_do:
        told.check(cell)
    if budget is not None:
        to_do = within_budget(told, to_do, budget)
        cells = [cell for cell in cells if cell in to_do or known[cell] in DONE]
    enough_space(store, total(told.in_turn(to_do)).disk)
    click.echo(
        f"{plan.suite.name}: {len(cells)} cells, {len(to_do)} to run on {plan.machine.name} in "
        f"{plan.machine.precision}; store {store}; the data's licence: {plan.pack.licence}",
        err=True,
    )
    with raised_by(), Progress(len(to_do)) as progress:
        run_on(engine, job, plan, to_do, progress)
    if to_do:
        state = plan.state()
        known = plan.statuses(state)
    click.echo(board_of_plan(plan, state), nl=False)
    if any(known[cell] != "scored" for cell in cells):
        sys.exit(1)


@main.command()
@plugin_options
@click.argument("suite")
@store_option
@data_option
@device_option
@only_option
def status(suite: str, store: Path, data: Path, device: str, only: str) -> None:
    """Say how many cells of SUITE are scored, failed or still to run, and what runs or died."""
    from collections import Counter

    plan = make_plan(suite, store, data, device)
    cells = chosen_cells(plan, only)
    older = plan.older_records()
    known = plan.statuses(plan.state())
    states = Counter(
        known[cell] or ("stale, to run again" if cell in older else "to run") for cell in cells
    )
    counts = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
    click.echo(f"{plan.suite.name}: {len(cells)} cells: {counts}")
    for cell in cells:
        if known[cell] not in (None, "scored") and (record := plan.record(cell)):
            click.echo(f"  {cell}: {record.status}: {record.reason}")
    for sign in plan.store.claims.signs().values():
        click.echo(f"  {told_of(sign)}")


def told_of(sign: Sign) -> str:
    """Who works on what, and how far it is."""
    who = f"process {sign.pid} on {sign.host}, heard of {spelled(sign.seen)} ago"
    done = f" step {sign.step} of {sign.steps}," if sign.steps else ""
    if sign.lost:
        return f"died: {sign.work},{done} {who}; run the suite again to go on"
    left = sign.seconds_left
    rest = f", about {spelled(left)} left" if left is not None else ""
    return f"runs: {sign.work},{done} {who}{rest}"


@main.command()
@plugin_options
@device_option
@click.option("--json", "as_json", is_flag=True)
def sysinfo(device: str, as_json: bool) -> None:
    """Describe this machine and its packages, for a bug report. No host or user name."""
    from benchbench.training.device import Machine

    machine, known = Machine.choose(device, "auto"), catalog()
    facts = {
        **machine.environment().model_dump(),
        "precision": machine.precision,
        **plugins_told(known),
    }
    if as_json:
        click.echo(json.dumps(facts, indent=1))
        return
    for name in ("benchbench", "python", "platform", "device", "threads", "precision"):
        click.echo(f"{name:12} {facts[name]}")
    for name, version in machine.environment().packages.items():
        click.echo(f"{name:12} {version}")
    for plugin in known.plugins:
        click.echo(f"plugin       {plugin}, source {plugin.digest[:12]}")
    for aside in known.aside:
        click.echo(f"{aside}")


def show_without_data(suite: str, only: str, data: Path, missing: Sequence[str]) -> None:
    """The cells of a suite that names its shifts, though nothing is known of its data yet."""
    from benchbench.suites.suite import Suite, chosen

    read = Suite.read(suite)
    for cell in chosen(read.cells(read.named_domains), only):
        click.echo(f"{cell}: cannot run, because its data are missing")
    for path in missing:
        click.echo(f"missing: {data / path}")


def show_plan(plan: Plan, cells: list[Cell], budget: float | None, processes: int | None) -> None:
    """What `run` would do with every cell, and what that costs, from a trial of every kind."""
    from benchbench.store.artifacts import enough_space
    from benchbench.suites.cost import Calibration, affordable, sized, total

    told, to_do, refused = Calibration(plan, processes=processes), [], 0
    for cell in cells:
        try:
            plan.check(cell)
            if plan.done(cell):
                click.echo(f"{cell}: cached")
                continue
            told.work(cell)
        except BadInput as error:
            click.echo(f"{cell}: cannot run, because {error}")
            refused += 1
            continue
        to_do.append(cell)
    fit = to_do if budget is None else affordable(told, to_do, budget)
    for cell, cost in zip(fit, told.in_turn(fit), strict=True):
        click.echo(
            f"{cell}: to run, about {spelled(cost.seconds)}, {sized(cost.memory)} of memory, "
            f"{sized(cost.disk)} on disk"
        )
    if plan.machine.compiled:
        for name, steps, eager, compiled in told.compiling(fit):
            gain = eager.of(steps) - compiled.of(steps)
            click.echo(
                f"--compile {'spares' if gain > 0 else 'costs'} about {spelled(abs(gain))} in a "
                f"stage of {name}: {spelled(compiled.first)} at first, then "
                f"{1e3 * compiled.step:.0f} ms a step and not {1e3 * eager.step:.0f}, for "
                f"{steps:,} steps"
            )
    over = [cell for cell in to_do if cell not in fit]
    for cell in over:
        click.echo(f"{cell}: over the budget")
    whole = total(told.in_turn(fit))
    click.echo(
        f"{len(cells) - len(to_do) - refused} cached, {len(fit)} to run, {refused} cannot; "
        f"{told.stages(fit)} stages to train, about {spelled(whole.seconds)} on "
        f"{plan.machine.name}, {sized(whole.memory)} of memory, {sized(whole.disk)} on disk"
        + (f"; {len(over)} over the budget of {spelled(budget)}" if budget is not None else "")
    )
    if refused:
        sys.exit(2)
    enough_space(plan.store.root, whole.disk)


def within_budget(told: Calibration, cells: list[Cell], budget: float) -> list[Cell]:
    """Those that fit, told to the person who waits for them; BadInput if none does."""
    from benchbench.suites.cost import affordable, total

    fit = affordable(told, cells, budget)
    if cells and not fit:
        least = min(told.beyond(cell, set()).seconds for cell in cells)
        raise BadInput(
            f"--budget {spelled(budget)} is not enough for a cell; the cheapest takes about "
            f"{spelled(least)}"
        )
    seconds = total(told.in_turn(fit)).seconds
    click.echo(
        f"{len(fit)} of {len(cells)} cells fit into {spelled(budget)} and take about "
        f"{spelled(seconds)}",
        err=True,
    )
    return fit


def spelled(seconds: float) -> str:
    """A time to read: ``40 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@main.command()
@click.argument("kind", type=click.Choice([kind.removesuffix("s") for kind in KINDS]))
@click.argument("name")
@click.option(
    "--into",
    type=Place(file_okay=False, path_type=Path),
    default=Path(),
    help="The folder that gets the new one. Default: this one.",
)
@plugin_options
def new(kind: str, name: str, into: Path) -> None:
    """Write the package of a new plugin: one working method, its test, and a suite.

    NAME is what suites call it, such as my-idea.
    """
    from benchbench.extension.scaffold import write_package

    snake = name.replace("-", "_")
    known = catalog()
    if (kind, snake) in known.entries:
        raise BadInput(f"there is {kind} {snake} already; choose another name")
    if any(plugin.name == snake for plugin in known.plugins):
        raise BadInput(f"there is a plugin {snake} already; choose another name")
    folder = write_package(kind, name, into)
    click.echo(
        f"{folder} holds {kind} {snake}, which works as it is. To see it in a table:\n"
        f'  cd {folder} && pip install -e ".[test]"\n'
        "  pytest\n"
        "  benchbench run suite.toml"
    )


@main.command()
@plugin_options
@click.argument("plugins", metavar="[PLUGIN]...", nargs=-1)
@data_option
@click.option("--verbose", "-v", is_flag=True, help="Every check with its promise.")
@click.option("--json", "as_json", is_flag=True)
def check(plugins: tuple[str, ...], data: Path, verbose: bool, as_json: bool) -> None:
    """Try what PLUGINs must do, or all plugins; with --plugin FILE.py, the file.

    Seconds for each entry, on the CPU, without data. Exits with 1 if a check fails.
    """
    from collections import Counter
    from itertools import groupby
    from tempfile import TemporaryDirectory

    from benchbench.extension.catalog import LOCAL_FILE
    from benchbench.extension.conformance import checks_of

    known = catalog()
    files = [p for p in known.plugins if p.distribution == LOCAL_FILE]
    chosen = [known.named(name) for name in plugins] or files or list(known.plugins)
    told: list[dict[str, Any]] = []
    with TemporaryDirectory() as scratch, TemporaryDirectory() as empty:
        root = data if data.is_dir() else Path(empty)
        every = checks_of(known, chosen, root, Path(scratch))
        for entry, checks in groupby(every, lambda check: check.entry):
            outcomes = [(check, check.run()) for check in checks]
            counts = Counter(outcome.status for _, outcome in outcomes)
            told += [
                {
                    "plugin": entry.plugin.name,
                    "kind": entry.kind,
                    "entry": entry.name,
                    "check": check.name,
                    "promise": check.promise,
                    **vars(outcome),
                }
                for check, outcome in outcomes
            ]
            if as_json:
                continue
            summary = ", ".join(f"{n} {status}" for status, n in sorted(counts.items()))
            click.echo(f"{entry.kind} {entry.name} [{entry.plugin}]: {summary}")
            lines: dict[str, list[str]] = {}
            for check, outcome in outcomes:
                if outcome.status != "passed":
                    lines.setdefault(f"{outcome.status}: {outcome.message}", []).append(check.name)
                elif verbose:
                    lines[f"passed: {check.promise}"] = [check.name]
            for line, names in lines.items():
                click.echo(f"  {', '.join(names)} {line}")
    if as_json:
        click.echo(json.dumps(told, indent=1))
    if any(fact["status"] == "failed" for fact in told):
        sys.exit(1)
