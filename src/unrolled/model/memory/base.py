"""The contract of a memory: what a text's segments leave for those after them."""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from unrolled.core.config import Config
from unrolled.core.errors import UsageError

__all__ = ["Ended", "Memory", "MemoryConfig"]


class MemoryConfig(Config):
    """Base of the memories' configurations. A subclass fixes ``name`` to the memory's name in the table."""

    name: str
    segment: int = Field(default=64, ge=1, le=1 << 20, description="tokens of a segment")
    least: int | None = Field(
        default=None,
        ge=1,
        le=1 << 20,
        description="in training segments have a length from this one to segment, drawn anew for each window (absent: "
        "always segment)",
    )
    state: Literal["reset", "carry"] = Field(
        default="reset",
        description="the state of the cells where a segment begins: reset (the papers), or carry, gone on with",
    )
    depth: int | None = Field(
        default=None,
        ge=0,
        le=1 << 20,
        description="how many hand-overs from segment to segment the loss of a window's last segment reaches back "
        "across; the window is cut into such blocks from its end (absent: all within the window)",
    )
    keep: float = Field(
        default=1.0, ge=0, le=1, description="chance that a hand-over within a window lets gradients through"
    )
    checkpoint: bool = Field(
        default=False,
        description="compute each segment again in the backward pass from the memory before it, in place of keeping "
        "what is inside it (Memformer's replay)",
    )

    @model_validator(mode="after")
    def _lengths(self) -> "MemoryConfig":
        if self.least is not None and self.least > self.segment:
            raise UsageError(f"segments have {self.segment} tokens at most, and {self.least} at least; lower least.")
        return self


class Ended(NamedTuple):
    """What a segment leaves.

    written: outputs of the stack at the write places, (batch, places, width); None where there are none. layers: of
    each layer its own outputs there, where the memory :attr:`Memory.listens`.
    """

    written: Tensor | None
    layers: Sequence[Tensor] = ()


class Memory(nn.Module):
    """A memory of one model. Segments are read by :class:`unrolled.model.memory.segments.Segments`, which knows no
    memory; a subclass says what stands before and behind the tokens of a segment, what layers read of it, and what it
    becomes at a segment's end.

    The State is a NamedTuple of batch-first tensors of fixed shapes whose first fields are ``fill``, int64 (batch,),
    tokens in the open segment, and ``count``, int64 (batch,), segments that ended since the last reset; the driver
    keeps both. What is of the open segment alone (a buffer of its outputs) must be as :meth:`begin` makes it after
    :meth:`update`.

    Args:
        config: the memory's own. in_width: width of what the stack reads. reads: width of what each layer reads.
        writes: of what each puts out. out_width: of what the stack puts out.

    Attributes:
        listens: whether :meth:`update` wants what each layer puts out at the write places.
        attends: whether layers read the memory, by :meth:`before`.
        hands: names of what it hands upwards, as cells do: ``cost``, see :meth:`cost`.
    """

    Config: ClassVar[type[MemoryConfig]]
    State: ClassVar[Any]
    EXAMPLES: ClassVar[tuple[MemoryConfig, ...]]
    listens: bool = False
    attends: bool = False
    hands: tuple[str, ...] = ()

    def __init__(self, config: Any, in_width: int, reads: Sequence[int], writes: Sequence[int], out_width: int):
        super().__init__()
        self.config, self.in_width, self.out_width = config, in_width, out_width
        self.reads, self.writes = tuple(reads), tuple(writes)

    @property
    def name(self) -> str:
        return self.config.name

    def start(self, std: float) -> None:
        """Begin vectors that stand among embeddings, whose standard deviation is ``std``."""

    def begin(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> Any:
        """The State where no segment was read."""
        raise NotImplementedError

    def prefix(self, memory: Any) -> Tensor | None:
        """Vectors (batch, P, in_width) before the tokens of a segment; None: none."""
        return None

    def places(self, memory: Any) -> Tensor | None:
        """int64 (batch,): how many of the prefix's vectors, the last ones, a row has; None: all."""
        return None

    def suffix(self, memory: Any) -> Tensor | None:
        """Vectors (batch, M, in_width) behind the last token of a segment, its write places; None: none."""
        return None

    def before(self, layer: int, x: Tensor, memory: Any) -> Tensor:
        """What layer ``layer`` reads, (batch, time, its width), from what it would read without a memory."""
        return x

    def observe(self, memory: Any, x: Tensor, y: Tensor) -> Any:
        """The State after tokens of the open segment, ``memory.fill`` of which came before these.

        Args:
            x: what the stack read, (batch, time, in_width). y: what it put out, (batch, time, out_width).
        """
        return memory

    def update(self, memory: Any, ended: Ended) -> Any:
        """The State after a segment; ``fill`` and ``count`` are those before its end, and changed by the driver."""
        raise NotImplementedError

    def cost(self, memory: Any) -> Tensor:
        """(batch,): what ``train.objective.cost`` weighs, of the open segment's tokens."""
        raise NotImplementedError

    def counts(self, batch: int, device: Any) -> tuple[Tensor, Tensor]:
        """``fill`` and ``count`` of :meth:`begin`."""
        zeros = torch.zeros(batch, dtype=torch.int64, device=device)
        return zeros, zeros.clone()

    def flops_per_token(self) -> int:
        """Floating-point operations of the memory's own products, per token of full segments; those of the stack at
        places before and behind the tokens are added by the model."""
        return 0

    @property
    def extra_places(self) -> int:
        """Places of a full segment that are no tokens."""
        return 0

    def need_one_width(self, what: str, *widths: int) -> int:
        """The width that all of ``widths`` are. Raises UsageError."""
        if len(set(widths)) > 1:
            raise UsageError(
                f"the memory {self.name} needs one width of {what}, not {' and '.join(map(str, dict.fromkeys(widths)))}"
                "; leave out model.embedding.size and model.widths, and take cells whose output is as wide as they are."
            )
        return widths[0]
