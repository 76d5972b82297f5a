"""Stacks of cells."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import gelu

from unrolled.cells import CELLS, Cell, CellConfig, Noise, StepCell
from unrolled.core.config import Config
from unrolled.core.errors import UsageError
from unrolled.kernels.cell_loop import TableInput, dense
from unrolled.kernels.dispatch import Compute
from unrolled.kernels.rms_norm import rms_norm
from unrolled.model.dropout import apply_mask

__all__ = ["Stack", "StackConfig"]

LayerTap = Callable[[int, str, Tensor], None]


class StackConfig(Config):
    """How the layers are connected."""

    kind: Literal["plain", "residual", "sum"] = Field(
        default="plain",
        description="plain: each layer reads the one below; sum: likewise, and the stack's output is the sum of all "
        "layers' outputs (Mogrifier LSTM); residual: x + cell(norm(x)), then x + mlp(norm(x)) where mlp is set",
    )
    norm: Literal["layer", "rms"] = Field(default="layer", description="normalisation of residual blocks")
    output_norm: Literal["none", "layer", "rms"] = Field(
        default="none", description="normalisation of the stack's output (a residual stack always has its own)"
    )
    mlp: float = Field(
        default=0.0,
        ge=0,
        le=1024,
        description="hidden width of a residual block's MLP, as a multiple of the width (0: none)",
    )


class RMSNorm(nn.RMSNorm):
    """As torch's, by the operation ``rms_norm``."""

    compute = Compute()

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.weight, 1e-6, self.compute.backend)


def _norm(kind: str, width: int) -> nn.Module:
    return nn.LayerNorm(width) if kind == "layer" else RMSNorm(width, eps=1e-6)


class _Mlp(nn.Module):
    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(gelu(self.up(x)))


class Stack(nn.Module):
    """Layers of cells, each of its own kind and width.

    Args:
        in_width: width of the input. cells: one config a layer. widths: one a layer.
    Raises:
        UsageError: a sum or residual stack whose layers' outputs differ in width.
    """

    def __init__(self, in_width: int, cells: Sequence[CellConfig], widths: Sequence[int], config: StackConfig):
        super().__init__()
        self.config = config
        outs = [CELLS[c.name].output_width(c, w) for c, w in zip(cells, widths, strict=True)]
        if config.kind != "plain" and len(set(outs)) > 1:
            raise UsageError(f"a {config.kind} stack needs layers of one output width, not {outs}.")
        residual = config.kind == "residual"
        self.widen = nn.Linear(in_width, outs[0], bias=False) if residual and in_width != outs[0] else None
        layers: list[Cell] = []
        width = outs[0] if residual else in_width
        for cell, size, out in zip(cells, widths, outs, strict=True):
            layers.append(CELLS[cell.name](width, size, cell))
            width = out
        self.layers = nn.ModuleList(layers)
        self.out_width = width
        final = config.output_norm if config.output_norm != "none" else config.norm if residual else None
        self.final_norm = None if final is None else _norm(final, width)
        if residual:
            self.norms = nn.ModuleList(_norm(config.norm, width) for _ in cells)
            if config.mlp:
                hidden = max(1, round(config.mlp * width))
                self.mlp_norms = nn.ModuleList(_norm(config.norm, width) for _ in cells)
                self.mlps = nn.ModuleList(_Mlp(width, hidden) for _ in cells)

    def cells(self) -> list[Cell]:
        """The layers, as cells."""
        return [layer for layer in self.layers if isinstance(layer, Cell)]

    def takes_table(self) -> bool:
        """Whether an input of rows of a table saves work: the first layer alone reads it, and projects it ahead."""
        return self.config.kind != "residual" and isinstance(self.layers[0], StepCell)

    def rms_norms(self) -> list[RMSNorm]:
        """The norms by root mean square."""
        return [part for part in self.modules() if isinstance(part, RMSNorm)]

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> tuple[Any, ...]:
        """The initial state of every layer."""
        return tuple(layer.initial_state(batch, device, dtype) for layer in self.cells())

    def forward(
        self,
        x: Tensor | TableInput,
        state: tuple[Any, ...],
        reset: Tensor | None = None,
        between: Sequence[Tensor | None] = (),
        noise: Sequence[Noise | None] = (),
        tap: LayerTap | None = None,
        weight_masks: Sequence[Mapping[str, Tensor] | None] = (),
    ) -> tuple[Tensor, tuple[Any, ...]]:
        """Run all layers over a window.

        Args:
            x: (batch, time, in_width), or rows of a table. state: one a layer. reset: boolean (batch, time).
            between: dropout masks between layers, one for each but the last. noise: one a layer.
            tap: receives (layer, name, value).
            weight_masks: one a layer, parameter's name -> mask that multiplies it.
        Returns:
            the output (batch, time, out_width), undropped, and the layers' states.
        """
        kind, last = self.config.kind, len(self.layers) - 1
        if self.widen is not None:
            x = self.widen(dense(x))
        outputs, states = [], []
        for i, layer in enumerate(self.layers):
            options: dict[str, Any] = {"noise": noise[i] if noise else None}
            if tap is not None:
                options["tap"] = lambda name, value, i=i: tap(i, name, value)
            entry = self.norms[i](dense(x)) if kind == "residual" else x
            call = (entry, state[i], reset)
            masked = weight_masks[i] if weight_masks else None
            if masked:
                # the cell computes with the product; its parameters stay as they are and receive the gradient
                weights = {name: layer.get_parameter(name) * mask for name, mask in masked.items()}
                y, new = functional_call(layer, weights, call, options)
            else:
                y, new = layer(*call, **options)
            states.append(new)
            outputs.append(y)
            y = apply_mask(y, between[i]) if between and i < last else y
            x = dense(x) + y if kind == "residual" else y
            if kind == "residual" and self.config.mlp:
                x = x + self.mlps[i](self.mlp_norms[i](x))
        if kind == "sum" and last:
            x = torch.stack(outputs).sum(0)
        assert isinstance(x, Tensor)  # there is a layer
        return x if self.final_norm is None else self.final_norm(x), tuple(states)
