"""The native library as Python sees it: packed matrices, and programs over a window."""

import ctypes
import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unrolled.core.errors import UsageError
from unrolled.kernels.cpu.build import INSTRUCTION_SETS, find_compiler, library_path

__all__ = ["Library", "instruction_sets", "library", "why_no_library"]

_TYPES = {torch.float32: "float", torch.float64: "double"}


class Library:
    """The functions of one instruction set.

    Args:
        instruction_set: one of ``build.INSTRUCTION_SETS`` that this processor has.
    """

    def __init__(self, loaded: ctypes.CDLL, instruction_set: str):
        self.instruction_set = instruction_set
        self._functions: dict[str, Any] = {}
        for kind in _TYPES.values():
            for name in ("packed_size", "pack", "run", "scan_forward", "scan_backward"):
                function = getattr(loaded, f"{name}_{kind}_{instruction_set}")
                function.restype = ctypes.c_int64 if name == "packed_size" else None
                self._functions[f"{name}_{kind}"] = function

    def pack(self, matrix: Tensor) -> Tensor:
        """A matrix (k, n), any strides, in the order in which :meth:`run` reads it."""
        kind = _TYPES[matrix.dtype]
        k, n = matrix.shape
        size = self._functions[f"packed_size_{kind}"](ctypes.c_int64(k), ctypes.c_int64(n))
        packed = matrix.new_empty(size)
        numbers = (ctypes.c_int64(number) for number in (*matrix.stride(), k, n))
        self._functions[f"pack_{kind}"](_address(matrix), *numbers, _address(packed))
        return packed

    def run(
        self,
        operations: np.ndarray,
        numbers: np.ndarray,
        places: Sequence[tuple[int, ...]],
        matrices: Sequence[Tensor],
        steps: int,
        rows: int,
        threads: int,
        backwards: bool,
        rounding: bool,
        dtype: torch.dtype,
    ) -> None:
        """Run a program over a window; see ``csrc/program.cpp``.

        Args:
            operations: (count, 12) int64. numbers: (count, 2) float64. places: six integers each. matrices: packed.
            rounding: round the rows that products read to bf16 (float32 only).
        """
        table = np.array(places, np.int64)
        packed = (ctypes.c_void_p * max(1, len(matrices)))(*(one.data_ptr() for one in matrices))
        self._functions[f"run_{_TYPES[dtype]}"](
            operations.ctypes.data_as(ctypes.c_void_p), numbers.ctypes.data_as(ctypes.c_void_p),
            ctypes.c_int64(len(operations)), table.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(len(table)),
            packed, *(ctypes.c_int64(number) for number in (steps, int(backwards), int(rounding), rows, threads)),
        )  # fmt: skip

    def call(self, name: str, dtype: torch.dtype, *arguments: Tensor | int | None) -> None:
        """Call a function by its name: tensors as addresses, None as the null address."""
        given = (
            ctypes.c_int64(one) if isinstance(one, int) else _address(one) if one is not None else ctypes.c_void_p(None)
            for one in arguments
        )
        self._functions[f"{name}_{_TYPES[dtype]}"](*given)


def _address(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


@functools.cache
def _loaded() -> ctypes.CDLL | str:
    """The library, or why there is none."""
    path = library_path()
    if not path.is_file():
        remedy = "run `unrolled build`" if find_compiler() else "install a C++ compiler and run `unrolled build`"
        return f"the native library is not built; {remedy}"
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        return f"the native library cannot be loaded ({error}); run `unrolled build --again`"


def why_no_library() -> str | None:
    """The reason why there is no native library, with the remedy; None where there is one."""
    found = _loaded()
    return found if isinstance(found, str) else None


def instruction_sets() -> list[str]:
    """Those that the library has and this processor too, fastest first."""
    found = _loaded()
    if isinstance(found, str):
        return []
    return [name for name in INSTRUCTION_SETS if found.has_instruction_set(name.encode())]


@functools.cache
def library(instruction_set: str | None = None) -> Library:
    """The library for an instruction set; absent: the fastest that this processor has.

    Raises:
        UsageError: it is not built, or the processor lacks the instruction set.
    """
    found = _loaded()
    if isinstance(found, str):
        raise UsageError(f"{found}.")
    there = instruction_sets()
    if instruction_set not in (None, *there):
        raise UsageError(f"this processor has no {instruction_set}; it has: {', '.join(there)}.")
    return Library(found, instruction_set or there[0])


def forget_library() -> None:
    """Look for the library again (after a build)."""
    _loaded.cache_clear()
    library.cache_clear()
