"""Reading a window segment by segment: what is the same for every memory.

A piece of the window that belongs to one segment in every row goes through the stack in one call, with the vectors that
the memory puts before and behind it. Where rows stand at different places of their segments, those vectors are read by
all rows and kept by those that they are for.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from unrolled.cells import Noise
from unrolled.core import tree
from unrolled.kernels.cell_loop import TableInput, dense
from unrolled.model.blocks import Stack
from unrolled.model.blocks.stack import LayerTap
from unrolled.model.memory import MEMORIES
from unrolled.model.memory.base import Ended, Memory, MemoryConfig
from unrolled.model.memory.plan import Drawn, Piece, plan

__all__ = ["ByTime", "make_memory", "read_segments"]


def make_memory(config: MemoryConfig, stack: Stack) -> Memory:
    """The memory of a stack."""
    cells = stack.cells()
    reads, writes = [cell.in_width for cell in cells], [cell.out_width for cell in cells]
    return MEMORIES[config.name](config, stack.in_width, reads, writes, stack.out_width)


class ByTime(NamedTuple):
    """What a window's layers are given besides input and state, see :meth:`Stack.forward`."""

    between: Sequence[Tensor | None] = ()
    noise: Sequence[Noise | None] = ()
    branch: Sequence[Tensor | None] = ()

    def cut(self, low: int, high: int, before: int, behind: int) -> "ByTime":
        """Steps ``low`` to ``high`` - 1, and places around them that no mask of single steps is for."""

        def part(mask: Tensor, off: float = 1.0) -> Tensor:
            if mask.shape[1] == 1:
                return mask
            sides = [mask.new_full((len(mask), count, *mask.shape[2:]), off) for count in (before, behind)]
            return torch.cat([sides[0], mask[:, low:high], sides[1]], 1)

        def quiet(noise: Noise | None) -> Noise | None:
            if noise is None:
                return None
            zoneout = tree.map_tree(partial(part, off=0.0), noise.zoneout)
            inside = {name: tree.map_tree(part, getattr(noise, name)) for name in ("state_in", "state_out", "inner")}
            return noise._replace(zoneout=zoneout, **inside)

        between, branch = (tree.map_tree(part, tuple(masks)) for masks in (self.between, self.branch))
        return ByTime(between, tuple(map(quiet, self.noise)), branch)


class _Around:
    """What layers read of a memory, and what they put out for it."""

    def __init__(self, memory: Memory, state: Any):
        self._memory, self._state = memory, state
        self.heard: list[Tensor] = []

    def before(self, layer: int, x: Tensor) -> Tensor:
        return self._memory.before(layer, x, self._state)

    def after(self, layer: int, y: Tensor) -> None:
        if self._memory.listens:
            self.heard.append(y)


