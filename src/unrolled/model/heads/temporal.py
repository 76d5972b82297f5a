"""A softmax whose bias follows how often each token was used in past periods."""

import copy
from collections.abc import Callable
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from unrolled.core.errors import UsageError
from unrolled.model.heads.matrix import MatrixConfig
from unrolled.model.heads.softmax import SoftmaxHead

__all__ = ["TemporalConfig", "TemporalHead", "TemporalMasks"]


class TemporalConfig(MatrixConfig):
    """Options of the temporal head."""

    name: Literal["temporal"] = "temporal"
    hidden: int = Field(default=32, ge=1, le=1 << 12, description="units of the LSTM that reads a token's frequencies")
    periods: int | None = Field(
        default=None,
        ge=1,
        le=1 << 16,
        description="past periods whose frequencies are read (absent: the slices of the corpus; it is kept in the run)",
    )

    negatives: ClassVar[None] = None
    cap: ClassVar[None] = None

    def with_periods(self, periods: Callable[[], int]) -> Self:
        """See :meth:`HeadConfig.with_periods`."""
        return self if self.periods is not None else self.model_copy(update={"periods": periods()})


class TemporalMasks(NamedTuple):
    """softmax: what the softmax draws. period: (batch, time) int64, the period of each target."""

    softmax: Any
    period: Tensor


class TemporalHead(SoftmaxHead):
    r"""Future language modelling (Li and Flanigan 2024): log p = log softmax(W P h + b + b_t) in period t.

    .. math::
        f_{t,w} &= \log \frac{c_{t,w} + 1}{N_t + V} - \frac{1}{t} \sum_{s \le t} \log \frac{c_{s,w} + 1}{N_s + V} \\
        b_{t+1,w} &= v^\top \operatorname{LSTM}(f_{1,w}, \ldots, f_{t,w})

    with c the counts of a period's training text, and one LSTM for all tokens. b_1 is 0: the first period has no past
    (the authors' code gives it its own frequencies). So a bias never depends on its own period's counts, nor on later
    ones. v begins at zero, so that the head begins as ``softmax``. In training each target's period counts; anywhere
    else it is :attr:`period`, the one after the last that was trained on. In training the series of all tokens are read
    anew for every window, else once for the weights that there are.

    Attributes:
        period: whose bias is used where no periods are given, 0 to ``periods``.
        series: (periods, V), f; fixed, and saved with the weights.
    """

    Config = TemporalConfig
    EXAMPLES = (TemporalConfig(hidden=4), TemporalConfig(periods=1, hidden=3, project=4, bias=False))

    def __init__(self, in_width: int, vocab_size: int, config: Any, tied: nn.Parameter | None = None):
        super().__init__(in_width, vocab_size, config, tied)
        self.period = config.periods or 1
        self.series = nn.Parameter(torch.zeros(self.period, vocab_size), requires_grad=False)
        self.reader = nn.LSTM(1, config.hidden, batch_first=True)
        self.map = nn.Parameter(torch.zeros(config.hidden))
        self._shift: Tensor | None = None
        self._known: tuple[Any, Tensor] | None = None

    @property
    def needs_periods(self) -> bool:
        """See :attr:`Head.needs_periods`."""
        return True

    @torch.no_grad()
    def use_periods(self, counts: Tensor) -> None:
        """See :meth:`Head.use_periods`. Raises UsageError for another number of periods than the head has."""
        if counts.shape != self.series.shape:
            raise UsageError(
                f"the head temporal has {len(self.series)} periods and the training text {len(counts)}; leave out "
                "head.periods."
            )
        level = (counts + 1).double().log() - (counts.sum(1, keepdim=True) + self.vocab_size).double().log()
        mean = level.cumsum(0) / torch.arange(1, len(level) + 1, device=level.device).unsqueeze(1)
        self.series.copy_(level - mean)

    def at(self, period: int) -> Self:
        """A head that shares this one's parameters and uses the bias of another period."""
        head = copy.copy(self)
        head.period = period
        return head

    def shifts(self) -> Tensor:
        """The biases (periods + 1, V) of all periods and of the one after them."""
        read, _ = self.reader(self.series.t().unsqueeze(2))
        later = torch.einsum("vth,h->tv", read, self.map)
        return torch.cat([torch.zeros_like(later[:1]), later])

    def bias_now(self) -> Tensor | None:
        """See :meth:`MatrixHead.bias_now`."""
        shift = self._own_shift() if self._shift is None else self._shift
        return shift if self.bias is None else self.bias + shift

    @torch.no_grad()
    def settle(self) -> None:
        """See :meth:`Head.settle`: the bias of :attr:`period`."""
        self._shift = self.shifts()[self.period]

    def _own_shift(self) -> Tensor:
        """The bias of :attr:`period`; without gradients it is kept until a weight changes."""
        if torch.is_grad_enabled():
            return self.shifts()[self.period]
        read = [self.series, self.map, *self.reader.parameters()]
        mark = self.period, *((one.data_ptr(), one._version, one.dtype) for one in read)
        if self._known is None or self._known[0] != mark:
            self._known = mark, self.shifts()[self.period]
        return self._known[1]

    def extra_flops(self) -> int:
        """Reading the series is not done token by token."""
        return -2 * sum(one.numel() for one in (self.series, *self.reader.parameters()) if one.dim() == 2)

    def placed(self, masks: Any, period: Tensor) -> TemporalMasks:
        """See :meth:`Head.placed`."""
        return TemporalMasks(masks, period)

    def loss(
        self,
        h: Tensor,
        targets: Tensor,
        weight: Tensor | None = None,
        state: None = None,
        reset: Tensor | None = None,
        masks: Any = None,
    ) -> tuple[Tensor, Tensor, None]:
        """See :meth:`Head.loss`."""
        shifts = self.shifts()
        if not isinstance(masks, TemporalMasks):
            return self._with(shifts[self.period]).loss_now(h, targets, weight, masks)
        total, nll = h.new_zeros(()), torch.zeros_like(h[..., 0])
        for period in masks.period.unique().tolist():
            own = masks.period == period
            drawn = masks.softmax
            if drawn is not None and drawn.projected is not None:
                wide = drawn.projected.expand(*targets.shape, -1)
                drawn = drawn._replace(projected=wide[own].unsqueeze(0))
            part, nats, _ = self._with(shifts[period]).loss_now(
                h[own].unsqueeze(0), targets[own].unsqueeze(0), None if weight is None else weight[own].unsqueeze(0),
                drawn,
            )  # fmt: skip
            total = total + part
            nll = nll.masked_scatter(own, nats.to(nll.dtype))
        return total, nll, None

    def _with(self, shift: Tensor) -> Self:
        head = copy.copy(self)
        head._shift = shift
        return head

    def loss_now(self, h: Tensor, targets: Tensor, weight: Tensor | None, masks: Any) -> tuple[Tensor, Tensor, None]:
        """The softmax's own loss with one bias."""
        return super().loss(h, targets, weight, None, None, masks)
