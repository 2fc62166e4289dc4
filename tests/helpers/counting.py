"""A plugin of pytest that keeps, in its cache, the seconds of processors that each test took."""

import os
from collections import Counter

import pytest

seconds: Counter[str] = Counter()  # by test of this run
last = 0.0  # what this process, and those it has waited for, had taken when last asked


def taken() -> float:
    """Seconds of processors since this was last called."""
    global last
    before, last = last, sum(os.times()[:4])
    return last - before


def pytest_runtest_logstart():
    taken()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    report = yield
    report.taken = taken()  # goes with the report to the process that distributes tests
    return report


def pytest_runtest_logreport(report):
    seconds[report.nodeid] += getattr(report, "taken", 0.0)  # none of a worker that has died


def pytest_sessionfinish(session):
    cache = getattr(session.config, "cache", None)
    if cache and seconds and "PYTEST_XDIST_WORKER" not in os.environ:
        cache.set("benchbench/seconds", dict(seconds))
