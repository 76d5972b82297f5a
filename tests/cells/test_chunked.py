"""Mega and SeqBoat against loops over tokens."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import layer_norm, relu, silu

from conformance.tolerance import assert_close
from unrolled.cells import CELLS

D = 8


def make(name: str, **options: Any) -> Any:
    torch.manual_seed(0)
    cell = CELLS[name](D, D, CELLS.parse({"name": name, "modes": 2, "shared": 4, **options})).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return cell


def averages(cell: Any, normed: Tensor) -> Tensor:
    """m of one row, (time, D), by the recurrence."""
    p = torch.sigmoid(cell.delta)
    q, s, rows = 1 - p * torch.sigmoid(cell.alpha), torch.zeros_like(p), []
    for x in normed:
        s = q * s + p * cell.beta * x.unsqueeze(-1)
        rows.append(silu((s * cell.gamma).sum(-1) / 2**0.5 + cell.omega * x))
    return torch.stack(rows)


def mega_loop(cell: Any, x: Tensor) -> Tensor:
    """One row, token by token."""
    config = cell.config
    normed = layer_norm(x, (D,), cell.gain, cell.gain_bias)
    m = averages(cell, normed)
    u, z, r, h = (m @ cell.weight.T + cell.bias).split((D, 4, 16, D), -1)
    q, k = (silu(z) * cell.scale[i] + cell.shift[i] for i in (0, 1))
    v = silu(normed @ cell.weight_v.T + cell.bias_v)
    rows = []
    for t in range(len(x)):
        begin = t - t % config.chunk
        scores = torch.stack([(q[t] * k[j]).sum() for j in range(begin, t + 1)])
        bias = torch.stack([cell._bias()[t - j] for j in range(begin, t + 1)])
        if config.attention == "softmax":
            w = torch.softmax(scores / 2 + bias, 0)
        elif config.attention == "relu2":
            w = relu(scores / len(scores) + bias) ** 2
        else:
            mean, deviation = torch.tensor([0.5, 1 / (4 * torch.pi)], dtype=torch.float64).sqrt()
            normal = torch.distributions.Normal(mean, deviation)
            w = normal.cdf(scores / len(scores) + bias)
        o = w @ v[begin : t + 1]
        new = silu(h[t] + (silu(r[t]) * o) @ cell.out.T + cell.out_bias)
        rows.append(x[t] + torch.sigmoid(u[t]) * (new - x[t]))
    y = torch.stack(rows)
    normed = layer_norm(y, (D,), *cell.mlp_gain)
    return y + silu(normed @ cell.up.T + cell.up_bias) @ cell.down.T + cell.down_bias


@pytest.mark.parametrize("attention", ["softmax", "relu2", "laplace"])
@pytest.mark.parametrize("bias", ["rotary", "simple"])
def test_mega_is_its_loop(attention: str, bias: str) -> None:
    cell = make("mega", chunk=5, attention=attention, bias=bias)
    x = torch.randn(2, 18, D, dtype=torch.float64)
    assert_close(cell(x)[0], torch.stack([mega_loop(cell, row) for row in x]), f"mega, {attention}, {bias}")


def test_a_rotary_bias_is_a_product_of_rotated_places() -> None:
    """Whose value is that of the distance alone, which is why one table serves."""
    cell = make("mega", chunk=6)
    (a, b), (c, d) = (part.chunk(2) for part in cell.distance)
    power = 10000.0 ** -(torch.arange(2, dtype=torch.float64) / 2)
    table = cell._bias()
    for i in range(6):
        for j in range(i + 1):
            one = torch.complex(a, b) * torch.exp(1j * i * power)
            two = torch.complex(c, d) * torch.exp(1j * j * power)
            assert_close((one * two.conj()).real.sum(), table[i - j], f"places {i} and {j}")


def test_only_the_average_passes_a_chunks_border() -> None:
    cell = make("mega", chunk=4)
    x = torch.randn(1, 8, D, dtype=torch.float64)
    with torch.no_grad():
        cell.gamma.zero_()
        moved = x.clone()
        moved[:, :4] += 1
        assert_close(cell(moved)[0][:, 4:], cell(x)[0][:, 4:], "without averages chunks are apart")


def seqboat_loop(cell: Any, x: Tensor) -> tuple[Tensor, list[bool]]:
    """One row, token by token, with a list of the active ones."""
    config, active, on, rows = cell.config, [], [], []
    m = averages(cell, layer_norm(x, (D,), cell.gain, cell.gain_bias))
    for t in range(len(x)):
        u, b = (m[t] @ cell.weight_b.T + cell.bias_b).split((2, D))
        p = torch.softmax(u / cell.temperature.exp(), 0)
        on.append(bool(p[1] > p[0]))
        if on[-1]:
            z, r, v = silu(m[t] @ cell.weight.T + cell.bias).split((4, 16, 16))
            q, k = (z * cell.scale[i] + cell.shift[i] for i in (0, 1))
            active.append((t, k, v))
            seen = active[-config.window - 1 :]
            if config.bias == "rotary":
                power = 10000.0 ** -(torch.arange(2, dtype=torch.float64) / 2)
                keys = [torch.complex(k[:2], k[2:]) * torch.exp(-1j * (t - s) * power) for s, k, _ in seen]
                scores = torch.stack([(torch.complex(q[:2], q[2:]).conj() * key).real.sum() for key in keys])
                bias = torch.zeros_like(scores)
            else:
                scores = torch.stack([(q * k).sum() for _, k, _ in seen])
                bias = torch.stack([cell.distance[min(t - s, config.distances - 1)] for s, _, _ in seen])
            if config.attention == "softmax":
                w = torch.softmax(scores / 2 + bias, 0)
            else:
                w = relu(scores / config.window + bias) ** 2
            o = w @ torch.stack([v for _, _, v in seen])
            b = b + p[1] * ((r * o) @ cell.out.T + cell.out_bias)
        rows.append(silu(b + x[t]))
    return torch.stack(rows), on


@pytest.mark.parametrize("attention", ["softmax", "relu2"])
@pytest.mark.parametrize("bias", ["rotary", "simple"])
def test_seqboat_is_its_loop(attention: str, bias: str) -> None:
    cell = make("seqboat", window=4, attention=attention, bias=bias, distances=6)
    x = torch.randn(3, 40, D, dtype=torch.float64)
    with torch.no_grad():  # half of the tokens are active
        m = torch.cat([averages(cell, layer_norm(row, (D,), cell.gain, cell.gain_bias)) for row in x])
        cell.bias_b[:2].zero_()
        cell.bias_b[1] = -(m @ (cell.weight_b[1] - cell.weight_b[0])).median()
    found = [seqboat_loop(cell, row) for row in x]
    density = sum(sum(on) for _, on in found) / 120
    assert 0.3 < density < 0.8
    assert len({sum(on) for _, on in found}) > 1, "rows have differing numbers of active tokens"
    whole, last = cell(x)
    assert_close(whole, torch.stack([y for y, _ in found]), f"seqboat, {attention}, {bias}")
    state, outputs = None, []
    for token in x.split(1, 1):
        y, state = cell(token, state)
        outputs.append(y)
    assert_close(torch.cat(outputs, 1), whole, "steps through ten windows")
    assert state is not None
    for part, other in zip(state, last, strict=True):
        assert_close(part, other, "the state after them")


def test_a_closed_router_leaves_the_average_alone_and_gets_no_gradient() -> None:
    cell = make("seqboat", window=4)
    with torch.no_grad():
        cell.weight_b[:2].zero_()
        cell.bias_b[:2].zero_()  # a tie is closed
    x = torch.randn(2, 12, D, dtype=torch.float64)
    y, state = cell(x)
    normed = layer_norm(x, (D,), cell.gain, cell.gain_bias)
    m = torch.stack([averages(cell, row) for row in normed])
    assert_close(y, silu(m @ cell.weight_b[2:].T + cell.bias_b[2:] + x), "the average alone")
    assert int(state.fill.sum()) == 0
    y.sum().backward()
    assert not cell.weight_b.grad[:2].any()


def test_the_routers_gradient_is_that_of_finite_differences() -> None:
    cell = make("seqboat", window=4)
    x = torch.randn(1, 10, D, dtype=torch.float64)
    (cell(x)[0] ** 2).sum().backward()
    step = 1e-6
    for place in ((0, 1), (1, 3)):
        with torch.no_grad():
            sides = []
            for sign in (1, -1):
                cell.weight_b[place] += sign * step
                sides.append((cell(x)[0] ** 2).sum())
                cell.weight_b[place] -= sign * step
        assert_close((sides[0] - sides[1]) / (2 * step), cell.weight_b.grad[place], "router", torch.float32)
