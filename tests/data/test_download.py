"""The downloader against a server on this machine that misbehaves in every way that the web does."""

import dataclasses
import hashlib
import io
import threading
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from unrolled.core.errors import UnrolledError, UsageError
from unrolled.data import open_corpus
from unrolled.data.download import _WebOnly, fetch, get_corpus
from unrolled.data.spec import LARGEST, CorpusSpec, Download, FileSpec
from unrolled.data.table import CORPORA

BODY = b"".join(b"line %d\n" % n for n in range(30_000))


def packed(content: bytes, how: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip archive with inner.txt."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as archive:
        archive.writestr("inner.txt", content)
    return file.getvalue()


class Handler(BaseHTTPRequestHandler):
    """/ok serves BODY with ranges; the other paths break in the way that their name says."""

    server: "Server"  # type: ignore[assignment]  # the base class knows no attributes of ours

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Range")))
        getattr(self, "serve_" + self.path.strip("/").replace(".", "_"))()

    def body(self, data: bytes, promised: int | None = None, ranges: bool = True) -> None:
        wanted, start = self.headers.get("Range"), 0
        if wanted and ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(data):
                self.send_error(416)
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        else:
            self.send_response(200)
        self.send_header("Content-Length", str((promised or len(data)) - start))
        self.end_headers()
        self.wfile.write(data[start:])

    def serve_ok(self) -> None:
        self.body(BODY)

    def serve_no_ranges(self) -> None:
        self.body(BODY, ranges=False)

    def serve_gone(self) -> None:
        self.send_error(404)

    def serve_busy_once(self) -> None:
        if len(self.server.asked) == 1:
            self.send_error(503)
        else:
            self.body(BODY)

    def serve_cut_once(self) -> None:
        if len(self.server.asked) == 1:
            self.body(BODY[:100_000], promised=len(BODY))
        else:
            self.body(BODY)

    def serve_cut(self) -> None:
        self.body(BODY[:100_000], promised=len(BODY), ranges=False)

    def serve_silent(self) -> None:
        self.server.released.wait(20)

    def serve_trickle(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        while not self.server.released.wait(0.05):
            try:
                self.wfile.write(b"x")
            except OSError:
                return

    def serve_to_file(self) -> None:
        self.send_response(302)
        self.send_header("Location", "file:///etc/hostname")
        self.end_headers()

    def serve_to_ftp(self) -> None:
        self.send_response(302)
        self.send_header("Location", "ftp://127.0.0.1/x")
        self.end_headers()

    def serve_moved(self) -> None:
        self.send_response(302)
        self.send_header("Location", "/ok")
        self.end_headers()

    def serve_zip(self) -> None:
        self.body(packed(BODY))

    def serve_bomb(self) -> None:
        self.body(packed(bytes(200_000_000)))

    def serve_bzip2(self) -> None:
        self.body(packed(BODY, zipfile.ZIP_BZIP2))

    def serve_damaged(self) -> None:
        data = bytearray(packed(BODY))
        data[200:400] = bytes(200)
        self.body(bytes(data))

    def serve_endless(self) -> None:
        """Without a length, or as chunks: nothing says how much there will be."""
        self.send_response(200)
        self.end_headers()
        while not self.server.released.is_set():
            try:
                self.server.sent += self.wfile.write(bytes(1 << 16))
            except OSError:
                return

    def serve_too_long(self) -> None:
        self.body(BODY, promised=10 * len(BODY))


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str | None]] = []
        self.sent = 0
        self.released = threading.Event()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running = Server()
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield running
    running.released.set()
    running.shutdown()
    thread.join()
    running.server_close()


def get(server: Server, path: str, part: Path, **options: Any) -> None:
    options = {"wait": 0.01, "timeout": 5.0} | options
    fetch(server.address + path, part, **options)


def test_whole_file_with_progress(server: Server, tmp_path: Path):
    told: list[tuple[str, int, int | None]] = []
    get(server, "/moved", tmp_path / "p", progress=lambda *values: told.append(values))
    assert (tmp_path / "p").read_bytes() == BODY
    assert told[-1] == (server.address + "/moved", len(BODY), len(BODY))


@pytest.mark.parametrize("path", ["/ok", "/no_ranges"])
def test_what_is_there_is_not_fetched_again_unless_the_server_insists(server: Server, tmp_path: Path, path: str):
    (tmp_path / "p").write_bytes(BODY[:50_000])
    get(server, path, tmp_path / "p")
    assert (tmp_path / "p").read_bytes() == BODY
    assert server.asked == [(path, "bytes=50000-")]


