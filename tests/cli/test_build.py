"""``unrolled build``: with a compiler, without one, with one that fails."""

import ctypes
import json
import os
import platform
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli.conftest import Command
from unrolled.kernels.cpu import find_compiler, forget_library, library_path, why_no_library
from unrolled.kernels.cpu.build import known_sets

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


def test_what_is_no_library_is_refused_and_not_compiled_again(unrolled: Command, refused: Refused) -> None:
    library_path().parent.mkdir(parents=True)
    library_path().write_bytes(b"damaged")
    assert "cannot be loaded" in (said := refused("build"))
    assert "--again" in said
    assert library_path().read_bytes() == b"damaged"


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_a_real_build(unrolled: Command, compiler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} here")
    monkeypatch.setenv("CXX", compiler)
    code, out, err = unrolled("build", "--json")
    assert (code, err) == (0, "")
    made = json.loads(out)
    assert Path(made["library"]) == library_path()
    assert made["compiler"]
    assert ctypes.CDLL(made["library"]).has_instruction_set(b"plain") == 1
    assert json.loads(unrolled("build", "--json").out)["compiler"] is None, "it was there"
    assert "native library: built, uses " in unrolled("info").out
    assert json.loads(unrolled("build", "--again", "--json").out)["compiler"]
