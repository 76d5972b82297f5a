"""What is asked of the engine, and what it answers, piece by piece."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from unrolled.core.errors import UnrolledError
from unrolled.evaluate import ScoreConfig, Scored, TextBlock, score_ids, score_text
from unrolled.generate import SamplerConfig
from unrolled.generate.constraints import Constraint
from unrolled.predict import KeptState
from unrolled.serve.engine.served import Served

__all__ = [
    "Completion", "Ended", "Event", "Failed", "Job", "Probed", "Reading", "Rows", "ScoreJob", "Told",
    "TookTooLongError", "Wrote",
]  # fmt: skip


class Probed(NamedTuple):
    """A token of a prompt or a text. token: its id; nats: its log-probability; top: (id, log-probability) of the
    likeliest in its place."""

    token: int
    nats: float
    top: tuple[tuple[int, float], ...]


class Told(NamedTuple):
    """The tokens of a prompt that was measured, or a part of them."""

    tokens: list[Probed]


class Wrote(NamedTuple):
    """A token of a text that is written. sample: which text. text: what may be shown now. reason: set with the last
    one; the token is None where a text ends without another. state: after the text, with the last one, where it is
    wanted."""

    sample: int
    token: Probed | None
    text: str
    reason: str | None
    state: KeptState | None


class Rows(NamedTuple):
    """Rows of a text that is scored."""

    rows: list[Scored]


class Ended(NamedTuple):
    """All is done. state: after what was read, where that was asked for."""

    state: KeptState | None


class Failed(NamedTuple):
    """Nothing more comes."""

    error: Exception


Event = Told | Wrote | Rows | Ended | Failed


class Job:
    """Something asked of a model. What it is given is its own, so that nothing of one request reaches another.

    Args:
        served: the model. before: the state to go on from. deadline: of the clock ``time.monotonic``.

    Attributes:
        weight: how many texts it writes at once. cancelled: set from any thread when nobody waits for it any more.
    """

    weight = 1

    def __init__(self, served: Served, before: KeptState, deadline: float):
        self.served, self.before, self.deadline = served, before, deadline
        self.cancelled = False
        self.hear: Callable[[Event], None] = _nobody


class TookTooLongError(UnrolledError):
    """The time of a request is over."""

    def __init__(self) -> None:
        super().__init__("the request took longer than this server allows; send a shorter text.")


def _nobody(event: Event) -> None:
    raise AssertionError("nobody listens to this job")


class Reading(Job):
    """Tokens to read.

    Args:
        ids: the tokens. measure: how many of the likeliest tokens are told in the place of each; None: nothing is told.
    """

    def __init__(
        self, served: Served, before: KeptState, deadline: float, ids: Sequence[int], measure: int | None = None
    ):
        super().__init__(served, before, deadline)
        self.ids, self.measure, self.done = list(ids), measure, 0
        self.state: Any = None  # of the thread that reads, in its predictor's own form

    def after(self) -> KeptState:
        """The state after all of ids, but for its tensors."""
        before = self.before
        if not self.ids:
            return before
        return before._replace(tokens=before.tokens + len(self.ids), last=self.ids[-1], drawn=0, pending=b"", held="")


class Completion(Reading):
    """A prompt to read and texts to write after it.

    Args:
        samples: how many texts; max_tokens: of each. sampler, stop: how they are written. top: how many of the
            likeliest tokens are told. keep: whether the state after each text is wanted. constraint: of the sampler,
            see :func:`unrolled.generate.constraint_of`; jobs of one request share it.
    """

    def __init__(
        self,
        served: Served,
        before: KeptState,
        deadline: float,
        ids: Sequence[int],
        measure: int | None,
        samples: int,
        max_tokens: int,
        sampler: SamplerConfig,
        stop: Sequence[str] = (),
        top: int = 0,
        keep: bool = False,
        constraint: Constraint | None = None,
    ):
        super().__init__(served, before, deadline, ids, measure)
        assert (sampler.constrain is None) == (constraint is None), "a constraint that is asked for is made"
        self.constraint = constraint
        self.samples, self.max_tokens, self.sampler, self.stop = samples, max_tokens, sampler, tuple(stop)
        self.top, self.keep = top, keep
        # texts of which this is equal choose their tokens together
        self.alike = sampler.model_copy(update={"seed": 0}).model_dump_json()
        self.weight = samples
        self.left = samples  # texts that are not finished


class ScoreJob(Job):
    """A text to score.

    Args:
        before: the state that it goes on from; None: it is a text's beginning.
        blocks: of the text, as for :func:`unrolled.evaluate.score_text`.
        ids: in place of a text, as for :func:`unrolled.evaluate.score_ids`.
    """

    def __init__(
        self,
        served: Served,
        before: KeptState | None,
        deadline: float,
        config: ScoreConfig,
        blocks: Iterable[TextBlock] = (),
        ids: Sequence[int] | None = None,
    ):
        super().__init__(served, served.begun if before is None else before, deadline)
        self.config, self.goes_on, self._blocks, self._ids = config, before is not None, blocks, ids

    def rows(self, ends: dict[str, KeptState]) -> Iterator[Scored]:
        """The rows, and at last the state after the text into ``ends``."""
        served, begun = self.served, self.before if self.goes_on else None
        if self._ids is not None:
            return score_ids(served.reader, served.tokenizer, self._ids, self.config, begun, ends)
        return score_text(served.reader, served.tokenizer, self._blocks, self.config, begun, ends)
