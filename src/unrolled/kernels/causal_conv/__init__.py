"""``causal_conv``: y(t) = sum over lags of w(lag) x(t - lag), a short convolution that never looks ahead.

Backends: ``native`` (depthwise, in C++ on a CPU, one pass forward and one back), ``torch`` (its own convolution for
depthwise weights where no reset lies in the window, one product of gathered windows for matrices at each tap) and
``reference`` (the plain sum over taps under autograd, which defines the operation).
"""

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from unrolled.core.errors import UsageError
from unrolled.kernels.causal_conv import native, reference, torch_conv
from unrolled.kernels.dispatch import Backend, Operation, Sizes, choose

__all__ = ["BACKENDS", "OPERATION", "Activation", "cache_after", "causal_conv", "reach_of"]

Activation = Literal["silu"]


def _torch_pays(x: Tensor, weight: Tensor, *others: object) -> bool:
    """On a CPU the reference is twice as fast as torch's depthwise convolution."""
    return weight.dim() == 3 or x.device.type != "cpu"


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("native", native.refuse, native.conv),
        Backend("torch", torch_conv.refuse, torch_conv.conv, _torch_pays),
        Backend("reference", lambda *_: None, reference.conv),
    )
}


def causal_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    cache: Tensor | None = None,
    reset: Tensor | None = None,
    dilation: int = 1,
    groups: int | None = None,
    activation: Activation | None = None,
    precision: str = "float32",
    backend: str = "auto",
    subject: str = "",
) -> tuple[Tensor, Tensor]:
    """Convolve a window.

    Args:
        x: (batch, time, width), time >= 1.
        weight: (width, k) of a depthwise convolution, or (out, width / groups, k); the last tap is that of the newest
            input.
        bias: (out,). cache: (batch, (k-1) * dilation, width), the inputs before the window, newest last; None is zeros.
        reset: boolean (batch, time); what lies before a true is not seen from there on.
        groups: absent: as the shape of the weight says. activation: silu, or None.
        precision: ``bf16`` rounds the factors where each tap has a matrix.
        backend: ``auto``, ``reference`` or a backend. subject: who asks, for the record of choices.
    Returns:
        y (batch, time, out) and the cache after the window. Types narrower than float32 are computed in float32.
    Raises:
        UsageError: shapes that do not fit, or an unknown backend, or one that cannot serve here.
    """
    kind, work = x.dtype, torch.promote_types(x.dtype, torch.float32)
    lost = (weight.shape[-1] - 1) * dilation
    _check(x, weight, cache, dilation, groups, lost)
    before = x.new_zeros(x.shape[0], lost, x.shape[2]) if cache is None else cache
    reach = None if reset is None else reach_of(reset, lost)
    parts = (x.to(work), weight.to(work), None if bias is None else bias.to(work), before.to(work))
    args = (*parts, reach, dilation, activation, precision)
    y = choose("causal_conv", BACKENDS, backend, subject or "convolution", *args).run(*args)
    return y.to(kind), cache_after(before, x, reach)


def _check(x: Tensor, weight: Tensor, cache: Tensor | None, dilation: int, groups: int | None, lost: int) -> None:
    """Raises UsageError for shapes that do not fit together."""
    width = x.shape[2]
    of = 1 if weight.dim() == 2 else weight.shape[1]
    if (weight.dim() == 2 and len(weight) != width) or width % of or dilation < 1 or weight.shape[-1] < 1:
        raise UsageError(
            f"a convolution with a weight {tuple(weight.shape)} and dilation {dilation} does not suit width {width}; "
            "give (width, k), or (out, width / groups, k), with k and dilation from 1."
        )
    if len(weight) % (width // of) or groups not in (None, width // of):
        raise UsageError(
            f"a weight {tuple(weight.shape)} has {width // of} groups at width {width}; let groups fit it."
        )
    if cache is not None and cache.shape != (x.shape[0], lost, width):
        raise UsageError(
            f"the cache of this convolution is {(x.shape[0], lost, width)}, not {tuple(cache.shape)}; "
            "pass on what it returned."
        )


def reach_of(reset: Tensor, lost: int) -> Tensor:
    """(batch, time) int64: how many steps can be looked back; ``lost`` or more where no reset is near."""
    steps = torch.arange(reset.shape[1], device=reset.device)
    last = torch.where(reset, steps, -lost).cummax(1).values
    return steps - last


def cache_after(cache: Tensor, x: Tensor, reach: Tensor | None) -> Tensor:
    """The last inputs; zeros in the place of those before the last reset."""
    lost, time = cache.shape[1], x.shape[1]
    after = x[:, time - lost :].clone() if time >= lost else torch.cat([cache[:, time:], x], 1)
    if reach is None:
        return after
    lags = torch.arange(lost - 1, -1, -1, device=x.device)
    return after.masked_fill((reach[:, -1:] < lags).unsqueeze(-1), 0)


def _amount(sizes: Sizes, backward: bool) -> int:
    """Bytes of one pass: read x, write y; then read x and the gradient, write that of x."""
    return (5 if backward else 2) * 4 * sizes.width * sizes.batch * sizes.window


def _inputs(sizes: Sizes, draw: Callable[..., Tensor]) -> dict[str, Tensor]:
    return {
        "x": draw("x", sizes.batch, sizes.window, sizes.width),
        "weight": 0.5 * draw("weight", sizes.width, 4),
        "bias": 0.1 * draw("bias", sizes.width),
        "cache": draw("cache", sizes.batch, 3, sizes.width),
    }


def _call(given: Mapping[str, Tensor], backend: str, precision: str) -> tuple[Tensor, ...]:
    return causal_conv(given["x"], given["weight"], given["bias"], given["cache"], activation="silu", backend=backend)


OPERATION = Operation(
    "causal_conv", "y(t) = sum over lags of w(lag) x(t - lag)", BACKENDS, "bytes", True, _amount, _inputs, _call
)
