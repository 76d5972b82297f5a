"""Losses of a softmax and their gradients in C++ on a CPU; see ``csrc/softmax.cpp``."""

from typing import Any

import torch
from torch import Tensor

from unrolled.core.errors import UsageError
from unrolled.kernels.cpu import beats_torch, library, why_no_library

__all__ = ["NativeBlocks", "pays", "refuse"]

# 1.2 to 1.4 times as fast as torch's operations on an Intel processor from 2,500 x 64 to 33,000 x 64 and at 10,000 x
# 119; level at 10,000 x 200; with 256 tokens, or a width of 400, slower by up to a quarter.
_MANY, _NARROW = 2000, 160
# On an AMD EPYC (Zen 4), where torch's products are slower: 1.1 times as fast at 50 x 640, 1.2 at 256 x 384, 1.6 at
# 10,000 x 400. With bf16 factors there, where the library makes torch's products too: level at 50 x 640 and 256 x 384,
# 1.1 times as fast at 2,000 x 256, 1.2 at 10,000 x 200, 1.4 at 33,278 x 200, 1.5 at 10,000 x 64.
_WORTH = 30_000
# Rows of a block: their tile and its matrices stay in the second-level cache.
_ROWS = 128
# A thread has at least so many of them.
_ROWS_PER_THREAD = 16


def refuse(h: Tensor, matrix: Tensor, low: bool) -> str | None:
    """The reason why this backend cannot serve the call, or None."""
    if matrix.device.type != "cpu" or matrix.dtype not in (torch.float32, torch.float64) or matrix.dtype != h.dtype:
        return "it computes on a CPU in float32 and float64"
    reason = why_no_library()
    if reason is None and low and (matrix.dtype != torch.float32 or not library().lowers):
        return "it has bf16 products of float32 alone, on processors with instructions for them"
    return reason


def pays(h: Tensor, matrix: Tensor, low: bool) -> bool:
    """Whether ``auto`` takes it: many logits and narrow products, or all but few where torch's products are slow or the
    library's own."""
    if len(matrix) >= _MANY and matrix.shape[1] <= _NARROW:
        return True
    return matrix.numel() >= _WORTH and (low or beats_torch())


class NativeBlocks:
    """As :class:`unrolled.kernels.softmax_loss.reference.TorchBlocks`."""

    def __init__(self, matrix: Tensor, bias: Tensor | None, shift: Tensor | None, grad: bool, low: bool):
        self._library, self._low = library(), low
        matrix = matrix if matrix.stride(1) == 1 else matrix.contiguous()
        self.grad = grad
        self.grad_matrix = torch.zeros_like(matrix, memory_format=torch.contiguous_format) if grad else None
        self.grad_bias = torch.zeros_like(bias) if grad and bias is not None else None
        self._sizes = matrix.shape
        self._forwards = self._library.pack(matrix.t(), "bf16_factors" if low else "exact")
        self._backwards = self._library.pack_tiles(matrix, low) if grad else None
        self._shift = shift
        self._offset = bias if shift is None else -shift if bias is None else bias - shift
        self._tile = self._library.tile_columns(matrix.dtype, low)
        self._memory: tuple[Tensor, Tensor] | None = None
        self._block: Any = None

    def most_rows(self, rows: int, components: int) -> int:
        """Rows of a block, where ``rows`` are allowed; each has so many components."""
        return min(rows, max(1, _ROWS // components))

    def losses(self, x: Tensor, targets: Tensor) -> Tensor:
        """The nats of each row. x: (rows, E). targets: (rows,).

        Raises:
            UsageError: a target outside of the vocabulary.
        """
        if int(targets.min()) < 0 or int(targets.max()) >= self._sizes[0]:
            raise UsageError(f"targets must be from 0 to {self._sizes[0] - 1}.")
        rows, x = len(x), x if x.stride(1) == 1 else x.contiguous()
        if self._memory is None or len(self._memory[0][0]) < rows:
            tiles = -(-self._sizes[0] // self._tile)
            # without gradients all tiles are made at one place
            self._memory = x.new_empty(tiles if self.grad else 1, rows, self._tile), x.new_empty(tiles, rows)
        (at, factors), nll = self._memory, x.new_empty(rows)
        step = rows * self._tile if self.grad else 0
        threads = max(1, min(torch.get_num_threads(), rows // _ROWS_PER_THREAD))
        self._library.call(
            "softmax_losses", x.dtype, rows, *self._sizes, x, x.stride(0), self._forwards, self._offset, self._shift,
            targets, at, step, factors, nll, threads, low=self._low,
        )  # fmt: skip
        self._block = x, targets, at, step, factors, threads
        return nll

    def gradients(self, weight: Tensor) -> Tensor:
        """The gradients (rows, E) of the rows last given to :meth:`losses`, each loss times its weight (rows,)."""
        x, targets, at, step, factors, threads = self._block
        self._block = None
        grad = torch.empty_like(x, memory_format=torch.contiguous_format)
        self._library.call(
            "softmax_gradients", x.dtype, len(x), *self._sizes, x, x.stride(0), self._backwards, targets, weight, at,
            step, factors, grad, self.grad_matrix, self.grad_bias, threads, low=self._low,
        )  # fmt: skip
        return grad
