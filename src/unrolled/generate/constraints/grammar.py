"""Regular expressions, grammars and JSON, by llguidance (the extra ``constrain``)."""

import json
import random
from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor

from unrolled.core.errors import UsageError
from unrolled.core.extras import require
from unrolled.generate.constraints.base import Constraint, ConstraintConfig
from unrolled.tokenizer import Tokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

__all__ = ["JSON", "Grammar", "GrammarConfig", "JSONConfig", "Regex", "RegexConfig"]

_WALKS, _STEPS = 3, 64
_LONGEST = 1 << 16


class _Place:
    """matcher: consumes nothing once it is here. closed: whether a word that comes next has no space before it. mask:
    of what may come next, once it was asked for."""

    __slots__ = ("closed", "mask", "matcher")

    def __init__(self, matcher: "LLMatcher", closed: bool):
        self.matcher, self.closed = matcher, closed
        self.mask: Tensor | None = None


class _Pieces:
    """A vocabulary as llguidance asks for it. What has no text becomes bytes that are in no text, told as special."""

    bos_token_id = None

    def __init__(self, pieces: Sequence[bytes]):
        # a last one for the end, which is no token of the model: constraints leave ends to their caller
        self.tokens = [piece or b"\xff<%d>" % i for i, piece in enumerate([*pieces, b""])]
        self.special_token_ids = [i for i, piece in enumerate([*pieces, b""]) if not piece]
        self.eos_token_id = len(pieces)
        self._bytes = {piece: i for i, piece in enumerate(self.tokens) if len(piece) == 1}

    def __call__(self, data: bytes) -> list[int]:
        return [self._bytes[piece] for one in data if (piece := bytes([one])) in self._bytes]


def _vocabulary(pieces: Sequence[bytes]) -> "LLTokenizer":
    from llguidance import LLTokenizer, TokenizerWrapper

    return LLTokenizer(TokenizerWrapper(_Pieces(pieces)), slices=[])


class _Grammatical(Constraint):
    """A constraint that llguidance compiles.

    Words are written with a space before them unless they begin a line, so each has two pieces there, with and without
    it, and the place says which of the two counts. The space before the first word belongs to the prompt. After a word
    comes a space, a line end or the end, and nothing else: further pieces, of a word and what follows it, tell whether
    one of these may be.
    """

    def __init__(self, config: Any, tokenizer: Tokenizer):
        super().__init__(config, tokenizer)
        require("constrain", "llguidance")
        from llguidance import LLMatcher

        tables, pieces = tokenizer.tables, tokenizer.pieces
        self._size = len(pieces)
        self._implied, self._closes = tables.implied.tolist(), tables.closes.tolist()
        self._words = [i for i, one in enumerate(self._implied) if one]
        self._place_of = {token: self._size + place for place, token in enumerate(self._words)}
        more = [b" " + pieces[i] for i in self._words]
        for before in (b"", b" "):
            more += [before + pieces[i] + after for after in (b" ", b"\n") for i in self._words]
        self._grammar = self.grammar()
        first = LLMatcher(_vocabulary([*pieces, *more]), self._grammar, log_level=0)
        if first.is_error():
            raise UsageError(f"the constraint {config.name} cannot be read: {_plain(first.get_error())}.")
        self._first = _Place(first, True)
        self._check()

    @abstractmethod
    def grammar(self) -> str:
        """In the form of llguidance. Raises UsageError."""

    def begin(self, prompt: Sequence[int]) -> _Place:
        """See :meth:`Constraint.begin`."""
        return self._first

    def allowed(self, value: _Place) -> Tensor:
        """See :meth:`Constraint.allowed`."""
        if value.mask is None:
            found = torch.frombuffer(bytearray(value.matcher.compute_logit_bias()), dtype=torch.uint8)[:-1] > 0
            self._check_limits(value.matcher)
            value.mask = found[: self._size].clone()
            if self._words:
                self._mask_words(value, value.mask, found)
        return value.mask

    def _mask_words(self, value: _Place, mask: Tensor, found: Tensor) -> None:
        spaced, *after = found[self._size :].view(5, -1)
        own = mask[self._words] if value.closed else spaced
        onward = after[0] | after[1] if value.closed else after[2] | after[3]
        mask[self._words] = onward
        for place in (own & ~onward).nonzero().squeeze(1).tolist():
            # nothing may follow, so that it is allowed as the last word alone
            token = self._words[place]
            mask[token] = self.complete(self.advance(value, token))

    def advance(self, value: _Place, token: int) -> _Place:
        """See :meth:`Constraint.advance`."""
        matcher = value.matcher.deep_copy()
        spaced = not value.closed and self._implied[token]
        matcher.consume_token(self._place_of[token] if spaced else token)
        self._check_limits(matcher)
        return _Place(matcher, bool(self._closes[token]))

    def _check_limits(self, matcher: "LLMatcher") -> None:
        # that no token of the vocabulary goes on is no limit: the mask says so
        if matcher.is_error() and "NoExtension" not in matcher.get_error():
            raise UsageError(
                f"the constraint {self.config.name} came to its limits: {_plain(matcher.get_error())}; make it simpler."
            )

    def complete(self, value: _Place) -> bool:
        """See :meth:`Constraint.complete`."""
        return value.matcher.is_accepting()

    def lacking(self, said: Sequence[int]) -> str:
        """Which characters would have to come next, none of which the vocabulary can write."""
        from llguidance import LLMatcher

        matcher = LLMatcher(_vocabulary([bytes([one]) for one in range(256)]), self._grammar, log_level=0)
        matcher.consume_tokens(list(self.tokenizer.decode_bytes(said)))
        signs = [one for one, allowed in enumerate(matcher.compute_logit_bias()[:256]) if allowed]
        names = ", ".join(repr(chr(one)) if one < 128 else f"byte {one:02x}" for one in signs[:12])
        more = f" and {len(signs) - 12} more" if len(signs) > 12 else ""
        return f"the vocabulary has no token for what must come next ({names}{more})"

    def _check(self) -> None:
        """Some walks through the texts that are allowed: one that comes to a dead end shows what is missing."""
        drawn = random.Random(0)
        for _ in range(_WALKS):
            value, said = self._first, []
            for _ in range(_STEPS):
                choices = self.allowed(value).nonzero().squeeze(1).tolist()
                if not choices:
                    if not self.complete(value):
                        raise UsageError(f"with the constraint {self.config.name} {self.lacking(said)}; {_REMEDY}.")
                    break
                said.append(drawn.choice(choices))
                value = self.advance(value, said[-1])


