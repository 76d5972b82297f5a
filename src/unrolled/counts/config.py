"""Options of count-based language models."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from unrolled.core.config import Config, VersionedConfig

__all__ = ["MOST_ORDERS", "KneserNeyConfig", "NgramConfig"]

MOST_ORDERS, MOST_SKIPPED = 100, 8
"""Greatest order, and with skip n-grams."""

Sentences = Literal["reset", "continuous"]


class KneserNeyConfig(Config):
    """How a Kneser-Ney model is estimated."""

    order: int = Field(default=5, ge=1, le=MOST_ORDERS, description="longest n-gram, in tokens; 1 counts tokens alone")
    discount: Literal["modified", "single"] = Field(
        default="modified",
        description="modified: three discounts per order, for counts of 1, 2, and 3 or more (Chen and Goodman "
        "1998); single: one (Kneser and Ney 1995)",
    )
    prune: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        default=(1,),
        min_length=1,
        description="least count in the text that an n-gram of order 1, 2, ... needs to be kept; the last value "
        "holds for all higher orders; begins with 1 and never falls: 1 1 2 drops what is seen once from order 3 on",
    )
    dropped: Literal["interpolate", "backoff"] = Field(
        default="interpolate",
        description="where the probability of dropped n-grams goes; interpolate: to all tokens by the lower order, "
        "as in KenLM; backoff: to those that are not kept after the same context, as in SRILM",
    )
    sentences: Sentences = Field(
        default="reset",
        description="reset: contexts begin anew after each end symbol, as in SRILM and KenLM; continuous: "
        "contexts run across the ends of lines",
    )

    skips: bool = Field(
        default=False,
        description="contexts with holes beside those cut short (Pickhardt et al. 2014): 2^(order - 1) tables, no ARPA",
    )

    @model_validator(mode="after")
    def _skips(self) -> Self:
        if self.skips and self.order > MOST_SKIPPED:
            raise ValueError(f"skips makes 2^(order - 1) tables; order is at most {MOST_SKIPPED} with it.")
        return self

    @model_validator(mode="after")
    def _prune(self) -> Self:
        if self.prune[0] != 1:
            raise ValueError("prune begins with 1: every token of the vocabulary is kept.")
        if list(self.prune) != sorted(self.prune):
            raise ValueError("prune never falls from one order to the next, or an n-gram would lose its beginning.")
        if len(self.prune) > self.order:
            raise ValueError(f"prune names {len(self.prune)} orders, and the model has {self.order}.")
        return self

    def least(self, order: int) -> int:
        """The least count of the n-grams of ``order`` that are kept."""
        return self.prune[min(order, len(self.prune)) - 1]


class NgramConfig(VersionedConfig):
    """What the tables of an n-gram model mean."""

    kind: ClassVar[str] = "ngram-model"

    order: int = Field(ge=1, le=MOST_ORDERS, description="longest n-gram, in tokens")
    vocab_size: int = Field(ge=1, description="number of ids V")
    start_id: int = Field(ge=0, description="the end symbol, which also stands before the first token of a text")
    sentences: Sentences = Field(description="whether contexts run across end symbols, see KneserNeyConfig")
    estimation: KneserNeyConfig | None = Field(default=None, description="how it was estimated; null: elsewhere")
    discounts: tuple[tuple[float, ...], ...] = Field(
        default=(), description="per order, what is subtracted from a count of 1, 2, and 3 or more"
    )
    fallback: tuple[int, ...] = Field(
        default=(), description="orders whose counts of counts gave no discounts, so that fixed ones were used"
    )
    tables_sha256: str | None = Field(
        default=None, description="sha256 of the file of tables beside this one; null: was never saved"
    )

    @model_validator(mode="after")
    def _start(self) -> Self:
        if self.start_id >= self.vocab_size:
            raise ValueError(f"start_id {self.start_id} is outside the vocabulary of {self.vocab_size}.")
        return self
