"""The QRNN against a step loop of the published equations, and what it refuses."""

from typing import Any

import pytest
import torch
from torch import Tensor

from unrolled.cells import Noise
from unrolled.cells.scan.qrnn import QRNN, QRNNConfig
from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.model import LanguageModel, ModelConfig, count_params

B, T, IN, N = 3, 6, 5, 4


def make(**config: Any) -> QRNN:
    torch.manual_seed(5)
    return QRNN(IN, N, QRNNConfig.model_validate(config)).double()


def loop(cell: QRNN, x: Tensor, c: Tensor | None, last: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The published layer, step by step: without a state the first c is f z; zoneout multiplies f by ``keep``."""
    pooling, outputs = cell.config.pooling, []
    for t in range(x.shape[1]):
        u = x[:, t] if cell.config.window == 1 else torch.cat([x[:, t], last], 1)
        z, f, *rest = (u @ cell.weight.t() + cell.bias).split(N, 1)
        z, f = torch.tanh(z), torch.sigmoid(f)
        f = f if keep is None else f * (keep[:, t] if keep.dim() == 3 else keep)
        write = torch.sigmoid(rest[1]) * z if pooling == "ifo" else f * z
        c = write if c is None else write + (1 - f) * c
        outputs.append(c if pooling == "f" else torch.sigmoid(rest[0]) * c)
        last = x[:, t]
    assert c is not None
    return torch.stack(outputs, 1), c


@pytest.mark.parametrize("window", [1, 2])
@pytest.mark.parametrize("pooling", ["f", "fo", "ifo"])
@pytest.mark.parametrize("carried", [False, True])
def test_equals_the_published_loop(window: int, pooling: str, carried: bool) -> None:
    cell = make(window=window, pooling=pooling)
    x = torch.randn(B, T, IN, dtype=torch.float64, requires_grad=True)
    state, c, last = None, None, torch.zeros(B, IN, dtype=torch.float64)
    if carried:
        _, state = cell(torch.randn(B, 2, IN, dtype=torch.float64))
        c = state.c
        last = state.x if window == 2 else last
    y, final = cell(x, state)
    wanted, end = loop(cell, x, c, last)
    torch.testing.assert_close(y, wanted, rtol=0, atol=1e-12)
    torch.testing.assert_close(final.c, end, rtol=0, atol=1e-12)
    weights = [x, cell.weight, cell.bias]
    for a, b in zip(
        torch.autograd.grad(y.square().sum(), weights, retain_graph=True),
        torch.autograd.grad(wanted.square().sum(), weights),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


@pytest.mark.parametrize("pooling", ["f", "fo"])
def test_zoneout_is_the_published_mask_on_f(pooling: str) -> None:
    """f times Bernoulli(1 - p), unscaled, in training; f times (1 - p) at evaluation."""
    cell = make(pooling=pooling)
    x, zeros = torch.randn(B, T, IN, dtype=torch.float64), torch.zeros(B, IN, dtype=torch.float64)
    old = (torch.rand(B, T, N, dtype=torch.float64) < 0.4).double()
    c0 = torch.zeros(B, N, dtype=torch.float64)
    torch.testing.assert_close(cell(x, noise=Noise(zoneout={"c": old}))[0], loop(cell, x, c0, zeros, 1 - old)[0])
    rate = torch.full((B, 1, 1), 0.4, dtype=torch.float64)
    torch.testing.assert_close(
        cell(x, noise=Noise(zoneout={"c": rate}))[0], loop(cell, x, c0, zeros, 1 - rate[:, 0])[0]
    )


def test_noise_that_it_cannot_take_is_refused() -> None:
    cell, mask = make(), torch.ones(B, 1, N, dtype=torch.float64)
    x = torch.randn(B, T, IN, dtype=torch.float64)
    for noise in (Noise(state_in=mask), Noise(state_out=mask), Noise(zoneout={"x": mask})):
        with pytest.raises(UsageError, match="zoneout of c and no other noise"):
            cell(x, noise=noise)
    for dropout, says in (
        ({"state": 0.1}, "no h in its state"),
        ({"zoneout": {"x": 0.1}}, "no 'x' for zoneout, only c"),
    ):
        config = ModelConfig.parse({"cell": {"name": "qrnn", "window": 2}, "dropout": dropout})
        with pytest.raises(UsageError, match=says):
            LanguageModel(config, 9)


def test_no_mogrifier_around_it() -> None:
    with pytest.raises(UsageError, match="qrnn"):
        ModelConfig.parse({"cell": {"name": "mogrifier", "cell": {"name": "qrnn"}}})


@pytest.mark.parametrize(("vocabulary", "parameters"), [(10_000, 24_020_150), (33_278, 33_354_628)])
def test_the_published_models_have_their_size(vocabulary: int, parameters: int) -> None:
    """The four-layer language models of Merity et al. 2018: 24.02 M (Penn Treebank) and 33.35 M (WikiText-2)."""
    cells = [{"name": "qrnn", "window": 2}, *[{"name": "qrnn"}] * 3]
    values = {"layers": 4, "widths": [1550, 1550, 1550, 400], "cell": cells, "embedding": {"size": 400, "tied": True}}
    assert count_params(ModelConfig.parse(values), vocabulary) == parameters


def test_a_model_of_it_trains_with_weight_drop_and_zoneout_and_is_traced() -> None:
    values = {"layers": 2, "width": 6, "cell": {"name": "qrnn", "window": 2}}
    model = LanguageModel(ModelConfig.parse({**values, "dropout": {"weight": 0.3, "zoneout": {"c": 0.2}}}), 9).double()
    tokens = torch.randint(9, (B, T))
    masks = model.draw_masks(B, T, RandomStreams(1), 0)
    total, nll, _ = model.loss(tokens, tokens, masks=masks)
    total.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert (nll - model.loss(tokens, tokens)[1]).abs().max() > 1e-6
    steps = list(model.trace(tokens))
    assert len(steps) == T
    assert {f"{i}.{name}" for i in (0, 1) for name in "gfchox"} <= set(steps[0])
    raw = model(tokens).raw
    for t in range(T):
        torch.testing.assert_close(steps[t]["1.h"], raw[:, t])
