"""Input products of a whole window as one node each."""

from torch import Tensor

from unrolled.kernels.cell_loop.weights import Weights
from unrolled.kernels.linear.window import window_product

__all__ = ["InputWeights"]


class InputWeights(Weights):
    """Weights for ``project`` over a window: the products of all steps at once."""

    def linear(self, name: str, v: Tensor, add: Tensor | None = None) -> Tensor:
        weight = self.named[self.prefix + name]
        if weight.dim() == 2 and (add is None or add.dim() == 1):
            return window_product(v, weight, add, self.precision)
        return super().linear(name, v, add)
