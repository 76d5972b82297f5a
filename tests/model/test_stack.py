"""Stacks against hand computations."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import gelu, layer_norm

from conformance.material import resets, wave
from conformance.tolerance import assert_close
from unrolled.cells import CELLS
from unrolled.core.errors import UsageError
from unrolled.model import LanguageModel, ModelConfig
from unrolled.model.blocks import Stack, StackConfig, make_stack


def make(cells: list[Any], widths: list[int], in_width: int = 5, **config: Any) -> Stack:
    torch.manual_seed(2)
    stack = make_stack(in_width, [CELLS.parse(cell) for cell in cells], widths, StackConfig.parse(config)).double()
    with torch.no_grad():
        for k, parameter in enumerate(stack.parameters()):
            parameter.add_(0.1 * wave(*parameter.shape, phase=k))
    return stack


X, RESET = wave(2, 4, 5), resets(2, 4)
MASK = (torch.arange(8) % 2).double().view(1, 1, 8).expand(2, 1, 8) * 2


def run(stack: Stack, between: tuple[Tensor | None, ...] = ()) -> Tensor:
    return stack(X, stack.initial_state(2, dtype=X.dtype), RESET, between)[0]


def test_plain_with_mixed_cells_and_widths() -> None:
    stack = make(["lstm", "gru", "mlstm"], [8, 3, 6])
    one, two, three = stack.cells()
    assert [cell.in_width for cell in stack.cells()] == [5, 8, 3]
    assert stack.out_width == 6
    first = one(X, None, RESET)[0]
    assert_close(run(stack), three(two(first, None, RESET)[0], None, RESET)[0], "output")
    assert_close(run(stack, (MASK, None)), three(two(first * MASK, None, RESET)[0], None, RESET)[0], "with a mask")


def test_sum() -> None:
    stack = make(["lstm", "gru"], [8, 8], kind="sum")
    one, two = stack.cells()
    first = one(X, None, RESET)[0]
    assert_close(run(stack), first + two(first, None, RESET)[0], "output")
    # what is added is the layer's own output; what the next layer reads is dropped
    assert_close(run(stack, (MASK,)), first + two(first * MASK, None, RESET)[0], "with a mask")


def test_skip() -> None:
    """Each layer reads the input too, and the head all layers (Graves 2013)."""
    stack = make(["lstm", "gru", "rnn"], [8, 3, 4], kind="skip")
    one, two, three = stack.cells()
    assert [cell.in_width for cell in stack.cells()] == [5, 5 + 8, 5 + 3]
    assert stack.out_width == 15
    first = one(X, None, RESET)[0]
    for mask in (torch.ones(()), MASK):
        second = two(torch.cat([X, first * mask], -1), None, RESET)[0]
        third = three(torch.cat([X, second], -1), None, RESET)[0]
        between = () if mask.dim() == 0 else (MASK, None, None)
        assert_close(run(stack, between), torch.cat([first, second, third], -1), "output")
    model = LanguageModel(ModelConfig.parse({"layers": 2, "width": 4, "stack": {"kind": "skip"}}), 9)
    assert model.stack_flops_per_token() == 8 * 4 * (4 + 4) + 8 * 4 * (8 + 4)
    assert make(["lstm"], [8], kind="skip").out_width == 8
    with pytest.raises(UsageError, match="no streams side by side"):
        make([{"name": "rwkv4", "perspectives": 2}] * 2, [8, 8], kind="skip")


def norm(v: Tensor, module: Any) -> Tensor:
    if module.__class__.__name__ == "LayerNorm":
        return layer_norm(v, v.shape[-1:], module.weight, module.bias)
    return v / (v.square().mean(-1, keepdim=True) + 1e-6).sqrt() * module.weight


@pytest.mark.parametrize("kind", ["layer", "rms"])
@pytest.mark.parametrize("mlp", [0.0, 1.5])
def test_residual(kind: str, mlp: float) -> None:
    stack: Any = make(["lstm", "gru"], [8, 8], kind="residual", norm=kind, mlp=mlp)
    x = X @ stack.widen.weight.T
    for k, cell in enumerate(stack.cells()):
        x = x + cell(norm(x, stack.norms[k]), None, RESET)[0]
        if mlp:
            block = stack.mlps[k]
            assert block.up.weight.shape == (12, 8)
            inner = norm(x, stack.mlp_norms[k]) @ block.up.weight.T + block.up.bias
            x = x + gelu(inner) @ block.down.weight.T + block.down.bias
    assert_close(run(stack), norm(x, stack.final_norm), "output")


def test_residual_of_equal_widths_needs_no_widening() -> None:
    assert make(["lstm"], [5], kind="residual").widen is None


@pytest.mark.parametrize("kind", ["layer", "rms"])
def test_output_norm(kind: str) -> None:
    stack, plain = (make(["lstm", "gru"], [8, 8], output_norm=value) for value in (kind, "none"))
    plain.load_state_dict({name: value for name, value in stack.state_dict().items() if "final_norm" not in name})
    assert_close(run(stack), norm(run(plain), stack.final_norm), "output")


@pytest.mark.parametrize("kind", ["sum", "residual"])
def test_unequal_widths_are_refused(kind: str) -> None:
    with pytest.raises(UsageError, match=r"layers of one output width, not \[8, 7\]"):
        make(["lstm", "gru"], [8, 7], kind=kind)


def test_projection_sets_the_width() -> None:
    stack = make([{"name": "lstm", "projection": 3}, "gru"], [8, 6])
    assert [cell.in_width for cell in stack.cells()] == [5, 3]
    assert run(stack).shape == (2, 4, 6)


def test_model_config_of_layers() -> None:
    config = ModelConfig.parse({"layers": 2, "cell": ["lstm", {"name": "gru", "reset": "before"}], "widths": [4, 7]})
    assert config.layer_widths() == (4, 7)
    assert [cell.name for cell in config.layer_cells()] == ["lstm", "gru"]
    assert ModelConfig.model_validate_json(config.model_dump_json()) == config
    model = LanguageModel(config, 9)
    assert [cell.width for cell in model.stack.cells()] == [4, 7]
    for wrong in ({"layers": 2, "widths": [4]}, {"layers": 3, "cell": ["lstm", "gru"]}):
        with pytest.raises(UsageError, match="give one a layer"):
            ModelConfig.parse(wrong)


def test_taps_and_noise_go_to_their_layers() -> None:
    from unrolled.cells import Noise

    stack = make(["lstm", "gru"], [8, 8])
    start = stack.initial_state(2, dtype=X.dtype)
    seen: set[tuple[int, str]] = set()
    stack(X, start, tap=lambda layer, name, value: seen.add((layer, name)))
    assert {(0, "c"), (0, "h"), (1, "z"), (1, "h")} <= seen
    assert (1, "c") not in seen
    zeros = Noise(state_in=torch.zeros(2, 1, 8, dtype=X.dtype))
    _, plain = stack(X, start)
    for layer in (0, 1):
        _, states = stack(X, start, noise=[zeros if k == layer else None for k in (0, 1)])
        assert torch.equal(states[0].h, plain[0].h) == (layer == 1)
        assert not torch.equal(states[1].h, plain[1].h)
