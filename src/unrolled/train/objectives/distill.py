"""Distillation from frozen runs."""

import math
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unrolled.core import tree
from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.model import LanguageModel, ModelState
from unrolled.task import StepsTask
from unrolled.train.objectives.base import Extra, ExtraConfig, Given
from unrolled.train.objectives.distributions import check_stateless, over_distributions
from unrolled.train.objectives.frozen import frozen_model

__all__ = ["Distill", "DistillConfig"]


class DistillConfig(ExtraConfig):
    """Options of the distillation."""

    name: Literal["distill"] = "distill"
    weight: float = Field(
        default=0.5, ge=0, le=1, description="share a of the loss that the teachers have (1: no cross-entropy is left)"
    )
    teachers: tuple[str, ...] = Field(
        default=(), description="folders of finished runs of this run's tokenizer; the mean of their probabilities"
    )
    temperature: float = Field(
        default=2.0, ge=0.01, le=1000, description="divides the logits of both sides (above 1: flatter distributions)"
    )


class Distill(Extra):
    r"""Distillation (Hinton, Vinyals and Dean 2015; of several teachers Timiryasov and Tastet 2023, BabyLlama).

    .. math::
        (1 - a)\,CE + a\,\tau^2\,KL(\mathrm{softmax}(z'/\tau)\,\|\,\mathrm{softmax}(z/\tau))

    with z the logits and z' the log of the mean of the teachers' probabilities (BabyLlama has the mean of their logits,
    the same for one teacher, and sums KL over the positions of a sequence; here it is averaged as CE is). The value is
    the mean over the targets of tau² KL minus the cross-entropy, whose place it takes to a share a, the weight. Both
    sides divide their log-probabilities by tau, a mixture of softmaxes those of the mixture, not of its components. A
    sampled softmax is sampled in the cross-entropy alone.

    Teachers are in evaluation mode, without gradients, on the model's device and in its type. Their states follow the
    stream as the model's own does: carried from window to window, dropped where an epoch begins, at resets, and in
    columns that restart. Nothing of them is stored: where a state is not at hand (a run resumes, or a phase begins amid
    an epoch), the teachers read the epoch's windows up to there, one by one, which gives the same state bit for bit.
    Their folders, found from the working directory, must stay as they are until the run is finished.
    Log-probabilities exist for some time steps at once, as many as the head's ``block`` allows but one at least, and
    their gradients are made with the value.

    Raises:
        UsageError: no teachers, one of another vocabulary, a model or a teacher that is no language model, or one whose
            head carries a state (pointer), each in one sentence.
    """

    Config = DistillConfig
    EXAMPLES = (
        DistillConfig(teachers=("teacher",)),
        DistillConfig(teachers=("teacher", "other"), weight=1.0, temperature=1.0),
    )

    def __init__(self, config: DistillConfig, streams: RandomStreams, model: nn.Module):
        super().__init__(config, streams, model)
        if not isinstance(model, LanguageModel):
            raise UsageError("the objective distill needs a language model; leave it out of train.extra.")
        if not config.teachers:
            raise UsageError(
                "the objective distill has no teachers; name folders of finished runs in its option teachers."
            )
        check_stateless(model.head, "this model", "distill")
        self._like = model
        self._teachers: list[LanguageModel] = []
        self._task: Any = None
        self._source: Any = None
        # the teachers' states, and the number of the batch that they stand before
        self._states: list[ModelState] = []
        self._place: int | None = None

    def join(self, task: StepsTask) -> None:
        """Load the teachers, if their ids mean what the task's do. See :meth:`Extra.join`."""
        self._task = task
        for path in self.config.teachers:
            teacher = frozen_model(path, task, self._like, "the teacher", "distill")
            check_stateless(teacher.head, f"the teacher {path}", "distill")
            self._teachers.append(teacher)

    def value(self, given: Given) -> Tensor:
        """See :meth:`Extra.value`."""
        seen, tau = given.seen, self.config.temperature
        outputs = self._read(seen.batch, given.position)

        def divergence(own: Tensor, part: slice) -> Tensor:
            wanted = _tempered(self._mean([out[:, part] for out in outputs]), tau)
            return (wanted.exp() * (wanted - _tempered(own, tau))).sum(-1)

        drawn = None if seen.drawn is None else seen.drawn.head
        total = over_distributions(seen.model.head, seen.out.dropped, drawn, seen.weight, divergence)
        return (tau**2 * total - seen.total) / given.divisor

    @torch.no_grad()
    def _mean(self, outputs: list[Tensor]) -> Tensor:
        """Log of the mean of the teachers' probabilities (batch, time, V), from their outputs (batch, time, width)."""
        mixed = None
        for teacher, out in zip(self._teachers, outputs, strict=True):
            log_prob, _ = teacher.head.log_prob(out)
            mixed = log_prob if mixed is None else torch.logaddexp(mixed, log_prob)
        assert mixed is not None
        return mixed - math.log(len(outputs))

    def _read(self, batch: Any, position: int) -> list[Tensor]:
        """The teachers' outputs (batch, time, width) of the batch with this number, whose windows are ``index`` after
        that with which its epoch began."""
        if batch.carried and self._place != position:
            self._source = self._source or self._task.source()
            for earlier in range(position - batch.index, position):
                self._advance(self._source.at(earlier))
        outputs = self._advance(batch)
        self._place = position + 1
        return outputs

    @torch.no_grad()
    def _advance(self, batch: Any) -> list[Tensor]:
        """Read a batch: the teachers' outputs; their states go on."""
        rows, begun = len(batch.inputs), self._states
        inputs, reset, restart = (
            None if part is None else part.to(self._like.device) for part in (batch.inputs, batch.reset, batch.restart)
        )
        outputs, self._states, self._place = [], [], None
        for i, teacher in enumerate(self._teachers):
            state = begun[i] if batch.carried else teacher.initial_state(rows)
            if batch.carried and restart is not None:
                state = tree.reset_rows(state, teacher.initial_state(rows), restart)
            out = teacher(inputs, state, reset)
            outputs.append(out.raw)
            self._states.append(out.state)
        return outputs


def _tempered(log_prob: Tensor, temperature: float) -> Tensor:
    """log softmax(log_prob / temperature)."""
    return log_prob if temperature == 1.0 else torch.log_softmax(log_prob / temperature, -1)
