"""Learning rates and pulls that a small network says for each segment: the rule gated of dynamic evaluation."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from unrolled.core.errors import UsageError

__all__ = ["Gates", "fisher"]

_FEATURES, _SMALL = 3, 1e-12
_BEGIN = (-2.0, -4.0)


class Gates(nn.Module):
    r"""How much of its step and of its pull each parameter tensor takes after a segment.

    .. math:: (a, b) = \sigma(W_2 \tanh(W_1 f + v_1) + v_2), \quad
              f = (\log |\ell|, \log \lVert g \rVert, \log \lVert \theta - \theta_0 \rVert)

    One network serves all tensors; :math:`v_2` is each tensor's own. Norms are root mean squares. It begins at 0.12 of
    the step and 0.018 of the pull, whatever f is.

    Args:
        names: of the parameter tensors. hidden: units of the first layer. seed: of its weights.
    """

    def __init__(self, names: Sequence[str], hidden: int = 8, seed: int = 0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.names = tuple(names)
        self.first = nn.Parameter(torch.randn(hidden, _FEATURES, generator=generator) / _FEATURES**0.5)
        self.first_bias = nn.Parameter(torch.zeros(hidden))
        self.second = nn.Parameter(torch.zeros(2, hidden))
        self.second_bias = nn.Parameter(torch.tensor(_BEGIN).repeat(len(self.names), 1))

    def forward(
        self, loss: float, gradients: Mapping[str, Tensor], moved: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor]:
        """a (tensors,) and b (tensors,), both within (0, 1).

        Args:
            loss: nats per token of the segment. gradients: of each tensor. moved: its distance from the trained one.
        """
        told = [[abs(loss), _size(gradients[name]), _size(moved[name])] for name in self.names]
        features = torch.tensor(told, dtype=self.first.dtype).clamp_min(_SMALL).log()
        seen = torch.tanh(features @ self.first.t() + self.first_bias)
        step, pull = torch.sigmoid(seen @ self.second.t() + self.second_bias).unbind(1)
        return step, pull


def _size(value: Tensor) -> float:
    return float(value.detach().square().mean().sqrt())


def fisher(statistics: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """F: squared statistics of gradients, by name, divided by their mean over all weights.

    Raises:
        UsageError: all of them are zero.
    """
    squares = {name: value.square() for name, value in statistics.items()}
    total = sum(float(value.double().sum()) for value in squares.values())
    mean = total / max(1, sum(value.numel() for value in squares.values()))
    if not mean:
        raise UsageError("every gradient statistic is zero; collect them on more text, or use the rule sgd.")
    return {name: value / mean for name, value in squares.items()}
