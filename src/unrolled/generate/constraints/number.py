"""Numbers of a number tokenizer."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from unrolled.core.errors import UsageError
from unrolled.generate.constraints.base import Constraint, ConstraintConfig
from unrolled.tokenizer import Tokenizer
from unrolled.tokenizer.number import NumberTokenizer

__all__ = ["Number", "NumberConstraintConfig"]


class NumberConstraintConfig(ConstraintConfig):
    """No options: the tokenizer says what a number is."""

    name: Literal["number"] = "number"


class Number(Constraint):
    """One number, as :class:`unrolled.tokenizer.number.NumberTokenizer` writes it."""

    Config = NumberConstraintConfig
    EXAMPLES = (NumberConstraintConfig(),)

    def __init__(self, config: NumberConstraintConfig, tokenizer: Tokenizer):
        super().__init__(config, tokenizer)
        if not isinstance(tokenizer, NumberTokenizer):
            raise UsageError(
                f"the constraint number needs the tokenizer number, and this is {tokenizer.kind}; leave it out."
            )
        self.tokenizer: NumberTokenizer = tokenizer

    def begin(self, prompt: Sequence[int]) -> int:
        """See :meth:`Constraint.begin`."""
        return 0

    def allowed(self, value: int) -> Tensor:
        """See :meth:`Constraint.allowed`."""
        mask = torch.zeros(self.tokenizer.vocab_size, dtype=torch.bool)
        if value < self.tokenizer.length:
            mask[self.tokenizer.choices(value)] = True
        return mask

    def advance(self, value: int, token: int) -> int:
        """See :meth:`Constraint.advance`."""
        return value + 1

    def complete(self, value: int) -> bool:
        """See :meth:`Constraint.complete`."""
        return value == self.tokenizer.length
