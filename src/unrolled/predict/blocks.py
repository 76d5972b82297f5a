"""Attention to blocks beyond the context, looked up in all that was read."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from unrolled.cells.attention.base import AttentionCell
from unrolled.cells.attention.blocks import Blocks, with_blocks
from unrolled.core.errors import UsageError
from unrolled.predict.adapter import READING, Adapter, AdapterConfig, Source
from unrolled.predict.base import Predictor
from unrolled.predict.packed_layers import with_layers
from unrolled.predict.static import NeuralPredictor

__all__ = ["BlocksAdapter", "BlocksConfig", "BlocksPredictor"]


class BlocksConfig(AdapterConfig):
    """Options of looking up blocks."""

    short: ClassVar[str | None] = "count"

    name: Literal["blocks"] = "blocks"
    count: int = Field(default=4, ge=0, le=1 << 20, description="blocks that each token looks up")
    every: bool = Field(default=False, description="all blocks, whatever count says")
    size: int = Field(default=32, ge=1, le=1 << 20, description="tokens of a block")
    representatives: int = Field(default=4, ge=1, le=1 << 20, description="tokens that stand for a block")
    initial: int = Field(default=4, ge=0, le=1 << 20, description="first tokens of a document, always seen")
    room: int = Field(
        default=8192, ge=1, le=1 << 24, description="tokens of a document that are kept; a longer one is refused"
    )


class BlocksPredictor(NeuralPredictor):
    """A model whose attention looks up blocks of tokens beyond its context; see
    :func:`unrolled.cells.attention.blocks.with_blocks`. It shares the model's parameters, and has no others.

    Args:
        inner: the model as it is.
    Raises:
        UsageError: no layer of attention, or one that cannot look up; a memory over segments.
    """

    kind = "blocks"

    def __init__(self, inner: NeuralPredictor, config: BlocksConfig):
        cells, model = inner.model.stack.cells(), inner.model
        if not any(isinstance(cell, AttentionCell) for cell in cells) or model.memory is not None:
            raise UsageError(
                "blocks are looked up by layers of attention, in a model without a memory over segments; leave out "
                "blocks."
            )
        how = Blocks(
            config.initial, config.size, None if config.every else config.count, config.representatives, config.room
        )
        layers = [with_blocks(cell, how) if isinstance(cell, AttentionCell) else cell for cell in cells]
        super().__init__(with_layers(model, layers), inner.start_id, inner.temperature)
        self.config = config

    @property
    def options(self) -> dict[str, Any]:
        """See :attr:`Predictor.options`."""
        return {**super().options, "blocks": self.config.model_dump(mode="json", exclude={"name"})}


class BlocksAdapter(Adapter):
    """Looks up blocks beyond the context of attention."""

    Config = BlocksConfig
    EXAMPLES = (BlocksConfig(), BlocksConfig(count=1, size=3, representatives=2, initial=1))
    title = "looking up blocks"
    place = READING
    reads_model = True

    @classmethod
    def apply(cls, inner: Predictor, config: BlocksConfig, source: Source | None) -> BlocksPredictor:
        """See :meth:`Adapter.apply`."""
        return BlocksPredictor(cls.plain(inner), config)
