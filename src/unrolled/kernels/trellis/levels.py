"""All levels as one node. Time comes first inside, so that what a level reads d steps back is a view of what it got.

Each level keeps its input with the held steps before it, and its gates: nothing is computed twice, and nothing is
copied but where resets or masks hide something. The weights' gradients are summed into one matrix over all levels.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrolled.kernels.cpu import why_no_library
from unrolled.kernels.trellis.pointwise import Native, Torch

__all__ = ["refuse", "refuse_native", "run", "run_native"]

_ONE_TYPE = "it makes its products in the type of its inputs"


def refuse(injected: Any, past: Tensor, *rest: Any) -> str | None:
    """The reason why this backend cannot serve the call, or None."""
    return None if rest[-1] == "float32" else _ONE_TYPE


def refuse_native(injected: Any, past: Tensor, now: Tensor, held_h: Tensor, held_c: Any, *rest: Any) -> str | None:
    """The reason why the levels are not computed in C++, or None."""
    if held_c is None:
        return "it has the units of an LSTM alone"
    if past.device.type != "cpu" or past.dtype not in (torch.float32, torch.float64):
        return "it computes on a CPU in float32 and float64"
    return (None if rest[-1] == "float32" else _ONE_TYPE) or why_no_library()


class _Options(NamedTuple):
    """dilations: of the levels. kinds: those distinct. empty: how many levels hold nothing. show: levels to show.
    pointwise: :class:`Torch` or :class:`Native`."""

    dilations: tuple[int, ...]
    kinds: tuple[int, ...]
    empty: int
    show: tuple[int, ...]
    pointwise: Any

    def reach(self, level: int, time: int) -> int:
        """Steps whose h at t - d may be other than zero: of level 0 those that look before the window."""
        return time if level else min(self.dilations[0], time)

    def spans(self, time: int) -> list[int]:
        """Steps of each level's input, with those before the window, and of the last one's output."""
        return [d + time for d in (*self.dilations, 0)]


def _first(x: Tensor) -> Tensor:
    """(batch, time, ...) with time first."""
    return x.transpose(0, 1).contiguous()


def _flat(x: Tensor) -> Tensor:
    return x.flatten(0, 1)


def _read(x: Tensor, old: Tensor | None, mask: Tensor | None = None) -> Tensor:
    """What a level reads of x (time, batch, width): a view, where neither a reset nor a mask hides something."""
    x = x if old is None else x * old
    return x if mask is None else x * mask


def _add_mask(total: Tensor | None, back: Tensor, x: Tensor) -> None:
    """Add to the mask's gradient what comes of one reading; total: (1 or time, batch, width), or None."""
    if total is not None:
        part = back * x
        _upto(total, len(part)).add_(part.sum(0, keepdim=True) if len(total) == 1 else part)


def _upto(x: Any, steps: int) -> Any:
    """The first steps of what there is for each; None and what is the same for all stay as they are."""
    return x if x is None or len(x) == 1 else x[:steps]


