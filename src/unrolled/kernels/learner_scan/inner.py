"""The small network inside each head: its weights as one vector, what it computes, and the gradient of its error.

Written for weights of any leading dimensions, (..., in, out), and tokens (..., steps, in): so one function serves a
token alone and all tokens of a chunk.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.functional import gelu, silu

__all__ = [
    "ACTIVATIONS",
    "EPSILON",
    "Layer",
    "Network",
    "Norm",
    "Passed",
    "deltas",
    "layers_of",
    "read",
    "run",
    "vector",
]

EPSILON = 1e-6
"""Beside the variance of the norm of the output."""


def _gelu_tanh(x: Tensor) -> tuple[Tensor, Tensor]:
    square = x * x
    u = math.sqrt(2 / math.pi) * x * (1 + 0.044715 * square)
    first = math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * square)
    second = math.sqrt(2 / math.pi) * 6 * 0.044715 * x
    t = torch.tanh(u)
    s = 1 - t * t
    slope = 0.5 * (1 + t + x * s * first)
    return slope, s * first + 0.5 * x * s * (second - 2 * t * first * first)


def _gelu(x: Tensor) -> tuple[Tensor, Tensor]:
    density = torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)
    return 0.5 * (1 + torch.erf(x / math.sqrt(2))) + x * density, (2 - x * x) * density


def _silu(x: Tensor) -> tuple[Tensor, Tensor]:
    s = torch.sigmoid(x)
    own = s * (1 - s)
    return s + x * own, own * (2 + x * (1 - 2 * s))


class _Slope(torch.autograd.Function):
    """The slope of an activation, whose own gradient is written out: under autograd it would keep a dozen tensors."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, both: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Tensor:
        slope, bend = both(x)
        ctx.save_for_backward(bend)
        return slope

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        (bend,) = ctx.saved_tensors
        return grad * bend, None


ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], tuple[Tensor, Tensor]]]] = {
    "gelu_tanh": (lambda x: gelu(x, approximate="tanh"), _gelu_tanh),
    "gelu": (gelu, _gelu),
    "silu": (silu, _silu),
}
"""Name -> the function between two layers, and its slope with the slope of that."""


def slope_of(x: Tensor, activation: str) -> Tensor:
    """The slope of an activation at x."""
    both = ACTIVATIONS[activation][1]
    if not torch.is_grad_enabled() or not x.requires_grad:
        return both(x)[0]
    found: Tensor = _Slope.apply(x, both)  # type: ignore[assignment]
    return found


class Network(NamedTuple):
    """sizes: of the input, of every hidden layer and of the output. biases: whether layers have them. activation:
    between layers, a name in :data:`ACTIVATIONS`."""

    sizes: tuple[int, ...]
    biases: bool = False
    activation: str = "gelu_tanh"

    def shapes(self) -> list[tuple[int, int]]:
        """(in, out) of each layer."""
        return list(zip(self.sizes, self.sizes[1:], strict=False))

    def numbers(self) -> int:
        """Weights of a head, biases among them."""
        return sum((a + self.biases) * b for a, b in self.shapes())


class Layer(NamedTuple):
    """weight: (..., in, out). bias: (..., 1, out) or None."""

    weight: Tensor
    bias: Tensor | None


class Norm(NamedTuple):
    """A layer norm of the output, to which the input is then added. gain, bias: (heads, size)."""

    gain: Tensor
    bias: Tensor


class Passed(NamedTuple):
    """inputs: what went into each layer. pre: what each gave, before the activation; the last is the output."""

    inputs: list[Tensor]
    pre: list[Tensor]


def layers_of(flat: Tensor, network: Network) -> list[Layer]:
    """(..., numbers) as layers: views, weight before bias."""
    found, at = [], 0
    for a, b in network.shapes():
        weight = flat[..., at : at + a * b].unflatten(-1, (a, b))
        at += a * b
        bias = flat[..., at : at + b].unsqueeze(-2) if network.biases else None
        at += b if network.biases else 0
        found.append(Layer(weight, bias))
    return found


def vector(layers: Sequence[Layer]) -> Tensor:
    """The reverse of :func:`layers_of`."""
    return torch.cat([part.flatten(-2) for layer in layers for part in layer if part is not None], -1)


def run(layers: Sequence[Layer], x: Tensor, network: Network) -> Passed:
    """The network on x (..., steps, in)."""
    act = ACTIVATIONS[network.activation][0]
    inputs, pre = [], []
    for place, layer in enumerate(layers):
        x = act(pre[-1]) if place else x
        inputs.append(x)
        z = x @ layer.weight
        pre.append(z if layer.bias is None else z + layer.bias)
    return Passed(inputs, pre)


def _scaled(z: Tensor) -> tuple[Tensor, Tensor]:
    """z without mean and deviation, and one over the deviation."""
    centred = z - z.mean(-1, keepdim=True)
    inverse = torch.rsqrt(centred.square().mean(-1, keepdim=True) + EPSILON)
    return centred * inverse, inverse


def _wide(norm: Norm) -> tuple[Tensor, Tensor]:
    return norm.gain.unsqueeze(-2), norm.bias.unsqueeze(-2)


def output(z: Tensor, x: Tensor, norm: Norm | None) -> Tensor:
    """What is read for the input x where the network gives z: z itself, or x + norm(z)."""
    if norm is None:
        return z
    gain, bias = _wide(norm)
    return x + gain * _scaled(z)[0] + bias


def read(layers: Sequence[Layer], x: Tensor, network: Network, norm: Norm | None) -> Tensor:
    """What the weights give for x (batch, heads, steps, size)."""
    return output(run(layers, x, network).pre[-1], x, norm)


def deltas(layers: Sequence[Layer], passed: Passed, v: Tensor, network: Network, norm: Norm | None) -> list[Tensor]:
    """The gradient of the error, half of abs(output - v)², with respect to what each layer gave before its activation,
    by the chain rule."""
    z = passed.pre[-1]
    if norm is None:
        delta = z - v
    else:
        gain, bias = _wide(norm)
        scaled, inverse = _scaled(z)
        g = (passed.inputs[0] + gain * scaled + bias - v) * gain
        delta = (g - g.mean(-1, keepdim=True) - scaled * (g * scaled).mean(-1, keepdim=True)) * inverse
    found = [delta]
    for layer, pre in zip(reversed(layers[1:]), reversed(passed.pre[:-1]), strict=True):
        found.append((found[-1] @ layer.weight.mT) * slope_of(pre, network.activation))
    return found[::-1]
