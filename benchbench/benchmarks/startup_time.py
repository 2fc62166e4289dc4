"""Commands that only print, beside what Python and torch need to start."""

import subprocess
import sys
from functools import partial
from statistics import median

from benchbench.benchmarks.data_reading import timed
from benchbench.benchmarks.paired_rounds import ratio, side_by_side

COMMANDS = {
    "python": ("-c", "pass"),
    "help": ("-m", "benchbench", "--help"),
    "import_torch": ("-c", "import torch"),
    "list": ("-m", "benchbench", "list"),
}


def compare_startup(rounds: int) -> dict[str, float]:
    told = side_by_side(rounds, {n: partial(started, *words) for n, words in COMMANDS.items()})
    return {
        **{f"{name}_ms": 1e3 * median(spans) for name, spans in told.items()},
        **ratio("help_to_python", told["help"], told["python"]),
        **ratio("list_to_import_torch", told["list"], told["import_torch"]),
    }


def started(*words: str) -> float:
    """Seconds until a new Python has done it."""
    command = [sys.executable, *words]
    return timed(lambda: subprocess.run(command, capture_output=True, check=True))  # noqa: S603
