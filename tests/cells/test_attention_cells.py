"""Attention cells against torch's modules, loops and each other."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from conformance.tolerance import assert_close
from unrolled.cells import CELLS
from unrolled.cells.parts.places import angles, rotate
from unrolled.core.errors import UsageError

C = 6


def make(name: str, width: int = 16, dtype: torch.dtype = torch.float64, **options: Any) -> Any:
    """A cell with weights three times as far from zero as they start, so that scores and gates move."""
    torch.manual_seed(0)
    cell = CELLS[name](width, width, CELLS.parse({"name": name, **options})).to(dtype)
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.mul_(3).add_(0.1 * torch.randn_like(parameter))
    return cell


def torchs_layer(cell: Any) -> nn.TransformerEncoderLayer:
    """The same weights in torch's layer."""
    config, width = cell.config, cell.width
    layer = nn.TransformerEncoderLayer(
        width, config.heads, len(cell.up), 0.0, config.activation, norm_first=config.norm_first, batch_first=True
    ).to(cell.weight.dtype)
    named = {
        "self_attn.in_proj_weight": cell.weight,
        "self_attn.in_proj_bias": cell.bias,
        "self_attn.out_proj.weight": cell.out,
        "self_attn.out_proj.bias": cell.out_bias,
        "linear1.weight": cell.up,
        "linear1.bias": cell.up_bias,
        "linear2.weight": cell.down,
        "linear2.bias": cell.down_bias,
        "norm1.weight": cell.gain[0],
        "norm1.bias": cell.gain_bias[0],
        "norm2.weight": cell.gain[1],
        "norm2.bias": cell.gain_bias[1],
    }
    layer.load_state_dict({name: value.detach() for name, value in named.items()})
    return layer


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("norm_first", [True, False])
def test_transformer_is_torchs_layer(norm_first: bool, activation: str) -> None:
    cell = make("transformer", heads=4, context=64, positions="none", norm_first=norm_first, activation=activation)
    x = torch.randn(2, 37, 16, dtype=torch.float64)
    mask = nn.Transformer.generate_square_subsequent_mask(37, dtype=torch.float64)
    assert_close(cell(x)[0], torchs_layer(cell)(x, mask, is_causal=True), "a layer of torch's")


@pytest.mark.parametrize("positions", ["none", "rotary", "alibi"])
def test_persistent_keys_are_seen_alike_wherever_a_window_is_cut(positions: str) -> None:
    cell = make("window_attention", heads=4, groups=2, context=C, persistent=3, positions=positions)
    with torch.no_grad():
        cell.persistent.mul_(5)
    x = torch.randn(2, 17, 16, dtype=torch.float64)
    whole, _ = cell(x)
    for size in (1, 5):
        parts, state = [], None
        for part in x.split(size, 1):
            y, state = cell(part, state)
            parts.append(y)
        assert_close(torch.cat(parts, 1), whole, f"pieces of {size}")


def streamed(cell: Any, x: Tensor, pieces: int) -> tuple[Tensor, Any]:
    state, outputs = None, []
    for piece in x.split(pieces, 1):
        y, state = cell(piece, state)
        outputs.append(y)
    return torch.cat(outputs, 1), state


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *(("transformer", {"positions": kind}) for kind in ("none", "sinusoid", "rotary", "alibi")),
        *(("window_attention", {"positions": kind}) for kind in ("none", "rotary", "alibi")),
        ("fox", {}),
        ("fox", {"form": "plain"}),
    ],
)
def test_steps_equal_windows_beyond_the_context(name: str, options: dict[str, Any]) -> None:
    """Four contexts of tokens, and the state's size does not change."""
    cell = make(name, heads=2, context=C, **options)
    x = torch.randn(2, 4 * C, 16, dtype=torch.float64)
    steps, last = streamed(cell, x, 1)
    for pieces in (7, 4 * C):
        windows, final = streamed(cell, x, pieces)
        assert_close(steps, windows, f"windows of {pieces}")
        for part, other in zip(last, final, strict=True):
            assert_close(part, other, f"the state after windows of {pieces}")
    assert sum(part[0].numel() for part in last) == cell.state_size()


def test_window_attention_is_a_masked_softmax_with_c_keys() -> None:
    cell = make("window_attention", heads=2, context=C, positions="rotary")
    x = torch.randn(1, 30, 16, dtype=torch.float64)
    q, k, v = (part.view(30, 2, 8) for part in (x[0] @ cell.weight.T).chunk(3, -1))
    turns = [torch.exp(1j * p * 10000.0 ** -(torch.arange(4, dtype=torch.float64) / 4)) for p in range(30)]

    def turned(y: Tensor, p: int) -> Tensor:
        """Channel i with channel i + 4 as a complex number, times that of its place."""
        z = torch.complex(y[..., :4], y[..., 4:]) * turns[p]
        return torch.cat([z.real, z.imag], -1)

    rows = []
    for t in range(30):
        seen = range(max(0, t - C + 1), t + 1)
        scores = torch.stack([(turned(q[t], t) * turned(k[j], j)).sum(-1) for j in seen]) / 8**0.5
        weights = torch.softmax(scores, 0)
        rows.append((weights.unsqueeze(-1) * v[list(seen)]).sum(0).flatten())
    assert_close(cell(x)[0][0], torch.stack(rows) @ cell.out.T, "a loop with complex rotations")