class _Levels(torch.autograd.Function):
    """Tensors with time first."""

    @staticmethod
    def forward(
        ctx: Any,
        options: _Options,
        past: Tensor,
        now: Tensor,
        held_h: Tensor,
        held_c: Tensor | None,
        seen: tuple[Tensor, ...] | None,
        mask: Tensor | None,
        *injected: Tensor,
    ) -> tuple[Tensor, ...]:
        dilations, kinds, empty, show, _ = options
        (time, batch), width = injected[0].shape[:2], past.shape[1]
        parts = [held_h] if held_c is None else [held_h, held_c]
        # of h, and of c: the input of each level behind its held steps, and the last output; memory is asked for once
        spans = options.spans(time)
        inputs = [part.new_empty(sum(spans), batch, width).split(spans) for part in parts]
        for part, of_levels in zip(parts, inputs, strict=True):
            held = part.split(list(dilations[empty:]))
            for level, d in enumerate(dilations):
                of_levels[level][:d] = 0 if level < empty else held[level - empty]
            of_levels[0][dilations[0] :] = 0
        gates = held_h.new_empty(len(dilations), time, batch, len(past))
        compute = options.pointwise(held_h.new_empty(time, batch, width))
        for level, d in enumerate(dilations):
            kind, h = kinds.index(d), inputs[0][level]
            old, pre = None if seen is None else seen[kind], _flat(gates[level])
            ready, reach = level >= empty, options.reach(level, time)
            if ready:
                olds = _flat(_read(h[:reach], _upto(old, reach), _upto(mask, reach)))
                torch.mm(olds, past.t(), out=pre[: len(olds)])
                pre[len(olds) :] = 0
                if level:
                    pre.addmm_(_flat(_read(h[d:], None, mask)), now.t())
            *cell, out = [of_levels[level + 1][-time:] for of_levels in reversed(inputs)]
            before = _read(inputs[1][level][:time], old) if cell and ready else None
            compute.forward(injected[kind], ready, before, gates[level], cell[0] if cell else None, out)
        ctx.options, ctx.kept = options, (inputs, gates)
        ctx.save_for_backward(past, now, mask, *(seen or ()))
        last = [of_levels[-1].clone() for of_levels in inputs]
        after = [
            torch.cat([part[:0], *(x[time:] for x in of[empty:-1])]) for part, of in zip(parts, inputs, strict=True)
        ]
        wanted = [inputs[0][level + 1][-time:] for level in show]
        return (*last, *after, torch.stack(wanted) if wanted else held_h.new_zeros(0, time, batch, width))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:
        dilations, kinds, empty, show, pointwise = ctx.options
        inputs, gates = ctx.kept
        past, now, mask, *seen = ctx.saved_tensors
        count, (_, time, batch, _), width = len(inputs), gates.shape, past.shape[1]
        ends = [end.split(list(dilations[empty:])) for end in grads[count : 2 * count]]
        d_past, d_now = torch.zeros_like(past), torch.zeros_like(now)
        d_injected: list[Any] = [None] * len(kinds)
        d_mask = torch.zeros_like(mask) if mask is not None and ctx.needs_input_grad[6] else None
        d_held: list[list[Tensor]] = [[end[:0]] for end in grads[count : 2 * count]]
        # of two levels in turn: what flows back to the steps before the window, and to those in it
        flows = [[gates.new_empty(max(dilations) + time, batch, width) for _ in range(count)] for _ in range(2)]
        compute, d_pre = pointwise(grads[0]), torch.empty_like(gates[0])
        outs = [grad.clone(memory_format=torch.contiguous_format) for grad in grads[:count]]
        for level in range(len(dilations) - 1, -1, -1):
            d, kind = dilations[level], kinds.index(dilations[level])
            old, h = seen[kind] if seen else None, inputs[0][level]
            if level in show:
                outs[0].add_(grads[-1][show.index(level)])
            flow = [part[: d + time] for part in flows[level % 2]]
            first = d_injected[kind] is None
            total = d_injected[kind] = torch.empty_like(d_pre) if first else d_injected[kind]
            *cell, out = [of_levels[level + 1][-time:] for of_levels in reversed(inputs)]
            back = (None, None, None)
            if cell:
                before = _read(inputs[1][level][:time], old) if level >= empty else None
                back = (before, outs[1], flow[1][:time])
            before, d_cell, d_before = back
            given = (gates[level], cell[0] if cell else None, out, before, outs[0], d_cell)
            compute.backward(*given, first, d_pre, total, d_before)
            if level < empty:
                break
            rows, reach = _flat(d_pre), ctx.options.reach(level, time)
            hidden, masked, lower = _upto(old, reach), _upto(mask, reach), rows[: reach * batch]
            d_past.addmm_(lower.t(), _flat(_read(h[:reach], hidden, masked)))
            flow[0][: d if level else d + time] = 0
            if level:
                d_now.addmm_(rows.t(), _flat(_read(h[d:], None, mask)))
                back = torch.mm(rows, now, out=_flat(flow[0][d:])).view(time, batch, width)
                if mask is not None:
                    _add_mask(d_mask, back, h[d:])
                    back *= mask
            if mask is None and old is None:
                _flat(flow[0][:reach]).addmm_(lower, past)
            else:
                back = (lower @ past).view(reach, batch, width)
                back = back if hidden is None else back.mul_(hidden)
                _add_mask(d_mask, back, h[:reach])
                flow[0][:reach] += back if masked is None else back.mul_(masked)
            if cell:
                flow[1][time:] = 0
                if old is not None:
                    flow[1][:time] *= old
            for k, part in enumerate(flow):
                part[time:] += ends[k][level - empty]
                d_held[k].append(part[:d].clone())
            outs = [part[d:] for part in flow]
        held = [torch.cat(parts[::-1]) for parts in d_held]
        return (None, d_past, d_now, held[0], held[1] if count > 1 else None, None, d_mask, *d_injected)


def _run(
    pointwise: Any,
    injected: Sequence[Tensor],
    past: Tensor,
    now: Tensor,
    held_h: Tensor,
    held_c: Tensor | None,
    dilations: tuple[int, ...],
    reach: Tensor | None,
    mask: Tensor | None,
    show: tuple[int, ...],
    precision: str,
) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None, Tensor]:
    """See :func:`unrolled.kernels.trellis.trellis`."""
    kinds = tuple(dict.fromkeys(dilations))
    empty = 1 if held_h.shape[1] < sum(dilations) else 0
    seen = None
    if reach is not None:
        ahead = _first(reach).unsqueeze(-1)
        seen = tuple((ahead >= d).to(past.dtype) for d in kinds)
    found: Any = _Levels.apply(
        _Options(dilations, kinds, empty, show, pointwise),
        past,
        now,
        _first(held_h),
        None if held_c is None else _first(held_c),
        seen,
        None if mask is None else _first(mask),
        *(_first(part) for part in injected),
    )
    *parts, wanted = (part.movedim(-2, 0) for part in found)
    if reach is not None and held_h.shape[1]:
        # what lies before the last reset is not handed on
        lags = torch.cat([torch.arange(d - 1, -1, -1, device=reach.device) for d in dilations[empty:]])
        hidden = (reach[:, -1:] < lags).unsqueeze(-1)
        half = len(parts) // 2
        parts[half:] = [part.masked_fill(hidden, 0) for part in parts[half:]]
    h, c, held_h, held_c = parts if held_c is not None else (parts[0], None, parts[1], None)
    return h, c, held_h, held_c, wanted.transpose(1, 2)


run = partial(_run, Torch)
run_native = partial(_run, Native)
