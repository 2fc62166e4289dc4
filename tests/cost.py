"""What the last default run cost, beside `cost.toml`: ``python tests/cost.py [--record]``.

`helpers/counting.py` counts the seconds of processors that each test took, with its fixtures and
with the processes that it waited for, and keeps them in pytest's cache. How fast this machine is,
beside the one on which the baseline was recorded, is the median ratio over all files. Exits with 1
if a test or a feature costs more than it may.
"""

import json
import sys
import tomllib
from collections import Counter
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parent.parent
LAST = ROOT / ".pytest_cache" / "v" / "benchbench" / "seconds"
BASELINE = ROOT / "tests" / "cost.toml"
LONGEST = 5.0  # seconds of a test that is not slow and not in the baseline with its reason
ADDED_SECONDS, ADDED_TESTS = 10, 60  # what a feature may bring
NOISE = 1.3, 3.0  # a file that takes so many times as long, and seconds more, has grown
TELLING = 1.0  # seconds of a file that says how fast a machine is
HEAD = """# What the default suite costs; `python tests/cost.py` compares the last run with it.
#
# Of a file: how many tests, and how many seconds of a processor. `python tests/cost.py --record`
# writes them. A test that takes long, and is not slow, says why.

"""


def by_file(seconds: dict[str, float]) -> tuple[Counter[str], Counter[str]]:
    """How many tests each file has, and the seconds that they took."""
    tests, spent = Counter(), Counter()
    for test, its in seconds.items():
        file = test.partition("::")[0]
        tests[file] += 1
        spent[file] += its
    return tests, spent


def speed(spent: dict[str, float], files: dict[str, dict]) -> float:
    """Of the baseline's machine, how many times as long this one takes."""
    ratios = [its / files[f]["seconds"] for f, its in spent.items()
              if f in files and files[f]["seconds"] >= TELLING]  # fmt: skip
    return median(ratios) if ratios else 1.0


def complaints(seconds: dict[str, float], baseline: dict) -> list[str]:
    """What a run, with the seconds of each test, costs more than it may."""
    files, why = baseline["file"], {each["test"]: each for each in baseline.get("long", [])}
    tests, spent = by_file(seconds)
    if absent := sorted(files.keys() - tests.keys()):
        return [f"the last run was not the whole default suite; it had nothing of {absent[0]}"]
    found, slower = [], speed(spent, files)
    for test, its in seconds.items():
        most = why[test]["most"] if test in why else LONGEST
        if its / slower > most:
            found.append(f"{test} takes {its / slower:.1f} s, and may take {most:g}; make it "
                         "faster, mark it slow, or say in tests/cost.toml why")  # fmt: skip
    grown = {}
    for file, its in spent.items():
        before = files[file]["seconds"] if file in files else 0.0
        now = its / slower
        if not before or (now > NOISE[0] * before and now > before + NOISE[1]):
            grown[file] = now - before
    if sum(grown.values()) > ADDED_SECONDS:
        told = ", ".join(f"{file} {more:+.1f}" for file, more in grown.items())
        found.append(f"the suite takes {sum(grown.values()):.1f} s more than tests/cost.toml says, "
                     f"and may take {ADDED_SECONDS} more: {told}")  # fmt: skip
    added = sum(tests.values()) - sum(file["tests"] for file in files.values())
    if added > ADDED_TESTS:
        found.append(f"there are {added} tests more than in tests/cost.toml, "
                     f"and may be {ADDED_TESTS} more")  # fmt: skip
    return found


def recorded(seconds: dict[str, float], baseline: dict) -> str:
    """The text of a baseline: files of this run, and reasons of the baseline before."""
    tests, spent = by_file(seconds)
    lines = [
        f'"{file}" = {{ tests = {tests[file]}, seconds = {spent[file]:.1f} }}'
        for file in sorted(tests)
    ]
    long = [
        f"\n[[long]]\ntest = {json.dumps(each['test'], ensure_ascii=False)}\n"
        f"most = {each['most']:g}\nwhy = {json.dumps(each['why'], ensure_ascii=False)}\n"
        for each in baseline.get("long", [])
    ]
    return HEAD + "[file]\n" + "\n".join(lines) + "\n" + "".join(long)


def main(words: list[str]) -> int:
    seconds = json.loads(LAST.read_text())
    baseline = tomllib.loads(BASELINE.read_text())
    if words == ["--record"]:
        BASELINE.write_text(recorded(seconds, baseline))
        return 0
    tests, spent = by_file(seconds)
    slower = speed(spent, baseline["file"])
    longest = sorted(seconds, key=seconds.__getitem__, reverse=True)[:25]
    lines = [f"{seconds[test] / slower:8.1f} s  {test}" for test in longest]
    lines.append(f"{sum(spent.values()) / slower:8.1f} s  {sum(tests.values())} tests in all; "
                 f"here {sum(spent.values()):.0f} s")  # fmt: skip
    found = complaints(seconds, baseline)
    sys.stdout.write("\n".join([*lines, *found]) + "\n")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
