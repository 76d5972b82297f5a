"""Adaptive softmax, torch's."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from torch import Tensor, nn
from torch.func import functional_call

from unrolled.core.errors import UsageError
from unrolled.model.heads.base import Head, HeadConfig
from unrolled.model.heads.blocks import blockwise_loss
from unrolled.model.heads.frequency import check_cuts, check_frequency_order

__all__ = ["AdaptiveConfig", "AdaptiveHead"]


class AdaptiveConfig(HeadConfig):
    """Options of the adaptive softmax."""

    name: Literal["adaptive"] = "adaptive"
    cutoffs: tuple[int, ...] | None = Field(
        default=None, description="first id of each tail (absent: a sixteenth and a quarter of the vocabulary)"
    )
    div_value: float = Field(
        default=4.0, ge=1, le=1024, description="a tail's width is that of the one before over this"
    )
    head_bias: bool = Field(default=False, description="a bias on the frequent ids and the clusters")
    block: int = Field(default=2**22, ge=1, description="logits held at once in training (rows x vocabulary)")


class AdaptiveHead(Head):
    """Adaptive softmax (Grave et al. 2017) by ``torch.nn.AdaptiveLogSoftmaxWithLoss``.

    Frequent ids at full width, rarer ones in clusters of falling width. Ids must fall in frequency. Its matrices are
    its own, never tied.
    """

    Config = AdaptiveConfig
    EXAMPLES = (
        AdaptiveConfig(cutoffs=(5, 12), div_value=2.0),
        AdaptiveConfig(cutoffs=(5,), div_value=3.0, head_bias=True),
    )

    def __init__(self, in_width: int, vocab_size: int, config: AdaptiveConfig, tied: nn.Parameter | None = None):
        super().__init__(in_width, vocab_size, config, tied)
        if tied is not None:
            raise UsageError("the adaptive head has tails of several widths, which cannot be tied; use head split.")
        thirds = sorted({max(1, vocab_size // 16), max(2, vocab_size // 4)})
        cuts = config.cutoffs if config.cutoffs is not None else [cut for cut in thirds if cut < vocab_size]
        self.cuts = check_cuts("cutoffs", cuts, vocab_size)
        if not self.cuts:
            raise UsageError("the adaptive head needs at least one cutoff within the vocabulary; use head softmax.")
        if in_width < config.div_value ** len(self.cuts):
            raise UsageError(
                f"the last of the adaptive head's {len(self.cuts)} tails would have no width; lower head.div_value."
            )
        options = {"div_value": config.div_value, "head_bias": config.head_bias}
        self.inner = nn.AdaptiveLogSoftmaxWithLoss(in_width, vocab_size, list(self.cuts), **options)

    @property
    def needs_counts(self) -> bool:
        """See :attr:`Head.needs_counts`."""
        return True

    def use_counts(self, counts: Tensor) -> None:
        """Refuse ids that do not fall in frequency."""
        check_frequency_order("adaptive", self.cuts, counts)

    def _parameters_scaled(self) -> dict[str, Tensor]:
        """Name -> parameter of torch's module, the bias times ``logit_scale``, as the input is scaled too."""
        named: dict[str, Tensor] = dict(self.inner.named_parameters())
        if "head.bias" in named and self.logit_scale != 1.0:
            named["head.bias"] = named["head.bias"] * self.logit_scale
        return named

    def loss(
        self,
        h: Tensor,
        targets: Tensor,
        weight: Tensor | None = None,
        state: None = None,
        reset: Tensor | None = None,
        masks: None = None,
    ) -> tuple[Tensor, Tensor, None]:
        """See :meth:`Head.loss`."""
        names, parameters = zip(*self._parameters_scaled().items(), strict=True)

        def nats(inputs: Sequence[Tensor], ids: Tensor, values: Sequence[Tensor]) -> Tensor:
            named = dict(zip(names, values, strict=True))
            return -functional_call(self.inner, named, (inputs[0], ids)).output

        each = None if weight is None else weight.flatten().to(h.dtype)
        rows = self.config.block // self.vocab_size
        total, nll = blockwise_loss(
            nats, [h.flatten(0, 1) * self.logit_scale], targets.flatten(), parameters, each, rows
        )
        return total, nll.view_as(targets), None

    def log_prob(self, h: Tensor, state: None = None, masks: None = None) -> tuple[Tensor, None]:
        """See :meth:`Head.log_prob`."""
        flat = h.reshape(-1, h.shape[-1]) * self.logit_scale
        named = {f"inner.{name}": value for name, value in self._parameters_scaled().items()}
        log_prob = functional_call(_LogProb(self.inner), named, (flat,))
        return log_prob.view(*h.shape[:-1], self.vocab_size), None


class _LogProb(nn.Module):
    """torch's ``log_prob`` as a forward, so that parameters can be substituted in it."""

    def __init__(self, inner: nn.AdaptiveLogSoftmaxWithLoss):
        super().__init__()
        self.inner = inner

    def forward(self, h: Tensor) -> Tensor:
        return self.inner.log_prob(h)
