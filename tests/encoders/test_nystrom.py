"""Attention through landmarks, beside a plain loop, softmax attention and transformers' Nyströmformer."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from conformance.material import wave
from conformance.tolerance import assert_close, relative_error
from unrolled.cells.base import Place
from unrolled.cells.encoders.nystrom import Nystrom, NystromConfig, iterated_inverse
from unrolled.core.errors import UsageError


def _made(in_width: int = 8, width: int = 8, scale: float = 3.0, **options: Any) -> Nystrom:
    torch.manual_seed(0)
    cell = Nystrom(in_width, width, NystromConfig(**options)).double()
    with torch.no_grad():
        for k, parameter in enumerate(cell.parameters()):
            parameter.mul_(scale).add_(0.1 * wave(*parameter.shape, phase=k))
    return cell


def _looped(cell: Nystrom, x: Tensor) -> Tensor:
    """The attention alone of one row (time, width), token by token."""
    c, n, time = cell.config, cell.width // cell.config.heads, len(x)
    parts = (x @ cell.weight.T + cell.bias).split(cell.width, -1)  # type: ignore[union-attr,operator]
    run = -(-time // c.landmarks)
    bounds = [(low, min(low + run, time)) for low in range(0, time, run)]
    rows = []
    for h in range(c.heads):
        q, k, v = (part[:, h * n : (h + 1) * n] for part in parts)
        means_q, means_k = (torch.stack([z[a:b].mean(0) for a, b in bounds]) for z in (q, k))
        f1, a, f3 = (
            (left @ right.T / n**0.5).softmax(-1) for left, right in ((q, means_k), (means_q, means_k), (means_q, k))
        )
        z = a.T / (a.sum(0).max() * a.sum(1).max())
        for _ in range(c.iterations):
            eye = torch.eye(len(a)).double()
            z = z @ (13 * eye - a @ z @ (15 * eye - a @ z @ (7 * eye - a @ z))) / 4
        y = f1 @ (torch.linalg.pinv(a) if c.pinv == "exact" else z) @ f3 @ v
        for t in range(time):
            for j in range(c.taps):
                if 0 <= t + j - c.taps // 2 < time:
                    y[t] = y[t] + cell.filter[h, j] * v[t + j - c.taps // 2]  # type: ignore[index]
        rows.append(y)
    return torch.cat(rows, -1) @ cell.out.T + cell.out_bias  # type: ignore[union-attr]


@pytest.mark.parametrize("options", [{"landmarks": 3, "taps": 5}, {"landmarks": 4, "taps": 65, "pinv": "exact"}])
@pytest.mark.parametrize("time", [1, 2, 7, 12])
def test_is_what_a_loop_over_tokens_gives(options: dict[str, Any], time: int) -> None:
    cell = _made(heads=2, block=False, positions="none", **options)
    x, reset = wave(2, 14, 8), torch.zeros(2, 14, dtype=torch.bool)
    reset[0, 0] = reset[1, 14 - time] = True
    y, _ = cell(x, None, reset)
    assert_close(y[0], _looped(cell, x[0]), "a full row")
    assert_close(y[1, 14 - time :], _looped(cell, x[1, 14 - time :]), "a row behind padding")


def test_with_every_token_a_landmark_it_is_softmax_attention() -> None:
    cell = _made(16, 16, heads=2, landmarks=64, pinv="exact", taps=0, block=False, positions="none")
    x = wave(2, 64, 16)
    q, k, v = (part.unflatten(-1, (2, 8)).transpose(1, 2) for part in (x @ cell.weight.T + cell.bias).chunk(3, -1))  # type: ignore[union-attr,operator]
    wanted = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
    wanted = wanted @ cell.out.T + cell.out_bias  # type: ignore[union-attr]
    assert float((cell(x)[0] - wanted).abs().max().detach()) < 1e-9


def test_iterations_come_to_the_inverse() -> None:
    a = (2.5 * wave(2, 3, 6, 6)).softmax(-1)
    wanted = torch.linalg.inv(a)
    errors = [float((iterated_inverse(a, count) - wanted).norm() / wanted.norm()) for count in (6, 12, 20, 30)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-9 < errors[0]


@pytest.mark.parametrize("heads", [1, 4])
def test_is_the_nystromformer_of_transformers(heads: int) -> None:
    """Its layer of 8 landmarks on 64 tokens. Its own scale of Z_0 is over the batch, so that it is given one row and
    one head, or is told to scale by head, for which its own setting fails."""
    modeling: Any = pytest.importorskip("transformers.models.nystromformer.modeling_nystromformer")
    config = modeling.NystromformerConfig(
        hidden_size=32, num_attention_heads=heads, intermediate_size=48, segment_means_seq_len=64, num_landmarks=8,
        conv_kernel_size=65, hidden_act="gelu", layer_norm_eps=1e-5, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    torch.manual_seed(1)
    theirs = modeling.NystromformerLayer(config).double().eval()
    inner = theirs.attention.self
    if heads > 1:
        inner.init_option = "exact"
    ours = Nystrom(32, 32, NystromConfig(heads=heads, landmarks=8, factor=1.5, positions="none")).double()
    with torch.no_grad():
        for k, parameter in enumerate(theirs.parameters()):
            parameter.add_(0.2 * wave(*parameter.shape, phase=k))
        kinds = (inner.query, inner.key, inner.value)
        taken = {
            "weight": torch.cat([kind.weight for kind in kinds]),
            "bias": torch.cat([kind.bias for kind in kinds]),
            "out": theirs.attention.output.dense.weight, "out_bias": theirs.attention.output.dense.bias,
            "up": theirs.intermediate.dense.weight, "up_bias": theirs.intermediate.dense.bias,
            "down": theirs.output.dense.weight, "down_bias": theirs.output.dense.bias,
            "gain": torch.stack([theirs.attention.output.LayerNorm.weight, theirs.output.LayerNorm.weight]),
            "gain_bias": torch.stack([theirs.attention.output.LayerNorm.bias, theirs.output.LayerNorm.bias]),
            "filter": inner.conv.weight[:, 0, :, 0],
        }  # fmt: skip
        ours.load_state_dict(taken)
        x = wave(2 if heads > 1 else 1, 64, 32)
        # its identity matrix is float32 throughout
        assert float((ours(x)[0] - theirs(x)[0]).abs().max()) < 1e-5


def test_rows_are_independent() -> None:
    cell = _made(heads=2, landmarks=3, taps=5, places=64)
    x = wave(3, 11, 8)
    other = torch.cat([x[:1], 9 * x[1:]])
    assert_close(cell(other)[0][:1], cell(x)[0][:1], "beside other rows")
    assert_close(cell(x)[0][:1], cell(x[:1])[0], "alone")


def test_positions_count_from_the_first_token_in_the_first_layer_alone() -> None:
    x = wave(1, 6, 8)
    found = {}
    for positions in ("learned", "sinusoid", "none"):
        cell = _made(heads=2, landmarks=2, taps=0, positions=positions, places=6)
        y = found[positions] = cell(x)[0]
        reset = torch.zeros(1, 9, dtype=torch.bool)
        reset[0, 3] = True
        behind = cell(torch.cat([wave(1, 3, 8), x], 1), None, reset)[0][:, 3:]
        assert_close(behind, y, positions)
        # without positions equal tokens are told apart by nothing
        same = cell(torch.cat([x[:, :1], x[:, :1]], 1))[0]
        assert torch.allclose(same[:, 0], same[:, 1]) == (positions == "none")
    assert not torch.allclose(found["learned"], found["sinusoid"])
    cell = _made(heads=2, landmarks=2, places=6)
    with pytest.raises(UsageError, match="a row of 7 steps goes on beyond the 6 learned positions"):
        cell(wave(1, 7, 8))
    before = cell.num_params(cell.config, 8, 8)
    cell.take_place(Place(1, 2, 1, 2))
    assert sum(p.numel() for p in cell.parameters()) == before - 6 * 8
    assert torch.allclose(*(cell(torch.cat([x[:, :1]] * 2, 1))[0][:, t] for t in (0, 1))) is False  # the convolution
    assert cell(wave(1, 7, 8))[0].isfinite().all()


def test_float32_is_near_float64() -> None:
    cell = _made(16, 16, scale=1.0, heads=2, landmarks=8, pinv="exact", positions="none")
    x = wave(2, 40, 16)
    wanted = cell(x)[0]
    # the inverse makes more of rounding than one product does, and how much depends on the processor
    assert relative_error(cell.float()(x.float())[0], wanted) < 1e-5


def test_even_filters_are_refused() -> None:
    with pytest.raises(UsageError, match="has no middle"):
        NystromConfig(taps=64)
