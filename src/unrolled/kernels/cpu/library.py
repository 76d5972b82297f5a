"""The native library as Python sees it: packed matrices, and programs over a window."""

import ctypes
import functools
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from unrolled.core.errors import UsageError
from unrolled.core.places import cache_root
from unrolled.kernels.cpu.build import INSTRUCTION_SETS, find_compiler, library_path
from unrolled.kernels.cpu.trust import Untrusted, open_trusted

__all__ = ["Call", "Library", "Products", "beats_torch", "instruction_sets", "library", "why_no_library"]

log = logging.getLogger("unrolled.kernels")

_TYPES = {torch.float32: "float", torch.float64: "double"}

# A thread has at least so many rows of a product or of a gradient.
_PER_THREAD = 64

_SIZES = ("packed_size", "softmax_columns", "softmax_size")
_FUNCTIONS = (
    "pack",
    "run",
    "linear",
    "gradient",
    "scan_forward",
    "scan_backward",
    "matrix_forward",
    "matrix_backward",
    "attention_forward",
    "attention_backward",
    "conv_forward",
    "conv_backward",
    "expanded_forward",
    "expanded_backward",
    "softscan_forward",
    "softscan_backward",
    "softmax_pack",
    "softmax_losses",
    "softmax_gradients",
    "rms_forward",
    "rms_backward",
    "gate_forward",
    "gate_backward",
    "shift_forward",
    "shift_backward",
    "levels_forward",
    "levels_backward",
)

# of float alone; the second line's only in sets with products of bf16 numbers
_LOWERED = ("lowered_size", "pack_lowered")
_PAIRS = ("gradient", "softmax_columns", "softmax_size", "softmax_pack", "softmax_losses", "softmax_gradients")

Products = Literal["exact", "bf16_factors", "bf16_weights", "int8_weights"]
"""How a program multiplies: in its own type; with both factors rounded to bf16, and sums of float; with matrices kept
as bf16; with matrices kept as 8-bit integers, and rows rounded to such. All but the first in float32 only; the order is
that of ``csrc/program.cpp``."""


class Library:
    """The functions of one instruction set.

    Args:
        instruction_set: one of ``build.INSTRUCTION_SETS`` that this processor has.
    """

    def __init__(self, loaded: ctypes.CDLL, instruction_set: str):
        self.instruction_set = instruction_set
        self._functions: dict[str, Any] = {}
        base = INSTRUCTION_SETS[instruction_set].base
        kinds = [f"{name}_{kind}" for name in (*_SIZES, *_FUNCTIONS) for kind in _TYPES.values()]
        self.lowers = hasattr(loaded, f"{_PAIRS[0]}_lowered_{instruction_set}")
        """Whether the processor multiplies bf16 numbers."""
        for name in (*kinds, *_LOWERED, *(f"{name}_lowered" for name in _PAIRS if self.lowers)):
            own = f"{name}_{instruction_set}"
            function = getattr(loaded, own if hasattr(loaded, own) else f"{name}_{base}")
            function.restype = ctypes.c_int64 if name.startswith((*_SIZES, _LOWERED[0])) else None
            self._functions[name] = function

    def pack(self, matrix: Tensor, products: Products = "exact") -> Tensor:
        """A matrix (k, n), any strides, in the order in which a program with such products reads it."""
        if products in ("bf16_weights", "int8_weights"):
            lanes = self._size("packed_size_float", 1, 1)
            return pack_int8(matrix, lanes) if products == "int8_weights" else pack_words(matrix.bfloat16(), lanes)
        k, n = matrix.shape
        if products == "bf16_factors":
            name, packed = "pack_lowered", matrix.new_empty(self._size("lowered_size", k, n), dtype=torch.uint8)
        else:
            kind = _TYPES[matrix.dtype]
            name, packed = f"pack_{kind}", matrix.new_empty(self._size(f"packed_size_{kind}", k, n))
        numbers = (ctypes.c_int64(number) for number in (*matrix.stride(), k, n))
        self._functions[name](_address(matrix), *numbers, _address(packed))
        return packed

    def pack_tiles(self, matrix: Tensor, low: bool) -> Tensor:
        """A matrix (V, E), columns side by side, tile by tile of V as the gradients of a softmax read it.

        Args:
            low: for products of bf16 factors; where the library :attr:`lowers`.
        """
        bytes_of = self._size(f"softmax_size_{_kind(matrix.dtype, low)}", *matrix.shape)
        packed = matrix.new_empty(bytes_of, dtype=torch.uint8)
        self.call("softmax_pack", matrix.dtype, *matrix.shape, matrix, matrix.stride(0), packed, low=low)
        return packed

    def tile_columns(self, dtype: torch.dtype, low: bool) -> int:
        """Columns of a softmax's tile."""
        return self._functions[f"softmax_columns_{_kind(dtype, low)}"]()

    def _size(self, name: str, k: int, n: int) -> int:
        """Numbers, or for ``lowered_size`` and ``softmax_size`` bytes, that a packed (k, n) matrix takes."""
        return self._functions[name](ctypes.c_int64(k), ctypes.c_int64(n))

    def prepare(
        self,
        operations: np.ndarray,
        numbers: np.ndarray,
        places: Sequence[tuple[int, ...]],
        matrices: Sequence[Tensor],
        steps: int,
        rows: int,
        threads: int,
        block: int,
        backwards: bool,
        products: Products,
        dtype: torch.dtype,
    ) -> "Call":
        """A program over a window, ready to run as often as is wanted; see ``csrc/program.cpp``.

        Args:
            operations: (count, 12) int64. numbers: (count, 2) float64. places: seven integers each, whose memory is to
                last as long as the call. matrices: packed for such ``products``. block: rows at a time in a thread.
        """
        table = np.array(places, np.int64)
        packed = (ctypes.c_void_p * max(1, len(matrices)))(*(one.data_ptr() for one in matrices))
        last = (steps, int(backwards), get_args(Products).index(products), rows, threads, block)
        arguments = (
            operations.ctypes.data_as(ctypes.c_void_p), numbers.ctypes.data_as(ctypes.c_void_p),
            ctypes.c_int64(len(operations)), table.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(len(table)),
            packed, *(ctypes.c_int64(number) for number in last),
        )  # fmt: skip
        return Call(self._functions[f"run_{_TYPES[dtype]}"], arguments, (operations, numbers, table, matrices))

    def linear(self, x: Tensor, packed: Tensor, n: int, bias: Tensor | None, low: bool) -> Tensor:
        """x (rows, k) times a packed matrix (k, n), + bias (n,); the columns of x lie side by side.

        Args:
            low: round x to bf16; the matrix is packed for ``bf16_factors``.
        """
        (rows, k), y = x.shape, x.new_empty(len(x), n)
        bias = bias if bias is None else bias.contiguous()
        self.call("linear", x.dtype, rows, k, n, x, x.stride(0), packed, bias, y, int(low), _threads(rows))
        return y

    def add_gradient(self, grad: Tensor, rows: Tensor, total: Tensor, add: bool = True, low: bool = False) -> None:
        """total (m, n) += (or =) grad^T rows, for grad (k, m) and rows (k, n); the columns of each lie side by side.

        Args:
            low: round both factors to bf16; where the library :attr:`lowers`.
        """
        k, m = grad.shape
        given = (k, m, rows.shape[1], grad, grad.stride(0), rows, rows.stride(0), total, total.stride(0))
        self.call("gradient", grad.dtype, *given, int(add), _threads(m), low=low)

    def call(self, name: str, dtype: torch.dtype, *arguments: Tensor | float | None, low: bool = False) -> None:
        """Call a function by its name: tensors as addresses, None as the null address, floats as doubles.

        Args:
            low: its form with bf16 factors.
        """
        self._functions[f"{name}_{_kind(dtype, low)}"](*map(_argument, arguments))


