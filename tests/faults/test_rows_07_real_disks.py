"""Row 7: limits on the size of files, folders that are read-only, and disks that are full."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cases import QUICK

NOBODY = 65534
WRITES = ["claim", "decode", "export", "gc", "import", "prepare", "verify_into", "write",
          "write_first", "write_record"]  # fmt: skip


def begun(place_of, name):
    place = place_of(name)
    place.begin()
    return place, place.files()


@pytest.mark.parametrize("name", ["export", "prepare", "verify_into", "write", "write_record"])
def test_row_07_a_file_that_may_not_grow_is_refused_and_the_store_is_as_it_was(place_of, name):
    place, before = begun(place_of, name)
    for most in (1, 20, 100, 300):
        assert place.run(most, "FSIZE") == 2, place.warm.said()
        assert place.files().items() >= before.items()
        assert place.partial() == []
    assert place.run() == 0


@pytest.mark.parametrize("name", WRITES)
def test_row_07_a_folder_that_is_read_only_is_told_in_a_sentence(place_of, name):
    place, before = begun(place_of, name)
    folders = [place.folder, *(path for path in place.folder.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    assert place.run(NOBODY, "NOBODY") == 2, place.warm.said()
    assert place.warm.said().endswith("Permission denied")
    for folder in folders:
        folder.chmod(0o755)
    assert place.files() == before
    assert place.run() == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_row_07_what_cannot_be_printed_is_no_success():
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "benchbench", "--version"], stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode != 0 and b"No space left on device" in done.stderr


def may_mount() -> bool:
    return (
        bool(shutil.which("unshare"))
        and not subprocess.run(
            ["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True
        ).returncode
    )


@pytest.mark.slow
@pytest.mark.skipif(not may_mount(), reason="no file system can be mounted here")
@pytest.mark.parametrize("kilobytes", [40, 200, 800])
def test_row_07_a_run_on_a_disk_that_is_full_says_so(tmp_path, kilobytes):
    """Row 7: the disk is a real one, of so many kilobytes."""
    text = QUICK.replace('"tiny"', '"digits"').replace("left > right", "scans > photos")
    (tmp_path / "suite.toml").write_text(text)
    (tmp_path / "disk").mkdir()
    run = f"{sys.executable} -m benchbench run suite.toml --device cpu --store disk/store"
    mount = f"mount -t tmpfs -o size={kilobytes}k tmpfs disk"
    after = "find disk -name '*.part'"
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", f"{mount} && {run}; echo status $?; {after}"],
        cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.stdout == "status 2\n", done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    said = ("No space left on device", "no space left in store")
    assert any(words in done.stderr for words in said), "whether a write or the check met it first"
