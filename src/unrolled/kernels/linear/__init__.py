"""``linear``: v W^T + b, the one door for every product with a matrix of weights.

What is meant by it depends on who multiplies. ``linear`` is a product by itself: of a window's inputs, of an MLP, of
an embedding, of a head's projection. The many small products of one matrix in a time loop are prepared once a window
(``steps``), and a window's products of inputs and gradients are made at once (``window``). In bf16 the factors of a
product are rounded, and nothing else is (``bf16``). Weights that never change are packed once, exactly or in 2 or 1
bytes, by the one ``pack`` of the native library.

Backends: ``window`` (one node, in C++ on a CPU where that is the faster one) and ``reference`` (torch's product under
autograd, which defines it).
"""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from unrolled.kernels.dispatch import Backend, Compute, Operation, Sizes, choose
from unrolled.kernels.linear.plain import product
from unrolled.kernels.linear.window import window_product

__all__ = ["BACKENDS", "OPERATION", "glue_linear", "linear"]


def _refuse(v: Tensor, weight: Tensor, add: Tensor | None, precision: str) -> str | None:
    if weight.dim() != 2:
        return "it has no block-diagonal matrices"
    return "it adds vectors alone" if add is not None and add.dim() != 1 else None


BACKENDS = {
    backend.name: backend
    for backend in (Backend("window", _refuse, window_product), Backend("reference", lambda *_: None, product))
}


def linear(
    v: Tensor,
    weight: Tensor,
    add: Tensor | None = None,
    precision: str = "float32",
    backend: str = "auto",
    subject: str = "inputs",
) -> Any:
    """``v @ weight.T (+ add)``.

    Args:
        v: (..., in). weight: (out, in), or block-diagonal (blocks, out, in), and then v is (..., blocks * in).
        add: (out,), or (..., out). precision: ``bf16`` rounds the factors of the product and of those of its gradients.
        backend: ``auto``, ``reference`` or a backend. subject: who asks, for the record of choices.
    Returns:
        (..., out), or (..., blocks * out), of v's type.
    Raises:
        UsageError: an unknown backend, or one that cannot make this product.
    """
    return choose("linear", BACKENDS, backend, subject, v, weight, add, precision).run(v, weight, add, precision)


def glue_linear(v: Tensor, weight: Tensor, add: Tensor | None, compute: Compute, subject: str) -> Tensor:
    """:func:`linear` for what stands between the cells (embedding, MLPs, heads), as ``compute`` says.

    Where nothing is asked for, float32 is torch's own product: what a saved run computed, it computes to the last bit.
    """
    wish = compute.wish(OPERATION.name)
    if wish == "auto":
        wish = "window" if compute.precision == "bf16" else "reference"
    return linear(v, weight, add, compute.precision, wish, subject)


def _amount(sizes: Sizes, backward: bool) -> int:
    """Two operations a weight and row; the gradients of input and matrix are one more product each."""
    return (3 if backward else 1) * 2 * sizes.width**2 * sizes.batch * sizes.window


def _inputs(sizes: Sizes, draw: Callable[..., Tensor]) -> dict[str, Tensor]:
    width = sizes.width
    weight = draw("weight", width, width) * width**-0.5
    return {"v": draw("v", sizes.batch, sizes.window, width), "weight": weight, "bias": draw("bias", width)}


def _call(given: Mapping[str, Tensor], backend: str, precision: str) -> tuple[Tensor, ...]:
    return (linear(given["v"], given["weight"], given["bias"], precision, backend),)


OPERATION = Operation(
    "linear", "v W^T + b", BACKENDS, "products", amount=_amount, inputs=_inputs, call=_call,
    precisions=("float32", "bf16"),
)  # fmt: skip
