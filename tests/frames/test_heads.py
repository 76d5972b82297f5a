"""Heads of frames against torch's distributions, arithmetic of many digits, and their own draws."""

import math
from typing import Any

import mpmath
import pytest
import torch
from torch import Tensor
from torch.distributions import Bernoulli, Categorical, MixtureSameFamily, MultivariateNormal, Normal

from conformance.material import wave
from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.core.registry import PartError
from unrolled.model.frames import FRAME_HEADS, Scale
from unrolled.model.frames.mixture import Components, MixtureConfig, MixtureHead, log_gaussian

IN, BATCH, TIME = 6, 3, 5
CASES = [(name, *example) for name in FRAME_HEADS for example in FRAME_HEADS[name].EXAMPLES]
each = pytest.mark.parametrize(("name", "config", "scale"), CASES, ids=str)


def make(name: str, config: Any, scale: Scale) -> Any:
    torch.manual_seed(4)
    cls: Any = FRAME_HEADS[name]
    head = cls(IN, scale, config).double()
    with torch.no_grad():
        head.bias.add_(0.3 * wave(len(head.bias)))
    return head


def material(scale: Scale) -> tuple[Tensor, Tensor, Tensor]:
    """h, frames, weights."""
    frames = wave(BATCH, TIME, scale.channels, phase=1.0) * 2
    frames[..., scale.reals :] = (frames[..., scale.reals :] > 0).double()
    return wave(BATCH, TIME, IN).mul(1.5).requires_grad_(), frames, wave(BATCH, TIME, phase=2.0).abs() + 0.1


def plain(head: Any, h: Tensor, frames: Tensor) -> Tensor:
    """The nats by torch's distributions."""
    z, scale = h @ head.weight.T + head.bias, head.scale
    x = scale.scaled(frames)
    nats = h.new_zeros(h.shape[:-1]) + head.log_scale
    bits = z[..., z.shape[-1] - scale.bits :]
    nats = nats - Bernoulli(logits=bits).log_prob(x[..., scale.reals :]).sum(-1)
    if not scale.reals:
        return nats
    if head.config.name == "values":
        return nats - Normal(z, 1.0).log_prob(x).sum(-1)
    count, d = head.config.components, scale.reals
    pi, mu, log_sigma = z[..., :count], z[..., count : count * (1 + d)], z[..., count * (1 + d) : count * (1 + 2 * d)]
    mu, sigma = mu.unflatten(-1, (count, d)), log_sigma.unflatten(-1, (count, d)).exp()
    if d == 1:
        one: Any = Normal(mu.squeeze(-1), sigma.squeeze(-1))
        return nats - MixtureSameFamily(Categorical(logits=pi), one).log_prob(x[..., 0])
    rho = z[..., count * 5 : count * 6].tanh()
    across = rho * sigma.prod(-1)
    first = torch.stack([sigma[..., 0] ** 2, across], -1)
    covariance = torch.stack([first, torch.stack([across, sigma[..., 1] ** 2], -1)], -2)
    one = MultivariateNormal(mu, covariance)
    return nats - MixtureSameFamily(Categorical(logits=pi), one).log_prob(x[..., :2])


@each
def test_the_loss_is_that_of_distributions(name: str, config: Any, scale: Scale) -> None:
    head, (h, frames, weight) = make(name, config, scale), material(scale)
    wanted = plain(head, h, frames)
    total, nll, _ = head.loss(h, frames, weight)
    torch.testing.assert_close(nll, wanted.detach(), rtol=0, atol=1e-12)
    torch.testing.assert_close(total, (wanted * weight).sum(), rtol=0, atol=1e-11)
    parameters = [h, head.weight, head.bias]
    grads = torch.autograd.grad(total, parameters)
    for a, b in zip(grads, torch.autograd.grad((wanted * weight).sum(), parameters), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)
    torch.testing.assert_close(head.loss(h, frames)[0], wanted.sum(), rtol=0, atol=1e-11)


@each
def test_rows_of_weight_zero_change_nothing(name: str, config: Any, scale: Scale) -> None:
    head, (h, frames, weight) = make(name, config, scale), material(scale)
    weight[1], other = 0, frames.clone()
    other[1] = 1 - other[1]
    total, again = head.loss(h, frames, weight)[0], head.loss(h, other, weight)[0]
    assert torch.equal(total, again)
    rest = [0, 2]
    torch.testing.assert_close(head.loss(h[rest], frames[rest], weight[rest])[0], total, rtol=1e-14, atol=0)
    (grad,) = torch.autograd.grad(total, [h])
    assert not grad[1].any()
    assert grad[0].any()


