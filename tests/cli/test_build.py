"""``unrolled build``: with a compiler, without one, with one that fails."""

import ctypes
import json
import os
import platform
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli.conftest import Command
from unrolled.kernels.cpu import find_compiler, forget_library, library_path, why_no_library
from unrolled.kernels.cpu.build import known_sets
from unrolled.kernels.cpu.trust import hash_file

OWN_CACHE = os.environ.get("UNROLLED_CACHE")
Refused = Callable[..., str]


@pytest.fixture(autouse=True)
def _library_as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The process keeps what it has found; the tests after these are to find the library where it was."""
    yield
    if OWN_CACHE is None:
        monkeypatch.delenv("UNROLLED_CACHE")
    else:
        monkeypatch.setenv("UNROLLED_CACHE", OWN_CACHE)
    forget_library()
    why_no_library()


@pytest.fixture
def no_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    monkeypatch.delenv("CXX", raising=False)


@pytest.mark.usefixtures("no_compiler")
def test_without_a_compiler(unrolled: Command, refused: Refused) -> None:
    assert "no C++ compiler found; install g++ or clang++" in refused("build")
    code, out, _ = unrolled("build", "--optional")
    assert code == 0
    assert out.startswith("no C++ compiler found: the native library is not built")
    assert json.loads(unrolled("build", "--optional", "--json").out)["library"] is None


def test_a_compiler_that_fails_leaves_nothing(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "false")
    assert "the compiler failed with exit code 1; name another one with CXX" in refused("build", code=1)
    assert list(library_path().parent.iterdir()) == []


def test_what_the_compiler_does_not_know_is_left_out(tmp_path: Path) -> None:
    """An older compiler has no word for the newest instructions."""
    compiler = find_compiler()
    if compiler is None or platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("no C++ compiler for x86 here")
    older = tmp_path / "older"
    older.write_text(f'#!/bin/sh\ncase "$*" in *avx512bf16*) exit 1;; esac\nexec {compiler} "$@"\n')
    older.chmod(0o755)
    known = known_sets(str(older))
    assert known == [name for name in known_sets(compiler) if name not in ("amx_bf16", "avx512_bf16")]
    assert known_sets("false") == ["plain"]


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that knows every option and makes a file of a few bytes, which is no library."""
    script = tmp_path / "compiler"
    script.write_text('#!/bin/sh\nwhile [ $# -gt 1 ]; do [ "$1" = -o ] && echo made > "$2"; shift; done\n')
    script.chmod(0o755)
    monkeypatch.setenv("CXX", str(script))


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("mask", [0o000, 0o022, 0o777])
def test_what_is_built_is_this_users_alone(refused: Refused, mask: int) -> None:
    before = os.umask(mask)
    try:
        if mask == 0o777:  # a folder that a umask closes even to its owner is not this command's matter
            os.umask(0)
            Path(os.environ["UNROLLED_CACHE"]).mkdir()
            os.umask(mask)
        assert "cannot be loaded" in refused("build"), "it is no library, but it was built"
        assert os.umask(mask) == mask, "as it was"
    finally:
        os.umask(before)
    library = library_path()
    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode)
        for path in (library.parents[1], library.parent, library, hash_file(library))
    }
    assert list(modes.values()) == [0o700, 0o700, *[modes[library.name]], 0o600]
    assert modes[library.name] in (0o600, 0o700)
    assert sorted(path.name for path in library.parent.iterdir()) == [library.name, hash_file(library).name]


@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("change", ["cut", "no checksum", "others may write"])
def test_what_cannot_be_trusted_is_made_anew(refused: Refused, unrolled: Command, change: str) -> None:
    refused("build")
    library = library_path()
    if change == "cut":
        library.write_bytes(library.read_bytes()[:-1])
    elif change == "no checksum":
        hash_file(library).unlink()
    else:
        (library.parent / "planted").touch()
        library.parent.chmod(0o777)
    forget_library()
    said = json.loads(unrolled("info", "--json").out)["native_library"]
    assert said.startswith("the native library is not loaded: ")
    assert said.endswith("; run `unrolled build`")
    assert "cannot be loaded" in refused("build"), "as it was after the first build"
    assert library.read_bytes() == b"made\n"
    assert not (library.parent / "planted").exists()


@pytest.mark.usefixtures("compiler")
def test_a_cache_that_cannot_be_made_safe(refused: Refused) -> None:
    if os.geteuid():
        pytest.skip("only root can make a folder another user's")
    root = Path(os.environ["UNROLLED_CACHE"])
    root.mkdir()
    os.chown(root, 65534, 65534)
    assert refused("build").endswith("; set UNROLLED_CACHE to a folder of your own.")
    assert list(root.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_a_real_build(unrolled: Command, compiler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} here")
    monkeypatch.setenv("CXX", compiler)
    code, out, err = unrolled("build", "--json")
    assert code == 0
    assert err.startswith("compiling ")
    made = json.loads(out)
    assert Path(made["library"]) == library_path()
    assert made["compiler"]
    assert ctypes.CDLL(made["library"]).has_instruction_set(b"plain") == 1
    assert json.loads(unrolled("build", "--json").out)["compiler"] is None, "it was there"
    assert "native library: built, uses " in unrolled("info").out
    assert json.loads(unrolled("build", "--again", "--json").out)["compiler"]
