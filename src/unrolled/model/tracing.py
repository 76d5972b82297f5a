"""The internals of a model while it reads: what its cells tap, and every field of their states."""

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from unrolled.model.config import ModelConfig
from unrolled.model.outputs import ModelOutput, ModelState

__all__ = ["Wanted", "trace_window"]


class Traceable(Protocol):
    """What is asked of a model: its config, and a call that names internals."""

    config: ModelConfig

    def __call__(self, tokens: Tensor, state: ModelState | None = None, *, tap: Any = None) -> ModelOutput: ...


Wanted = Callable[[int, str], bool]
"""Whether the internal (layer, name) is to be kept; layers count from 0."""


@torch.no_grad()
def trace_window(
    model: Traceable, tokens: Tensor, state: ModelState | None = None, wanted: Wanted | None = None
) -> tuple[dict[str, Tensor], ModelOutput]:
    """Read a window and keep internals.

    A field of a layer's State is what the layer carries on from the step, also where zoneout changes it after the
    cell has tapped it.

    Args:
        tokens: (batch, time) ids, time >= 1. wanted: absent: everything.
    Returns:
        ``layer.name`` -> (batch, time, units), and what the model puts out.
    """
    seen: dict[tuple[int, str], list[Tensor]] = {}

    def listen(layer: int, name: str, value: Tensor) -> None:
        if wanted is None or wanted(layer, name):
            seen.setdefault((layer, name), []).append(value)

    alone = tokens.shape[1] == 1
    if not alone and model.config.dropout.zoneout:
        return _one_by_one(model, tokens, state, wanted)
    out = model(tokens, state, tap=listen)
    for layer, fields in enumerate(out.state.cells):
        for name, value in fields._asdict().items():
            if value.is_floating_point() and (wanted is None or wanted(layer, name)):
                if alone:
                    seen[layer, name] = [value]
                elif (layer, name) not in seen:  # a cell that does not tap its state
                    return _one_by_one(model, tokens, state, wanted)
    return {f"{layer}.{name}": torch.stack(values, 1).flatten(2) for (layer, name), values in seen.items()}, out


def _one_by_one(
    model: Traceable, tokens: Tensor, state: ModelState | None, wanted: Wanted | None
) -> tuple[dict[str, Tensor], ModelOutput]:
    parts, outs = [], []
    for t in range(tokens.shape[1]):
        seen, out = trace_window(model, tokens[:, t : t + 1], state, wanted)
        state = out.state
        parts.append(seen)
        outs.append(out)
    joined = {key: torch.cat([part[key] for part in parts], 1) for key in parts[0]}
    raw, dropped = (torch.cat([out[i] for out in outs], 1) for i in (0, 1))
    return joined, outs[-1]._replace(raw=raw, dropped=dropped)
