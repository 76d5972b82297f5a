"""Numbers as few tokens: regression by a language model."""

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from unrolled.core.config import Config
from unrolled.core.errors import UsageError
from unrolled.data.tokens import Encoded
from unrolled.tokenizer.base import Tokenizer

__all__ = ["NumberConfig", "NumberTokenizer"]

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class NumberConfig(Config):
    """Options of numbers as tokens."""

    name: Literal["number"] = "number"
    base: int = Field(default=10, ge=2, le=len(_DIGITS), description="B, values of a digit")
    digits: int = Field(default=4, ge=1, le=64, description="K, digits of a number, or M of its mantissa")
    exponent: int = Field(
        default=0, ge=0, le=8, description="E, digits of the exponent; 0: numbers of [0, 1), else any with a sign"
    )

    @model_validator(mode="after")
    def _finite(self) -> Self:
        if self.base**self.exponent * math.log(self.base) > 700:
            raise UsageError("numbers with so many digits of exponent are beyond floating point; lower exponent.")
        return self


class NumberTokenizer(Tokenizer):
    r"""Numbers of K tokens each (Song and Bahri 2025, decoding-based regression).

    Without an exponent a number of [0, 1) is the K digits, base B, of :math:`\lfloor y B^K \rfloor`, the number 1 is in
    the last cell, and a cell stands for its middle, so that the error is at most :math:`B^{-K}/2`. With E digits of
    exponent a number is a sign, the sign of its exponent, E digits of it and M digits of the mantissa, most significant
    first: it is rounded to M digits, carries included, and 0 below the smallest exponent. As text a number is its
    digits in one piece each, and numbers stand on lines.
    """

    kind = "number"
    Config = NumberConfig

    def __init__(self, config: NumberConfig):
        super().__init__(
            config, [*(one.encode() for one in _DIGITS[: config.base]), b"+", b"-", b"\n"], end=config.base + 2
        )
        self.plus, self.minus = config.base, config.base + 1

    @property
    def length(self) -> int:
        """Tokens of a number."""
        return self.config.digits + (2 + self.config.exponent if self.config.exponent else 0)

    @property
    def largest(self) -> float:
        """The largest number that has tokens; 1 without an exponent."""
        if not self.config.exponent:
            return 1.0
        return self._scaled(self._most, self.config.base**self.config.digits - 1)

    @property
    def _most(self) -> int:
        return self.config.base**self.config.exponent - 1

    def _scaled(self, exponent: int, mantissa: int) -> float:
        return float(mantissa * Fraction(self.config.base) ** (exponent - self.config.digits + 1))

    def choices(self, place: int) -> list[int]:
        """The ids that the token at a place of a number may be, the first place being 0."""
        if not 0 <= place < self.length:
            return [self.end_id] if place == self.length and self.end_id is not None else []
        return [self.plus, self.minus] if self.config.exponent and place < 2 else list(range(self.config.base))

    def encode_number(self, y: float) -> list[int]:
        """The ids of a number.

        Raises:
            UsageError: not finite, or outside [0, 1] without an exponent, or too large with one.
        """
        config = self.config
        if not config.exponent:
            if not 0 <= y <= 1:
                raise UsageError(
                    f"numbers of this form lie between 0 and 1, and {y!r} does not; scale them, or set exponent."
                )
            return self._digits(min(int(y * config.base**config.digits), config.base**config.digits - 1), config.digits)
        if not math.isfinite(y) or abs(y) > self.largest:
            raise UsageError(f"{y!r} is beyond what {config.exponent} digits of exponent hold; raise exponent.")
        exponent, mantissa = self._scientific(abs(y))
        signs = [self.minus if y < 0 else self.plus, self.minus if exponent < 0 else self.plus]
        return [*signs, *self._digits(abs(exponent), config.exponent), *self._digits(mantissa, config.digits)]

    def _scientific(self, y: float) -> tuple[int, int]:
        """Exponent and mantissa, an integer of M digits; what is below the smallest exponent is 0."""
        config = self.config
        if y == 0:
            return 0, 0
        least = config.base ** (config.digits - 1)
        exponent = math.floor(math.log(y) / math.log(config.base)) - 1  # the logarithm may be off by one
        while (mantissa := round(Fraction(y) * Fraction(config.base) ** (config.digits - 1 - exponent))) >= (
            least * config.base
        ):
            exponent += 1
        return (exponent, mantissa) if exponent >= -self._most else (0, 0)

    def decode_number(self, ids: Sequence[int]) -> float:
        """The number of some ids.

        Raises:
            UsageError: they are none.
        """
        config = self.config
        if len(ids) != self.length or any(one not in self.choices(place) for place, one in enumerate(ids)):
            raise UsageError(f"a number of this form has {self.length} tokens, signs first; these are none.")
        if not config.exponent:
            return (self._value(ids) + 0.5) / config.base**config.digits
        exponent, mantissa = self._value(ids[2 : 2 + config.exponent]), self._value(ids[2 + config.exponent :])
        size = self._scaled(-exponent if ids[1] == self.minus else exponent, mantissa)
        return -size if ids[0] == self.minus else size

    def _digits(self, value: int, count: int) -> list[int]:
        return [value // self.config.base ** (count - 1 - i) % self.config.base for i in range(count)]

    def _value(self, ids: Sequence[int]) -> int:
        return sum(one * self.config.base ** (len(ids) - 1 - i) for i, one in enumerate(ids))

    @classmethod
    def train(cls, config: Any, blocks: Iterable[bytes]) -> Self:
        """Nothing to learn."""
        return cls(config)

    @classmethod
    def needs_training(cls, config: Any) -> bool:
        """See :meth:`Tokenizer.needs_training`."""
        return False

    def encode_block(self, block: bytes) -> Encoded:
        """One id a character. Raises UsageError for one that is no digit, sign or line end."""
        known = {piece[0]: index for index, piece in enumerate(self.pieces)}
        odd = next((one for one in block if one not in known), None)
        if odd is not None:
            raise UsageError(
                f"{chr(odd)!r} is no digit of base {self.config.base}; give numbers as this tokenizer writes them."
            )
        return Encoded.exact(np.array([known[one] for one in block], np.int64))

    def to_json(self) -> dict[str, Any]:
        """Nothing beside the configuration."""
        return {}

    @classmethod
    def from_json(cls, config: Any, state: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_json`."""
        return cls(config)
