"""Attention within segments beside a compressive memory of all segments before."""

from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import elu

from unrolled.cells.attention.base import AttentionCell, Positions
from unrolled.cells.base import CellConfig, ParameterRule
from unrolled.cells.matrix.base import by_fan_in, fill
from unrolled.cells.mixer import Given
from unrolled.cells.parts.heads import cut_heads
from unrolled.cells.parts.pieces import pieces
from unrolled.cells.parts.ring import places_of, turn_segment

__all__ = ["Infini", "InfiniConfig"]


class InfiniConfig(CellConfig):
    """Options of Infini-attention."""

    name: Literal["infini"] = "infini"
    heads: int = Field(default=4, ge=1, le=4096, description="heads")
    segment: int = Field(default=128, ge=2, le=1 << 20, description="tokens of a segment")
    positions: Positions = Field(
        default="rotary", description="of the attention within a segment: none, rotary or alibi; the memory has none"
    )
    delta: bool = Field(
        default=True, description="write what the memory does not yet give for a key, not the whole value"
    )


class InfiniState(NamedTuple):
    """keys, values: (batch, segment - 1, heads, size), of the open segment, newest last. fill: int64 (batch,), how many
    are filled. matrix: (batch, heads, size, size) and sums: (batch, heads, size), of the segments before."""

    keys: Tensor
    values: Tensor
    fill: Tensor
    matrix: Tensor
    sums: Tensor


class Infini(AttentionCell):
    r"""Causal attention within segments, mixed with what a matrix keeps of all segments before (Munkhdalai, Faruqui and
    Gopal 2024, arXiv:2404.07143: Infini-attention).

    .. math::
        y_t &= W_o\,[\,\sigma(\beta_h)\, \frac{\phi(q_t)^\top M}{\phi(q_t)^\top z}
        + (1 - \sigma(\beta_h)) \sum_{j \le t} \mathrm{softmax}_j(q_t^\top k_j / \sqrt{d})\, v_j\,] \\
        M &\leftarrow M + \sum_j \phi(k_j) \left(v_j - \frac{\phi(k_j)^\top M}{\phi(k_j)^\top z}\right)^\top, \quad
        z \leftarrow z + \sum_j \phi(k_j), \quad \phi(x) = \mathrm{ELU}(x) + 1

    j runs over the tokens of the segment; the memory is read before the segment is written, and all its keys are
    written at once at its end. Segments count from the document's begin. Without ``delta`` whole values are written. In
    the first segment the memory gives 0, and the gate weighs the attention all the same. Queries and keys are turned by
    their places for the attention alone. beta starts at 0, weights as those of ``torch.nn.Linear``; no biases. The
    blocks of ``weight`` are q, k, v.

    Parameters 3NI + N² + H.
    """

    Config = InfiniConfig
    State = InfiniState
    EXAMPLES = (
        InfiniConfig(heads=2, segment=4),
        InfiniConfig(heads=4, segment=3, delta=False),
        InfiniConfig(heads=2, segment=8, positions="alibi"),
    )
    EQUATION = "y = s(b) phi(q)'M / phi(q)'z + (1 - s(b)) attention within the segment"
    matrix_fields = ("matrix",)
    positive_fields = ("sums",)
    even_steps = False
    no_graph = "what it keeps is written where a segment ends"
    parameter_rules = {"gate": ParameterRule(decay=False, drawn=False)}

    def __init__(self, in_width: int, width: int, config: InfiniConfig):
        super().__init__(in_width, width, config)
        self.weight, self.out = nn.Parameter(torch.empty(3 * width, in_width)), nn.Parameter(torch.empty(width, width))
        self.gate = nn.Parameter(torch.empty(config.heads))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        fill(by_fan_in, [self.weight, self.out])
        fill(nn.init.zeros_, [self.gate])

    @classmethod
    def head_sizes(cls, config: Any, width: int) -> tuple[int, int, int]:
        """See :meth:`AttentionCell.head_sizes`."""
        return config.heads, config.heads, width // config.heads

    @classmethod
    def width_multiple(cls, config: Any) -> int:
        """The heads, and two channels of each where they rotate."""
        return config.heads * (2 if config.positions == "rotary" else 1)

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> InfiniState:
        """Nothing was seen."""
        heads, _, size = self.head_sizes(self.config, self.width)
        keys = torch.zeros(batch, self.config.segment - 1, heads, size, device=device, dtype=dtype)
        empty = torch.zeros(batch, dtype=torch.int64, device=device)
        return InfiniState(
            keys,
            torch.zeros_like(keys),
            empty,
            keys.new_zeros(batch, heads, size, size),
            keys.new_zeros(batch, heads, size),
        )

    def mix(self, x: Tensor, state: InfiniState, given: Given) -> tuple[Tensor, InfiniState]:
        """One window of the class's equations."""
        q, k, v = (cut_heads(part, self.config.heads) for part in self.linear("weight", x).chunk(3, -1))
        turned = turn_segment([state.keys, state.values], [k, v], state.fill, given.reset)
        local = self.attend(q, turned, self.config.positions)
        recalled, matrix, sums = self._remember(q, turned.joined, state, given)
        gate = torch.sigmoid(self.gate).unsqueeze(-1)
        y = gate * recalled + (1 - gate) * local
        if given.show is not None:
            given.show("recalled", recalled.flatten(2))
        keys, values = turned.kept
        return self.linear("out", y.flatten(2)), InfiniState(keys, values, turned.fill, matrix, sums)

    def _remember(
        self, q: Tensor, joined: list[Tensor], state: InfiniState, given: Given
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What the memory gives each query, and the memory after the window."""
        segment, matrix, sums, found = self.config.segment, state.matrix, state.sums, []
        inside = places_of(state.fill, given.reset, q.shape[1]) % segment
        for piece in pieces(inside, segment, given.reset):
            if piece.restarts is not None:
                matrix = matrix.masked_fill(piece.restarts.view(-1, 1, 1, 1), 0)
                sums = sums.masked_fill(piece.restarts.view(-1, 1, 1), 0)
            found.append(_read(_features(q[:, piece.low : piece.high]), matrix, sums))
            if piece.ends is not None:
                # joined begins segment - 1 places before the window, so that a segment that ends here begins there
                k, v = (part[:, piece.high - 1 : piece.high - 1 + segment] for part in joined)
                keys = _features(k)
                new = v - _read(keys, matrix, sums) if self.config.delta else v
                ends = piece.ends.to(q.dtype).view(-1, 1, 1)
                matrix = matrix + ends.unsqueeze(-1) * torch.einsum("bthd,bthe->bhde", keys, new)
                sums = sums + ends * keys.sum(1)
        return torch.cat(found, 1), matrix, sums

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """3NI + N² + H."""
        return 3 * width * in_width + width**2 + config.heads

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """Twice the matrices, 4SN of a full segment, and 2N(d + 1) of reading, of writing, and of what is taken off."""
        size = width // config.heads
        memory = 2 * width * (size + 1) * (3 if config.delta else 2)
        return 6 * width * in_width + 2 * width**2 + 4 * config.segment * width + memory


def _features(x: Tensor) -> Tensor:
    return elu(x) + 1


def _read(features: Tensor, matrix: Tensor, sums: Tensor) -> Tensor:
    """(batch, time, heads, size); 0 where nothing was written."""
    total = torch.einsum("bthd,bhd->bth", features, sums).unsqueeze(-1)
    return torch.einsum("bthd,bhde->bthe", features, matrix) / torch.where(total > 0, total, 1.0)
