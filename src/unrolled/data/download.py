"""Fetching corpora: resumable, bounded, verified by checksum, and honest about what went wrong."""

import contextlib
import fcntl
import hashlib
import http.client
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import unrolled
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import atomic_write, writing
from unrolled.core.places import cache_folder
from unrolled.core.registry import unknown_name
from unrolled.data.corpora import find_files, missing_message
from unrolled.data.spec import LARGEST, CorpusSpec, Download, FileSpec
from unrolled.data.table import CORPORA

__all__ = ["fetch", "get_corpus"]

Progress = Callable[[str, int, int | None], None]

_CHUNK = 1 << 16
# Slower than this over one timeout counts as no answer.
_SLOWEST = 1024.0
_PASSING = {408, 425, 429, 500, 502, 503, 504}


class _Again(Exception):
    """A fault that may pass; its text completes the sentence 'ADDRESS ...'."""


class _TooMuch(Exception):
    """More bytes than there can be."""


class _WebOnly(urllib.request.HTTPRedirectHandler):
    """Refuses redirects to ftp and from https down to http; urllib itself refuses all others that leave the web."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        scheme = urlsplit(newurl).scheme
        if scheme not in ("http", "https"):
            raise UnrolledError(f"{req.full_url} redirects to {newurl!r}, which is not on the web; it was refused.")
        if scheme == "http" and urlsplit(req.full_url).scheme == "https":
            raise UnrolledError(
                f"{req.full_url} redirects to {newurl!r}, which is not encrypted; get the file elsewhere."
            )
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def get_corpus(name: str, progress: Progress | None = None, timeout: float = 30.0) -> dict[str, Any]:
    """Fetch a named corpus into the cache, unless it is there or in ``$UNROLLED_DATA`` already.

    Args:
        name: a name of the table.
        progress: called with (file, bytes so far, bytes in all or None).
        timeout: seconds without data after which an attempt is given up.
    Returns:
        ``name``, ``licence``, ``files`` (paths), ``fetched`` (paths that were downloaded now).
    Raises:
        UsageError: unknown name, or no verifiable address is known; says which file to put where.
        UnrolledError: the download failed; what was received is kept and the next call goes on from there.
    """
    if name not in CORPORA:
        raise unknown_name("corpus", name, CORPORA)
    spec = CORPORA[name]
    result: dict[str, Any] = {"name": name, "licence": spec.licence, "files": [], "fetched": []}
    if spec.embedded:
        return result
    if find_files(spec) is None:
        if not spec.downloads:
            raise UsageError(missing_message(spec))
        folder = cache_folder("corpora", spec.folder)
        for download in spec.downloads:
            path = folder / download.file
            if not path.exists():
                _get_file(spec, download, path, progress, timeout)
                result["fetched"].append(str(path))
    found = find_files(spec)
    if found is None:
        raise UnrolledError(missing_message(spec))
    result["files"] = [str(path) for paths in found.values() for path in paths]
    return result


def _get_file(spec: CorpusSpec, download: Download, path: Path, progress: Progress | None, timeout: float) -> None:
    """Fetch one file, unpack it if need be, and put it in place once its checksum is right."""
    wanted = next(file for file in spec.files.values() if file.names[0] == download.file)
    part = path.with_name(path.name + (".zip.part" if download.member else ".part"))
    with _locked(part, path):
        fetch(download.address, part, progress, timeout, most=download.most(wanted))
        try:
            if download.member:
                atomic_write(path, lambda to: _unpack(part, download, wanted, to))
            else:
                _verify(part, wanted, download.address)
                part.replace(path)
        finally:
            # Complete but wrong, or used up: neither is worth resuming.
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(part: Path, path: Path) -> Iterator[None]:
    """Hold a lock file while a part is being written."""
    lock = part.with_suffix(".lock")
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise UnrolledError(f"another process is fetching {path}; wait until it has finished.") from error
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


# What corpora are packed with. Of others a few bytes may unpack to more than is read at a time.
_PACKINGS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def _unpack(archive: Path, download: Download, wanted: FileSpec, to: Path) -> None:
    try:
        with zipfile.ZipFile(archive) as packed, packed.open(download.member or "") as member, to.open("wb") as out:
            if packed.getinfo(download.member or "").compress_type not in _PACKINGS:
                raise NotImplementedError
            have = 0
            while data := member.read(_CHUNK):
                have += len(data)
                if have > wanted.most:
                    raise _too_much(download.address, wanted.most)
                out.write(data)
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, NotImplementedError, RuntimeError) as error:
        raise UnrolledError(
            f"{download.address} is not the archive that it should be; try again later, or get "
            f"{download.file} elsewhere."
        ) from error
    _verify(to, wanted, download.address)


def _too_much(address: str, most: int) -> UnrolledError:
    return UnrolledError(
        f"{address} gives more than the {most:,} bytes that the file can have, and was stopped; try again later, or "
        "get the file elsewhere."
    )


def _verify(path: Path, wanted: FileSpec, address: str) -> None:
    kind, expected = ("sha256", wanted.sha256) if wanted.sha256 else ("md5", wanted.md5)
    with path.open("rb") as file:
        found = hashlib.file_digest(file, kind).hexdigest()
    if found != expected:
        raise UnrolledError(
            f"the file from {address} has the wrong checksum ({kind} {found[:12]}, not "
            f"{(expected or '')[:12]}) and was deleted; try again, or get {wanted.names[0]} elsewhere."
        )


def fetch(
    address: str,
    part: Path,
    progress: Progress | None = None,
    timeout: float = 30.0,
    attempts: int = 4,
    wait: float = 1.0,
    most: int = LARGEST,
) -> None:
    """Download ``address`` into ``part``, going on from what is already there.

    Args:
        timeout: seconds without data (or below 1 KiB/s) after which an attempt is given up.
        attempts: how often to try.
        wait: seconds before the second attempt; doubles each time.
        most: bytes that there can be; with more of them, announced or received, ``part`` is deleted.
    Raises:
        UnrolledError: one sentence; but for too many bytes, what was received stays in ``part``.
    """
    if urlsplit(address).scheme not in ("http", "https"):
        raise UsageError(f"{address!r} is not a web address; it must begin with http:// or https://.")
    fault = ""
    for attempt in range(attempts):
        if attempt:
            time.sleep(wait * 2 ** (attempt - 1))
        try:
            return _attempt(address, part, progress, timeout, most)
        except _TooMuch as error:
            part.unlink(missing_ok=True)
            raise _too_much(address, most) from error
        except _Again as error:
            fault = str(error)
    raise UnrolledError(f"{address} {fault}; run the command again to go on from there, or get the file elsewhere.")


def _attempt(address: str, part: Path, progress: Progress | None, timeout: float, most: int) -> None:
    have = part.stat().st_size if part.exists() else 0
    if have > most:
        part.unlink()
        have = 0
    headers = {"User-Agent": f"unrolled/{unrolled.__version__}", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    opener = urllib.request.build_opener(_WebOnly())
    try:
        with opener.open(urllib.request.Request(address, headers=headers), timeout=timeout) as answer:
            resumed = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
            if not resumed:
                have = 0
            length = answer.headers.get("Content-Length")
            total = have + int(length) if length and length.isdigit() else None
            if total is not None and total > most:
                raise _TooMuch
            with part.open("r+b" if part.exists() else "wb") as file:
                file.seek(have)
                file.truncate()
                for size in _received(answer, file, part, have, timeout, most):
                    have = size
                    if progress is not None:
                        progress(address, have, total)
        if total is not None and have < total:
            raise _Again(f"closed the connection after {have:,} of {total:,} bytes")
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:
            # What is there does not fit the file any more: begin anew.
            part.unlink(missing_ok=True)
            raise _Again("refused to go on from a part of the file") from error
        if error.code in _PASSING:
            raise _Again(f"answers {error.code} ({error.reason})") from error
        raise UnrolledError(f"{address} answers {error.code} ({error.reason}); get the file elsewhere.") from error
    except TimeoutError as error:
        raise _Again(f"sent nothing for {timeout:g} seconds") from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise _Again(f"did not answer within {timeout:g} seconds") from error
        raise _Again(f"cannot be reached ({error.reason}); check the network") from error
    except (ConnectionError, http.client.HTTPException) as error:
        raise _Again(f"broke the connection ({type(error).__name__})") from error


def _received(answer: Any, file: BinaryIO, part: Path, have: int, timeout: float, most: int) -> Iterator[int]:
    """Copy the body; yields the size of the file. Each timeout's worth of time must bring some data."""
    mark, since = have, time.monotonic()
    while data := answer.read1(_CHUNK):
        have += len(data)
        if have > most:
            raise _TooMuch
        with writing(part):
            file.write(data)
        yield have
        elapsed = time.monotonic() - since
        if elapsed > timeout:
            if have - mark < _SLOWEST * elapsed:
                raise _Again(f"is too slow ({have - mark:,} bytes in {elapsed:.0f} seconds)")
            mark, since = have, time.monotonic()
