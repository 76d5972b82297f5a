"""Builds the native library from its C++ sources, once for each version of them."""

import contextlib
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.places import cache_folder, cache_root

__all__ = ["INSTRUCTION_SETS", "Built", "build", "find_compiler", "known_sets", "library_path"]

_SOURCES = Path(__file__).parent / "csrc"
_COMMON = ("-O3", "-std=c++17", "-fPIC", "-pthread")
_AVX512 = ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx2", "-mfma", "-mprefer-vector-width=512")
_AVX512_BF16 = ("-DVECTOR_BYTES=64", *_AVX512, "-mavx512vnni", "-mavx512bf16")


class InstructionSet(NamedTuple):
    """options: of the compiler. base: the set whose functions serve for sources that are not compiled for this one."""

    options: tuple[str, ...]
    base: str | None = None


# widest first; what the processor has is asked at run time (csrc/choose.cpp)
INSTRUCTION_SETS: dict[str, InstructionSet] = {
    "amx_bf16": InstructionSet((*_AVX512_BF16, "-mamx-tile", "-mamx-bf16"), "avx512"),
    "avx512_bf16": InstructionSet(_AVX512_BF16, "avx512"),
    "avx512_vnni": InstructionSet(("-DVECTOR_BYTES=64", *_AVX512, "-mavx512vnni"), "avx512"),
    "avx512": InstructionSet(("-DVECTOR_BYTES=64", *_AVX512)),
    "avx2": InstructionSet(("-DVECTOR_BYTES=32", "-mavx2", "-mfma")),
    "plain": InstructionSet(("-DVECTOR_BYTES=16",)),
}

# source -> the sets that it is compiled for; those that take longest first
_GENERAL = ("avx512", "avx2", "plain")
_KERNELS: dict[str, tuple[str, ...]] = {
    "program.cpp": tuple(INSTRUCTION_SETS),
    "softmax.cpp": ("amx_bf16", "avx512_bf16", *_GENERAL),
    "window.cpp": ("amx_bf16", "avx512_bf16", *_GENERAL),
    "norm.cpp": _GENERAL,
    "scan.cpp": _GENERAL,
}


class Built(NamedTuple):
    """path: of the library. compiler: what made it; None where it was there already."""

    path: Path
    compiler: str | None


def known_sets(compiler: str) -> list[str]:
    """Those that the machine's kind may have and the compiler knows; the plain one in any case."""
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return [name for name in INSTRUCTION_SETS if name == "plain" or (x86 and _knows(compiler, name))]


def _knows(compiler: str, name: str) -> bool:
    asked = (*_COMMON, *INSTRUCTION_SETS[name].options, "-x", "c++", "-fsyntax-only", os.devnull)
    try:
        return subprocess.run([compiler, *asked], capture_output=True).returncode == 0
    except OSError:
        return False


def library_path() -> Path:
    """Where the library of these sources is, or would be, for this kind of machine."""
    digest = hashlib.sha256(repr((_COMMON, INSTRUCTION_SETS, _KERNELS, platform.system(), platform.machine())).encode())
    for path in sorted(_SOURCES.iterdir()):
        digest.update(path.name.encode() + path.read_bytes())
    return cache_root() / "native" / digest.hexdigest()[:16] / "libunrolled.so"


def find_compiler() -> str | None:
    """``$CXX``, or g++, clang++ or c++ on the path."""
    given = os.environ.get("CXX")
    for name in [given] if given else ["g++", "clang++", "c++"]:
        if found := shutil.which(name):
            return found
    return None


def build(again: bool = False) -> Built:
    """Compile the library, unless it is there.

    Args:
        again: compile it even so.
    Raises:
        UsageError: no compiler, or a folder that cannot be written. UnrolledError: the compiler failed.
    """
    path = library_path()
    if path.is_file() and not again:
        return Built(path, None)
    compiler = find_compiler()
    if compiler is None:
        raise UsageError(
            "no C++ compiler found; install g++ or clang++, or name one with CXX. Without it everything works, slower."
        )
    folder = cache_folder("native", path.parent.name)
    running: list[subprocess.Popen[str]] = []
    with tempfile.TemporaryDirectory(dir=folder) as work, _ended(running):
        objects, known = [], known_sets(compiler)
        # compilers that run side by side have like work, so that none waits for another
        for source, name in ((source, name) for source, sets in _KERNELS.items() for name in sets if name in known):
            objects.append(f"{work}/{source}.{name}.o")
            options = (*INSTRUCTION_SETS[name].options, f"-DINSTRUCTION_SET={name}", "-c", str(_SOURCES / source))
            running.append(_start(compiler, *options, "-o", objects[-1]))
            if len(running) >= (os.cpu_count() or 1):  # at most as many at once as there are processors
                _finish(running.pop(0))
        while running:
            _finish(running.pop(0))
        made = f"{work}/libunrolled.so"
        sets = [f"-DHAVE_{name.upper()}" for name in known]
        _finish(_start(compiler, *sets, "-shared", str(_SOURCES / "choose.cpp"), *objects, "-o", made))
        Path(made).replace(path)
    return Built(path, compiler)


@contextlib.contextmanager
def _ended(running: list[subprocess.Popen[str]]) -> Iterator[None]:
    """After a failure or Ctrl-C no compiler goes on."""
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.communicate()


def _start(compiler: str, *options: str) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen([compiler, *_COMMON, *options], stderr=subprocess.PIPE, text=True)
    except OSError as error:
        raise UsageError(f"{compiler} cannot be run ({error.strerror}); name another compiler with CXX.") from error


def _finish(process: subprocess.Popen[str]) -> None:
    _, errors = process.communicate()
    if process.returncode:
        first = next((line for line in errors.splitlines() if "error" in line), errors.strip()[:200])
        said = f" and said: {first.strip().rstrip('.')}" if first else ""
        raise UnrolledError(
            f"the compiler failed with exit code {process.returncode}{said}; name another one with CXX, or go without: "
            "everything works, slower."
        )
