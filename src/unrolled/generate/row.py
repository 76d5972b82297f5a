"""One text that is written: from tokens to what may be shown of it."""

import copy
import time
from collections.abc import Sequence
from typing import Any, Literal

from unrolled.generate.stopping import StopWatch
from unrolled.predict import KeptState
from unrolled.tokenizer import Tokenizer

__all__ = ["FinishReason", "TextRow"]

FinishReason = Literal["length", "stop", "end"]
"""Why a text ended: ``max_tokens``, a stop string or token, or an end symbol that stands for no text; a text that meets
its constraint and cannot go on has ended too."""


Over = Literal["whole", "ended"] | None
"""Whether a text meets its constraint and cannot go on, or was ended by the end symbol in place of more."""


class TextRow:
    """A text under way.

    Args:
        tokenizer: of its model. max_tokens: after so many it is finished. stop: strings that end it.
        before: the state that it goes on from; of it what was kept back and the last token count here.
        keep: whether what is kept back when ``max_tokens`` is reached stays so, for a next part, and is not shown.
        stop_tokens: ids that end it.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        max_tokens: int,
        stop: Sequence[str],
        before: KeptState,
        keep: bool = False,
        stop_tokens: Sequence[int] = (),
    ):
        self._stops = frozenset(stop_tokens)
        self.count, self.last, self._most, self._keep = 0, before.last, max_tokens, keep
        self.decoder, self._watch = tokenizer.decoder(before.last, before.pending), StopWatch(stop, before.held)
        end = tokenizer.end_id
        self._end = end if end is not None and not tokenizer.pieces[end] else None

    def push(self, token: int, over: Over = None) -> tuple[str, FinishReason | None]:
        """The text that a token adds, and why the text is now finished, if it is.

        Args:
            over: see :data:`Over`.
        """
        self.count, self.last = self.count + 1, token
        if token in self._stops:
            return self.finish()[0], "stop"
        text, stopped = self._watch.push("" if over == "ended" else self.decoder.push(token))
        if stopped:
            return text, "stop"
        ended = over is not None or token == self._end
        if not ended and self.count < self._most:
            return text, None
        if not ended and self._keep:
            return text, "length"
        rest, stopped = self.finish()
        return text + rest, "stop" if stopped else "end" if ended else "length"

    def fork(self) -> "TextRow":
        """The same text, to be gone on with in another way."""
        made = copy.copy(self)
        made.decoder, made._watch = self.decoder.fork(), self._watch.fork()
        return made

    def finish(self) -> tuple[str, bool]:
        """What was kept back, when no more comes, and whether it ends in a stop string."""
        last, stopped = self._watch.push(self.decoder.finish())
        return (last, True) if stopped else (last + self._watch.finish(), False)

    def after(self, begun: KeptState, read: int, tree: Any) -> KeptState:
        """The state after the text so far.

        Args:
            begun: what it went on from. read: tokens of the prompt before it. tree: its tensors, in the shared form.
        """
        drawn = self.count if read else begun.drawn + self.count
        return KeptState(
            begun.model, tree, begun.tokens + read + self.count, self.last, drawn, self.decoder.pending,
            self._watch.held, time.time(),
        )  # fmt: skip