@each
def test_options_come_back(name: str, config: Any, scale: Scale) -> None:
    assert FRAME_HEADS.parse(config.model_dump(mode="json")) == config
    assert FRAME_HEADS.parse(name).name == name
    with pytest.raises(PartError):
        FRAME_HEADS.parse({"name": name, "nosuch": 1})


def test_a_frame_is_the_sum_of_its_notes() -> None:
    """88 keys at p = 1/2 have 88 log 2 nats."""
    head = make("bernoulli", FRAME_HEADS.parse("bernoulli"), Scale((), (), 88))
    h, frames, _ = material(Scale((), (), 88))
    p = torch.sigmoid(h @ head.weight.T + head.bias)
    sums = -(frames * p.log() + (1 - frames) * (1 - p).log()).sum(-1)
    torch.testing.assert_close(head.loss(h, frames)[1], sums.detach(), rtol=0, atol=1e-12)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.zero_()
    assert head.loss(h, frames)[1].numpy() == pytest.approx(88 * math.log(2), abs=1e-12)
    assert head.uniform_nats() == pytest.approx(88 * math.log(2), abs=1e-12)


@pytest.mark.parametrize("rho", [0.0, 0.5, -0.5, 0.9999, -0.9999])
def test_correlations_up_to_one(rho: float) -> None:
    x, mu, log_sigma = wave(7, 2), wave(7, 1, 2, phase=1.0), 0.5 * wave(7, 1, 2, phase=2.0)
    found = log_gaussian(x, mu, log_sigma, torch.full((7, 1), math.atanh(rho), dtype=torch.float64)).squeeze(1)
    sigma = log_sigma.squeeze(1).exp()
    across = rho * sigma.prod(-1)
    rows = torch.stack([sigma[:, 0] ** 2, across], -1), torch.stack([across, sigma[:, 1] ** 2], -1)
    wanted = MultivariateNormal(mu.squeeze(1), torch.stack(rows, -2)).log_prob(x)
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("r", [6.0, -12.0, 20.0])
def test_correlations_nearer_to_one_than_numbers_hold(r: float) -> None:
    """tanh(20) is 1 in float64; the density and its gradient come from r itself."""
    mpmath.mp.dps = 60
    sign = math.copysign(1, r)
    values = (0.7, sign * 0.69, 0.1, sign * 0.2, -0.3, -0.35)
    x1, x2, m1, m2, s1, s2 = map(mpmath.mpf, values)
    rho = mpmath.tanh(mpmath.mpf(r))
    u1, u2 = (x1 - m1) / mpmath.exp(s1), (x2 - m2) / mpmath.exp(s2)
    form = (u1**2 + u2**2 - 2 * rho * u1 * u2) / (2 * (1 - rho**2))
    wanted = -form - mpmath.log(2 * mpmath.pi) - s1 - s2 - mpmath.log(1 - rho**2) / 2
    x, mu, log_sigma = torch.tensor(values, dtype=torch.float64).view(3, 2)
    place, mu = torch.tensor([r], dtype=torch.float64, requires_grad=True), mu.unsqueeze(0).requires_grad_()
    found = log_gaussian(x, mu, log_sigma.unsqueeze(0), place)
    assert found.item() == pytest.approx(float(wanted), rel=1e-10)
    assert all(bool(torch.isfinite(one).all()) for one in torch.autograd.grad(found.sum(), [mu, place]))


def test_a_far_point_keeps_its_gradient() -> None:
    head = make("mixture", MixtureConfig(components=3), Scale((0.0, 0.0), (1.0, 1.0), 1))
    h, frames, _ = material(head.scale)
    frames[0, 0, :2] = 1e4
    total, nll, _ = head.loss(h, frames)
    assert nll[0, 0] > 1e4
    assert float(torch.autograd.grad(total, [h])[0][0, 0].abs().max()) > 1


SHIFT, SIZE = torch.tensor([0.5, -1.0], dtype=torch.float64), torch.tensor([2.0, 0.5], dtype=torch.float64)


