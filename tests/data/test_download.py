"""The downloader against a server on this machine that misbehaves in every way that the web does."""

import io
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from data.web import BODY, Server
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.data.download import _WebOnly, fetch
from unrolled.data.spec import LARGEST, Download, FileSpec
from unrolled.data.table import CORPORA


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
