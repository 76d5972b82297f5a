"""What the cells with attention share: heads, and a ring of the last keys and values."""

import functools
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from unrolled.cells.base import CellConfig
from unrolled.cells.mixer import Given, MixerCell
from unrolled.cells.parts.places import angles, rotate, slopes
from unrolled.cells.parts.ring import Turned, turn
from unrolled.cells.parts.union import always, union
from unrolled.kernels.bias_attention import bias_attention

__all__ = ["AttentionCell", "AttentionConfig", "AverageConfig", "Layout", "Positions", "RingState"]

Positions = Literal["none", "rotary", "alibi"]


class AttentionConfig(CellConfig):
    """Options of a cell with attention over its last tokens."""

    heads: int = Field(default=4, ge=1, le=4096, description="heads")
    context: int = Field(
        default=256, ge=2, le=1 << 20, description="tokens that are attended to, the present one among them"
    )


class AverageConfig(CellConfig):
    """Options of a cell whose attention has one head and reads a moving average."""

    modes: int = Field(default=16, ge=1, description="averages of a channel")
    shared: int = Field(default=128, ge=2, le=1 << 16, multiple_of=2, description="width Z of queries and keys")
    value_factor: float = Field(default=2.0, gt=0, le=64, description="width of the values, as a multiple of the width")


class RingState(NamedTuple):
    """keys, values: (batch, context - 1, groups, size), newest last, as they are before positions turn them. fill:
    int64 (batch,), how many are filled, from the last reset."""

    keys: Tensor
    values: Tensor
    fill: Tensor


class Layout(NamedTuple):
    """Another order of the tokens of a window that begins a text. places: int64 (time,), where each stands. unseen:
    boolean (time, time), which earlier tokens (columns) each token (row) does not see; None: it sees all of them."""

    places: Tensor
    unseen: Tensor | None


class AttentionCell(MixerCell):
    """A cell that attends to the ``context`` tokens up to the present one, of its own document.

    So it does not matter where a text is cut, and a document no longer than the context is attended to as a whole. A
    subclass says :meth:`head_sizes`.

    Attributes:
        sets: whether what a token sees follows from its place and the tokens that it attends to alone, so that a
            ``layout`` may be set.
        looks_up: whether it sees its last tokens and nothing else, through :meth:`turned`, :meth:`attend` and
            :meth:`kept`, so that it can be made to look up others (:mod:`unrolled.cells.attention.blocks`).
        layout: in force for the windows that are read while it is set; see :class:`Layout`.
    """

    sets: bool = False
    looks_up: bool = False
    layout: Layout | None = None
    State: type = RingState
    operation = "bias_attention"

    @classmethod
    def head_sizes(cls, config: Any, width: int) -> tuple[int, int, int]:
        """Heads, groups of them that share keys and values, and the size of a head."""
        return config.heads, config.heads, width // config.heads

    @classmethod
    def attention_flops(cls, config: Any, width: int) -> int:
        """4 C N: scores and sums over a full context."""
        heads, _, size = cls.head_sizes(config, width)
        return 4 * config.context * heads * size

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> Any:
        """Nothing was seen."""
        _, groups, size = self.head_sizes(self.config, self.width)
        keys = torch.zeros(batch, self.config.context - 1, groups, size, device=device, dtype=dtype)
        return RingState(keys, torch.zeros_like(keys), torch.zeros(batch, dtype=torch.int64, device=device))

    def settled(self) -> MixerCell:
        """Angles are made once for each length of a window."""
        made = super().settled()
        made._angles = functools.lru_cache(maxsize=4)(self._angles)  # type: ignore[assignment]
        return made

    def _angles(self, places: int, channels: int, base: float, like: Any) -> tuple[Tensor, Tensor]:
        """Of the places 0, 1, ...: (places, 1, channels / 2). like: device and type."""
        device, dtype = like
        cos, sin = angles(torch.arange(places, device=device, dtype=torch.float64), channels, base)
        return cos.to(dtype).unsqueeze(1), sin.to(dtype).unsqueeze(1)

    def attend(
        self,
        q: Tensor,
        turned: Turned,
        positions: Positions = "none",
        channels: int | None = None,
        base: float = 10000.0,
        **options: Any,
    ) -> Tensor:
        """Attention of queries (batch, time, heads, size) to joined keys and values.

        Args:
            turned: keys and values first among its parts. positions: none; rotary, scores that depend on the distance
                by rotations of the first ``channels`` of a head; alibi, scores that fall with it.
            options: further ones of ``bias_attention``. Keys of ``memory`` have no place: rotations turn them as they
                turn a key at the query's own place.
        Returns:
            (batch, time, heads, size).
        """
        keys, values = turned.joined[:2]
        time, places, memory = q.shape[1], None, options.get("memory")
        apart, plain = memory is not None and positions == "rotary", q
        if self.layout is not None:
            before = keys.shape[1] - time
            places = torch.cat([torch.arange(before, device=q.device), before + self.layout.places])
            if self.layout.unseen is not None:
                seen = before if memory is None or apart else before + memory[0].shape[1]
                unseen = torch.nn.functional.pad(self.layout.unseen, (seen, 0))
                options["bias"] = q.new_zeros(unseen.shape).masked_fill(unseen, -torch.inf).expand(1, 1, -1, -1)
        if positions == "rotary":
            # scores depend on differences of places alone, so that these may count from the ring's begin
            cos, sin = self._angles(keys.shape[1], channels or q.shape[-1], base, (q.device, q.dtype))
            cos, sin = (cos, sin) if places is None else (cos[places], sin[places])
            q, keys = rotate(q, cos[-time:], sin[-time:]), rotate(keys, cos, sin)
        elif positions == "alibi":
            steps = torch.arange(keys.shape[1], device=q.device, dtype=q.dtype)
            steps = steps if places is None else places.to(q.dtype)
            level = -steps.unsqueeze(1) * slopes(q.shape[2]).to(q)
            options["level"] = level.expand(q.shape[0], -1, -1)
        if not apart or memory is None:
            y, _ = bias_attention(q, keys, values, turned.first, backend=self.wish, subject=self.name, **options)
            return y
        # what is always there has no place: turned queries would see it otherwise at every place of the ring
        more: dict[str, Any] = {**options, "memory": None, "lse": True}
        y, lse = bias_attention(q, keys, values, turned.first, backend=self.wish, subject=self.name, **more)
        assert lse is not None
        groups = q.shape[2] // memory[0].shape[2]
        kept = [part[0].repeat_interleave(groups, 1) for part in memory]
        return union([(y, lse), always(plain, *kept)])

    def turned(self, state: Any, given: Given, *new: Tensor) -> Turned:
        """The state's parts before ``fill`` with those of the window behind them."""
        parts = [part for name, part in state._asdict().items() if name != "fill"][: len(new)]
        return turn(parts, new, state.fill, given.reset)

    def kept(self, state: Any, turned: Any) -> Any:
        """The state after a window, of keys and values alone."""
        keys, values = turned.kept
        return RingState(keys, values, turned.fill)
