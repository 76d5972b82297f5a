"""Block-diagonal weights: one product per window, and their gradients."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from conformance.material import wave
from conformance.tolerance import assert_close
from kernels.collecting import BATCH, TIME, check, gradients, loss_of, reference_gradients
from unrolled.cells.base import CellConfig, HiddenState, StepCell
from unrolled.kernels.cell_loop import weights as weights_module
from unrolled.kernels.cell_loop.weights import CollectingWeights, Weights
from unrolled.kernels.dispatch import Compute


class _BlockConfig(CellConfig):
    name: str = "blocks"


class Blocks(StepCell):
    """h = tanh(x + W h) with W block-diagonal, (blocks, out, in)."""

    State = HiddenState
    recurrent_weights = ("weight",)

    def __init__(self) -> None:
        super().__init__(6, 6, _BlockConfig())
        self.weight = nn.Parameter(0.7 * wave(3, 2, 2))

    def project(self, x: Tensor, w: Weights) -> Tensor:
        return x

    def step(self, pre: Tensor, state: HiddenState, w: Weights, tap: Any) -> tuple[Tensor, HiddenState]:
        h = torch.tanh(w.linear("weight", state.h, pre))
        return h, HiddenState(h)


def test_blocks_are_one_product_per_window(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    original = weights_module._Matrix.collect
    monkeypatch.setattr(weights_module._Matrix, "collect", lambda *args: (calls.append(1), original(*args))[1])
    cell = Blocks()
    x = wave(BATCH, TIME, 6).requires_grad_()
    expected = reference_gradients(cell, x)
    passes: list[dict[str, Tensor]] = [{"x": x}, {"weight": cell.weight}, {"x": x, "weight": cell.weight}]
    for wanted in passes:
        check(gradients(loss_of(cell, x), wanted), expected, "collected blocks")
    assert len(calls) == 2 * TIME, "the products of the two passes that ask for the weight"


def test_block_product_of_any_leading_dimensions() -> None:
    weight = wave(3, 2, 4)
    dense = torch.block_diag(*weight)
    for shape in ((12,), (5, 12), (2, 3, 12)):
        for precision, tolerance in (("float32", None), ("bf16", torch.bfloat16)):
            v, add = wave(*shape), wave(*shape[:-1], 6, phase=1.0)
            found = weights_module.product(v, weight, add, precision)
            assert_close(found, v @ dense.T + add, f"{shape} {precision}", tolerance)


@pytest.mark.parametrize("backend", ["generic", "reference"])
def test_block_diagonal_weight(backend: str) -> None:
    cell = Blocks()
    cell.compute = Compute(backend=backend)
    x = wave(BATCH, TIME, 6)
    dense = torch.block_diag(*cell.weight.detach()).requires_grad_()
    h, outputs = torch.zeros(BATCH, 6, dtype=x.dtype), []
    for t in range(TIME):
        h = torch.tanh(x[:, t] + h @ dense.T)
        outputs.append(h)
    y, _ = cell(x)
    assert_close(y, torch.stack(outputs, 1), "output")
    y.square().sum().backward()
    torch.stack(outputs).square().sum().backward()
    assert cell.weight.grad is not None
    assert dense.grad is not None
    for k in range(3):
        part = slice(2 * k, 2 * k + 2)
        assert_close(cell.weight.grad[k], dense.grad[part, part], f"gradient of block {k}")


def test_weights_by_scope() -> None:
    named = {"a.b.m": wave(3, 4), "a.v": wave(3)}
    for weights in (Weights(named), CollectingWeights(named, steps=5)):
        inner = weights.scope("a")
        assert "v" in inner
        assert "m" not in inner
        assert torch.equal(inner["v"], named["a.v"])
        v = wave(2, 4)
        assert_close(inner.scope("b").linear("m", v), v @ named["a.b.m"].T, "product in a scope")
        add = wave(2, 3, phase=1.0)
        kept = add.clone()
        assert_close(inner.scope("b").linear("m", v, add), v @ named["a.b.m"].T + add, "with a sum")
        assert torch.equal(add, kept), "the summand was overwritten"
