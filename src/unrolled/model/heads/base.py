"""The head contract: from hidden states to a loss or to log-probabilities."""

import copy
from collections.abc import Callable
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from unrolled.core.config import Config
from unrolled.core.random import RandomStreams
from unrolled.kernels.dispatch import Compute

__all__ = ["Head", "HeadConfig"]


class HeadConfig(Config):
    """Base of the heads' configurations. A subclass fixes ``name`` to the head's name in the table."""

    name: str

    def with_end(self, end: int | None) -> Self:
        """The configuration for a tokenizer whose end symbol is ``end``, None for none; heads that need it keep it.

        Raises:
            UsageError: the head needs one and there is none.
        """
        return self

    def with_periods(self, periods: Callable[[], int]) -> Self:
        """The configuration for a training text in slices in time; heads that need their number ask and keep it."""
        return self


class Head(nn.Module):
    """Maps the last output h to a distribution over the vocabulary.

    Args:
        in_width: width of h. vocab_size: V.
        tied: the embedding matrix (V, E) that the head shares, of an adaptive input its tables, or None.

    Attributes:
        Config: the config class.
        EXAMPLES: configs that cover the head's options, the rows of the conformance suite; for a width of 6 or more and
            a vocabulary of 23 or more.
        projected_width: width after the head's own projection, where its dropout acts; None without one.
        streams: vectors side by side in h, see :meth:`unrolled.cells.Cell.streams`.
        has_logits: whether the log-probabilities are one softmax of :meth:`logits`.
        logit_scale: multiplies every logit over the vocabulary, see :meth:`tempered`.
    """

    Config: ClassVar[type[HeadConfig]]
    EXAMPLES: ClassVar[tuple[HeadConfig, ...]]
    projected_width: int | None = None
    streams: int = 1
    has_logits: ClassVar[bool] = False
    logit_scale: float = 1.0

    def __init__(self, in_width: int, vocab_size: int, config: Any, tied: nn.Parameter | None = None):
        super().__init__()
        self.in_width, self.vocab_size, self.config = in_width, vocab_size, config
        self.compute = Compute()

    def initial_state(self, batch: int, device: Any = None, dtype: Any = None) -> Any:
        """The head's own carried state; None for heads that carry nothing."""
        return

    def tempered(self, temperature: float) -> Self:
        """A head that shares this one's parameters and divides its logits by ``temperature``.

        A mixture of softmaxes divides inside each component and not its prior, as the code of Melis et al. does (who
        give the inverse, the factor on the logits); split and adaptive softmaxes divide in each of their softmaxes,
        a pointer mixture in the vocabulary's alone.
        """
        if temperature == 1.0:
            return self
        head = copy.copy(self)  # shallow: the parameters are the same objects
        head.logit_scale = 1 / temperature
        return head

    def extra_flops(self) -> int:
        """Floating-point operations per token beyond one product with each of the matrices that the head uses."""
        return 0

    @property
    def needs_counts(self) -> bool:
        """Whether :meth:`use_counts` is to be called before training."""
        return False

    def use_counts(self, counts: Tensor) -> None:
        """Receive the token counts (V,) of the training text."""

    @property
    def needs_periods(self) -> bool:
        """Whether :meth:`use_periods` is to be called before training, where windows tell the periods of targets."""
        return False

    def use_periods(self, counts: Tensor) -> None:
        """Receive the token counts (periods, V) of the training text, slice by slice in order of time."""

    def settle(self) -> None:
        """Make now what depends on weights alone, which will not change again; one step is then written as a graph."""

    def placed(self, masks: Any, period: Tensor) -> Any:
        """What :meth:`draw_masks` gave, with the period of each target, (batch, time) int64."""
        return masks

    def draw_masks(
        self, batch: int, time: int, rate: float, per_step: bool, streams: RandomStreams, window: int
    ) -> Any:
        """Whatever the head draws for one training window; None where it draws nothing.

        Args:
            rate: dropout rate on the head's projected output. per_step: a fresh mask at every step.
        """
        return

    def loss(
        self,
        h: Tensor,
        targets: Tensor,
        weight: Tensor | None = None,
        state: Any = None,
        reset: Tensor | None = None,
        masks: Any = None,
    ) -> tuple[Tensor, Tensor, Any]:
        """Negative log-likelihood in nats, block by block.

        Args:
            h: (batch, time, in_width). targets: (batch, time) ids.
            weight: (batch, time) multiplies each position's loss; 0 leaves it out.
            reset: boolean (batch, time), for heads with state.
            masks: what :meth:`draw_masks` gave; None at evaluation.
        Returns:
            the weighted sum (differentiable), the nats of every position (batch, time; not differentiable), and
            the head's state.
        """
        raise NotImplementedError

    def log_prob(self, h: Tensor, state: Any = None, masks: Any = None) -> tuple[Tensor, Any]:
        """Log-probabilities (..., V) of the token that follows each h (..., in_width), and the head's state.

        Args:
            masks: as in :meth:`loss`, in shapes that fit h.
        """
        raise NotImplementedError

    def learn(self, h: Tensor, ids: Tensor, state: Any) -> Any:
        """The head's state after the tokens ids (batch,), each of which followed its h (batch, in_width)."""
        return state

    def logits(self, h: Tensor) -> Tensor:
        """What log_prob normalises, (..., V); of heads that have :attr:`has_logits`."""
        raise NotImplementedError
