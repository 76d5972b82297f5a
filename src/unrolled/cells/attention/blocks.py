"""Attention cells that look up blocks of tokens beyond their context."""

import copy
import itertools
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from unrolled.cells.attention.base import AttentionCell, Positions
from unrolled.cells.mixer import Given
from unrolled.cells.parts.places import angles, rotate, slopes
from unrolled.core.errors import UsageError
from unrolled.core.tree import reset_rows

__all__ = ["BlockState", "Blocks", "with_blocks"]


# Scores that differ by less than this count as equal.
_EQUAL = 1e-4


class Blocks(NamedTuple):
    """initial: first tokens of a document that are always seen. size: tokens of a block. count: blocks that a token
    looks up; None: all. representatives: tokens that stand for a block. room: tokens of a document that are kept."""

    initial: int
    size: int
    count: int | None
    representatives: int
    room: int


class BlockState(NamedTuple):
    """keys, values: (batch, room, groups, size) of a document's tokens from its first on, before positions turn them.
    scores: (batch, room, heads), the weights that each token got so far. fill: int64 (batch,), tokens so far."""

    keys: Tensor
    values: Tensor
    scores: Tensor
    fill: Tensor


class _Pending:
    """A window on its way through a cell: what it comes with, and the state after it once that is known."""

    def __init__(self, state: BlockState, reset: Tensor | None, keys: Tensor, values: Tensor):
        self.state, self.reset, self.keys, self.values = state, reset, keys, values


class _Lookup(AttentionCell):
    """See :func:`with_blocks`."""

    lookup: Blocks

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> BlockState:
        """Nothing was seen."""
        heads, groups, size = self.head_sizes(self.config, self.width)
        keys = torch.zeros(batch, self.lookup.room, groups, size, device=device, dtype=dtype)
        fill = torch.zeros(batch, dtype=torch.int64, device=device)
        return BlockState(keys, torch.zeros_like(keys), keys.new_zeros(batch, self.lookup.room, heads), fill)

    def turned(self, state: Any, given: Given, *new: Tensor) -> Any:
        """See :class:`_Pending`."""
        return _Pending(state, given.reset, *new)

    def kept(self, state: Any, turned: Any) -> Any:
        """The state after the window."""
        return turned.state

    def attend(
        self,
        q: Tensor,
        turned: Any,
        positions: Positions = "none",
        channels: int | None = None,
        base: float = 10000.0,
        **options: Any,
    ) -> Tensor:
        """See :meth:`AttentionCell.attend`. Documents begin between the parts that a window is cut into."""
        reset, time, outputs = turned.reset, q.shape[1], []
        begins = [] if reset is None else reset.any(0).nonzero()[:, 0].tolist()
        cuts = sorted({0, *begins, time})
        for low, high in itertools.pairwise(cuts):
            if reset is not None and low in begins:
                fresh = self.initial_state(len(q), q.device, turned.keys.dtype)
                turned.state = reset_rows(turned.state, fresh, reset[:, low])
            new, keys, values = (part[:, low:high] for part in (q, turned.keys, turned.values))
            y, turned.state = self._part(new, keys, values, turned.state, positions, channels or q.shape[-1], base)
            outputs.append(y)
        return torch.cat(outputs, 1)

    def _part(
        self, q: Tensor, k: Tensor, v: Tensor, state: BlockState, positions: str, channels: int, base: float
    ) -> tuple[Tensor, BlockState]:
        """Tokens of one document a row."""
        how, context, (batch, time, heads, size) = self.lookup, self.config.context, q.shape
        place = state.fill.unsqueeze(1) + torch.arange(time, device=q.device)
        length = int(place.max()) + 1
        if length > how.room:
            raise UsageError(
                f"a document is longer than the {how.room:,} tokens that blocks have room for; say --set "
                f"blocks.room={max(length, 2 * how.room)}, or more."
            )
        rows = torch.arange(batch, device=q.device).unsqueeze(1)
        keys, values = (old.index_put((rows, place), new) for old, new in ((state.keys, k), (state.values, v)))
        at = torch.arange(length, device=q.device)
        distance = place.unsqueeze(2) - at  # (batch, time, length)
        near, far = self._scores(q, keys[:, :length], place, positions, channels, base)
        local = (distance >= 0) & (distance < context)
        # a token's score is complete once it is out of all windows, which it is before it can be looked up; weights
        # among what the context holds, since those among all would depend on blocks that were looked up before
        told = near.masked_fill(~local.unsqueeze(1), -torch.inf).softmax(-1).sum(2).transpose(1, 2)
        scores = state.scores + pad(told, (0, 0, 0, how.room - length)).to(state.scores.dtype)
        past = distance >= context
        chosen = self._chosen(far, past & (at >= how.initial), scores[:, :length].transpose(1, 2))
        seen = past & ((at < how.initial) | chosen)
        logits = torch.where(local.unsqueeze(1), near, far).masked_fill(~(local | seen).unsqueeze(1), -torch.inf)
        weights = logits.softmax(-1).unflatten(1, (keys.shape[2], -1))
        y = torch.einsum("bgrtk,bkgd->btgrd", weights, values[:, :length].to(weights.dtype))
        return y.reshape(batch, time, heads, size).to(q.dtype), BlockState(keys, values, scores, state.fill + time)

    def _scores(
        self, q: Tensor, keys: Tensor, place: Tensor, positions: str, channels: int, base: float
    ) -> tuple[Tensor, Tensor]:
        """Of every token with every key, (batch, heads, time, length): where it stands, and at the one distance of all
        that lies beyond the context, the largest that there is within."""
        context, kind = self.config.context, torch.promote_types(q.dtype, torch.float32)
        q, keys = q.to(kind) * q.shape[-1] ** -0.5, keys.to(kind)

        def products(q: Tensor, keys: Tensor) -> Tensor:
            cut = q.unflatten(2, (keys.shape[2], -1))
            return torch.einsum("btgrd,bkgd->bgrtk", cut, keys).flatten(1, 2)

        at = torch.arange(keys.shape[1], device=q.device)
        if positions == "rotary":

            def turned(x: Tensor, places: Tensor) -> Tensor:
                return rotate(x, *(part.to(kind).unsqueeze(-2) for part in angles(places.double(), channels, base)))

            apart = torch.full((1,), context - 1, device=q.device)
            return products(turned(q, place), turned(keys, at)), products(turned(q, apart), keys)
        plain = products(q, keys)
        if positions == "alibi":
            slope = slopes(q.shape[2]).to(q).view(-1, 1, 1)
            return plain - slope * (place.unsqueeze(2) - at).unsqueeze(1), plain - slope * (context - 1)
        return plain, plain

    def _chosen(self, relevance: Tensor, open_: Tensor, scores: Tensor) -> Tensor:
        """The tokens of the blocks that are looked up, (batch, time, length).

        Args:
            relevance: (batch, heads, time, length), of each key for each token. open_: boolean (batch, time, length),
                which may be looked up. scores: (batch, heads, length), by which representatives are chosen.
        """
        how, length = self.lookup, relevance.shape[-1]
        if how.count is None or not how.count or length <= how.initial:
            return open_ if how.count is None else torch.zeros_like(open_)
        missing = -(length - how.initial) % how.size

        def blocks(x: Tensor, value: Any) -> Tensor:
            return pad(x[..., how.initial :], (0, missing), value=value).unflatten(-1, (-1, how.size))

        there = blocks(open_, False)
        each = there.unsqueeze(1).expand(-1, relevance.shape[1], -1, -1, -1)
        ranked = blocks(scores, 0.0).unsqueeze(2).masked_fill(~each, -torch.inf)
        which = _highest(ranked, how.representatives)
        counted = each.gather(-1, which)
        told = blocks(relevance, 0.0).gather(-1, which).masked_fill(~counted, 0).sum((1, -1))
        told = (told / counted.sum((1, -1)).clamp_min(1)).masked_fill(~there.any(-1), -torch.inf)
        found = torch.zeros_like(told, dtype=torch.bool)
        found = found.scatter(-1, _highest(told, how.count), True)
        tokens = (found.unsqueeze(-1) & there).flatten(-2)[..., : length - how.initial]
        return pad(tokens, (how.initial, 0), value=False)


