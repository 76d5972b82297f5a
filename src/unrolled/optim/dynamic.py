"""Update rules of dynamic evaluation: small steps on each segment just read, drawn back to the trained weights."""

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unrolled.core.config import Config
from unrolled.core.errors import UsageError
from unrolled.core.registry import unknown_name
from unrolled.optim.gates import Gates, fisher

__all__ = ["DYNAMIC_PRESETS", "DynamicConfig", "DynamicRule", "dynamic_preset"]


class DynamicConfig(Config):
    r"""Dynamic evaluation (Krause, Kahembwe, Murray and Renals 2018, arXiv 1709.07432).

    With g the gradient of the segment's loss, :math:`\theta_0` the trained weights, S the statistics of gradients on
    the training text (per weight, the root of the mean or sum of squares over batches) and N(S) what they are divided
    by:

    .. math::
        \text{sgd:} &\quad \theta \leftarrow \theta - \eta g \\
        \text{sgd\_decay:} &\quad \theta \leftarrow \theta - \eta g + \lambda (\theta_0 - \theta) \\
        \text{rms:} &\quad \theta \leftarrow \theta - \eta \frac{g}{S + \epsilon}
            + \min\bigl(1, \lambda S / N(S)\bigr) (\theta_0 - \theta) \\
        \text{gated:} &\quad \theta \leftarrow \theta - \eta a_t g + \min(1, \lambda b_t F) (\theta_0 - \theta)

    where the gates :math:`a_t, b_t` of each parameter tensor are said by a small network that was learned (after
    Wolf, Chaumond and Delangue 2018, arXiv 1805.05758), and F is the square of S divided by its mean: the pull is the
    gradient of the elastic penalty :math:`\tfrac12 \sum F (\theta - \theta_0)^2`.
    """

    rule: Literal["sgd", "sgd_decay", "rms", "gated"] = Field(
        default="rms", description="update rule; rms and gated need statistics, and gated has gates that are learned"
    )
    segment: int = Field(default=5, ge=1, description="tokens between updates; gradients do not reach further back")
    lr: float = Field(default=5e-5, ge=0, le=1e6, description="learning rate (eta)")
    decay: float = Field(
        default=2e-3, ge=0, le=1e6, description="pull back to the trained weights (lambda); unused by sgd"
    )
    epsilon: float = Field(
        default=2e-5, ge=1e-30, le=1e6, description="added to the statistics in the denominator of rms"
    )
    loss: Literal["mean", "sum"] = Field(
        default="mean", description="over the tokens of a segment; over parallel columns always the mean"
    )
    statistic: Literal["mean", "sum"] = Field(
        default="mean", description="of squared gradients over the batches of the training text, before the root"
    )
    normalize: Literal["tensors", "scalars", "tensor_sum"] = Field(
        default="tensors",
        description="what divides the statistics in the pull of rms: the mean over parameter tensors of each one's "
        "mean, the mean over all weights, or the sum over tensors of each one's mean",
    )
    hidden: int = Field(default=8, ge=1, description="gated: units of the gates' network")
    through: int = Field(default=4, ge=2, description="gated: segments that the gates are learned through at a time")
    updates: int = Field(default=200, ge=1, description="gated: steps in which the gates are learned")
    gate_lr: float = Field(default=0.02, gt=0, le=1e6, description="gated: learning rate of the gates (Adam)")
    columns: int = Field(default=100, ge=1, description="columns of the training text in a batch of the statistics")
    batches: int | None = Field(default=None, ge=1, description="at most so many batches for the statistics")
    parameters: tuple[str, ...] = Field(
        default=("*",), min_length=1, description="names of the parameters that adapt, with * and ? as in file names"
    )


DYNAMIC_PRESETS: dict[str, DynamicConfig] = {
    # benkrause/dynamic-evaluation, its defaults
    "krause": DynamicConfig(),
    # the same rule in the parameters of the paper and of the code for the mixture of softmaxes: statistics are sums,
    # so that eta and epsilon are sqrt(batches) and lambda the number of tensors times as large
    "mos": DynamicConfig(lr=2e-3, decay=2e-2, epsilon=1e-3, statistic="sum", normalize="tensor_sum"),
    # deepmind/lamb: one mean over all weights, the loss summed over the window
    "lamb": DynamicConfig(
        lr=1e-3, decay=2e-2, epsilon=1e-5, loss="sum", normalize="scalars", columns=1024, batches=500
    ),
    # starting points of ours for the rules without statistics; the literature gives no common value
    "sgd": DynamicConfig(rule="sgd", lr=0.1, decay=0.0),
    "sgd_decay": DynamicConfig(rule="sgd_decay", lr=0.1, decay=1e-3),
    # the most that the gates let through
    "gated": DynamicConfig(rule="gated", lr=1.0, decay=0.1),
}
"""Named settings: the three published flavours of ``rms`` with their code's defaults, and the plain rules."""


