"""The ends of a model of rows with labels."""

from typing import Any

from unrolled.core.errors import UsageError
from unrolled.model.classes.head import ClassHead, ClassHeadConfig
from unrolled.model.config import ModelConfig
from unrolled.model.ends import Ends
from unrolled.model.frames import Scale
from unrolled.model.frames.ends import FrameReader

__all__ = ["ClassEnds"]


class ClassEnds(Ends):
    """See :class:`unrolled.model.ends.Ends`.

    Args:
        classes: how many there are. head: its config. channels: of rows that are frames, numbers of a step; 0 for ids.
    """

    whole = True

    def __init__(self, classes: int, head: ClassHeadConfig, channels: int = 0):
        self.classes, self.config, self.channels = classes, head, channels

    def reader(self, config: ModelConfig, vocab_size: int) -> Any:
        """See :class:`unrolled.model.ends.Ends`. Raises UsageError for settings that the rows have not."""
        if config.head != ModelConfig().head:
            raise UsageError("a model of labels has no model.head; leave it out and set task.head.")
        if config.embedding.tied:
            raise UsageError("labels are no tokens, so that nothing can be tied; leave out model.embedding.tied.")
        if config.dropout.projected or config.memory is not None:
            raise UsageError("a model of labels has no dropout.projected and no memory; leave them out.")
        if not self.channels:
            return super().reader(config, vocab_size)
        if config.embedding != ModelConfig().embedding or config.dropout.embedding:
            raise UsageError("frames have no embedding; leave out model.embedding and dropout.embedding.")
        scale = Scale((0.0,) * self.channels, (1.0,) * self.channels, 0)
        return FrameReader(scale, config.layer_widths()[0])

    def head(self, config: ModelConfig, vocab_size: int, width: int, reader: Any) -> ClassHead:
        """See :class:`unrolled.model.ends.Ends`."""
        return ClassHead(width, self.classes, self.config)
