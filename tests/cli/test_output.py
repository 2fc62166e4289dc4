"""What a command says where nobody listens, and of paths that no system has."""

import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import pytest
from click.testing import CliRunner
from suites import SMALL

from benchbench.cli import main
from benchbench.store.artifacts import Store

BENCHBENCH = (sys.executable, "-W", "ignore", "-m", "benchbench")
BOARD = str(Path(__file__).parents[2] / "leaderboards" / "digits")
COMMANDS = [("--help",), ("leaderboard", BOARD)]


def closed_pipe() -> int:
    """A pipe to write to, which nobody reads any more."""
    reads, writes = os.pipe()
    os.close(reads)
    return writes


def ended(*words, **streams) -> tuple[int, str]:
    done = subprocess.run(
        [*BENCHBENCH, *words], **{"stderr": subprocess.PIPE, **streams}, text=True, timeout=120
    )
    return done.returncode, done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_full_device_is_one_sentence_and_a_status_of_its_own(words):
    with Path("/dev/full").open("w") as full:
        status, err = ended(*words, stdout=full)
    told = "benchbench: standard output cannot be written: No space left on device\n"
    assert (status, err) == (74, told)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_pipe_that_nobody_reads_ends_a_command_as_it_ends_cat(words):
    writes = closed_pipe()
    assert ended(*words, stdout=writes) == (141, "")
    os.close(writes)


@pytest.mark.parametrize(
    ("state", "status"),
    [
        ("full", 74),
        pytest.param("closed", 0, marks=pytest.mark.slow),
        pytest.param("unread", 141, marks=pytest.mark.slow),
    ],
)
def test_what_is_said_nowhere_stops_no_work(tmp_path, state, status):
    """Both streams are closed, full, or have lost their reader; the record is there each time."""
    (tmp_path / "small.toml").write_text(SMALL)
    run = ["run", str(tmp_path / "small.toml"), "--only", "method=erm", "--device", "cpu"]
    store, streams = Store(tmp_path / "store"), {"stderr": None}
    if state == "closed":
        streams["preexec_fn"] = lambda: (os.close(1), os.close(2))
    else:
        writes = os.open("/dev/full", os.O_WRONLY) if state == "full" else closed_pipe()
        streams |= {"stdout": writes, "stderr": writes}
    assert ended(*run, "--store", str(store.root), **streams)[0] == status
    (stem,) = store.stems("small")
    assert store.record("small", stem).status == "scored"
    if state != "closed":
        os.close(writes)


@pytest.mark.parametrize(
    ("encoding", "told"), [("ascii", "±".encode()), ("latin-1", b"\xb1"), ("koi8-r", b"\\xb1")]
)
def test_characters_that_an_encoding_has_not_become_escapes(encoding, told):
    done = subprocess.run(
        [*BENCHBENCH, "leaderboard", BOARD],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (0, b"") and told in done.stdout


def test_a_terminal_without_a_width_is_written_to(tmp_path):
    (tmp_path / "small.toml").write_text(SMALL)
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (0, 0))
    words = ["run", str(tmp_path / "small.toml"), "--only", "method=erm", "--device", "cpu"]
    status, _ = ended(*words, "--store", str(tmp_path / "s"), stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = b""
    try:
        while more := os.read(ours, 1 << 16):
            said += more
    except OSError:  # Linux's word for the end of a terminal
        pass
    os.close(ours)
    assert status == 0 and b"| erm" in said and b"Traceback" not in said


# Paths that no system has


@pytest.fixture(scope="module")
def bad(tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("bad")
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "file").write_text("")
    return {
        "long": str(folder / ("x" * 300)),
        "loop": str(folder / "loop"),
        "loop inside": str(folder / "loop" / "store"),
        "through a file": str(folder / "file" / "store"),
        "empty": "",
        "NUL": f"{folder}/a\0b",
    }


TAKE_PATHS = [
    "run quickstart --dry-run --store PATH",
    "run quickstart --dry-run --data PATH",
    "run quickstart --plugin PATH",
    "run PATH",
    "status quickstart --store PATH",
    "status PATH",
    "leaderboard quickstart --store PATH",
    "leaderboard PATH",
    "compare PATH erm dann",
    "compare BOARD erm dann --store PATH",
    "publish quickstart --to PATH",
    "publish PATH",
    "export BOARD --to PATH/x.csv",
    "export BOARD --to tensorboard:PATH",
    "export PATH --to x.csv",
    "submit quickstart --out PATH",
    "submit quickstart --out x.tar --sign PATH",
    "verify PATH",
    "verify FILE --board PATH",
    "verify FILE --into PATH",
    "verify FILE --allowed-signers PATH",
    "store list --store PATH",
    "store verify --store PATH",
    "store gc --store PATH",
    "store export x.tar --store PATH",
    "store export PATH --store STORE",
    "store export x.tar --store STORE --suite PATH",
    "store import FILE --store PATH",
    "store import PATH",
    "diagnose features PATH",
    "diagnose features BOARD --out PATH",
    "diagnose prediction PATH",
    "diagnose prediction --out PATH",
    "diagnose connectivity digits --store PATH",
    "search digits --shift scans>photos --store PATH",
    "theory --out PATH",
    "new objective my-idea --into PATH",
    "check --data PATH",
    "check --plugin PATH",
    "data list --data PATH",
]


@pytest.mark.parametrize("line", TAKE_PATHS)
def test_a_path_that_no_system_has_is_told_in_a_sentence(line, bad, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "store").mkdir()
    put = {"BOARD": BOARD, "FILE": "file", "STORE": "store"}
    for name, path in bad.items():
        words = [put.get(word, word).replace("PATH", path) for word in line.split()]
        if name == "empty" and "PATH/" in line:
            continue
        done = CliRunner().invoke(main, words, prog_name="benchbench")
        assert isinstance(done.exception, SystemExit), (name, done.exception)
        assert (done.exit_code, done.stdout) == (2, ""), name
        told = done.stderr.splitlines()
        assert told[-1].startswith(("benchbench: ", "Error: ")), name
        assert sum(not one.startswith(("Usage", "Try", "Error", "")) for one in told) <= 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "store"]
    assert not [*(tmp_path / "store").iterdir()]
