"""Corpora that are fetched, verified and unpacked."""

import dataclasses
import hashlib
import zipfile
from pathlib import Path

import pytest

from data.web import BODY, Server
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.data import open_corpus
from unrolled.data.download import get_corpus
from unrolled.data.spec import CorpusSpec, Download, FileSpec
from unrolled.data.table import CORPORA


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
