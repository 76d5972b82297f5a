"""Names of tokens in answers, and where they stand in the text."""

import codecs
import math
from collections.abc import Sequence
from typing import Any

from unrolled.serve.engine.jobs import Probed
from unrolled.tokenizer import Tokenizer

__all__ = ["LogProbs"]


class LogProbs:
    """The log-probabilities of one text, in OpenAI's form.

    A token is named by the text that it adds; one that adds no whole characters is ``bytes:\\xNN``.

    Args:
        last: the token before the first. top: whether the likeliest tokens are told.
    """

    def __init__(self, tokenizer: Tokenizer, last: int | None, top: bool):
        self._decoder = tokenizer.decoder(last)
        self._characters = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._top, self._offset = top, 0

    def start(self) -> dict[str, Any]:
        """Of the start symbol, which nothing predicts."""
        return {
            "tokens": [""], "token_logprobs": [None], "top_logprobs": [None] if self._top else None, "text_offset": [0]
        }  # fmt: skip

    def value(self, tokens: Sequence[Probed], first_is_null: bool = False) -> dict[str, Any]:
        """Of tokens that follow those before. first_is_null: nothing is told of the first of them."""
        names, nats, tops, offsets = [], [], [], []
        for place, one in enumerate(tokens):
            silent = first_is_null and place == 0
            others: dict[str, float] = {}
            for index, value in one.top:
                if value == -math.inf:
                    break
                others.setdefault(_name(self._decoder.alternative(index)), value)
            data = self._decoder.bytes_of(one.token)
            offsets.append(self._offset)
            self._offset += len(self._characters.decode(data))
            names.append(_name(data))
            nats.append(None if silent or one.nats == -math.inf else one.nats)  # JSON has no infinity
            tops.append(None if silent else others)
        return {
            "tokens": names, "token_logprobs": nats, "top_logprobs": tops if self._top else None,
            "text_offset": offsets,
        }  # fmt: skip


def _name(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in data)
