"""Calibration of sequence likelihoods."""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.model import LanguageModel
from unrolled.task import StepsTask
from unrolled.train.objectives.base import Extra, ExtraConfig, Given
from unrolled.train.objectives.candidates import Context, Rows, read_contexts, rows_of, token_f1, vector_f
from unrolled.train.objectives.distributions import check_stateless, over_distributions
from unrolled.train.objectives.frozen import frozen_model

__all__ = ["Calibrate", "CalibrateConfig", "calibration"]

Kind = Literal["rank", "margin", "list", "reward"]


class CalibrateConfig(ExtraConfig):
    """Options of the calibration."""

    name: Literal["calibrate"] = "calibrate"
    weight: float = Field(
        default=1.0, ge=0, le=1, description="share a of the loss that it has (1: no cross-entropy of the text is left)"
    )
    candidates: str | None = Field(
        default=None,
        description="file of JSON lines, as unrolled generate --reference TEXT --nbest 8 --json writes them",
    )
    kind: Kind = Field(default="rank", description="the loss: rank, margin, list or reward")
    margin: float = Field(default=1.0, ge=0, le=1e6, description="b: how far apart candidates are to be")
    similarity: Literal["f1", "hidden"] = Field(
        default="f1", description="how like the reference a candidate is: by its tokens, or by the outputs of start"
    )
    normalised: bool = Field(default=True, description="divide a candidate's log-probability by its tokens")
    regulariser: Literal["reference", "divergence"] = Field(
        default="reference",
        description="what keeps the model near: cross-entropy of the references, or the divergence from start on the "
        "candidates",
    )
    strength: float = Field(default=0.5, ge=0, le=1e6, description="times the regulariser (published: 0.1 to 1)")
    start: str | None = Field(
        default=None, description="folder of the finished run that the divergence, or similarity=hidden, is about"
    )
    contexts: int = Field(default=4, ge=1, le=10**6, description="contexts of a step, each with all of its candidates")


