"""Downloads from a server on this machine that may break off, lie, or not know the file."""

import gzip
import hashlib
import io
import tarfile
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from click.testing import CliRunner

from benchbench.cli import main
from benchbench.data.download import download
from benchbench.extension.contracts import Download
from benchbench.extension.errors import BadInput

CONTENT = bytes(range(256)) * 2000


class Server(ThreadingHTTPServer):
    breaks_after: int | None = None  # bytes
    knows_ranges = True
    asked: list[str | None]


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.asked.append(self.headers.get("Range"))
        if self.path != "/file.bin":
            self.send_error(404, "gone")
            return
        start = 0
        if server.knows_ranges and self.headers.get("Range"):
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        end = None if server.breaks_after is None else start + server.breaks_after
        self.wfile.write(CONTENT[start:end])

    def log_message(self, *words):
        pass


@pytest.fixture
def server():
    made = Server(("127.0.0.1", 0), Handler)
    made.asked = []
    thread = threading.Thread(target=made.serve_forever, daemon=True)
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join()


def md5(content):
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def item_of(server, path="/file.bin", wanted=CONTENT, **more):
    address = f"http://127.0.0.1:{server.server_port}{path}"
    return Download(address, "sets/file.bin", md5(wanted), **more)


def silent(done, total):
    pass


def test_it_is_fetched_checked_and_not_fetched_again(server, tmp_path):
    seen = []
    place = download(item_of(server), tmp_path, lambda done, total: seen.append((done, total)))
    assert place.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    download(item_of(server), tmp_path, silent)
    assert server.asked == [None]
    place.write_bytes(b"damaged")
    assert download(item_of(server), tmp_path, silent).read_bytes() == CONTENT


@pytest.mark.parametrize("knows_ranges", [True, False])
def test_it_goes_on_where_it_stopped(server, tmp_path, knows_ranges):
    server.breaks_after, server.knows_ranges = 100_000, knows_ranges
    with pytest.raises(BadInput, match="cannot be fetched .* run the same command again to go on"):
        download(item_of(server), tmp_path, silent)
    partial = tmp_path / "sets" / "file.bin.part"
    had = partial.stat().st_size
    assert 0 < had <= 100_000
    server.breaks_after = None
    assert download(item_of(server), tmp_path, silent).read_bytes() == CONTENT
    assert server.asked == [None, f"bytes={had}-"]
    assert not partial.exists()


def test_a_part_that_is_whole_needs_only_its_check(server, tmp_path):
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "file.bin.part").write_bytes(CONTENT)
    assert download(item_of(server), tmp_path, silent).read_bytes() == CONTENT


def test_another_file_is_refused_and_not_kept(server, tmp_path):
    with pytest.raises(BadInput, match="is not the published file: its md5 is .* put it at .*file"):
        download(item_of(server, wanted=b"other"), tmp_path, silent)
    assert list((tmp_path / "sets").iterdir()) == []


def test_a_dead_link_says_so_and_where_the_file_belongs(server, tmp_path):
    with pytest.raises(BadInput, match=r"answers 404 gone; get it elsewhere and put it at .*\(md5"):
        download(item_of(server, "/other.bin"), tmp_path, silent)
    dead = Download("http://127.0.0.1:1/file", "file", "0" * 32)
    with pytest.raises(BadInput, match="cannot be fetched .*refused"):
        download(dead, tmp_path, silent)
    with pytest.raises(BadInput, match="is no address of the web"):
        download(Download("file:///etc/passwd", "file", "0" * 32), tmp_path, silent)


def archives():
    tarred, zipped = io.BytesIO(), io.BytesIO()
    with tarfile.open(fileobj=tarred, mode="w:gz") as archive:
        entry = tarfile.TarInfo("inner/a.txt")
        entry.size = 5
        archive.addfile(entry, io.BytesIO(b"hello"))
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("inner/a.txt", "hello")
    return {"a.tar.gz": tarred.getvalue(), "a.zip": zipped.getvalue()}


@pytest.mark.parametrize("name", ["a.tar.gz", "a.zip"])
def test_archives_are_unpacked_below_the_data_folder(tmp_path, name):
    content = archives()[name]
    (tmp_path / name).write_bytes(content)
    download(Download("http://unasked", name, md5(content), "sets"), tmp_path, silent)
    assert (tmp_path / "sets/inner/a.txt").read_text() == "hello"


def test_a_gzipped_file_loses_its_ending(tmp_path):
    content = gzip.compress(b"hello")
    (tmp_path / "images-ubyte.gz").write_bytes(content)
    item = Download("http://unasked", "images-ubyte.gz", md5(content), "raw")
    download(item, tmp_path, silent)
    assert (tmp_path / "raw/images-ubyte").read_bytes() == b"hello"


def test_an_archive_that_climbs_out_or_is_broken_is_refused(tmp_path):
    climbing = io.BytesIO()
    with tarfile.open(fileobj=climbing, mode="w") as archive:
        entry = tarfile.TarInfo("../../evil.txt")
        entry.size = 4
        archive.addfile(entry, io.BytesIO(b"evil"))
    for content in (climbing.getvalue(), archives()["a.tar.gz"][:40], b"no archive"):
        (tmp_path / "a.tar").write_bytes(content)
        with pytest.raises(BadInput, match=r"a.tar (cannot be|is not) unpacked"):
            download(Download("http://unasked", "a.tar", md5(content), "sets"), tmp_path, silent)
    assert not list(tmp_path.parent.glob("evil.txt")) and not list(tmp_path.glob("evil.txt"))


def test_what_has_no_address_says_where_it_is_published(tmp_path):
    result = CliRunner().invoke(main, ["data", "download", "camelyon17", "--data", str(tmp_path)])
    assert result.exit_code == 2
    assert "camelyon17 cannot be downloaded from here; its authors publish it at" in result.stderr