def _highest(x: Tensor, count: int) -> Tensor:
    """Places of the ``count`` highest numbers of x (..., n), or of all. Of those that are equal but for rounding, as
    they are where words come again, the later ones: else what is found would depend on how a text is cut."""
    turned = (x / _EQUAL).round().flip(-1)
    return x.shape[-1] - 1 - turned.sort(dim=-1, descending=True, stable=True).indices[..., :count]


def with_blocks(cell: AttentionCell, how: Blocks) -> AttentionCell:
    r"""A copy of a cell, with the same parameters, that sees more than its context: the first tokens of the document,
    and blocks of the others that are looked up (InfLLM: Xiao et al. 2024, arXiv:2402.04617).

    The tokens of a document behind the initial ones are cut into blocks. Each token looks up those beyond its context
    that are most relevant to it, by the mean product of its queries with the keys of the block's representatives: for
    each head those that got most weight from the tokens within whose context they were. All heads look up the same
    blocks. What lies beyond the context stands at one distance, the largest within it. No parameter is added.

    Deviations: the paper ranks representatives by their mean product with the queries; weights and the distance are
    those of the authors' code. That chooses blocks once for a chunk, by the mean of all its queries, also of those that
    are yet to come, so that what a token sees depends on how a text is cut; here each token chooses for itself. Its
    weights are of a softmax with what lies beyond the context, here of the context alone. A block that the context
    still covers in part can be looked up for what is beyond; there, such tokens are always seen. The state has room for
    a whole document, ``room`` tokens; a longer one is refused.

    Raises:
        UsageError: a cell that has something else than its last tokens to attend to, or absolute positions.
    """
    positions, persistent = (
        getattr(one, name, None) for one, name in ((cell.config, "positions"), (cell, "persistent"))
    )
    if not cell.looks_up or positions not in ("none", "rotary", "alibi") or persistent is not None:
        raise UsageError(
            f"a layer of {cell.config.name} has no blocks to look up as it is: they are for window_attention without "
            "persistent keys and for transformer, with rotary positions, alibi or none; leave out blocks."
        )
    made = copy.copy(cell)
    made.__class__ = type(f"Blocks{type(cell).__name__}", (_Lookup, type(cell)), {"State": BlockState})
    made.lookup = how  # type: ignore[attr-defined]
    return made
