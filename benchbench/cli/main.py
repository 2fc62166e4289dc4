"""The commands but `bench` and those of `data`."""

from __future__ import annotations

import json
import shlex
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from benchbench import __version__
from benchbench.cli.advise import advise
from benchbench.cli.bench import bench
from benchbench.cli.board import compare, leaderboard, publish
from benchbench.cli.data import data
from benchbench.cli.diagnose import diagnose
from benchbench.cli.export import export
from benchbench.cli.model import export_model, predict
from benchbench.cli.options import (
    Place,
    budget_option,
    chosen_plugins,
    compile_option,
    data_option,
    device_option,
    launch_options,
    only_option,
    plugin_options,
    store_option,
)
from benchbench.cli.output import guarded
from benchbench.cli.search import search
from benchbench.cli.store import store
from benchbench.cli.submit import submit, verify
from benchbench.cli.theory import theory
from benchbench.extension.errors import BadInput
from benchbench.leaderboard.escaping import visible

if TYPE_CHECKING:
    pass

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
main.add_command(predict)
main.add_command(export_model)
main.add_command(leaderboard)
main.add_command(publish)
main.add_command(compare)


@main.command("list")
@plugin_options
@click.argument("kind", type=click.Choice((*KINDS, "suites")), required=False)
@click.option("--json", "as_json", is_flag=True, help="Everything that is known, for programs.")
def list_(kind: str | None, as_json: bool) -> None:
    """Show what the installed plugins offer, with every option and its default, and all suites."""
    from benchbench import api

    found = api.offers(kind, **chosen_plugins())
    if as_json:
        click.echo(json.dumps(found.told(), indent=1))
        return
    for line in str(found).splitlines():
        click.secho(line, bold=not line.startswith(" "))
    for aside in found.catalog.aside:
        click.echo(f"{aside}", err=True)


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
    from benchbench import api

    asked: dict[str, Any] = {
        "only": only,
        "store": store,
        "data": data,
        "device": device,
        "launch": launch,
        "resources": resources,
        "ranks": ranks,
        "compiled": compiled,
        "checkpoint_every": checkpoint_every,
        "budget": budget,
        **chosen_plugins(),
    }
    if dry_run:
        told = api.preview(suite, **asked)
        for line in told.lines:
            click.echo(line)
        if told.fault:
            raise told.fault
        sys.exit(2 if told.refused else 0)
    results = api.run(suite, **asked)
    if api.follows():
        return  # the first of torchrun's processes shows the board
    click.echo(results.render(), nl=False)
    if not results.complete:
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
    from benchbench import api

    where: dict[str, Any] = {"store": store, "data": data, "device": device}
    click.echo(api.status(suite, only=only, **where, **chosen_plugins()))


@main.command()
@plugin_options
@device_option
@click.option("--json", "as_json", is_flag=True)
def sysinfo(device: str, as_json: bool) -> None:
    """Describe this machine and its packages, for a bug report. No host or user name."""
    from benchbench import api

    found = api.sysinfo(device, **chosen_plugins())
    click.echo(json.dumps(found.facts, indent=1) if as_json else str(found))


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
    from benchbench import api

    folder = api.new_plugin(kind, name, into, **chosen_plugins())
    click.echo(
        f"{folder} holds {kind} {name.replace('-', '_')}, which works as it is. To see it in a "
        f'table:\n  cd {folder} && pip install -e ".[test]"\n'
        "  pytest\n"
        "  benchbench run suite.toml"
    )


@main.command("check")
@plugin_options
@click.argument("plugins", metavar="[PLUGIN]...", nargs=-1)
@data_option
@click.option("--verbose", "-v", is_flag=True, help="Every check with its promise.")
@click.option("--json", "as_json", is_flag=True)
def check_(plugins: tuple[str, ...], data: Path, verbose: bool, as_json: bool) -> None:
    """Try what PLUGINs must do, or all plugins; with --plugin FILE.py, the file.

    Seconds for each entry, on the CPU, without data. Exits with 1 if a check fails.
    """
    from collections import Counter

    from benchbench import api

    told: list[dict[str, Any]] = []
    for entry, outcomes in api.check(plugins, data=data, **chosen_plugins()):
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
