"""A text read after several others of which none comes first: set-based prompting, for attention."""

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from unrolled.cells.attention.base import AttentionCell, Layout
from unrolled.core import tree
from unrolled.core.errors import UsageError
from unrolled.predict.adapter import READING, Adapter, AdapterConfig, Source
from unrolled.predict.base import Prediction, Predictor, Scores
from unrolled.predict.static import NeuralPredictor
from unrolled.predict.wrapped import WrappedPredictor

__all__ = ["Sets", "SetsConfig", "SetsPredictor", "SetsState", "set_layout"]


class SetsConfig(AdapterConfig):
    """Options of set-based prompting."""

    short: ClassVar[str | None] = "parts"

    name: Literal["sets"] = "sets"
    parts: tuple[str, ...] = Field(default=(), description="the texts of the set, whose order does not matter")
    prefix: str = Field(default="", description="what comes before them")


class SetsState(NamedTuple):
    """ids: (batch, room) what was read after the set, from its start symbol on, at the left. fill: (batch, 1) how many
    of them. hidden: (batch, width), the last output."""

    ids: Tensor
    fill: Tensor
    hidden: Tensor


def set_layout(prefix: int, parts: Sequence[int], suffix: int) -> Layout:
    """Where the tokens of a prefix, of parts side by side, and of a suffix stand, and what they do not see.

    Every part begins where the prefix ends, and no part sees another; the suffix begins behind the longest and sees
    all. The numbers are of tokens.
    """
    longest = max(parts, default=0)
    places = [torch.arange(prefix), *(prefix + torch.arange(part) for part in parts)]
    places.append(prefix + longest + torch.arange(suffix))
    if len(parts) < 2:
        return Layout(torch.cat(places), None)
    group = torch.repeat_interleave(
        torch.arange(len(parts) + 2), torch.tensor([prefix, *parts, suffix], dtype=torch.int64)
    )
    inside = (group > 0) & (group <= len(parts))
    unseen = inside.unsqueeze(0) & inside.unsqueeze(1) & (group.unsqueeze(0) != group.unsqueeze(1))
    return Layout(torch.cat(places), unseen)


