"""The small network inside each head: its weights as one vector, what it computes, and the gradient of its error.

Written for weights of any leading dimensions, (..., in, out), and tokens (..., steps, in): so one function serves a
token alone and all tokens of a chunk.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
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


def _gelu_tanh_slope(x: Tensor) -> Tensor:
    a = math.sqrt(2 / math.pi)
    t = torch.tanh(a * (x + 0.044715 * x**3))
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * a * (1 + 3 * 0.044715 * x * x)


def _gelu_slope(x: Tensor) -> Tensor:
    return 0.5 * (1 + torch.erf(x / math.sqrt(2))) + x * torch.exp(-0.5 * x * x) / math.sqrt(2 * math.pi)


def _silu_slope(x: Tensor) -> Tensor:
    s = torch.sigmoid(x)
    return s * (1 + x * (1 - s))


ACTIVATIONS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "gelu_tanh": (lambda x: gelu(x, approximate="tanh"), _gelu_tanh_slope),
    "gelu": (gelu, _gelu_slope),
    "silu": (silu, _silu_slope),
}
"""Name -> the function between two layers, and its slope."""


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
    found, slope = [delta], ACTIVATIONS[network.activation][1]
    for layer, pre in zip(reversed(layers[1:]), reversed(passed.pre[:-1]), strict=True):
        found.append((found[-1] @ layer.weight.mT) * slope(pre))
    return found[::-1]
