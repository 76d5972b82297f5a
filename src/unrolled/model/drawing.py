"""What is drawn for one window of training: masks of dropout, what the head draws, and lengths of segments."""

from typing import Any

from torch import Tensor

from unrolled.cells import CELLS
from unrolled.core.random import RandomStreams
from unrolled.model.dropout import Masks, draw_mask, draw_rows, draw_zoneout
from unrolled.model.memory.plan import draw as draw_segments

__all__ = ["draw_masks"]


def draw_masks(
    model: Any, batch: int, time: int, streams: RandomStreams, window: int, dropout: Any = None, period: Any = None
) -> Masks | None:
    """What is drawn for one training window of a language model; None if nothing is.

    Args:
        dropout: rates in place of the model's own, a DropoutConfig. period: (batch, time), of each target's text.
    """
    d = model.config.dropout if dropout is None else dropout
    cells, widths = model.config.layer_cells(), model.config.layer_widths()
    head = model.head.draw_masks(batch, time, d.projected, d.mask == "step", streams, window)
    head = head if period is None else model.head.placed(head, period.to(model.device))
    segments = None if model.memory is None else draw_segments(model.memory.config, time, streams, window)
    if head is None and segments is None and not d.model_copy(update={"projected": 0.0}).active:
        return None

    def draw(rate: float, width: int, site: str, mask: str) -> Tensor | None:
        shape = (batch, time if mask == "step" else 1, width)
        return draw_rows(rate, shape, streams, site, window, model.device, model.dtype)

    place = model.device, model.dtype
    layers = model.stack.cells()
    outs = [CELLS[c.name].output_width(c, w) for c, w in zip(cells, widths, strict=True)]
    rows = draw_mask(d.embedding, (model.vocab_size, 1), streams, "embedding", window, *place)
    matrices = []
    for i, layer in enumerate(layers if d.weight else []):
        shapes = {name: tuple(layer.get_parameter(name).shape) for name in layer.recurrent_weights}
        drawn = {
            name: draw_mask(d.weight, shape, streams, f"weight.{i}.{name}", window, *place)
            for name, shape in shapes.items()
        }
        matrices.append({name: mask for name, mask in drawn.items() if mask is not None})
    kept = []
    for i, layer in enumerate(layers if d.zoneout else []):
        state = layer.initial_state(1, "meta")
        shapes = {name: (batch, time, getattr(state, name).shape[1]) for name in d.zoneout}
        kept.append(
            {
                name: draw_zoneout(d.zoneout[name], shape, streams, f"{i}.{name}", window, *place)
                for name, shape in shapes.items()
            }
        )
    inner: Any = tuple(
        {site: draw(d.inner, width, f"inner.{i}.{site}", d.mask) for site, width in layer.inner_sites.items()}
        for i, layer in enumerate(layers if d.inner else [])
    )
    return Masks(
        rows,
        draw(d.input, model.embedding.out_width, "input", d.mask),
        tuple(draw(d.between, out, f"between.{i}", d.mask) for i, out in enumerate(outs[:-1])),
        tuple(draw(d.state, out, f"state.{i}", d.state_mask) for i, out in enumerate(outs)),
        draw(d.output, model.stack.out_width, "output", d.mask),
        head,
        tuple(matrices),
        tuple(kept),
        tuple(draw(d.branch, model.stack.out_width, f"branch.{i}", d.mask) for i in range(model.stack.branches)),
        inner,
        segments,
    )
