"""What scan cells do over time that other code was seen to get wrong: chunks on an old state, rows side by side,
padding, extreme gates, long windows."""

from typing import Any

import pytest
import torch
from torch import Tensor

from cells.scans import cell, draw
from unrolled.core.tree import leaves
from unrolled.model import LanguageModel, ModelConfig

SCANS: dict[str, dict[str, Any]] = {
    "mingru": {}, "minlstm": {}, "sru": {}, "lru": {}, "hgrn": {}, "rg_lru": {"heads": 2}, "rwkv4": {},
    "rwkv4_channel": {}, "aaren": {"heads": 2}, "gateloop": {"heads": 2}, "mamba": {}, "longhorn": {},
}  # fmt: skip


def same(found: Any, wanted: Any) -> None:
    for part, other in zip(leaves(found), leaves(wanted), strict=True):
        torch.testing.assert_close(part, other, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", SCANS)
def test_twelve_tokens_on_the_state_of_seven(name: str) -> None:
    """transformers' Mamba raises there, and its Mamba-2 computes something else; a minLSTM package carries a wrong
    state."""
    made, x = cell(name, **SCANS[name]), draw(2, 19, 6, seed=7)
    whole = made(x)
    first, state = made(x[:, :7])
    second, last = made(x[:, 7:], state)
    same((torch.cat([first, second], 1), last), whole)


@pytest.mark.parametrize("name", SCANS)
def test_single_tokens_of_several_rows_from_an_empty_state(name: str) -> None:
    """transformers' Mamba is wrong from an empty cache, and its RWKV-4 mixes the rows of a batch."""
    made, x = cell(name, **SCANS[name]), draw(3, 6, 6, seed=8)
    state, outputs = made.initial_state(3, dtype=torch.float64), []
    for t in range(6):
        y, state = made(x[:, t : t + 1], state)
        assert y.shape == (3, 1, 4)
        outputs.append(y)
    same((torch.cat(outputs, 1), state), made(x))
    same(made(x[1:2]), tuple(part[1:2] for part in leaves(made(x))))


@pytest.mark.parametrize("name", SCANS)
def test_left_padding_with_a_reset_at_the_first_token_does_not_matter(name: str) -> None:
    made, x = cell(name, **SCANS[name]), draw(2, 5, 6, seed=9)
    padded = torch.cat([draw(2, 4, 6, seed=10), x], 1)
    reset = torch.zeros(2, 9, dtype=torch.bool)
    reset[:, 4] = True
    y, state = made(padded, None, reset)
    same((y[:, 4:], state), made(x))
    assert not torch.allclose(made(padded)[0][:, 4:], y[:, 4:]), "without it the padding is read"


@pytest.mark.parametrize("name", SCANS)
@pytest.mark.parametrize("size", [40.0, -40.0])
def test_extreme_gates_stay_finite(name: str, size: float) -> None:
    """Every pre-activation near +-40, in float32: outputs, states and gradients."""
    made = cell(name, scale=0.1, **SCANS[name]).float()
    biases = [p for n, p in made.named_parameters() if n.startswith("bias") and not n.endswith("delta")]
    with torch.no_grad():
        for bias in biases:
            bias.fill_(size)
        if not biases:  # gates without biases: their inputs are large
            made.get_parameter("weight_r" if name.startswith("rwkv4") else "weight_x").mul_(100)
    x = draw(2, 30, 6, seed=11).float().requires_grad_()
    y, state = made(x)
    grads = torch.autograd.grad(y.sum() + sum(part.sum() for part in state), [x, *made.parameters()], allow_unused=True)
    assert all(bool(part.isfinite().all()) for part in (y, *leaves(state), *(g for g in grads if g is not None)))


@pytest.mark.parametrize("name", SCANS)
def test_float32_keeps_its_digits_over_a_long_window(name: str) -> None:
    """A scan by logarithms loses a digit for every ten times the length."""
    made, x = cell(name, scale=0.3, **SCANS[name]), draw(1, 3000, 6, seed=12)
    with torch.no_grad():
        wanted = made(x)[0]
        found = made.float()(x.float())[0]
    assert float((found - wanted).norm() / wanted.norm()) < 5e-6


@pytest.mark.parametrize("cells", ["mamba*2", "rwkv4, rwkv4_channel, rwkv4, rwkv4_channel", "hgrn*3", "rg_lru, lru"])
def test_a_stack_reads_in_pieces_what_it_reads_at_once(cells: str) -> None:
    torch.manual_seed(0)
    config = {"width": 8, "cell": cells, "stack": {"kind": "residual"}}
    model, tokens = LanguageModel(ModelConfig.parse(config), 11).double(), torch.arange(24).view(2, 12) % 11
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    whole, parts = model(tokens), []
    state: Any = None
    for piece in tokens.split(5, 1):
        out = model(piece, state)
        state = out.state
        parts.append(out.raw)
    same((torch.cat(parts, 1), state.cells), (whole.raw, whole.state.cells))


def test_a_wrong_carry_is_noticed() -> None:
    """The check of split windows sees a state that is off by a hundredth."""
    made, x = cell("mingru"), draw(2, 19, 6, seed=7)
    whole, (first, state) = made(x)[0], made(x[:, :7])
    second: Tensor = made(x[:, 7:], state._replace(c=state.c * 1.01))[0]
    with pytest.raises(AssertionError):
        same(torch.cat([first, second], 1), whole)