class Calibrate(Extra):
    r"""Sequence likelihood calibration, SLiC (Zhao, Khalman, Joshi, Narayan, Saleh and Liu 2023).

    Candidates y_i of a context x have the similarity s_i to its reference, and l_i = log p(y_i | x), divided by the
    number of tokens where ``normalised``. The calibration is, with + the better of two:

    .. math::
        \text{rank: } & \max(0,\ b - l_+ + l_-) \\
        \text{margin: } & \max(0,\ b(s_+ - s_-) - l_+ + l_-) \\
        \text{list: } & \textstyle\sum_{i<j} \max(0,\ b(j-i) - l_i + l_j), \quad \text{sorted by } s \\
        \text{reward: } & -\textstyle\sum_i s_i\, \mathrm{softmax}(l)_i

    rank and margin are means over all pairs with different s, where the paper draws one; each is a mean over contexts.
    The regulariser, times ``strength``, is the mean nats of the references' tokens, or the mean of
    KL(p || p_start) over the candidates' positions, with p_start from a frozen run. The loss of a step is
    (1-a) CE + a (calibration + strength * regulariser), CE that of the stream's window; the value is the difference.

    The forms and the range of ``strength`` are from memory of the paper, and hidden similarities are of single tokens,
    so this is a reconstruction. Contexts come in a new random order each pass. Any head serves; the divergence needs
    one without a state. Where the model has dropout, it lies on the candidates too.

    Raises:
        UsageError: no candidates, or a file without; a start that is missing, or is of another vocabulary.
    """

    Config = CalibrateConfig
    EXAMPLES = (
        CalibrateConfig(candidates="candidates.jsonl", margin=3.0, contexts=2),
        CalibrateConfig(
            candidates="candidates.jsonl", kind="reward", regulariser="divergence", start="teacher", weight=0.5
        ),
    )

    def __init__(self, config: CalibrateConfig, streams: RandomStreams, model: nn.Module):
        super().__init__(config, streams, model)
        if not isinstance(model, LanguageModel):
            raise UsageError("the objective calibrate needs a language model; leave it out of train.extra.")
        if config.candidates is None:
            raise UsageError("the objective calibrate has no candidates; name a file of JSON lines in its candidates.")
        if config.start is None and (config.similarity == "hidden" or config.regulariser == "divergence"):
            raise UsageError(
                "calibrate compares with a run that stays as it is; name its folder in its option start, or set "
                "similarity=f1 and regulariser=reference."
            )
        if config.regulariser == "divergence":
            check_stateless(model.head, "this model", "calibrate")
        self._model, self._start = model, None
        self._contexts: list[Context] = []
        self._similar: list[Tensor] = []
        self._start_id = 0
        self._masks = RandomStreams(streams.key("objective.calibrate.masks"))

    def join(self, task: StepsTask) -> None:
        """Read the candidates, and how like their references they are. See :meth:`Extra.join`."""
        tokenizer: Any = task.tokenizer
        if tokenizer is None:
            raise UsageError(f"{task.noun} reads no text; leave the objective calibrate out of train.extra.")
        config, self._start_id = self.config, tokenizer.start_id
        if config.start is not None:
            self._start = frozen_model(config.start, task, self._model, "the run", "calibrate")
        self._contexts = read_contexts(config.candidates, tokenizer)
        for one in self._contexts:
            if config.similarity == "hidden" and self._start is not None:
                values = vector_f(self._start, one, self._start_id)
            else:
                values = [token_f1(ids, one.reference) for ids in one.candidates]
            self._similar.append(torch.tensor(values, dtype=torch.float64))
        if config.kind != "reward" and not any(len(one.unique()) > 1 for one in self._similar):
            raise UsageError(
                f"the candidates of each context of {config.candidates} are all as like their reference; take more of "
                "them, or others."
            )

    def chosen(self, position: int) -> list[int]:
        """Numbers of the contexts of a step: each once a pass."""
        total, count = len(self._contexts), self.config.contexts
        numbers, orders = [], {}
        for place in range(position * count, (position + 1) * count):
            turn, within = divmod(place, total)
            if turn not in orders:
                orders[turn] = torch.randperm(total, generator=self._masks.generator("order", turn)).tolist()
            numbers.append(orders[turn][within])
        return numbers

    def value(self, given: Given) -> Tensor:
        """See :meth:`Extra.value`."""
        seen, config, model = given.seen, self.config, self._model
        numbers = self.chosen(given.position)
        contexts = [self._contexts[number] for number in numbers]
        pairs = [(one.prompt, ids) for one in contexts for ids in one.candidates]
        rows = rows_of(pairs, self._start_id, model.device)
        weight = rows.weight.to(model.dtype)
        masks = self._draw(rows, self._masks, given.position)
        out = model(rows.inputs, None, None, masks)
        sizes = weight.sum(1) if config.normalised else torch.ones_like(weight[:, 0])
        with torch.no_grad():
            nats = model.score(out, rows.targets, None, weight, masks)[1]
        likely = (-(nats * weight).sum(1) / sizes).double().requires_grad_()
        parts = likely.split([len(one.candidates) for one in contexts])
        each = [
            calibration(config.kind, part, self._similar[number].to(part.device), config.margin)
            for part, number in zip(parts, numbers, strict=True)
        ]
        with torch.enable_grad():
            loss = torch.stack(each).mean()
        (slope,) = torch.autograd.grad(loss, likely)
        # the head makes its loss once more, each row times what the calibration changes with its nats
        by_row = (-slope.to(weight.dtype) / sizes).unsqueeze(1)
        total = model.score(out, rows.targets, None, weight * by_row, masks)[0]
        value = total + (loss.detach().to(total.dtype) - total.detach())
        if config.strength:
            kept = (
                self._divergence(rows, out, masks)
                if config.regulariser == "divergence"
                else self._nats(contexts, given)
            )
            value = value + config.strength * kept
        return value - seen.total / given.divisor

    def _draw(self, rows: Rows, streams: RandomStreams, position: int) -> Any:
        batch, time = rows.inputs.shape
        return self._model.draw_masks(batch, time, streams, position)

    def _nats(self, contexts: list[Context], given: Given) -> Tensor:
        """Mean nats of the references' tokens."""
        model = self._model
        rows = rows_of([(one.prompt, one.reference) for one in contexts], self._start_id, model.device)
        masks = self._draw(rows, RandomStreams(self._masks.key("reference")), given.position)
        weight = rows.weight.to(model.dtype)
        return model.loss(rows.inputs, rows.targets, None, None, weight, masks)[0] / weight.sum()

    def _divergence(self, rows: Rows, out: Any, masks: Any) -> Tensor:
        """Mean of KL(p || p_start) over the candidates' positions."""
        start, weight = self._start, rows.weight.to(self._model.dtype)
        assert start is not None
        with torch.no_grad():
            other = start(rows.inputs).raw

        def each(own: Tensor, part: slice) -> Tensor:
            with torch.no_grad():
                wanted = start.head.log_prob(other[:, part])[0]
            return (own.exp() * (own - wanted)).sum(-1)

        drawn = None if masks is None else masks.head
        return over_distributions(self._model.head, out.dropped, drawn, weight, each) / weight.sum()


def calibration(kind: Kind, likely: Tensor, similar: Tensor, margin: float) -> Tensor:
    """The calibration of one context, see :class:`Calibrate`; 0 where no two candidates differ in similarity.

    Args:
        likely: (m,) l. similar: (m,) s.
    """
    if kind == "reward":
        return -(similar * torch.softmax(likely, 0)).sum()
    if kind == "list":
        order = similar.argsort(descending=True, stable=True)
        likely, place = likely[order], torch.arange(len(likely), device=likely.device)
        apart = (place.unsqueeze(0) - place.unsqueeze(1)).to(likely.dtype)
        each = torch.relu(margin * apart - likely.unsqueeze(1) + likely.unsqueeze(0))
        return torch.where(apart > 0, each, 0.0).sum()
    better = similar.unsqueeze(1) - similar.unsqueeze(0)
    wanted = margin * better if kind == "margin" else margin
    each = torch.where(better > 0, torch.relu(wanted - likely.unsqueeze(1) + likely.unsqueeze(0)), 0.0)
    return each.sum() / (better > 0).sum().clamp(min=1)