def dynamic_preset(name: str) -> DynamicConfig:
    """The settings of a flavour. Raises UsageError for an unknown name."""
    if name not in DYNAMIC_PRESETS:
        raise unknown_name("dynamic evaluation preset", name, DYNAMIC_PRESETS)
    return DYNAMIC_PRESETS[name]


class DynamicRule:
    """One update after another on given parameters, in place; :meth:`restore` puts the first values back.

    Args:
        config: the rule. parameters: name -> parameter that adapts.
        statistics: name -> S of its shape; needed by ``rms`` and ``gated``. gates: needed by ``gated``.
    """

    def __init__(
        self,
        config: DynamicConfig,
        parameters: Mapping[str, nn.Parameter],
        statistics: Mapping[str, Tensor] | None = None,
        gates: Gates | None = None,
    ):
        self._config, self.parameters = config, dict(parameters)
        self._trained = {name: p.detach().clone() for name, p in self.parameters.items()}
        self._step: dict[str, Tensor] = {}
        self._pull: dict[str, Tensor] = {}
        if config.rule not in ("rms", "gated"):
            return
        if statistics is None or any(name not in statistics for name in self.parameters):
            raise UsageError(
                f"the rule {config.rule} needs gradient statistics of every parameter that adapts; collect them."
            )
        kept = {name: statistics[name].to(p) for name, p in self.parameters.items()}
        if config.rule == "gated":
            if gates is None or gates.names != tuple(self.parameters):
                raise UsageError("the rule gated needs gates of the parameters that adapt; learn them.")
            self._gates, self._fisher = gates, fisher(kept)
            return
        norm = _norm(config.normalize, kept)
        self._step = {name: config.lr / (value + config.epsilon) for name, value in kept.items()}
        self._pull = {name: (config.decay * value / norm).clamp_(max=1.0) for name, value in kept.items()}

    @torch.no_grad()
    def update(self, gradients: Mapping[str, Tensor | None], loss: float = 0.0) -> None:
        """One step.

        Args:
            gradients: name -> gradient; None (the loss does not reach it) counts as zero.
            loss: nats per token of the segment, for the gates.
        """
        rule, decay = self._config.rule, self._config.decay
        if rule == "gated":
            self._gated(gradients, loss)
            return
        for name, p in self.parameters.items():
            # towards the trained weights first: both parts of the step are meant at the old value
            if rule == "rms":
                p.lerp_(self._trained[name], self._pull[name])
            elif rule == "sgd_decay":
                p.lerp_(self._trained[name], decay)
            gradient = gradients[name]
            if gradient is None:
                continue
            if rule == "rms":
                p.addcmul_(gradient, self._step[name], value=-1)
            else:
                p.sub_(gradient, alpha=self._config.lr)

    def _gated(self, gradients: Mapping[str, Tensor | None], loss: float) -> None:
        known = {
            name: torch.zeros_like(p) if (g := gradients[name]) is None else g for name, p in self.parameters.items()
        }
        moved = {name: p - self._trained[name] for name, p in self.parameters.items()}
        for (name, p), step, pull in zip(self.parameters.items(), *self._gates(loss, known, moved), strict=True):
            p.lerp_(self._trained[name], (self._config.decay * pull.to(p) * self._fisher[name]).clamp_(max=1.0))
            p.sub_(known[name], alpha=self._config.lr * float(step))

    @torch.no_grad()
    def restore(self) -> None:
        """Put back the weights of the beginning, bit by bit."""
        for name, p in self.parameters.items():
            p.copy_(self._trained[name])


def _norm(kind: str, statistics: Mapping[str, Tensor]) -> float:
    sums = [(float(value.double().sum()), value.numel()) for value in statistics.values()]
    if kind == "scalars":
        norm = sum(total for total, _ in sums) / sum(count for _, count in sums)
    else:
        norm = sum(total / count for total, count in sums) / (len(sums) if kind == "tensors" else 1)
    if norm == 0:
        raise UsageError("every gradient statistic is zero; collect them on more text, or use the rule sgd.")
    return norm