def _kind(dtype: torch.dtype, low: bool) -> str:
    return "lowered" if low else _TYPES[dtype]


def _threads(rows: int) -> int:
    return max(1, min(torch.get_num_threads(), rows // _PER_THREAD))


class Call:
    """A function of the library with its arguments. held: what they point into."""

    def __init__(self, function: Any, arguments: tuple[Any, ...], held: Any):
        self._function, self._arguments, self._held = function, arguments, held

    def __call__(self) -> None:
        self._function(*self._arguments)


def pack_words(matrix: Tensor, lanes: int) -> Tensor:
    """A matrix (k, n) of 8-bit or 16-bit numbers in the order of ``csrc/narrow.h``."""
    k, n = matrix.shape
    count, panels = 4 // matrix.element_size(), -(-n // lanes)
    padded = torch.nn.functional.pad(matrix, (0, panels * lanes - n, 0, -k % count))
    return padded.view(-1, count, panels, lanes).permute(2, 0, 3, 1).contiguous()


def pack_int8(matrix: Tensor, lanes: int) -> Tensor:
    """A matrix (k, n) as 8-bit integers in the order of ``csrc/int8.h``, with a scale for each column: bytes."""
    scale = matrix.abs().amax(0) / 127
    whole = (matrix / scale.where(scale > 0, 1)).round_().to(torch.int8)
    columns = (0, -matrix.shape[1] % lanes)
    sums = torch.nn.functional.pad(whole.sum(0, dtype=torch.int32), columns)
    parts = (pack_words(whole, lanes), torch.nn.functional.pad(scale, columns), sums)
    return torch.cat([part.flatten().view(torch.uint8) for part in parts])


def _argument(value: Tensor | float | None) -> Any:
    if isinstance(value, Tensor):
        return _address(value)
    if value is None:
        return ctypes.c_void_p(None)
    return ctypes.c_int64(value) if isinstance(value, int) else ctypes.c_double(value)


def _address(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


@functools.cache
def _loaded() -> ctypes.CDLL | str:
    """The library, or why there is none."""
    path = library_path()
    try:
        handle = open_trusted(path, cache_root())
    except FileNotFoundError:
        remedy = "run `unrolled build`" if find_compiler() else "install a C++ compiler and run `unrolled build`"
        return f"the native library is not built; {remedy}"
    except Untrusted as fault:
        reason = f"the native library is not loaded: {fault}; run `unrolled build`"
        log.warning("%s", reason)  # once in a process, and nobody looks at the reason where all works without it
        return reason
    except OSError as error:
        return f"the native library cannot be read ({error.strerror}: {path}); run `unrolled build`"
    # What was looked at is loaded, whatever lies at the path by now. The file stays open, since the loader takes a
    # second file of the same number for the first.
    opened = Path(f"/proc/self/fd/{handle}")
    place = opened if sys.platform.startswith("linux") and opened.exists() else path
    try:
        return ctypes.CDLL(str(place))
    except OSError as error:
        os.close(handle)
        said = str(error).replace(str(place), str(path))
        return f"the native library cannot be loaded ({said}); run `unrolled build --again`"


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


def beats_torch() -> bool:
    """Whether products of whole windows in float32 and float64 are faster here than torch's, which are Intel's: on
    AMD's processors with AVX-512."""
    found = _loaded()
    return not isinstance(found, str) and bool(found.is_amd()) and "avx512" in instruction_sets()


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