def pen(count: int) -> tuple[MixtureHead, Tensor, Components]:
    """A head with a pen's frames, one h repeated, and the parts of its outputs."""
    head = make("mixture", MixtureConfig(components=3), Scale((0.5, -1.0), (2.0, 0.5), 1))
    with torch.no_grad():
        head.bias[1] += 1
    h = wave(1, IN).expand(count, IN)
    return head, h, head.components(head.outputs(h[:1]).detach())


def test_a_large_bias_gives_the_mean_of_the_heaviest() -> None:
    head, h, parts = pen(4000)
    heavy = parts.mu[0, int(parts.log_pi.argmax())] * SIZE + SHIFT
    biased = head.sample(h, RandomStreams(1).generator("x"), 50.0)
    torch.testing.assert_close(biased[:, :2], heavy.expand(4000, 2), rtol=0, atol=1e-6)
    free = head.sample(h, RandomStreams(1).generator("x"), 0.0)
    assert float((free[:, :2] - heavy).abs().max()) > 1
    rate = float(torch.sigmoid(parts.bits))
    for drawn in (biased, free):  # the pen is lifted as often
        assert abs(float(drawn[:, 2].mean()) - rate) < 4 * math.sqrt(rate * (1 - rate) / 4000)


def test_draws_have_the_moments_of_the_density() -> None:
    count = 40_000
    head, h, parts = pen(count)
    drawn = head.sample(h, RandomStreams(2).generator("x"))
    torch.testing.assert_close(drawn.mean(0), head.mean(h[:1])[0], rtol=0, atol=0.05)
    share, sigma, rho = parts.log_pi.softmax(-1)[0], parts.log_sigma[0].exp(), torch.tanh(parts.r[0])  # type: ignore[index]
    mean = (share.unsqueeze(1) * parts.mu[0]).sum(0)
    away = parts.mu[0] - mean
    across = (share * (rho * sigma.prod(-1) + away.prod(-1))).sum()
    variance = (share.unsqueeze(1) * (sigma.square() + away.square())).sum(0)
    scaled = (drawn[:, :2] - SHIFT) / SIZE
    found = torch.cov(scaled.T)
    assert found[0, 1].item() == pytest.approx(across.item(), abs=0.05)
    assert found.diag().tolist() == pytest.approx(variance.tolist(), rel=0.05)
    assert not torch.equal(drawn, head.sample(h, RandomStreams(3).generator("x")))
    assert torch.equal(drawn, head.sample(h, RandomStreams(2).generator("x")))


def test_nats_are_in_the_frames_own_units() -> None:
    """The density integrates to one over the numbers as they are."""
    head = make("mixture", MixtureConfig(components=2), Scale((3.0,), (0.2,), 0))
    grid = torch.linspace(-30, 30, 60_001, dtype=torch.float64)
    h = wave(1, 1, IN).expand(1, len(grid), IN)
    density = (-head.loss(h, grid.view(1, -1, 1))[1]).exp()
    assert float(torch.trapezoid(density[0], grid)) == pytest.approx(1, abs=1e-8)
    gaussian = 0.5 * math.log(2 * math.pi) + 0.5
    assert head.uniform_nats() == pytest.approx(gaussian + math.log(0.2))


def test_what_heads_refuse() -> None:
    with pytest.raises(UsageError, match=r"2 of these channels are real numbers; set task\.head\.name=mixture"):
        make("bernoulli", FRAME_HEADS.parse("bernoulli"), Scale((0.0, 0.0), (1.0, 1.0), 1))
    for reals in (0, 3):
        with pytest.raises(UsageError, match=f"one or two real numbers a frame, and these have {reals}"):
            make("mixture", MixtureConfig(), Scale((0.0,) * reals, (1.0,) * reals, 1))
    head = make("bernoulli", FRAME_HEADS.parse("bernoulli"), Scale((), (), 4))
    with pytest.raises(UsageError, match="the head bernoulli has no bias"):
        head.sample(torch.zeros(1, IN).double(), RandomStreams(1).generator("x"), 1.0)
    for bias in (-1.0, math.nan, math.inf):
        with pytest.raises(UsageError, match="a bias is 0 or above"):
            head.sample(torch.zeros(1, IN).double(), RandomStreams(1).generator("x"), bias)
