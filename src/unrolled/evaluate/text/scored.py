"""What is told of a text, and how."""

import math
from typing import Literal, NamedTuple

from pydantic import Field, model_validator

from unrolled.core.config import Config
from unrolled.core.errors import UsageError
from unrolled.evaluate.text.words import Unit

__all__ = ["ScoreConfig", "Scored"]


class ScoreConfig(Config):
    """What is told of a text, and where the state restarts."""

    unit: Literal["word", "token"] = Field(default="word", description="what one row is about")
    reset: Literal["none", "line", "document"] = Field(
        default="none",
        description="where the state restarts: nowhere within a text, at every line, or at the first line after blank "
        "ones",
    )
    boundary: Literal["leading", "trailing"] = Field(
        default="leading",
        description="to which word the end of a word is counted: to the next, with the space that its first token "
        "holds, or to the word itself",
    )
    entropy: bool = Field(default=False, description="entropy of the distribution that the (first) token comes from")
    rank: bool = Field(default=False, description="rank of the (first) token, 1 for the likeliest; ties share the best")
    top_k: int | None = Field(default=None, ge=1, description="the so many likeliest tokens in its place")
    window: int = Field(default=512, ge=1, description="tokens scored at once; never changes a surprisal, but for "
                        "Monte-Carlo dropout, whose masks last one window")  # fmt: skip
    close: bool = Field(default=True, description="whether the text ends where it ends, with the end symbol that its "
                        "vocabulary may have; if not, another part of it may follow")  # fmt: skip

    @model_validator(mode="after")
    def _consistent(self) -> "ScoreConfig":
        if self.unit == "token" and self.boundary == "trailing":
            raise UsageError("boundary = trailing is about the ends of words; it does not go with rows for tokens.")
        if not self.close and self.boundary == "trailing":
            raise UsageError("boundary = trailing needs the ends of all words; it does not go with a text left open.")
        return self

    def check_goes_on(self) -> None:
        """Raises UsageError where a text that goes on from a state cannot be told of so."""
        if self.boundary == "trailing":
            raise UsageError("boundary = trailing needs the beginning of the text; it does not go with a state.")

    @property
    def whole(self) -> bool:
        """Whether whole distributions are needed."""
        return self.entropy or self.rank or self.top_k is not None or self.boundary == "trailing"


class Scored(NamedTuple):
    """A word, a line end or a token.

    Attributes:
        text: the word, a newline, nothing for the end of a text; for a token its readable name.
        unit: the word or line end that it is, or is part of.
        offset: characters of the text before it, or before the token.
        tokens: how many it consists of. id: of its first token. unknown: whether one of them is the unknown symbol.
        nats: surprisal, the sum over its tokens.
        entropy: nats, rank, and top: (name, probability) of the likeliest tokens, top_ids: their ids; all in the place
            of its first token, and None where they were not asked for.
    """

    text: str
    unit: Unit
    offset: int
    tokens: int
    unknown: bool
    nats: float
    entropy: float | None = None
    rank: int | None = None
    top: tuple[tuple[str, float], ...] | None = None
    id: int | None = None
    top_ids: list[int] | None = None

    @property
    def bits(self) -> float:
        """Surprisal in bits."""
        return self.nats / math.log(2)
