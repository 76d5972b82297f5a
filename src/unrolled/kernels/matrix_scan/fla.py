"""The kernels of flash-linear-attention (MIT), on a GPU where the package is installed: the extra ``fla``.

Its functions know documents as segments of one long row: resets and rows become such.
"""

import functools
import importlib
import importlib.util
from typing import Any

import torch
from torch import Tensor

from unrolled.kernels.matrix_scan.reference import Inputs

__all__ = ["refuse", "scan"]


@functools.cache
def _installed() -> bool:
    return importlib.util.find_spec("fla") is not None


def refuse(given: Inputs) -> str | None:
    """The reason why this backend cannot serve the call, or None."""
    if given.q.device.type != "cuda":
        return "it computes on a GPU"
    if not _installed():
        return "flash-linear-attention is not installed; install unrolled[fla]"
    if given.q.dtype != torch.float32:
        return "it computes in float32 and narrower"
    if given.before:
        return "it has no reading before the step"
    return "it has no decay by value" if given.by_value else None


def scan(given: Inputs) -> tuple[Tensor, Tensor]:
    """See :func:`unrolled.kernels.matrix_scan.reference.scan`."""
    batch, time = given.q.shape[:2]
    options: dict[str, Any] = {"scale": given.scale, "output_final_state": True, "initial_state": given.state}
    parts = [given.q, given.k, given.v, given.a, given.b]
    decay = given.log_decay
    last = None
    if given.reset is not None:
        starts = given.reset.clone()
        starts[:, 0] = True
        first = starts.flatten().nonzero().flatten()
        # a row's state comes to its first segment, unless that begins with a reset
        state = given.state.new_zeros(len(first), *given.state.shape[1:])
        heads = starts.flatten().cumsum(0).view(batch, time)
        kept = given.state * (~given.reset[:, 0]).view(-1, 1, 1, 1)
        options["initial_state"] = state.index_copy(0, heads[:, 0] - 1, kept)
        options["cu_seqlens"] = torch.cat([first, first.new_tensor([batch * time])])
        last = heads[:, -1] - 1
        parts = [None if part is None else part.flatten(0, 1).unsqueeze(0) for part in parts]
        decay = None if decay is None else decay.flatten(0, 1).unsqueeze(0)
    q, k, v, a, b = (None if part is None else part.contiguous() for part in parts)
    assert q is not None
    if a is not None:
        gate = q.new_zeros(q.shape) if decay is None else decay.expand(q.shape).contiguous()
        o, final = _function("generalized_delta_rule", "chunk_dplr_delta_rule")(q, k, v, a, b, gate, **options)
    elif decay is None or decay.shape[-1] == 1:
        gate = None if decay is None else decay.squeeze(-1).contiguous()
        o, final = _function("simple_gla", "chunk_simple_gla")(q, k, v, g=gate, **options)
    else:
        o, final = _function("gla", "chunk_gla")(q, k, v, decay.contiguous(), **options)
    o = o.view(batch, time, *o.shape[2:])
    return o, final if last is None else final[last]


def _function(package: str, name: str) -> Any:
    return getattr(importlib.import_module(f"fla.ops.{package}"), name)
