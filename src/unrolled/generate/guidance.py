"""Two predictions in one: guidance by a prompt, and contrast with a weaker model."""

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from unrolled.core.config import Config
from unrolled.core.errors import UsageError
from unrolled.core.tree import map_tree
from unrolled.predict import Prediction, Predictor, check_vocabulary

__all__ = ["Contrast", "ContrastConfig", "Guidance", "GuidanceConfig"]


class GuidanceConfig(Config):
    """Options of guidance by a prompt."""

    weight: float = Field(gt=-1, description="how much further from what comes without the prompt; 0: as without it")
    negative: str = Field(default="", description="what is read in place of the prompt; default: nothing")


class ContrastConfig(Config):
    """Options of contrastive decoding."""

    weight: float = Field(default=0.5, ge=0, description="how much of the weaker model is taken off")
    plausible: float = Field(
        default=0.1, ge=0, le=1, description="tokens at least this fraction as probable as the best can be chosen"
    )


class _Pair(Predictor):
    """Two predictors that read the same text. The state is that of both."""

    gives_hidden = False

    def __init__(self, first: Predictor, second: Predictor):
        check_vocabulary(second, first.vocab_size)
        for one in (first, second):
            if one.lockstep or not one.independent:
                raise UsageError(f"with {one.kind} there is neither guidance nor contrast; leave that setting out.")
        self.first, self.second = first, second
        self.vocab_size, self.start_id, self.device = first.vocab_size, first.start_id, first.device
        self.precision, self.model = first.precision, first.model

    def restore(self) -> None:
        """See :meth:`Predictor.restore`."""
        self.first.restore()
        self.second.restore()

    def forget(self) -> None:
        """See :meth:`Predictor.forget`."""
        self.first.forget()
        self.second.forget()


class Contrast(_Pair):
    r"""Contrastive decoding (Li et al. 2023; the form of O'Brien and Lewis 2023).

    .. math:: l = (1 + b)\, l_\mathrm{expert} - b\, l_\mathrm{amateur}
        \quad\text{where } p_\mathrm{expert} \ge a \max p_\mathrm{expert}, \text{ else } -\infty

    renormalised. With b = 0 and a = 0 it is the expert.

    Args:
        first: the expert. second: the amateur, over the same vocabulary.
    """

    kind = "contrast"

    def __init__(self, first: Predictor, second: Predictor, config: ContrastConfig):
        super().__init__(first, second)
        self.config = config

    def begin(self, batch: int, first: Tensor | None = None) -> Any:
        """See :meth:`Predictor.begin`."""
        return self.first.begin(batch, first), self.second.begin(batch, first)

    def predict(self, state: Any) -> Prediction:
        """See :meth:`Predictor.predict`."""
        expert, amateur = self.first.predict(state[0]).log_prob, self.second.predict(state[1]).log_prob
        config = self.config
        found = (1 + config.weight) * expert - config.weight * amateur.to(expert)
        implausible = expert.exp() < config.plausible * expert.amax(-1, keepdim=True).exp()
        # what the expert never says has no probability, whatever the other one says
        found = found.masked_fill(implausible | expert.isneginf(), -torch.inf)
        return Prediction(torch.log_softmax(found, -1), None)

    def observe(self, state: Any, ids: Tensor) -> Any:
        """See :meth:`Predictor.observe`."""
        return self.first.observe(state[0], ids), self.second.observe(state[1], ids)

    def consume(self, state: Any, ids: Tensor) -> Any:
        """See :meth:`Predictor.consume`."""
        return self.first.consume(state[0], ids), self.second.consume(state[1], ids)


class Guidance(_Pair):
    r"""Classifier-free guidance (Ho and Salimans 2022; on language models Sanchez et al. 2023).

    .. math:: l = (1 + g)\, l_\mathrm{with} - g\, l_\mathrm{without}

    renormalised; *without* reads another text, or none, in place of the first tokens. With g = 0 it is the model.

    Args:
        prompt: so many tokens that come first in every row are read by *with* alone.
        negative: ids that *without* reads in their place.
    """

    kind = "guidance"

    def __init__(self, predictor: Predictor, weight: float, prompt: int, negative: list[int]):
        super().__init__(predictor, predictor)
        self.weight, self.prompt, self.negative = weight, prompt, negative

    def begin(self, batch: int, first: Tensor | None = None) -> Any:
        """See :meth:`Predictor.begin`."""
        ids = torch.tensor(self.negative, dtype=torch.int64, device=self.device).expand(batch, -1)
        without = self.second.consume(self.second.begin(batch, first), ids)
        left = torch.full((batch, 1), self.prompt, dtype=torch.int64, device=self.device)
        return self.first.begin(batch, first), without, left

    def predict(self, state: Any) -> Prediction:
        """See :meth:`Predictor.predict`."""
        given, without = self.first.predict(state[0]).log_prob, self.second.predict(state[1]).log_prob
        found = (1 + self.weight) * given - self.weight * without
        return Prediction(torch.log_softmax(found.masked_fill(given.isneginf(), -torch.inf), -1), None)

    def observe(self, state: Any, ids: Tensor) -> Any:
        """See :meth:`Predictor.observe`."""
        given, without, left = state
        reads = left[:, 0] == 0
        if bool(reads.any()):
            after = self.second.observe(without, ids)
            if not bool(reads.all()):
                after = map_tree(lambda new, old: _chosen(reads, new, old), after, without)
            without = after
        return self.first.observe(given, ids), without, (left - 1).clamp(min=0)

    def consume(self, state: Any, ids: Tensor) -> Any:
        """See :meth:`Predictor.consume`."""
        given, without, left = state
        if bool((left != left[0]).any()):
            return super().consume(state, ids)
        skipped = min(int(left[0]), ids.shape[1])
        without = self.second.consume(without, ids[:, skipped:])
        return self.first.consume(given, ids), without, left - skipped


def _chosen(rows: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(rows.view(-1, *[1] * (new.dim() - 1)), new, old)
