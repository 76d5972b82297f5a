"""Counts of arithmetic: the matrix products of one forward step of a language model."""

from typing import Any

from unrolled.cells import CELLS

__all__ = ["model_flops", "stack_flops"]


def stack_flops(model: Any) -> int:
    """Floating-point operations of the cells' products, per token; with a memory also of what its vectors take."""
    parts = zip(model.stack.cells(), model.config.layer_cells(), model.config.layer_widths(), strict=True)
    cells = sum(CELLS[cell.name].flops_per_token(cell, layer.in_width, size) for layer, cell, size in parts)
    if model.memory is None:
        return cells
    memory = model.memory
    return cells + cells * memory.extra_places // memory.config.segment + memory.flops_per_token()


def model_flops(model: Any) -> int:
    """Floating-point operations of all products, per token, without the lookup."""
    rows = model.embedding.looked_up()
    apart = [*model.stack.layers.parameters(), *(() if model.memory is None else model.memory.parameters())]
    held = set(map(id, apart)) | set(map(id, rows))
    rest = sum(2 * p.numel() for p in model.parameters() if p.dim() == 2 and id(p) not in held)
    rest += model.head.extra_flops()
    # what stands between the cells goes over each stream, but for what widens the input
    rest += (model.stack.streams - 1) * sum(2 * p.numel() for p in model.stack.between() if p.dim() == 2)
    tied = sum(2 * one.numel() for one in rows) if model.config.embedding.tied else 0
    return stack_flops(model) + rest + tied