def test_rotations_keep_what_is_no_pair() -> None:
    x = torch.randn(3, 6)
    cos, sin = angles(torch.arange(3.0), 4, 100.0)
    y = rotate(x, cos, sin)
    assert torch.equal(y[:, 4:], x[:, 4:])
    assert torch.equal(y[0], x[0]), "the first place does not turn"
    assert_close(y.norm(dim=-1), x.norm(dim=-1), "lengths stay")


def test_learned_positions_refuse_a_longer_document() -> None:
    cell = make("transformer", heads=2, context=4, positions="learned", places=5)
    x = torch.randn(1, 9, 16, dtype=torch.float64)
    reset = torch.zeros(1, 9, dtype=torch.bool)
    reset[0, 4] = True
    cell(x, None, reset)
    with pytest.raises(UsageError, match="beyond the 5 learned positions"):
        cell(x)


def test_fox_with_open_gates_is_plain_attention() -> None:
    cell = make("fox", heads=2, context=64, form="plain")
    with torch.no_grad():
        cell.bias.fill_(200)
        cell.weight_heads.zero_()
    x = torch.randn(2, 20, 16, dtype=torch.float64)
    q, k, v = (part.view(2, 20, 2, 8).transpose(1, 2) for part in (x @ cell.weight.T).chunk(3, -1))
    y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
    assert_close(cell(x)[0], y @ cell.out.T, "softmax attention")


def test_fox_is_the_loop_of_its_equations() -> None:
    """The pro form token by token over the whole past, with the sum of logarithms made for every pair."""
    cell = make("fox", heads=2, context=64)
    x, heads = torch.randn(1, 12, 16, dtype=torch.float64), 2
    q, k, v, gate = (part[0] for part in (x @ cell.weight.T).split(16, -1))
    f, alpha, beta = (part[0] for part in (x @ cell.weight_heads.T).split(heads, -1))
    log_f, alpha, beta = nn.functional.logsigmoid(f + cell.bias), torch.sigmoid(alpha), torch.sigmoid(beta)

    def normed(y: Tensor, gain: Tensor) -> Tensor:
        y = y.view(heads, 8)
        return y * (y.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * gain.view(heads, 8)

    def mixed(y: Tensor, share: Tensor, t: int) -> Tensor:
        before = y[t - 1] if t else torch.zeros_like(y[0])
        a = share[t].unsqueeze(-1)
        return a * before.view(heads, 8) + (1 - a) * y[t].view(heads, 8)

    outputs = []
    for t in range(12):
        query, scores, values = normed(q[t], cell.norm_q.weight), [], []
        for j in range(t + 1):
            key = normed(mixed(k, alpha, j), cell.norm_k.weight)
            scores.append((query * key).sum(-1) / 8**0.5 + log_f[j + 1 : t + 1].sum(0))
            values.append(mixed(v, beta, j))
        o = (torch.softmax(torch.stack(scores), 0).unsqueeze(-1) * torch.stack(values)).sum(0)
        outputs.append((normed(o, cell.norm_o.weight).flatten() * torch.sigmoid(gate[t])) @ cell.out.T)
    assert_close(cell(x)[0][0], torch.stack(outputs), "the loop")


@pytest.mark.parametrize("logit", [40.0, -40.0])
def test_fox_stays_finite_at_extreme_gates(logit: float) -> None:
    cell = make("fox", heads=2, context=12, dtype=torch.float32)
    with torch.no_grad():
        cell.bias.fill_(logit)
    x = torch.randn(2, 40, 16).requires_grad_()
    y, state = cell(x)
    y.sum().backward()
    assert x.grad is not None
    assert all(bool(part.isfinite().all()) for part in (y, x.grad, *state))


def test_fox_prunes_what_cannot_matter() -> None:
    """Gates that forget leave out old keys, and the output stays within the bound of the paper; 200 leaves out none."""
    kept = make("fox", heads=2, context=64)
    x = torch.randn(1, 64, 16, dtype=torch.float64)
    with torch.no_grad():
        kept.bias.fill_(-3)
        for norm in (kept.norm_q, kept.norm_k):
            norm.weight.fill_(0.7)
        whole, _ = kept(x)
        near, far = (make("fox", heads=2, context=64, prune=prune) for prune in (10, 200))
        for other in (near, far):
            other.load_state_dict(kept.state_dict())
        pruned, all_kept = near(x)[0], far(x)[0]
    assert_close(all_kept, whole, "nothing is pruned")
    error = (pruned - whole).norm() / whole.norm()
    assert 0 < error < 1e-3


def test_spans_are_what_gates_forget_in() -> None:
    cell = CELLS["fox"](8, 8, CELLS.parse({"name": "fox", "heads": 4, "gate": "fixed", "spans": [2, 16]}))
    kept = torch.sigmoid(cell.fixed_bias).log()
    assert_close(kept, -1 / torch.tensor([2.0, 4.0, 8.0, 16.0]), "e-fold in 2, 4, 8, 16 tokens")
    assert not [name for name, _ in cell.named_parameters() if "bias" in name]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "fox", "positions": "rotary"}, "has no positions"),
        ({"name": "fox", "form": "plain", "prune": 10}, "norms of the pro form"),
        ({"name": "fox", "gate": "bias"}, r"give fox.spans"),
        ({"name": "fox", "spans": [0.5, 2]}, "from 1 on"),
        ({"name": "window_attention", "heads": 4, "groups": 3}, "cannot share 3 groups"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        CELLS.parse(options)
