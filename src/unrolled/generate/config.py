"""How the next token is chosen."""

from collections.abc import Mapping

from pydantic import Field

from unrolled.core.config import Config
from unrolled.core.errors import UsageError
from unrolled.generate.constraints import AnyConstraintConfig
from unrolled.tokenizer import Tokenizer

__all__ = ["Choosing", "SamplerConfig", "bias_of", "token_of"]


class Choosing(Config):
    """Options of choosing that the sampler and a server's requests have by the same names."""

    temperature: float = Field(
        default=1.0,
        ge=0,
        description="divides the log-probabilities; 0: always the most probable token",
    )
    top_k: int | None = Field(default=None, ge=1, description="keep the k most probable tokens, and ties with the last")
    top_p: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="keep the fewest tokens, best first, that hold this probability",
    )
    min_p: float | None = Field(
        default=None, ge=0, le=1, description="keep tokens at least this fraction as probable as the best"
    )
    typical: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="keep the fewest tokens that hold this probability, those whose surprisal is nearest the entropy "
        "first",
    )
    epsilon: float | None = Field(
        default=None, gt=0, lt=1, description="keep tokens of at least this probability, and the best"
    )
    eta: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="as epsilon, with a smaller bound, sqrt(eta) exp(-entropy), where the distribution is flat",
    )
    repetition: float | None = Field(
        default=None,
        ge=1,
        description="multiplies the log-probability of every token that prompt and text have had (CTRL's penalty)",
    )
    no_repeat: int | None = Field(
        default=None, ge=1, description="no sequence of so many generated tokens occurs a second time"
    )
    no_repeat_prompt: bool = Field(default=False, description="whether sequences of the prompt count there too")
    min_tokens: int = Field(default=0, ge=0, description="the end symbol is not chosen before so many tokens")

    stop_tokens: tuple[int, ...] = Field(default=(), description="ids that end the text and are not shown")
    constrain: AnyConstraintConfig | None = Field(default=None, description="what the text may be; default: anything")


class SamplerConfig(Choosing):
    """How the next token is chosen: by what was said first, then temperature and filters, then a draw."""

    seed: int = Field(default=0, description="seed of the draws")
    bias: dict[int, float] = Field(default={}, description="id -> what is added to its log-probability before all else")
    presence: float = Field(
        default=0.0, description="is taken off the log-probability of every token that was generated before"
    )
    frequency: float = Field(default=0.0, description="is taken off as often as a token was generated before")
    backspace: int | None = Field(
        default=None, ge=0, description="id that takes the last token back, as models of the objective match learn it"
    )
    backspace_depth: int = Field(
        default=256,
        ge=1,
        le=10**6,
        description="tokens that can be taken back one after another, whose states are kept",
    )

    @property
    def remembers(self) -> bool:
        """Whether what was said changes what is chosen."""
        plain = self.repetition in (None, 1.0) and not self.presence and not self.frequency
        return not plain or self.no_repeat is not None or self.min_tokens > 0 or self.constrain is not None


def token_of(text: str, tokenizer: Tokenizer) -> int:
    """The id of a text that is one token. Raises UsageError for none, and for several, whose names are told."""
    ids = tokenizer.encode(text)
    if len(ids) != 1:
        names = ", ".join(repr(tokenizer.token(one)) for one in ids[:8]) or "none"
        raise UsageError(f"one token is asked for, and {text!r} is {len(ids)}: {names}; choose one of them.")
    return ids[0]


def bias_of(texts: Mapping[str, float], tokenizer: Tokenizer) -> dict[int, float]:
    """The option ``bias`` from texts of single tokens, see :func:`token_of`."""
    return {token_of(text, tokenizer): value for text, value in texts.items()}
