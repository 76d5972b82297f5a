"""A mixture of Gaussians, and bits beside it: the head of pen strokes and of raw signals."""

import math
from typing import Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import softplus

from unrolled.core.errors import UsageError
from unrolled.model.frames.base import FrameHead, FrameHeadConfig, Scale, uniform
from unrolled.model.frames.bernoulli import bit_nats

__all__ = ["Components", "MixtureConfig", "MixtureHead", "log_gaussian"]

_LOG_2PI = math.log(2 * math.pi)


class MixtureConfig(FrameHeadConfig):
    """Options of the mixture of Gaussians."""

    name: Literal["mixture"] = "mixture"
    components: int = Field(default=20, ge=1, le=1 << 12, description="Gaussians M")


class Components(NamedTuple):
    """log_pi: (..., M) before normalisation. mu, log_sigma: (..., M, D). r: (..., M), the correlation is tanh(r); None
    for D = 1. bits: (..., bits), logits."""

    log_pi: Tensor
    mu: Tensor
    log_sigma: Tensor
    r: Tensor | None
    bits: Tensor


def log_gaussian(x: Tensor, mu: Tensor, log_sigma: Tensor, r: Tensor | None) -> Tensor:
    """log N of each component (..., M), D = 1 or 2, exact also for correlations near 1 and -1.

    With a = abs(tanh r) and s its sign, Z / (1 - a^2) of the textbook's formula is written as (u1 - s u2)^2 / (1 - a^2)
    + 2 s u1 u2 / (1 + a), where nothing large is taken from something large; log(1 - a^2) comes from r itself.

    Args:
        x: (..., D). mu, log_sigma: (..., M, D). r: (..., M) for D = 2.
    """
    u = (x.unsqueeze(-2) - mu) * torch.exp(-log_sigma)
    scales = log_sigma.sum(-1)
    if r is None:
        return -0.5 * u.square().sum(-1) - scales - 0.5 * u.shape[-1] * _LOG_2PI
    sign = torch.where(r >= 0, 1.0, -1.0).to(r.dtype)
    steep = sign * r
    log_rest = 2 * (math.log(2) + steep - softplus(2 * steep))  # log(1 - tanh(r)^2)
    first, second = u.unbind(-1)
    apart, along = first - sign * second, sign * first * second
    form = apart.square() * torch.exp(-log_rest) + 2 * along / (1 + torch.tanh(steep))
    return -0.5 * form - scales - 0.5 * log_rest - _LOG_2PI


class MixtureHead(FrameHead):
    r"""Mixture density of one or two real numbers (Bishop 1994), with bits beside it (Graves 2013).

    .. math::
        p(x, e) &= \sum_m \pi_m \, \mathcal N(x; \mu_m, \sigma_m, \rho_m) \prod_k \sigma(\hat e_k)^{e_k}
        (1 - \sigma(\hat e_k))^{1 - e_k} \\
        \pi &= \operatorname{softmax}(\hat \pi), \quad \sigma = \exp \hat \sigma, \quad \rho = \tanh \hat \rho

    A bias b draws with sigma exp(-b) and pi of (1 + b) times its logits (Graves 2013, equations 61 and 62); bits are
    drawn as they are. Likelihoods are not bounded from below and small components not left out, as codes of this model
    do: far points keep their gradient.

    Raises:
        UsageError: frames without real numbers, or with more than two.
    """

    Config = MixtureConfig
    EXAMPLES = (
        (MixtureConfig(components=3), Scale((0.3, -1.0), (2.0, 0.5), 1)),
        (MixtureConfig(components=2), Scale((0.0,), (1.0,), 0)),
        (MixtureConfig(components=1), Scale((0.0, 0.0), (1.0, 1.0), 2)),
    )
    biased = True

    def __init__(self, in_width: int, scale: Scale, config: MixtureConfig):
        if scale.reals not in (1, 2):
            raise UsageError(
                f"the head mixture is for one or two real numbers a frame, and these have {scale.reals}; set "
                "task.head.name=bernoulli for bits, or divide the channels."
            )
        self._each = 1 + 2 * scale.reals + (scale.reals == 2)
        super().__init__(in_width, scale, config, config.components * self._each + scale.bits)

    def components(self, z: Tensor) -> Components:
        """The parts of the outputs (..., outputs)."""
        count, reals = self.config.components, self.scale.reals
        log_pi, mu, log_sigma, r, bits = z.split(
            [count, count * reals, count * reals, count * (reals == 2), self.scale.bits], -1
        )
        shape = (count, reals)
        return Components(
            log_pi, mu.unflatten(-1, shape), log_sigma.unflatten(-1, shape), r if reals == 2 else None, bits
        )

    def nats(self, z: Tensor, y: Tensor) -> Tensor:
        """See :class:`FrameHead`."""
        parts, reals = self.components(z), self.scale.reals
        each = log_gaussian(y[..., :reals], parts.mu, parts.log_sigma, parts.r)
        density = torch.logsumexp(torch.log_softmax(parts.log_pi, -1) + each, -1)
        return -density if not self.scale.bits else bit_nats(parts.bits, y[..., reals:]) - density

    def draw(self, z: Tensor, generator: torch.Generator, bias: float = 0.0) -> Tensor:
        """See :class:`FrameHead`."""
        parts = self.components(z)
        share = torch.softmax(parts.log_pi * (1 + bias), -1).cumsum(-1)
        place = uniform(share[..., :1], generator) * share[..., -1:]
        chosen = (place >= share).sum(-1, keepdim=True).clamp_max(share.shape[-1] - 1)

        def of(values: Tensor) -> Tensor:
            return values.gather(-2, chosen.unsqueeze(-1).expand(*chosen.shape, values.shape[-1])).squeeze(-2)

        mu, sigma = of(parts.mu), torch.exp(of(parts.log_sigma) - bias)
        normal = torch.randn(mu.shape, generator=generator, dtype=torch.float64).to(mu.device, mu.dtype)
        if parts.r is not None:
            rho = torch.tanh(parts.r.gather(-1, chosen))
            first, second = normal.split(1, -1)
            normal = torch.cat([first, rho * first + (1 - rho.square()).clamp_min(0).sqrt() * second], -1)
        bits = (uniform(parts.bits, generator) < torch.sigmoid(parts.bits)).to(z.dtype)
        return torch.cat([mu + sigma * normal, bits], -1)

    def centre(self, z: Tensor) -> Tensor:
        """See :class:`FrameHead`."""
        parts = self.components(z)
        mean = (torch.softmax(parts.log_pi, -1).unsqueeze(-1) * parts.mu).sum(-2)
        return torch.cat([mean, torch.sigmoid(parts.bits)], -1)