_REMEDY = "use a model of bytes, or change the constraint"


def _plain(message: str) -> str:
    """The first two lines of a report that has several, with what is told after the picture of where."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith("error: ")]
    return (
        ", ".join([lines[0].rstrip(".:"), *(line.removeprefix("error: ") for line in told[:1])]) if lines else "error"
    )


class RegexConfig(ConstraintConfig):
    """Options of a regular expression."""

    short: ClassVar[str | None] = "pattern"

    name: Literal["regex"] = "regex"
    pattern: str = Field(
        min_length=1,
        max_length=_LONGEST,
        description="that the whole text matches, in the syntax of Rust's crate regex",
    )


class Regex(_Grammatical):
    """Texts that match a regular expression as a whole."""

    Config = RegexConfig
    EXAMPLES = (RegexConfig(pattern="[A-Z][a-z]{2,8} [0-9]{1,3}"), RegexConfig(pattern="(é|日本){2,3}|no"))

    def grammar(self) -> str:
        """See :meth:`_Grammatical.grammar`."""
        from llguidance import LLMatcher

        return LLMatcher.grammar_from_regex(self.config.pattern)


class GrammarConfig(ConstraintConfig):
    """Options of a grammar."""

    short: ClassVar[str | None] = "rules"

    name: Literal["grammar"] = "grammar"
    rules: str = Field(
        min_length=1, max_length=_LONGEST, description="in the syntax of Lark, as llguidance reads it; begins at start"
    )


class Grammar(_Grammatical):
    """Texts of a context-free language."""

    Config = GrammarConfig
    EXAMPLES = (GrammarConfig(rules='start: "(" start? ")" | NUMBER ("+" start)?\nNUMBER: /[0-9]{1,2}/'),)

    def grammar(self) -> str:
        """See :meth:`_Grammatical.grammar`."""
        from llguidance import LLMatcher

        return LLMatcher.grammar_from_lark(self.config.rules)


class JSONConfig(ConstraintConfig):
    """Options of JSON."""

    short: ClassVar[str | None] = "value"

    name: Literal["json"] = "json"
    value: dict[str, Any] | str = Field(
        default={}, description="a JSON schema, as an object or as its text; an empty one allows every value"
    )
    spaces: bool = Field(
        default=False, description="whether white space may stand between values; a small model may go on with it"
    )

    @field_validator("value", mode="after")
    @classmethod
    def _schema(cls, value: dict[str, Any] | str) -> dict[str, Any]:
        try:
            found = json.loads(value) if isinstance(value, str) else value
            if isinstance(found, dict):
                return found
        except (ValueError, RecursionError):
            pass
        raise ValueError('a JSON schema is a JSON object, such as {"type": "array"}')


class JSON(_Grammatical):
    """JSON that fits a schema."""

    Config = JSONConfig
    EXAMPLES = (
        JSONConfig(value={"type": "array", "items": {"enum": [1, "a", None]}, "maxItems": 3}, spaces=True),
        JSONConfig(
            value={"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"],
                   "additionalProperties": False}
        ),
    )  # fmt: skip

    def grammar(self) -> str:
        """See :meth:`_Grammatical.grammar`."""
        from llguidance import LLMatcher

        return LLMatcher.grammar_from_json_schema(
            json.dumps(self.config.value), overrides={"whitespace_flexible": self.config.spaces}
        )
