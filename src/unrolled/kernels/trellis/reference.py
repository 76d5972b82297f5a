"""The levels one after another under autograd, which defines the operation."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from unrolled.kernels.causal_conv import cache_after
from unrolled.kernels.causal_conv.reference import lagged
from unrolled.kernels.linear import linear

__all__ = ["Product", "levels", "run"]

Product = Callable[[Tensor, Tensor], Tensor]
"""(h(t-d), h(t)), both (batch, time, width) -> W_past h(t-d) + W_now h(t)."""


def levels(
    injected: Sequence[Tensor],
    product: Product,
    held_h: Tensor,
    held_c: Tensor | None,
    dilations: Sequence[int],
    reach: Tensor | None,
    mask: Tensor | None,
    show: Sequence[int],
) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None, Tensor]:
    """See :func:`unrolled.kernels.trellis.trellis`; product: of the weights with what a level reads."""
    batch, time = injected[0].shape[:2]
    place = {d: k for k, d in enumerate(dict.fromkeys(dilations))}
    first = held_h.new_zeros(batch, sum(dilations) - held_h.shape[1], held_h.shape[2])
    h = held_h.new_zeros(batch, time, held_h.shape[2])
    c = None if held_c is None else torch.zeros_like(h)
    caches = [torch.cat([first, held_h], 1).split(list(dilations), 1)]
    caches += [] if held_c is None else [torch.cat([first, held_c], 1).split(list(dilations), 1)]
    after: list[list[Tensor]] = [[] for _ in caches]
    shown = []
    for level, d in enumerate(dilations):
        # of two taps the older; the other is the input itself
        old_h = next(lagged(h, 2, caches[0][level], reach, d))
        seen = (old_h, h) if mask is None else (old_h * mask, h * mask)
        after[0].append(cache_after(caches[0][level], h, reach))
        pre = injected[place[d]]
        if level or not first.shape[1]:
            pre = pre + product(*seen)
        if c is None:
            h = torch.tanh(pre)
        else:
            old_c = next(lagged(c, 2, caches[1][level], reach, d))
            after[1].append(cache_after(caches[1][level], c, reach))
            i, o, g, f = pre.chunk(4, -1)
            c = torch.sigmoid(f) * old_c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        if level in show:
            shown.append(h)
    skip = first.shape[1]
    held = [torch.cat(parts, 1)[:, skip:] for parts in after]
    wanted = torch.stack(shown, 2) if shown else h.new_zeros(batch, time, 0, h.shape[2])
    return h, c, held[0], None if c is None else held[1], wanted


def _product(past: Tensor, now: Tensor, precision: str, old: Tensor, new: Tensor) -> Tensor:
    return linear(old, past, None, precision, "reference") + linear(new, now, None, precision, "reference")


def run(
    injected: Sequence[Tensor],
    past: Tensor,
    now: Tensor,
    held_h: Tensor,
    held_c: Tensor | None,
    dilations: Sequence[int],
    reach: Tensor | None,
    mask: Tensor | None,
    show: Sequence[int],
    precision: str,
) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None, Tensor]:
    """See :func:`unrolled.kernels.trellis.trellis`."""
    product = partial(_product, past, now, precision)
    return levels(injected, product, held_h, held_c, dilations, reach, mask, show)