class SetsPredictor(WrappedPredictor):
    """A model of attention that reads a text after a set (McIlroy-Young, Brown, Olson, Zhang and Dwork 2024, arXiv
    2406.06581).

    The parts of the set stand at the same places and do not see each other, so that their order changes nothing; the
    text that is read begins with the start symbol, behind the longest of them, and sees all of them. There are no pad
    tokens. Set and text are read anew with every window, together no longer than the context.

    Args:
        inner: the model. prefix: ids of what comes before, without the start symbol. parts: ids of each part.
    Raises:
        UsageError: a layer whose output depends on the order of what it reads; a head with a state; a set that fills
            the context.
    """

    adds = "set"

    def __init__(
        self, inner: NeuralPredictor, config: SetsConfig, prefix: Sequence[int], parts: Sequence[Sequence[int]]
    ):
        super().__init__(inner)
        self._head = inner.model.head.tempered(inner.temperature)
        self.config, cells = config, inner.model.stack.cells()
        odd = [cell.name for cell in cells if cell.memory and not (isinstance(cell, AttentionCell) and cell.sets)]
        if odd:
            raise UsageError(
                f"the output of a {odd[0]} depends on the order of what it reads, so a set has no meaning for it; use "
                "a model whose only memory is attention, or leave out sets."
            )
        if inner.model.initial_state(1).head is not None:
            raise UsageError("a head that remembers the last tokens depends on their order; leave out sets.")
        self._cells = [cell for cell in cells if isinstance(cell, AttentionCell)]
        self._lengths = [1 + len(prefix), *(len(part) for part in parts)]
        fixed = [inner.start_id, *prefix, *(one for part in parts for one in part)]
        self._fixed = torch.tensor(fixed, dtype=torch.int64)
        self.room = min(cell.config.context for cell in self._cells) - len(fixed) if self._cells else 1 << 16
        if self.room < 2:
            raise UsageError(
                f"the set has {len(fixed)} tokens, which leaves nothing of the context for the text; give shorter "
                "parts."
            )

    @property
    def options(self) -> dict[str, Any]:
        """See :attr:`Predictor.options`."""
        return {**self.inner.options, "sets": self.config.model_dump(mode="json", exclude={"name"})}

    def shared_form(self, state: SetsState) -> SetsState:
        """See :meth:`Predictor.shared_form`."""
        return state

    def own_form(self, shared: SetsState) -> SetsState:
        """See :meth:`Predictor.own_form`."""
        return shared

    def begin(self, batch: int, first: Tensor | None = None) -> SetsState:
        """See :meth:`Predictor.begin`."""
        ids = torch.zeros(batch, self.room, dtype=torch.int64, device=self.device)
        ids[:, 0] = self.start_id if first is None else first
        fill = torch.ones(batch, 1, dtype=torch.int64, device=self.device)
        return SetsState(ids, fill, self._outputs(ids[:, :1])[:, -1])

    def restarted(self, state: SetsState, rows: Tensor) -> SetsState:
        """See :meth:`Predictor.restarted`."""
        return tree.reset_rows(state, self.begin(len(rows)), rows)

    def predict(self, state: SetsState) -> Prediction:
        """See :meth:`Predictor.predict`."""
        return self.inner.predict(self.inner.begin(len(state.hidden))._replace(hidden=state.hidden))

    def observe(self, state: SetsState, ids: Tensor) -> SetsState:
        """See :meth:`Predictor.observe`."""
        return self.window(state, ids.unsqueeze(1)).state

    def consume(self, state: SetsState, ids: Tensor) -> SetsState:
        """See :meth:`Predictor.consume`."""
        return self.window(state, ids).state if ids.shape[1] else state

    @torch.no_grad()
    def window(self, state: SetsState, ids: Tensor, reset: Tensor | None = None) -> Scores:
        """See :meth:`Predictor.window`.

        Raises:
            UsageError: a text that is longer than what the set leaves of the context.
        """
        borders = [0, ids.shape[1]]
        if reset is not None:
            borders = sorted({*borders, *reset.any(0).nonzero()[:, 0].tolist()})
        parts = []
        for low, high in itertools.pairwise(borders):
            if reset is not None and bool(reset[:, low].any()):
                state = self.restarted(state, reset[:, low])
            hidden, state = self._read(state, ids[:, low:high])
            parts.append(hidden)
        seen = torch.cat(parts, 1)
        _, nll, _ = self._head.loss(seen, ids)
        return Scores(nll, seen, state)

    def _read(self, state: SetsState, ids: Tensor) -> tuple[Tensor, SetsState]:
        """The outputs (batch, time, width) that predict ``ids``, and the state after them; rows that have read equally
        much go together."""
        time = ids.shape[1]
        if int(state.fill.max()) + time > self.room:
            raise UsageError(
                f"the set leaves {self.room - 1} tokens of the context for a text, and this one is longer; give a "
                "shorter text or set."
            )
        width, new = state.hidden.shape[1], state.ids.clone()
        hidden, last = state.hidden.new_empty(len(ids), time, width), state.hidden.clone()
        for fill in state.fill[:, 0].unique().tolist():
            rows = state.fill[:, 0] == fill
            new[rows, fill : fill + time] = ids[rows]
            made = self._outputs(new[rows, : fill + time])
            hidden[rows], last[rows] = made[:, fill - 1 : -1], made[:, -1]
        return hidden, SetsState(new, state.fill + time, last)

    @torch.no_grad()
    def _outputs(self, suffix: Tensor) -> Tensor:
        """The raw outputs (rows, time, width) of a suffix (rows, time) after the set."""
        fixed = self._fixed.to(suffix.device).expand(len(suffix), -1)
        prefix, *parts = self._lengths
        with self._laid_out(set_layout(prefix, parts, suffix.shape[1])):
            return self.inner.model(torch.cat([fixed, suffix], 1)).raw[:, -suffix.shape[1] :]

    @contextlib.contextmanager
    def _laid_out(self, layout: Layout) -> Iterator[None]:
        layout = Layout(*(None if part is None else part.to(self.device) for part in layout))  # type: ignore[arg-type]
        for cell in self._cells:
            cell.layout = layout
        try:
            yield
        finally:
            for cell in self._cells:
                cell.layout = None


class Sets(Adapter):
    """Reads the text after a set of others, whose order does not matter (set-based prompting); for attention alone."""

    Config = SetsConfig
    EXAMPLES = (SetsConfig(parts=("ab", "dce", "f"), prefix="ja"), SetsConfig(parts=("hij",)))
    title = "a set of texts"
    place = READING
    reads_model = True
    neutral = SetsConfig()

    @classmethod
    def apply(cls, inner: Predictor, config: Any, source: Source | None) -> Predictor:
        """See :meth:`Adapter.apply`; the run's tokenizer reads the texts."""
        model = cls.plain(inner)
        if source is None:
            raise UsageError("a set is read by a run's tokenizer, and this model comes from none; leave out sets.")
        texts = [source.tokenizer.encode(text) for text in (config.prefix, *config.parts)]
        if not all(texts[1:]):
            raise UsageError("a part of the set is empty; leave it out of sets.")
        return SetsPredictor(model, config, texts[0], texts[1:])
