"""How layers are connected, by name."""

from unrolled.model.blocks.stack import BLOCKS, Stack, StackConfig, make_stack

__all__ = ["BLOCKS", "Stack", "StackConfig", "make_stack"]
