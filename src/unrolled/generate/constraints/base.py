"""The contract of a constraint: which tokens may come next, and whether a text may end."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import Field
from torch import Tensor

from unrolled.core.config import Config
from unrolled.tokenizer import Tokenizer

__all__ = ["Constraint", "ConstraintConfig"]


class ConstraintConfig(Config):
    """Options of a constraint. A subclass fixes ``name`` to its name in the table.

    Attributes:
        short: the option that a bare value sets, as in ``--constrain regex=[0-9]+``; None where there is none.
        reads_files: whether an option names a file, so that a server does not take it from strangers.
    """

    short: ClassVar[str | None] = None
    reads_files: ClassVar[bool] = False

    name: str = Field(description="of the constraint, in the table")


class Constraint(ABC):
    """A set of texts, and where one stands on the way to them.

    Where one stands is a value of any kind that no method changes, since beams go on from one in several ways. The
    constraint says nothing of the end symbol: it may come where :meth:`complete` holds.

    Args:
        config: of the class ``Config``. tokenizer: of the model.
    Raises:
        UsageError, UnrolledError: it cannot be read, or this vocabulary cannot meet it; in one sentence.

    Attributes:
        EXAMPLES: options that a byte vocabulary can meet; each runs through the conformance suite.
    """

    Config: ClassVar[type[ConstraintConfig]]
    EXAMPLES: ClassVar[tuple[ConstraintConfig, ...]] = ()

    def __init__(self, config: Any, tokenizer: Tokenizer):
        self.config, self.tokenizer = config, tokenizer

    @abstractmethod
    def begin(self, prompt: Sequence[int]) -> Any:
        """Where a text stands that nothing was generated of. prompt: the ids before it, which need not fit."""

    @abstractmethod
    def allowed(self, value: Any) -> Tensor:
        """Which tokens may come next, boolean (V,) on the CPU; not to be changed."""

    @abstractmethod
    def advance(self, value: Any, token: int) -> Any:
        """Where the text stands with one more token, which is allowed."""

    @abstractmethod
    def complete(self, value: Any) -> bool:
        """Whether the text may end here."""

    def lacking(self, said: Sequence[int]) -> str:
        """What would have to come next and cannot, as the end of a sentence. said: what was generated."""
        return "no token of the vocabulary may come next"
