"""Processes that share a store."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

from benchbench.store.locks import Claims, Sign

HOLD = """
import sys, time
from pathlib import Path
from benchbench.store.locks import Claims
with Claims(Path(sys.argv[1])).held("key", "a stage") as claim:
    claim.tell(3, 10)
    claim._write()
    print("held", flush=True)
    time.sleep(60)
"""


def holder(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def test_what_a_living_process_has_is_not_given_to_another(tmp_path):
    claims = Claims(tmp_path)
    with holder(tmp_path) as process:
        assert claims.take("key", "mine") is None and claims.living("key")
        (sign,) = claims.signs().values()
        assert (sign.work, sign.step, sign.steps, sign.pid) == ("a stage", 3, 10, process.pid)
        with claims.held("other", "mine"):
            assert claims.living("other")
        assert not claims.living("other")
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert claims.signs()["key"].lost and not claims.living("key")
    with claims.held("key", "mine"):
        assert claims.signs()["key"].pid == os.getpid()
    assert claims.signs() == {}


def test_another_machine_is_lost_when_it_was_not_heard_of_for_a_minute():
    fields = {"work": "x", "step": 1, "steps": 2, "since": 0.0, "began_at": 0, "pid": 1}
    assert not Sign(**fields, host="elsewhere", seen=59.0).lost
    assert Sign(**fields, host="elsewhere", seen=61.0).lost
    mine = {**fields, "pid": os.getpid(), "host": socket.gethostname()}
    assert not Sign(**mine, seen=59.0).lost
    assert Sign(**mine, seen=61.0).lost, "another process may have its number by now"


def test_a_number_of_a_process_of_another_machine_says_nothing():
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    fields = {"work": "x", "step": 1, "steps": 2, "since": 0.0, "began_at": 0, "pid": gone.pid}
    assert Sign(**fields, host=socket.gethostname(), seen=1.0).lost
    assert not Sign(**fields, host="elsewhere", seen=1.0).lost


def test_a_claim_says_now_and_then_how_far_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr("benchbench.store.locks.BEAT_EVERY", 0.02)
    claims = Claims(tmp_path)
    with claims.held("key", "a stage") as claim:
        claim.tell(7, 9)
        for _ in range(500):
            if claims.signs()["key"].step == 7:
                break
            time.sleep(0.02)
        assert (claims.signs()["key"].step, claims.signs()["key"].steps) == (7, 9)


def test_a_sign_of_a_clock_that_is_ahead_is_lost_a_minute_after_it_was_first_seen(
    tmp_path, monkeypatch
):
    claims, now = Claims(tmp_path), [1000.0]
    monkeypatch.setattr("benchbench.store.locks.time.monotonic", lambda: now[0])
    claims.folder.mkdir(parents=True)
    path = claims.folder / "key.json"
    said = {"work": "x", "step": 1, "steps": 2, "since": 0.0, "began_at": 0, "pid": os.getpid()}
    path.write_text(json.dumps({**said, "host": socket.gethostname()}))
    os.utime(path, (time.time() + 5000,) * 2)
    lost = []
    for now[0] in (1000.0, 1059.0, 1061.0):
        lost.append(claims.signs()["key"].lost)
    assert lost == [False, False, True]


def test_time_left_is_told_from_the_pace_so_far():
    sign = Sign("x", 30, 100, time.time() - 20, 10, "here", 1)
    assert 69 < sign.seconds_left < 72
    assert Sign("x", 10, 100, time.time() - 20, 10, "here", 1).seconds_left is None


def test_who_waits_gets_it_when_it_is_given_back(tmp_path):
    claims, order = Claims(tmp_path), []

    def second():
        with claims.held("key", "second"):
            order.append("second")

    with claims.held("key", "first"):
        thread = threading.Thread(target=second)
        thread.start()
        time.sleep(0.7)
        order.append("first")
    thread.join(10)
    assert order == ["first", "second"]


def test_a_sign_that_is_half_written_is_no_sign(tmp_path):
    claims = Claims(tmp_path)
    claims.folder.mkdir(parents=True)
    (claims.folder / "key.json").write_text(json.dumps({"work": "x"})[:-3])
    assert claims.signs() == {} and claims.take("key", "mine") is not None
