"""Builds the native library from its C++ sources, once for each version of them."""

import contextlib
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import sha256_file, writing
from unrolled.core.places import cache_root
from unrolled.kernels.cpu.trust import Untrusted, hash_file, open_trusted, own_folder, private_files

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
    "attention.cpp": _GENERAL,
    "conv.cpp": _GENERAL,
    "expanded.cpp": _GENERAL,
    "gate.cpp": _GENERAL,
    "levels.cpp": _GENERAL,
    "matrix.cpp": _GENERAL,
    "norm.cpp": _GENERAL,
    "scan.cpp": _GENERAL,
    "shift.cpp": _GENERAL,
    "softscan.cpp": _GENERAL,
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
        return subprocess.run([compiler, *asked], capture_output=True, stdin=subprocess.DEVNULL).returncode == 0
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


def build(again: bool = False, tell: Callable[[str], None] = lambda what: None) -> Built:
    """Compile the library, unless it is there and can be trusted, into a folder that is this user's alone.

    Args:
        again: compile it even so.
        tell: hears what is begun.
    Raises:
        UsageError: no compiler, or a folder that cannot be written, or not be made this user's own. UnrolledError: the
            compiler failed.
    """
    path, root = library_path(), cache_root()
    if not again and _sound(path, root):
        return Built(path, None)
    compiler = find_compiler()
    if compiler is None:
        raise UsageError(
            "no C++ compiler found; install g++ or clang++, or name one with CXX. Without it everything works, slower."
        )
    with private_files(), _remedy():
        folder = own_folder(root, *path.parent.relative_to(root).parts)
        with writing(folder), tempfile.TemporaryDirectory(dir=folder) as work:
            made = _compile(compiler, Path(work), tell)
            checksum = hash_file(made)
            checksum.write_text(sha256_file(made) + "\n", encoding="ascii")
            for file in (made, checksum):
                file.replace(folder / file.name)
    return Built(path, compiler)


def _sound(path: Path, root: Path) -> bool:
    try:
        os.close(open_trusted(path, root))
    except (Untrusted, OSError):
        return False
    return True


@contextlib.contextmanager
def _remedy() -> Iterator[None]:
    """A folder of the cache is chosen by a variable."""
    try:
        yield
    except UsageError as error:
        said = str(error).rstrip(".")
        raise error if "UNROLLED_CACHE" in said else UsageError(f"{said} by setting UNROLLED_CACHE.") from error


def _compile(compiler: str, work: Path, tell: Callable[[str], None]) -> Path:
    """The library, made in a folder for what is made on the way."""
    running: list[subprocess.Popen[str]] = []
    known = known_sets(compiler)
    parts = [(source, name) for source, sets in _KERNELS.items() for name in sets if name in known]
    tell(f"compiling {len(parts)} files with {compiler}")
    with _ended(running):
        objects = []
        # compilers that run side by side have like work, so that none waits for another
        for source, name in parts:
            objects.append(f"{work}/{source}.{name}.o")
            options = (*INSTRUCTION_SETS[name].options, f"-DINSTRUCTION_SET={name}", "-c", str(_SOURCES / source))
            running.append(_start(compiler, *options, "-o", objects[-1]))
            if len(running) >= (os.cpu_count() or 1):  # at most as many at once as there are processors
                _finish(running.pop(0))
        while running:
            _finish(running.pop(0))
        made = work / library_path().name
        sets = [f"-DHAVE_{name.upper()}" for name in known]
        _finish(_start(compiler, *sets, "-shared", str(_SOURCES / "choose.cpp"), *objects, "-o", str(made)))
    return made


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
        command = [compiler, *_COMMON, *options]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
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