def test_a_part_longer_than_the_file_is_thrown_away(server: Server, tmp_path: Path):
    (tmp_path / "p").write_bytes(BODY + b"more")
    get(server, "/ok", tmp_path / "p")
    assert (tmp_path / "p").read_bytes() == BODY


@pytest.mark.parametrize("path", ["/cut_once", "/busy_once"])
def test_passing_faults_are_tried_again(server: Server, tmp_path: Path, path: str):
    get(server, path, tmp_path / "p")
    assert (tmp_path / "p").read_bytes() == BODY
    assert server.asked[1] == (path, "bytes=100000-" if path == "/cut_once" else None)


@pytest.mark.parametrize(
    ("path", "message", "attempts"),
    [
        ("/gone", r"answers 404 \(Not Found\); get the file elsewhere", 1),
        ("/cut", r"closed the connection after 100,000 of [\d,]+ bytes; run the command again", 3),
        ("/silent", "(sent nothing for|did not answer within) 0.3 seconds; run the command again", 3),
        ("/trickle", r"is too slow \(\d+ bytes in", 3),
        ("/to_file", "answers 302 .*file:///etc/hostname' is not allowed", 1),
        ("/to_ftp", "redirects to 'ftp://127.0.0.1/x', which is not on the web", 1),
    ],
)
def test_lasting_faults_are_one_sentence(server: Server, tmp_path: Path, path: str, message: str, attempts: int):
    began = time.monotonic()
    with pytest.raises(UnrolledError, match=message):
        get(server, path, tmp_path / "p", timeout=0.3, attempts=3)
    assert len(server.asked) == attempts
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("path", ["/endless", "/too_long", "/ok", "/no_ranges"])
def test_more_bytes_than_there_can_be_are_not_received(server: Server, tmp_path: Path, path: str):
    """Whether the length is told or not, at the first attempt and when going on from a part."""
    most = len(BODY) - 1
    for before in (b"", BODY[:50_000], BODY + b"more"):
        (tmp_path / "p").write_bytes(before)
        server.sent, told = 0, []
        with pytest.raises(UnrolledError, match=rf"gives more than the {most:,} bytes that the file can have"):
            get(server, path, tmp_path / "p", most=most, progress=lambda *values, told=told: told.append(values[1]))
        assert not (tmp_path / "p").exists()
        assert max(told, default=0) <= most, "nothing beyond was written"
        assert server.sent < most + 10_000_000, "what the system holds on the way, and no more"
    assert len(server.asked) == 3, "it is not tried again"


def test_as_many_bytes_as_there_can_be(server: Server, tmp_path: Path):
    get(server, "/ok", tmp_path / "p", most=len(BODY))
    assert (tmp_path / "p").read_bytes() == BODY


