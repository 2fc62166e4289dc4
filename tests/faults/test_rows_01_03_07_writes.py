"""Rows 1, 3 and 7: processes are killed, and disks end, at every call that changes a file."""

import errno
import hashlib
import io
import os
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import count

import pytest
from audiences import lasting
from cases import WORK

from benchbench.execution.store_cleanup import faults
from benchbench.store.artifacts import Store
from benchbench.store.records import read_records

WRITES = sorted(WORK.keys() - {"run"})
LONG = ("keep_encoded", "publish")
FEWEST = {"claim": 5, "gc": 4}  # calls; of the others at least 8


@pytest.fixture(scope="module")
def address():
    """Of an archive with a file, and its md5."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as zipped:
        zipped.writestr("labels.csv", os.urandom(700).hex())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            start = int((self.headers["Range"] or "bytes=0-")[6:-1])
            rest = content.getvalue()[start:]
            self.send_response(206 if start and rest else 200 if rest else 416)
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            self.wfile.write(rest)

        def log_message(self, *words):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    digest = hashlib.md5(content.getvalue(), usedforsecurity=False).hexdigest()
    yield f"http://127.0.0.1:{server.server_port}/x.zip {digest}"
    server.shutdown()
    server.server_close()


def begun(place_of, name, address):
    """A place, what is in it before the case and after it, undisturbed."""
    place = place_of(name)
    place.begin()
    if name == "fetch":
        for folder in (place.folder, place.kept):
            (folder / "address").write_text(address)
    before = place.files()
    assert place.run() == 0, place.warm.log.read_text()
    return place, before, place.files()


def check_whole(found, before, after):
    """Under every name is what was there, or what comes there."""
    for name, content in found.items():
        assert content in (before.get(name), after.get(name)), f"{name} is neither old nor new"
    for name in before.keys() & after.keys():
        assert name in found, f"{name} is gone"


def check_swept(place):
    """What a killed process left half-written goes when the store is next used an hour later."""
    for path in place.partial():
        os.utime(path, (time.time() - 7200,) * 2)
    store = Store(place.folder / "store")
    store.check()
    assert not list(store.root.rglob("*.part"))


def disturbed(place, fault, status, before, after):
    """Every place at which a case can end: what is there is whole, and run again it is done."""
    for at in count(1):
        place.reset()
        ended = place.run(at, fault)
        if ended == 0:
            return
        assert ended == status, f"call {at}: {place.warm.said()}"
        check_whole(place.files(), before, after)
        yield at
        assert place.run() == 0, f"after call {at}: {place.warm.said()}"
        assert place.files() == after, f"after call {at}"


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow if name in LONG else ()) for name in WRITES],
)
def test_row_03_killed_at_any_call_the_state_before_is_there_and_the_work_is_done_again(
    place_of, name, address
):
    place, before, after = begun(place_of, name, address)
    calls = len([*disturbed(place, "SIGKILL", -9, before, after)])
    assert calls >= FEWEST.get(name, 8)
    check_swept(place)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("write", "EDQUOT"),
        *((name, "ENOSPC") for name in WRITES if name not in LONG),
        *(pytest.param(name, "ENOSPC", marks=pytest.mark.slow) for name in LONG),
    ],
)
def test_row_07_a_disk_that_is_full_from_any_call_on_is_one_sentence(
    place_of, name, address, fault
):
    place, before, after = begun(place_of, name, address)
    for _ in disturbed(place, fault, 2, before, after):
        assert os.strerror(getattr(errno, fault)) in place.warm.said()
    assert name == "fetch" or place.partial() == [], "what was fetched in part is gone on with"


@pytest.mark.slow
def test_row_01_killed_at_any_call_of_a_whole_run_the_record_is_the_same(place_of):
    """Claims, checkpoints, stages, features, diagnostics and the record, of a run of two steps."""
    place = place_of("run")
    place.begin()
    assert place.run() == 0, place.warm.log.read_text()
    whole = records(place)
    for at in count(1):
        place.reset()
        if place.run(at) == 0:
            break
        assert [*faults(Store(place.folder / "store"), lambda done, total: None)] == []
        assert place.run() == 0, f"after call {at}: {place.warm.said()}"
        assert records(place) == whole
        assert not [*(place.folder / "store" / "checkpoints").glob("*.safetensors")]
        check_swept(place)
        assert Store(place.folder / "store").claims.signs() == {}
    assert at > 100


def records(place):
    return [lasting(r) for r in read_records(place.folder / "store" / "records" / "tiny")]
