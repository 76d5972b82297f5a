"""One text of an answer, piece by piece or whole."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from unrolled.predict import KeptState
from unrolled.serve.engine.jobs import Probed, Wrote
from unrolled.serve.http.tokens import LogProbs
from unrolled.tokenizer import Tokenizer

__all__ = ["Choice", "Prompt"]


class Prompt(NamedTuple):
    """What a text goes on from.

    ids: of its prompt. last: the token before them. echo: the prompt as it comes back; None: it does not. start:
    whether the ids began with the start symbol. null: whether nothing is told of the first token's log-probability.
    """

    ids: list[int]
    last: int | None
    echo: str | None
    start: bool
    null: bool


class Choice:
    """A text.

    Args:
        top: how many of the likeliest tokens are told; None: no log-probabilities.
        give: makes what the client is given of the state after the text; None where it asks for none.
    """

    def __init__(
        self,
        index: int,
        tokenizer: Tokenizer,
        prompt: Prompt,
        top: int | None,
        give: Callable[[Wrote], str | None],
    ):
        self.index, self._prompt, self._give = index, prompt, give
        last = prompt.last if prompt.echo is not None or not prompt.ids else prompt.ids[-1]
        self._told = None if top is None else LogProbs(tokenizer, last, top > 0)
        self._text: list[str] = []
        self._parts: list[dict[str, Any]] = []
        self._first = True
        self.written, self.reason = 0, None
        self._extra: dict[str, Any] = {}

    def begin(self) -> dict[str, Any] | None:
        """The prompt, where it comes back."""
        if self._prompt.echo is None:
            return None
        told = self._told.start() if self._told is not None and self._prompt.start else None
        return self._value(self._prompt.echo, told)

    def read(self, tokens: Sequence[Probed]) -> dict[str, Any] | None:
        """Some tokens of the prompt, where they are told of."""
        if self._told is None:
            return None
        null = self._first and self._prompt.null and not self._prompt.start
        self._first = False
        return self._value("", self._told.value(tokens, null))

    def take(self, events: Sequence[Wrote]) -> dict[str, Any]:
        """What some tokens add."""
        tokens = [one.token for one in events if one.token is not None]
        self.written += len(tokens)
        told = None if self._told is None else self._told.value(tokens)
        if events[-1].reason is not None:
            self._finish(events[-1])
        return self._value("".join(one.text for one in events), told)

    def end(self, state: KeptState | None) -> dict[str, Any]:
        """The end of a text of which nothing is written."""
        self._finish(Wrote(self.index, None, "", "length", state))
        return self._value("", None)

    def _finish(self, last: Wrote) -> None:
        self.reason = "stop" if last.reason == "end" else last.reason
        given = self._give(last)
        if given is not None and last.state is not None:
            self._extra = {"state": given, "held": last.state.held, "state_tokens": last.state.tokens}

    def _value(self, text: str, told: dict[str, Any] | None) -> dict[str, Any]:
        return {"text": text, "index": self.index, "logprobs": told, "finish_reason": self.reason, **self._extra}

    def add(self, value: dict[str, Any] | None) -> None:
        """For an answer that is given whole."""
        if value is not None:
            self._text.append(value["text"])
            if value["logprobs"] is not None:
                self._parts.append(value["logprobs"])

    def whole(self) -> dict[str, Any]:
        """All that was added."""
        if self._told is None:
            return self._value("".join(self._text), None)
        told = self._told.value([])
        for part in self._parts:
            told = {name: value if value is None else value + part[name] for name, value in told.items()}
        return self._value("".join(self._text), told)