class _Reader:
    """One window."""

    def __init__(self, memory: Memory, stack: Stack, given: ByTime, tap: LayerTap | None):
        self.memory, self.stack, self.given, self.tap = memory, stack, given, tap
        self.hands = any(cell.hands for cell in stack.cells()) or stack.shows_below

    def piece(self, x: Tensor, cells: Any, memory: Any, at: Piece) -> tuple[Tensor, Any, Any, Mapping[str, Tensor]]:
        """Outputs (batch, time, width) of a piece's tokens, the states after it, and what was handed upwards."""
        own, (batch, time) = self.memory, x.shape[:2]
        begins, restarts, ends = (torch.from_numpy(rows).to(x.device) for rows in (at.begins, at.restarts, at.ends))
        if at.restarts.any():
            memory = tree.reset_rows(memory, own.begin(batch, x.device, x.dtype), restarts)
        prefix = own.prefix(memory) if at.begins.any() else None
        suffix = own.suffix(memory) if at.ends.any() else None
        fresh = begins if own.config.state == "reset" else restarts
        ahead, behind = (0 if part is None else part.shape[1] for part in (prefix, suffix))
        places = None if prefix is None else own.places(memory)
        if places is None:
            places = x.new_full((batch,), ahead, dtype=torch.int64)
        around = _Around(own, memory)
        handed: MutableMapping[str, Tensor] = {}
        run = partial(self._run, around=around)
        # the first place of a row is that of its first vector, or of its first token
        first = ahead - places
        one_call = self.tap is None and all(rows.all() or not rows.any() for rows in (at.begins, at.ends))
        if one_call:
            parts = [part for part in (prefix, x, suffix) if part is not None]
            given = self.given.cut(at.low, at.high, ahead, behind)
            whole, cells = run(torch.cat(parts, 1), cells, _flags(fresh, first, ahead + time + behind), given, handed)
            y, written = whole[:, ahead : ahead + time], whole[:, ahead + time :]
            handed = {name: value[:, ahead : ahead + time] for name, value in handed.items()}
            layers = [value[:, ahead + time :] for value in around.heard]
        else:
            if prefix is not None:
                # rows that have no vector of their own begin with their token
                led = begins & (places > 0)
                _, after = run(prefix, cells, _flags(fresh & led, first, ahead), self.given.cut(0, 0, ahead, 0), {})
                cells, fresh = tree.reset_rows(cells, after, led), fresh & ~led
            given, start = self.given.cut(at.low, at.high, 0, 0), torch.zeros_like(first)
            y, cells = run(x, cells, _flags(fresh, start, time), given, handed, self.tap)
            written, layers = y[:, :0], []
            if suffix is not None:
                around.heard.clear()
                written, after = run(suffix, cells, None, self.given.cut(0, 0, 0, behind), {})
                cells, layers = tree.reset_rows(cells, after, ends), around.heard
        if own.hands:
            handed["cost"] = handed.get("cost", 0) + own.cost(memory).view(-1, 1, 1).expand(-1, time, 1)
        memory = own.observe(memory, x, y)
        memory = memory._replace(fill=memory.fill + time)
        if at.ends.any():
            after = own.update(memory, Ended(written if behind else None, layers))
            after = after._replace(fill=torch.zeros_like(after.fill), count=memory.count + 1)
            memory = tree.reset_rows(memory, after, ends)
        if at.cuts.any():
            cut = torch.from_numpy(at.cuts).to(x.device)
            memory, cells = (tree.reset_rows(part, tree.detach(part), cut) for part in (memory, cells))
        return y, cells, memory, handed

    def _run(
        self,
        x: Tensor,
        cells: Any,
        reset: Tensor | None,
        given: ByTime,
        handed: MutableMapping[str, Tensor],
        tap: LayerTap | None = None,
        *,
        around: _Around,
    ) -> tuple[Tensor, Any]:
        hands = handed if self.hands else None
        used = around if self.memory.attends or self.memory.listens else None
        return self.stack(x, cells, reset, given.between, given.noise, tap, given.branch, hands, used)


def _flags(rows: Tensor, place: Tensor, time: int) -> Tensor | None:
    """Boolean (batch, time): true at ``place`` of the rows that are true."""
    if not bool(rows.any()):
        return None
    return rows.unsqueeze(1) & (torch.arange(time, device=rows.device) == place.unsqueeze(1))


def read_segments(
    memory: Memory,
    stack: Stack,
    x: Tensor | TableInput,
    state: tuple[Any, ...],
    reset: Tensor | None = None,
    given: ByTime | None = None,
    tap: LayerTap | None = None,
    handed: MutableMapping[str, Tensor] | None = None,
    drawn: Drawn | None = None,
) -> tuple[Tensor, tuple[Any, ...]]:
    """Run a stack over a window, with a memory.

    Args:
        x: (batch, time, in_width). state: of the layers, then the memory's. reset: boolean (batch, time).
        given, tap, handed: see :meth:`Stack.forward`. drawn: of training; None: segments of full length.
    Returns:
        the output (batch, time, out_width), and the states.
    """
    x = dense(x)
    *cells, held = state
    cells, config = tuple(cells), memory.config
    resets = None if reset is None else np.asarray(reset.cpu())
    pieces = plan(np.asarray(held.fill.cpu()), resets, x.shape[1], drawn or Drawn(config.segment), config.depth)
    reader = _Reader(memory, stack, given or ByTime(), tap)
    outputs, found = [], []
    again = config.checkpoint and tap is None and torch.is_grad_enabled()
    new: tuple[Any, ...] | None = None
    for at in pieces:
        if again and config.state == "reset" and at.begins.all():
            # these states are not read, and would be kept for the backward pass, one a segment
            new = tree.detach(stack.initial_state(len(x), x.device, x.dtype)) if new is None else new
            cells = new
        part = x[:, at.low : at.high]
        if again:
            made: Any = checkpoint(reader.piece, part, cells, held, at, use_reentrant=False, preserve_rng_state=False)
        else:
            made = reader.piece(part, cells, held, at)
        y, cells, held, up = made
        outputs.append(y)
        found.append(up)
    if handed is not None:
        for name in found[0]:
            handed[name] = torch.cat([up[name] for up in found], 1)
    return torch.cat(outputs, 1) if len(outputs) > 1 else outputs[0], (*cells, held)
