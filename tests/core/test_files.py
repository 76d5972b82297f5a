"""Files are written wholly or not at all."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from unrolled.core import files
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import atomic_folder, atomic_write, make_folder, read_json, write_json
from unrolled.core.tree import save_tensors


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def listing(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("content", ["text é", "bytes", "writer"])
def test_written(content: str, tmp_path: Path) -> None:
    given: dict[str, str | bytes | Callable[[Path], object]] = {
        "text é": "text é",
        "bytes": b"bytes",
        "writer": lambda path: path.write_text("writer"),
    }
    atomic_write(tmp_path / "a", given[content])
    assert (tmp_path / "a").read_text(encoding="utf-8") == content
    assert listing(tmp_path) == ["a"]
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o666 & ~mask, "as if plainly written"


class Boom(Exception):
    pass


def half_way(path: Path) -> None:
    path.write_text("half")
    raise Boom


@pytest.mark.parametrize("stop", [Boom, KeyboardInterrupt])
def test_a_failing_writer_leaves_the_old_file(stop: type[BaseException], tmp_path: Path) -> None:
    file = tmp_path / "a"
    atomic_write(file, "old")

    def writer(path: Path) -> None:
        path.write_text("half")
        raise stop

    with pytest.raises(stop):
        atomic_write(file, writer)
    assert file.read_text() == "old"
    assert listing(tmp_path) == ["a"]


@pytest.mark.parametrize("where", ["write", "sync", "safetensors"])
def test_a_full_disk_is_one_sentence_and_leaves_the_old_file(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a"
    file.write_text("old")
    if where == "sync":
        monkeypatch.setattr(os, "fsync", full_disk)
    tries: dict[str, Callable[[], object]] = {
        "write": lambda: atomic_write(file, full_disk),
        "sync": lambda: atomic_write(file, "new"),
        "safetensors": lambda: _save_on_a_full_disk(file, monkeypatch),
    }
    with pytest.raises(UnrolledError, match=r"^no space left while writing .*a: free some and resume") as caught:
        tries[where]()
    assert caught.value.exit_code == 1
    assert file.read_text() == "old"
    assert listing(tmp_path) == ["a"]


def _save_on_a_full_disk(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import safetensors
    import safetensors.torch

    def fail(*_: object) -> None:
        raise safetensors.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.torch, "save_file", fail)
    save_tensors(file, {"x": torch.ones(2)})


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_no_permission_is_a_usage_error(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files.tempfile, "mkstemp", refuse)
    with pytest.raises(UsageError, match="permission denied; choose another folder") as caught:
        atomic_write(tmp_path / "a", "x")
    assert caught.value.exit_code == 2


def test_a_missing_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UnrolledError, match=r"^cannot write .*: No such file or directory\.$"):
        atomic_write(tmp_path / "no" / "a", "x")


def test_other_errors_pass_through(tmp_path: Path) -> None:
    with pytest.raises(Boom):
        atomic_write(tmp_path / "a", half_way)
    assert listing(tmp_path) == []


def test_folders(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "run") as part:
        (part / "sub").mkdir()
        (part / "sub" / "a").write_text("x")
        assert not (tmp_path / "run").exists()
    assert (tmp_path / "run" / "sub" / "a").read_text() == "x"
    assert listing(tmp_path) == ["run"]


def test_a_failing_folder_vanishes(tmp_path: Path) -> None:
    with pytest.raises(Boom), atomic_folder(tmp_path / "run") as part:
        half_way(part / "a")
    assert listing(tmp_path) == []
    with pytest.raises(UnrolledError, match="no space left"), atomic_folder(tmp_path / "run"):
        full_disk()
    assert listing(tmp_path) == []


def test_an_existing_folder_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "kept").write_text("x")
    with pytest.raises(UnrolledError, match="cannot write"), atomic_folder(tmp_path / "run") as part:
        (part / "a").write_text("y")
    assert listing(tmp_path / "run") == ["kept"]


def test_make_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert make_folder(tmp_path / "a" / "b").is_dir()
    assert make_folder(tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="is a file, not a folder"):
        make_folder(tmp_path / "file")
    with pytest.raises(UsageError, match="lies below a file"):
        make_folder(tmp_path / "file" / "b")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UsageError, match="permission denied"):
        make_folder(tmp_path / "a")


def test_json(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_json(file, {"b": [1, None, "é"]})
    assert read_json(file) == {"b": [1, None, "é"]}
    assert file.read_text(encoding="utf-8").endswith("}\n")
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(file, {"b": float("nan")})
    with pytest.raises(UnrolledError, match="does not exist"):
        read_json(tmp_path / "none.json")
    for broken in (b'{"b": ', b"\xff\xfe\x00"):
        file.write_bytes(broken)
        with pytest.raises(UnrolledError, match="not valid JSON"):
            read_json(file)
    with pytest.raises(UnrolledError, match="cannot read"):
        read_json(tmp_path)
