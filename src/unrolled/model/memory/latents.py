"""Latent vectors into which segments are compressed one after another."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm, linear

from unrolled.core.errors import UsageError
from unrolled.core.parameters import ParameterRule
from unrolled.model.memory.base import Ended, MemoryConfig
from unrolled.model.memory.buffered import BufferedMemory
from unrolled.model.memory.reading import Attend

__all__ = ["LatentMemory", "LatentsConfig"]


class LatentsConfig(MemoryConfig):
    """Options of compressed latents."""

    name: Literal["latents"] = "latents"
    slots: int = Field(default=16, ge=1, le=1 << 14, description="latent vectors Q")
    heads: int = Field(default=4, ge=1, le=4096, description="heads of all attention")
    gate_init: float = Field(
        default=0.0,
        ge=-10,
        le=10,
        description="alpha at the start: 0 leaves a model that is there as it is; what is trained from the start wants "
        "1, since gates that begin shut stay so",
    )
    query: int = Field(
        default=0,
        ge=0,
        le=1 << 16,
        description="the first so many tokens of a document are what it will be asked for: latents attend to them "
        "before each segment (0: no)",
    )


class LatentState(NamedTuple):
    """fill, count: see Memory. vectors: (batch, Q, width). seen: (batch, segment, width), outputs of the open segment.
    asked: (batch, query, in_width), the document's first inputs. read: int64 (batch,), how many of these there are."""

    fill: Tensor
    count: Tensor
    vectors: Tensor
    seen: Tensor
    asked: Tensor
    read: Tensor


class LatentMemory(BufferedMemory):
    r"""A fixed number of latents into which each segment's outputs are compressed, and gated attention to them in every
    layer (An et al. 2025, arXiv:2502.06139: LCIRC; a reconstruction, its code was not at hand).

    .. math::
        h &\leftarrow h + \mathrm{MHA}(\mathrm{LN}\,h,\; q) \quad\text{where the document begins with a query } q \\
        h' &= h + \mathrm{MHA}(\mathrm{LN}\,h,\; y), \quad h \leftarrow h' + W_2\,\mathrm{gelu}(W_1\,\mathrm{LN}\,h') \\
        x &\leftarrow x + \tanh(\alpha_l)\,\mathrm{MHA}(\mathrm{LN}\,x,\; \mathrm{LN}\,h)
        \quad\text{before each layer, from the second segment on}

    The gates start at alpha = ``gate_init``. At 0 nothing changes at first; the paper trains this part around a model
    that stays as it is (``weights.file``, ``train.trainable = ["memory.*"]``), with gradients through a random subset
    of the segments (``keep``). A model that is trained from the start does not open such gates: their gradient has no
    one direction before what they let through tells something, and that learns little while they are shut. Give 1
    then. The paper's query is given from outside; here it is the beginning of the document. Norms have no parameters,
    the MLP is four times as wide. Latents start N(0, 1): smaller ones are soon all the same vector, since what they
    take from a segment is at first nearly its mean for each of them.

    Parameters QO + 8O² + 4O² (+ 2O² + 2OI with a query), and 2N² + 2NO + 1 a layer. State QO + SO (+ query I) numbers a
    row.
    """

    Config = LatentsConfig
    State = LatentState
    EXAMPLES = (
        LatentsConfig(segment=5, slots=3, heads=2),
        LatentsConfig(segment=4, slots=2, heads=1, query=6, gate_init=1.0),
    )

    def __init__(self, config: Any, in_width: int, reads: Sequence[int], writes: Sequence[int], out_width: int):
        super().__init__(config, in_width, reads, writes, out_width)
        for size in (*reads, out_width):
            if size % config.heads:
                raise UsageError(f"a width of {size} cannot be shared by {config.heads} heads; give a divisor.")
        self.latents = nn.Parameter(torch.empty(config.slots, out_width))
        self.compress = Attend(out_width, out_width, config.heads)
        self.ask = Attend(out_width, in_width, config.heads) if config.query else None
        self.up, self.down = (
            nn.Parameter(torch.empty(*shape)) for shape in ((4 * out_width, out_width), (out_width, 4 * out_width))
        )
        self.readers = nn.ModuleList(Attend(size, out_width, config.heads) for size in reads)
        self.alpha = nn.Parameter(torch.full((len(reads),), config.gate_init))
        self.parameter_rules = {"latents": ParameterRule(decay=False, drawn=False)}
        if not self.latents.is_meta:
            nn.init.normal_(self.latents)
            for weight in (self.up, self.down):
                nn.init.uniform_(weight, -(weight.shape[1] ** -0.5), weight.shape[1] ** -0.5)

    def begin(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> LatentState:
        """The trained latents, which are not read before a segment has ended."""
        start = self.latents.to(device=device, dtype=dtype or self.latents.dtype).expand(batch, -1, -1)
        fill, count = self.counts(batch, device)
        asked = torch.zeros(batch, self.config.query, self.in_width, device=device, dtype=dtype)
        return LatentState(fill, count, start, self.empty(batch, device, dtype), asked, torch.zeros_like(fill))

    def before(self, layer: int, x: Tensor, memory: LatentState) -> Tensor:
        """See :meth:`Memory.before`."""
        gate = torch.tanh(self.alpha[layer]) * (memory.count > 0).view(-1, 1, 1)
        return x + gate * self.readers[layer](layer_norm(x, x.shape[-1:]), self._norm(memory.vectors))

    def observe(self, memory: LatentState, x: Tensor, y: Tensor) -> LatentState:
        """Puts the outputs behind those before, and keeps the document's first inputs."""
        memory = super().observe(memory, x, y)
        size = self.config.query
        if not size or bool((memory.read >= size).all()):
            return memory
        spare = memory.asked.new_zeros(len(x), x.shape[1], x.shape[2])  # what lies beyond is cut off
        places = memory.read.unsqueeze(1) + torch.arange(x.shape[1], device=x.device)
        asked = torch.cat([memory.asked, spare], 1).scatter(1, places.unsqueeze(-1).expand_as(x), x)[:, :size]
        return memory._replace(asked=asked, read=(memory.read + x.shape[1]).clamp_max(size))

    def _norm(self, h: Tensor) -> Tensor:
        return layer_norm(h, (self.out_width,))

    def update(self, memory: LatentState, ended: Ended) -> LatentState:
        """Compresses the segment."""
        h = memory.vectors
        if self.ask is not None:
            there = torch.arange(self.config.query, device=h.device) < memory.read.unsqueeze(1)
            h = h + self.ask(self._norm(h), memory.asked, there=there)
        h = h + self.compress(self._norm(h), memory.seen, there=self.present(memory))
        h = h + linear(gelu(linear(self._norm(h), self.up)), self.down)
        return memory._replace(vectors=h, seen=torch.zeros_like(memory.seen))

    def flops_per_token(self) -> int:
        """Reading of each layer, without its keys and values, which are made once a piece: 4N² + 4QN."""
        return sum(4 * size * size + 4 * self.config.slots * size for size in self.reads)
