"""Mixture of softmaxes."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unrolled.kernels.softmax_loss import softmax_loss
from unrolled.model.dropout import apply_mask
from unrolled.model.heads.matrix import MatrixConfig, MatrixHead

__all__ = ["MixtureConfig", "MixtureHead"]


class MixtureConfig(MatrixConfig):
    """Options of the mixture of softmaxes; ``project`` is the width of a latent."""

    name: Literal["mos"] = "mos"
    components: int = Field(default=15, ge=1, le=1024, description="number of softmaxes K")
    mix: Literal["probabilities", "latents"] = Field(
        default="probabilities",
        description="what is mixed: the softmaxes' probabilities, or the latents before one softmax (mixture of "
        "contexts, the paper's ablation, whose log-probabilities have low rank)",
    )
    floor: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="added to the mixed probability before its logarithm (1e-8 in the published code)",
    )


class MixtureHead(MatrixHead):
    r"""Mixture of softmaxes (Yang, Dai, Salakhutdinov and Cohen 2018).

    .. math::
        \pi &= \operatorname{softmax}(W_\pi g), \quad h_k = \tanh(W_k g + b_k) \\
        P(w) &= \sum_k \pi_k \operatorname{softmax}_w(W h_k + b)

    g is the dropped last output, W the output matrix that all components share. The latents are dropped by
    ``dropout.projected``. The published code mixes probabilities and takes log(P + 1e-8), which caps a loss at 18.4
    nats; here the mixture is exact, in logarithms, unless ``floor`` is set. With one component this is the softmax of
    tanh(W_1 g + b_1). Parameters beyond the output matrix and its bias: D K + (D + 1) K d for width D and latents of
    width d.

    Training memory does not grow with the window times V: gradients are made for some rows at a time.
    """

    Config = MixtureConfig
    EXAMPLES = (
        MixtureConfig(components=3),
        MixtureConfig(components=3, mix="latents", init="orthogonal"),
        MixtureConfig(components=2, floor=0.01, bias_init="unigram"),
        MixtureConfig(components=2, bias=False, project=4),
    )

    def __init__(self, in_width: int, vocab_size: int, config: MixtureConfig, tied: nn.Parameter | None = None):
        super().__init__(in_width, vocab_size, config, tied, fixed=config.project or in_width)
        self.size = self.weight.shape[1]
        width = config.components * self.size
        self.prior = nn.Parameter(torch.empty(config.components, in_width))
        self.latent = nn.Parameter(torch.empty(width, in_width))
        self.latent_bias = nn.Parameter(torch.empty(width))
        self.projected_width = width
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Prior and latents start as ``torch.nn.Linear``."""
        super().reset_parameters()
        for parameter in (self.prior, self.latent, self.latent_bias):
            nn.init.uniform_(parameter, -(self.in_width**-0.5), self.in_width**-0.5)

    def extra_flops(self) -> int:
        """See :meth:`Head.extra_flops`."""
        times = self.config.components - 1 if self.config.mix == "probabilities" else 0
        return 2 * times * self.weight.numel()

    def _mixture(self, h: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """log pi (..., K) and the latents (..., K, d)."""
        log_prior = torch.log_softmax(self.linear(h, self.prior), -1)
        latents = apply_mask(torch.tanh(self.linear(h, self.latent, self.latent_bias)), mask)
        latents = self.scaled(latents)
        return log_prior, latents.unflatten(-1, (self.config.components, self.size))

    def _mixed(self, log_prior: Tensor, latents: Tensor) -> Tensor:
        return (log_prior.exp().unsqueeze(-1) * latents).sum(-2)

    def _floored(self, log_prob: Tensor) -> Tensor:
        return log_prob if not self.config.floor else (log_prob.exp() + self.config.floor).log()

    def loss(
        self,
        h: Tensor,
        targets: Tensor,
        weight: Tensor | None = None,
        state: None = None,
        reset: Tensor | None = None,
        masks: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, None]:
        """See :meth:`Head.loss`."""
        log_prior, latents = self._mixture(h, masks)
        flat, each = targets.flatten(), None if weight is None else weight.flatten().to(h.dtype)
        options = self.loss_options
        if self.config.mix == "latents":
            h = self._mixed(log_prior, latents).flatten(0, 1)
        else:
            h = latents.flatten(0, 1)
            options |= {"log_prior": log_prior.flatten(0, 1), "floor": self.config.floor}
        total, nll = softmax_loss(h, self.weight, self.scaled_bias, flat, each, **options)
        return total, nll.view_as(targets), None

    def log_prob(self, h: Tensor, state: None = None, masks: Tensor | None = None) -> tuple[Tensor, None]:
        """See :meth:`Head.log_prob`."""
        log_prior, latents = self._mixture(h, masks)
        if self.config.mix == "latents":
            return self.softmax(self._mixed(log_prior, latents)), None
        # one component at a time: K times the memory of a softmax is not needed
        mixed = None
        for k in range(self.config.components):
            part = log_prior[..., k : k + 1] + self.softmax(latents[..., k, :])
            mixed = part if mixed is None else torch.logaddexp(mixed, part)
        assert mixed is not None
        return self._floored(mixed), None
