"""What the default suite costs is compared with a baseline: planted runs, as they come from CI."""

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable

import cost
import pytest

BASELINE = {
    "file": {
        "tests/test_a.py": {"tests": 100, "seconds": 40.0},
        "tests/test_b.py": {"tests": 50, "seconds": 20.0},
        "tests/test_c.py": {"tests": 10, "seconds": 5.0},
    },
    "long": [{"test": "tests/test_c.py::test_0", "most": 8.0, "why": "two processes"}],
}


def run(times: float = 1.0, **more: tuple[int, float]) -> dict[str, float]:
    """A run of the baseline's tests on a machine so many times as slow, and of others."""
    files = {name[11:-3]: (f["tests"], f["seconds"]) for name, f in BASELINE["file"].items()}
    return {
        f"tests/test_{file}.py::test_{number}": times * seconds / tests
        for file, (tests, seconds) in (files | more).items()
        for number in range(tests)
    }


@pytest.mark.parametrize("times", [0.3, 1.0, 20.0])
def test_a_slow_machine_is_no_complaint_and_hides_none(times):
    assert cost.complaints(run(times), BASELINE) == []
    assert cost.complaints(run(times, d=(20, 9.0)), BASELINE) == []
    (said,) = cost.complaints(run(times, d=(20, 11.0)), BASELINE)
    assert "11.0 s more" in said and "tests/test_d.py +11.0" in said


@pytest.mark.parametrize("times", [0.3, 20.0])
def test_a_file_that_grew_counts_and_one_that_varies_does_not(times):
    assert cost.complaints(run(times, a=(100, 51.0)), BASELINE) == []
    (said,) = cost.complaints(run(times, a=(100, 55.0)), BASELINE)
    assert "15.0 s more" in said


@pytest.mark.parametrize("times", [0.3, 20.0])
def test_a_test_that_takes_long_is_slow_or_says_why(times):
    whole = run(times)
    assert cost.complaints(whole | {"tests/test_a.py::test_7": times * 4.9}, BASELINE) == []
    (said,) = cost.complaints(whole | {"tests/test_a.py::test_7": times * 5.1}, BASELINE)
    assert said.startswith("tests/test_a.py::test_7 takes 5.1 s, and may take 5;")
    assert cost.complaints(whole | {"tests/test_c.py::test_0": times * 7.0}, BASELINE) == []
    found = cost.complaints(whole | {"tests/test_c.py::test_0": times * 8.1}, BASELINE)
    assert "may take 8;" in found[0]


def test_so_many_tests_may_be_added():
    assert cost.complaints(run(d=(60, 1.0)), BASELINE) == []
    (said,) = cost.complaints(run(d=(61, 1.0)), BASELINE)
    assert said == "there are 61 tests more than in tests/cost.toml, and may be 60 more"


def test_a_run_of_a_part_is_not_judged():
    part = {test: its for test, its in run().items() if "test_b" not in test}
    (said,) = cost.complaints(part, BASELINE)
    assert "was not the whole default suite" in said and "tests/test_b.py" in said


def test_what_is_recorded_is_what_was_run_and_keeps_reasons():
    text = cost.recorded(run(2.0, d=(3, 1.5)), BASELINE)
    again = tomllib.loads(text)
    assert again["long"] == BASELINE["long"]
    assert again["file"]["tests/test_d.py"] == {"tests": 3, "seconds": 3.0}
    assert again["file"]["tests/test_a.py"] == {"tests": 100, "seconds": 80.0}
    assert cost.complaints(run(2.0, d=(3, 1.5)), again) == []


def test_every_long_test_of_the_baseline_is_there():
    baseline = tomllib.loads(cost.BASELINE.read_text())
    assert baseline.keys() <= {"file", "long"}
    for each in baseline.get("long", []):
        path, _, name = each["test"].partition("::")
        assert f"\ndef {name.partition('[')[0]}(" in (cost.ROOT / path).read_text(), each
        assert each["most"] > cost.LONGEST and each["why"], each


@pytest.fixture
def counted(tmp_path) -> Callable[[str], dict[str, float]]:
    """Runs a file of tests in a worker; seconds by name of a test."""

    def seconds_of(text: str) -> dict[str, float]:
        (tmp_path / "pytest.ini").write_text("[pytest]\n")
        (tmp_path / "test_planted.py").write_text(text)
        outside = {n: v for n, v in os.environ.items() if not n.startswith("PYTEST_")}
        command = [sys.executable, "-m", "pytest", "-q", "-n", "1", "-p", "counting"]
        subprocess.run(command, cwd=tmp_path, env=outside, check=True, stdout=subprocess.DEVNULL)
        kept = tmp_path / cost.LAST.relative_to(cost.ROOT)
        return {test.partition("::")[2]: its for test, its in json.loads(kept.read_text()).items()}

    return seconds_of


def test_seconds_of_each_test_are_counted_with_its_fixtures_and_processes(counted):
    """Of a real run: a test that computes, one in whose fixture is computed, one in a process."""
    taken = counted("""
import subprocess, sys, time
import pytest

BUSY = "import time\\nwhile time.process_time() < 0.6: pass"

@pytest.fixture
def computed():
    begin = time.process_time()
    while time.process_time() < begin + 0.6:
        pass

def test_idle():
    time.sleep(0.6)

def test_by_a_fixture(computed):
    pass

def test_in_a_process():
    subprocess.run([sys.executable, "-S", "-c", BUSY], check=True)
""")
    assert taken["test_idle"] < 0.3
    assert 0.55 <= taken["test_by_a_fixture"] < 1.2
    assert 0.55 <= taken["test_in_a_process"] < 1.2
