"""A library that another user can have put there or changed is not opened, and one that is damaged neither."""

import hashlib
import logging
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from unrolled.core.errors import UsageError
from unrolled.kernels.cpu import find_compiler, forget_library, library_path, why_no_library
from unrolled.kernels.cpu.library import _loaded
from unrolled.kernels.cpu.trust import Untrusted, hash_file, open_trusted, own_folder, private_files
from unrolled.kernels.diag_scan import diag_scan

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")


def put(library: Path, content: bytes = b"code") -> Path:
    """A library with its checksum, in folders of this user."""
    library.parent.mkdir(parents=True, mode=0o700, exist_ok=True)
    library.write_bytes(content)
    hash_file(library).write_text(hashlib.sha256(content).hexdigest() + "\n")
    for file in (library, hash_file(library)):
        file.chmod(0o600)
    return library


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "cache"
    made.mkdir(mode=0o755)
    return made


@pytest.fixture
def library(root: Path) -> Path:
    return put(root / "native" / "0123" / "libunrolled.so")


def refusal(library: Path, root: Path) -> str:
    with pytest.raises(Untrusted) as caught:
        open_trusted(library, root)
    return str(caught.value)


def test_what_is_this_users_is_opened(library: Path, root: Path) -> None:
    for mode in (0o700, 0o755, 0o1777, 0o1770):
        root.chmod(mode)
        handle = open_trusted(library, root)
        assert os.pread(handle, 100, 0) == b"code"
        os.close(handle)


def test_folders_are_closed_again(library: Path, root: Path) -> None:
    def count() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    if not Path("/proc/self/fd").is_dir():
        pytest.skip("the system does not tell open files")
    before = count()
    os.close(open_trusted(library, root))
    library.chmod(0o666)
    refusal(library, root)
    root.chmod(0o777)
    refusal(library, root)
    own_folder(root, "native", "0123")
    assert count() == before


@pytest.mark.parametrize("bits", [0o020, 0o002])
def test_what_others_may_write_is_refused(library: Path, root: Path, bits: int) -> None:
    for path in (library, hash_file(library), library.parent, library.parents[1]):
        before = stat.S_IMODE(path.stat().st_mode)
        path.chmod(before | bits)
        assert refusal(library, root) == f"others may write {path}"
        path.chmod(before)
    root.chmod(0o755 | bits)
    assert refusal(library, root) == f"others may rename what lies in {root}"


@as_root
def test_what_belongs_to_another_is_refused(library: Path, root: Path) -> None:
    for path in (library, hash_file(library), library.parent, library.parents[1], root):
        os.chown(path, NOBODY, NOBODY)
        assert refusal(library, root).startswith(f"{path} belongs to ")
        os.chown(path, 0, 0)
    os.close(open_trusted(library, root))


def test_links_and_pipes_are_refused(library: Path, root: Path) -> None:
    elsewhere = root.parent / "elsewhere"
    for path, clause in ((library, "plain file"), (library.parent, "folder"), (library.parents[1], "folder")):
        path.rename(elsewhere)
        path.symlink_to(elsewhere)
        assert refusal(library, root) == f"{path} is no {clause}"
        path.unlink()
        elsewhere.rename(path)
    library.unlink()
    os.mkfifo(library, 0o600)
    assert refusal(library, root) == f"{library} is no plain file"


def test_damage_is_refused(library: Path, root: Path) -> None:
    for content in (b"cod", b"codes", b"", b"CODE"):
        library.write_bytes(content)
        assert refusal(library, root) == f"{library} is not what was built"
    library.write_bytes(b"code")
    hash_file(library).write_text("")
    assert refusal(library, root) == f"{library} is not what was built"
    hash_file(library).unlink()
    assert refusal(library, root) == f"{library} has no checksum beside it"
    library.unlink()
    with pytest.raises(FileNotFoundError):
        open_trusted(library, root)


def test_an_own_folder(root: Path) -> None:
    root.chmod(0o777)
    with private_files():
        folder = own_folder(root, "native", "0123")
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder.parent, folder)] == [0o700, 0o700]
    assert stat.S_IMODE(root.stat().st_mode) == 0o1777, "others keep their rights, but rename nothing of ours"
    put(folder / "libunrolled.so")
    (folder / "kept").touch()
    assert own_folder(root, "native", "0123") == folder
    assert (folder / "kept").exists()


@pytest.mark.parametrize("planted", ["others may write", "link", "file"])
def test_what_could_be_anothers_is_moved_away(root: Path, planted: str) -> None:
    place, elsewhere = root / "native", root.parent / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    if planted == "link":
        place.symlink_to(elsewhere)
    elif planted == "file":
        place.touch()
    else:
        put(place / "0123" / "libunrolled.so")
        place.chmod(0o777)
    with private_files():
        folder = own_folder(root, "native", "0123")
    assert list(folder.iterdir()) == []
    assert [path.name for path in root.iterdir()] == ["native"]
    assert (elsewhere / "kept").exists(), "a link is deleted, not what it leads to"


@as_root
def test_root_moves_away_what_another_user_put_there(root: Path) -> None:
    root.chmod(0o1777)
    put(root / "native" / "0123" / "libunrolled.so")
    os.chown(root / "native", NOBODY, NOBODY)
    with private_files():
        assert list(own_folder(root, "native", "0123").iterdir()) == []
    os.chown(root, NOBODY, NOBODY)
    with pytest.raises(UsageError, match=r"belongs to .*; set UNROLLED_CACHE to a folder of your own\."):
        own_folder(root, "native", "0123")


@pytest.fixture
def own_cache(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache without a library; afterwards the process finds its own again."""
    with monkeypatch.context() as patch:
        patch.setenv("UNROLLED_CACHE", str(root))
        forget_library()
        yield root
    forget_library()


def test_without_trust_everything_works_slower(own_cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = put(library_path())
    path.parent.chmod(0o777)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert why_no_library() == (
                f"the native library is not loaded: others may write {path.parent}; run `unrolled build`"
            )
            assert diag_scan(torch.ones(1, 3, 2), torch.ones(1, 3, 2))[1].tolist() == [[3.0, 3.0]]
    assert [record.getMessage() for record in caplog.records] == [why_no_library()], "said once"


def test_what_was_looked_at_is_loaded(own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where another file lies at the path by then, and a second library of the process is not the first."""
    compiler = shutil.which("cc") or find_compiler()
    if compiler is None:
        pytest.skip("no compiler here")
    found = []
    for number in (1, 2):
        made = tmp_path / f"{number}.so"
        source = f"int is_amd(void) {{ return {number}; }}"
        command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(made)]
        subprocess.run(command, input=source, text=True, check=True)
        library_path().unlink(missing_ok=True)
        put(library_path(), made.read_bytes())

        def swapped(*where: Path) -> int:
            handle = open_trusted(*where)
            library_path().unlink()
            library_path().write_bytes(b"planted")
            return handle

        monkeypatch.setitem(_loaded.__wrapped__.__globals__, "open_trusted", swapped)
        forget_library()
        loaded = _loaded()
        assert not isinstance(loaded, str), loaded
        found.append(loaded.is_amd())
    assert found == [1, 2]
