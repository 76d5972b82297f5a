"""Layers one upon another."""

from typing import Any

from unrolled.model.blocks.glue import Drop, Glue, Layer
from unrolled.model.blocks.stack import Stack

__all__ = ["PlainStack", "SkipStack", "SumStack"]


class PlainStack(Stack):
    """Each layer reads the one below."""

    def connect(self, x: Any, layer: Layer, drop: Drop, glue: Glue) -> Any:
        """See :meth:`Stack.connect`."""
        for i in range(len(self.layers)):
            x = drop(i, layer(i, x))
        return x


class SumStack(Stack):
    """Each layer reads the one below, and the output is the sum of all layers' outputs (Mogrifier LSTM)."""

    one_width = True

    def connect(self, x: Any, layer: Layer, drop: Drop, glue: Glue) -> Any:
        """See :meth:`Stack.connect`."""
        outputs = []
        for i in range(len(self.layers)):
            outputs.append(layer(i, x))
            x = drop(i, outputs[-1])
        return glue.total(outputs) if len(outputs) > 1 else x


class SkipStack(Stack):
    """Each layer reads the stack's input beside the output of the layer below, and the output is the outputs of all
    layers side by side (Graves 2013: skip connections from the input to all layers and from all layers to the output).
    """

    beside = True

    def connect(self, x: Any, layer: Layer, drop: Drop, glue: Glue) -> Any:
        """See :meth:`Stack.connect`."""
        outputs = [layer(0, x)]
        for i in range(1, len(self.layers)):
            x = glue.dense(x) if i == 1 else x
            passed = [outputs[0][..., -self.passed :]] if self.passed and i > 1 else []
            outputs.append(layer(i, glue.beside([x, *passed, drop(i - 1, outputs[-1])])))
        return glue.beside(outputs)
