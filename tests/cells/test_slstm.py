"""The sLSTM against its equations without a stabiliser, at its start, far out, and in a stack."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import silu

from unrolled.cells.base import Noise
from unrolled.cells.gated.slstm import SLSTM, PlainState, SLSTMConfig
from unrolled.core.errors import UsageError
from unrolled.kernels.dispatch import Compute
from unrolled.model import LanguageModel, ModelConfig

B, T, N, HEADS = 2, 7, 6, 2


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(**options: Any) -> SLSTM:
    cell = SLSTM(N, N, SLSTMConfig(heads=HEADS, **options)).double()
    with torch.no_grad():
        for k, parameter in enumerate(cell.parameters()):
            parameter.copy_(0.7 * draw(*parameter.shape, seed=k))
    return cell


def blocks(weight: Tensor, gate: int) -> Tensor:
    """The block-diagonal matrix of one gate, written out."""
    size = N // HEADS
    return torch.block_diag(*(head[gate * size : (gate + 1) * size] for head in weight.detach()))


def by_hand(cell: SLSTM, x: Tensor) -> Tensor:
    """Exponential gates as they are, one step after another; inputs before the first are zeros."""
    weight_hh, bias = cell.loop.weight_hh.detach(), cell.loop.bias.detach().view(HEADS, 4, -1)
    y = c = n = torch.zeros(B, N, dtype=torch.float64)
    outputs = []
    for t in range(x.shape[1]):
        seen = x[:, t]
        if cell.conv is not None:
            weight, total = cell.conv.weight.detach(), cell.conv.bias
            assert total is not None
            seen = total.detach() + sum(
                weight[:, -1 - lag] * x[:, t - lag] for lag in range(min(t + 1, cell.config.kernel))
            )
            seen = silu(seen)
        sources = [(seen, cell.weight_if, 0), (seen, cell.weight_if, 1), (x[:, t], cell.weight_zo, 0)]
        i, f, z, o = (
            source @ blocks(matrix, place).T + y @ blocks(weight_hh, gate).T + bias[:, gate].flatten()
            for gate, (source, matrix, place) in enumerate([*sources, (x[:, t], cell.weight_zo, 1)])
        )
        c = torch.sigmoid(f) * c + torch.exp(i) * torch.tanh(z)
        n = torch.sigmoid(f) * n + torch.exp(i)
        y = torch.sigmoid(o) * c / n
        heads = y.view(B, HEADS, -1)
        spread = heads.var(-1, unbiased=False, keepdim=True)
        normed = (heads - heads.mean(-1, keepdim=True)) / (spread + 1e-5).sqrt()
        outputs.append(normed.flatten(1) * cell.norm.detach())
    return torch.stack(outputs, 1)


@pytest.mark.parametrize("kernel", [0, 2, 4])
def test_it_is_the_equations(kernel: int) -> None:
    cell, x = make(kernel=kernel), draw(B, T, N, seed=20)
    torch.testing.assert_close(cell(x)[0].detach(), by_hand(cell, x), rtol=0, atol=1e-10)


def test_the_stabiliser_cancels() -> None:
    """States that differ in m, with c and n scaled along, are one state."""
    cell, x = make(kernel=0), draw(B, T, N, seed=20)
    y, c, n, shift = draw(B, N, seed=1), draw(B, N, seed=2), 1 + draw(B, N, seed=3).exp(), draw(B, N, seed=4).abs()
    first, _ = cell(x, PlainState(y, c, n, torch.zeros_like(n)))
    second, _ = cell(x, PlainState(y, c * torch.exp(shift), n * torch.exp(shift), -shift))
    torch.testing.assert_close(first, second, rtol=0, atol=1e-10)


@pytest.mark.parametrize("size", [40.0, 200.0, -200.0])
def test_far_out_it_stays_finite(size: float) -> None:
    cell = make().float()
    with torch.no_grad():
        cell.loop.bias.view(HEADS, 4, -1)[:, 0] = size
    x = (30 * draw(B, T, N, seed=20)).float().requires_grad_()
    y, state = cell(x)
    grads = torch.autograd.grad(y.sum(), [x, *cell.parameters()])
    assert all(bool(part.isfinite().all()) for part in (y, *state, *grads))


def test_biases_start_by_depth_and_the_rest_as_published() -> None:
    torch.manual_seed(0)
    config = {"width": 64, "layers": 3, "stack": {"kind": "residual"}, "cell": {"name": "slstm"}}
    model = LanguageModel(ModelConfig.parse(config), 7)
    for layer, cell in enumerate(model.stack.cells()):
        assert isinstance(cell, SLSTM)
        bias = cell.loop.bias.detach().view(4, 4, 16)
        wanted = 5 - 12 * (torch.arange(16) / 15) ** (0.3 + 1.3 * layer / 2)
        assert torch.allclose(bias[:, 1], wanted.expand(4, 16), atol=1e-6)
        assert not bias[:, [0, 2, 3]].any()
        assert not cell.loop.weight_hh.any()
        assert float(cell.weight_if.detach().std()) == pytest.approx((2 / 320) ** 0.5, rel=0.1)


def test_backends_agree_from_a_state_in_the_middle() -> None:
    """The suite starts where c and n have no weight yet."""
    cell, x = make(), draw(B, T, N, seed=20)
    _, middle = cell(draw(B, 4, N, seed=21))
    found = {}
    for backend in cell.backends():
        cell.compute = Compute(backend=backend)
        start = [part.detach().requires_grad_() for part in middle]
        y, state = cell(x, type(middle)(*start))
        loss = (y * draw(*y.shape, seed=5)).sum() + (state.c * draw(B, N, seed=6)).sum()
        grads = torch.autograd.grad(loss, [*start, *cell.parameters()])
        assert all(bool(grad.any()) for grad in grads)
        found[backend] = [y, *state, *grads]
    assert {"generic", "reference"} <= set(found)
    for parts in found.values():
        for part, value in zip(parts, found["reference"], strict=True):
            torch.testing.assert_close(part, value, rtol=1e-10, atol=1e-10)


def test_zoneout_keeps_y() -> None:
    cell, x = make(), draw(B, T, N, seed=20)
    start = cell.initial_state(B, dtype=torch.float64)._replace(y=draw(B, N, seed=1))
    mask = (draw(B, T, N, seed=2) > 0).double()
    _, state = cell(x, start, noise=Noise(zoneout={"y": mask}))
    carried = start
    for t in range(T):
        _, new = cell(x[:, t : t + 1], carried)
        carried = new._replace(y=mask[:, t] * carried.y + (1 - mask[:, t]) * new.y)
    torch.testing.assert_close(state.y, carried.y, rtol=0, atol=1e-12)
    torch.testing.assert_close(state.c, carried.c, rtol=0, atol=1e-12)


def test_a_convolution_of_one_is_refused() -> None:
    with pytest.raises(UsageError, match="take kernel 0 for none"):
        SLSTMConfig(kernel=1)