def test_a_file_of_unknown_size_is_bounded_too(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert FileSpec(("a",)).most == LARGEST > 5 * max(f.size or 0 for c in CORPORA.values() for f in c.files.values())
    assert FileSpec(("a",), size=7).most == Download("", "a").most(FileSpec(("a",), size=7)) == 7
    assert 7 < Download("", "a", "member").most(FileSpec(("a",), size=7)) < 2_000_000
    monkeypatch.setattr("unrolled.data.spec.LARGEST", 1000)
    assert FileSpec(("a",)).most == 1000


def test_what_is_fetched_is_of_known_size_and_comes_encrypted():
    for spec in CORPORA.values():
        for download in spec.downloads:
            assert download.address.startswith("https://"), download
            assert next(file for file in spec.files.values() if file.names[0] == download.file).size


def test_no_redirect_from_https_down_to_http():
    handler, request = _WebOnly(), urllib.request.Request("https://a.example/x")
    given = (io.BytesIO(), 302, "Found", {})
    with pytest.raises(UnrolledError, match=r"redirects to 'http://a\.example/x', which is not encrypted"):
        handler.redirect_request(request, *given, "http://a.example/x")
    assert handler.redirect_request(request, *given, "https://b.example/x")
    assert handler.redirect_request(urllib.request.Request("http://a.example/x"), *given, "http://b.example/x")


def test_no_server_and_no_web_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(UnrolledError, match=r"cannot be reached \(.*\); check the network"):
        fetch("http://127.0.0.1:9/x", tmp_path / "p", attempts=2, wait=0.01)
    with pytest.raises(UsageError, match="must begin with http"):
        fetch("file:///etc/hostname", tmp_path / "p")


@pytest.fixture
def corpus(server: Server, monkeypatch: pytest.MonkeyPatch) -> CorpusSpec:
    spec = CorpusSpec(
        name="web",
        description="d",
        licence="l.",
        folder="web",
        files={
            "train": FileSpec(("a.txt",), hashlib.sha256(BODY).hexdigest()),
            "valid": FileSpec(("b.txt",), md5=hashlib.md5(BODY).hexdigest()),
        },
        downloads=(
            Download(server.address + "/ok", "a.txt"),
            Download(server.address + "/zip", "b.txt", "inner.txt"),
        ),
    )
    monkeypatch.setitem(CORPORA, "web", spec)
    return spec


def test_a_corpus_is_fetched_verified_and_then_left_alone(server: Server, corpus: CorpusSpec, tmp_path: Path):
    result = get_corpus("web")
    folder = tmp_path / "cache" / "corpora" / "web"
    assert result["fetched"] == [str(folder / "a.txt"), str(folder / "b.txt")]
    assert sorted(path.name for path in folder.iterdir()) == ["a.txt", "b.txt"], "no parts and locks are left"
    assert b"".join(open_corpus("web").blocks("valid")) == BODY
    assert get_corpus("web") == result | {"fetched": []}
    assert len(server.asked) == 2


@pytest.mark.parametrize("file", ["train", "valid"])
def test_a_wrong_checksum_leaves_no_file(corpus: CorpusSpec, tmp_path: Path, monkeypatch, file: str):
    wrong = dataclasses.replace(corpus.files[file], sha256="0" * 64)
    monkeypatch.setitem(CORPORA, "web", dataclasses.replace(corpus, files={**corpus.files, file: wrong}))
    with pytest.raises(
        UnrolledError, match=r"wrong checksum \(sha256 [0-9a-f]{12}, not 000000000000\) and was deleted"
    ):
        get_corpus("web")
    name = wrong.names[0]
    assert not list((tmp_path / "cache" / "corpora" / "web").glob(f"*{name}*"))


@pytest.mark.parametrize(
    ("path", "member", "message"),
    [
        ("/ok", "inner.txt", "is not the archive"),
        ("/zip", "other.txt", "is not the archive"),
        ("/bzip2", "inner.txt", "is not the archive"),
        ("/damaged", "inner.txt", "is not the archive"),
        ("/bomb", "inner.txt", rf"gives more than the {len(BODY):,} bytes"),
        ("/endless", "inner.txt", rf"gives more than the {len(BODY) + 2**20:,} bytes"),
    ],
)
def test_an_archive_that_is_none(
    corpus: CorpusSpec, server: Server, tmp_path: Path, monkeypatch, path: str, member: str, message: str
):
    files = {**corpus.files, "valid": dataclasses.replace(corpus.files["valid"], size=len(BODY))}
    bad = Download(server.address + path, "b.txt", member)
    monkeypatch.setitem(CORPORA, "web", dataclasses.replace(corpus, files=files, downloads=(bad,)))
    largest: list[int] = []
    read = zipfile.ZipExtFile.read

    def watched(self: zipfile.ZipExtFile, n: int = -1) -> bytes:
        largest.extend(file.stat().st_size for file in tmp_path.rglob("*b.txt*.part"))
        return read(self, n)

    monkeypatch.setattr(zipfile.ZipExtFile, "read", watched)
    with pytest.raises(UnrolledError, match=message):
        get_corpus("web")
    assert max(largest, default=0) <= len(BODY) + 2**20
    assert list((tmp_path / "cache" / "corpora" / "web").iterdir()) == []


def test_two_processes_do_not_write_one_part(corpus: CorpusSpec, tmp_path: Path):
    import fcntl

    folder = tmp_path / "cache" / "corpora" / "web"
    folder.mkdir(parents=True)
    with (folder / "a.txt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UnrolledError, match="another process is fetching"):
            get_corpus("web")


def test_corpora_without_an_address_say_which_file_to_put_where():
    with pytest.raises(UsageError, match=r"no address it could be verified from; put .*news\.en"):
        get_corpus("lm1b")
    with pytest.raises(UsageError, match="unknown corpus 'ptv'; did you mean 'ptb'"):
        get_corpus("ptv")
    assert get_corpus("pydoc")["files"] == []
