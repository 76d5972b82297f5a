"""What a plan asks: contrasts of two systems, and the rules by which their verdicts become an answer."""

from typing import Literal

from pydantic import Field, model_validator

from unrolled.core.config import Config

__all__ = ["ContrastConfig", "RuleConfig", "Verdict"]

Verdict = Literal["better", "worse", "equivalent", "undecided"]


class ContrastConfig(Config):
    """Two systems compared on the validation split, at equal seeds where both have them."""

    name: str = Field(min_length=1, description="what the report and the rules call it")
    better: str | None = Field(default=None, description="the system that is expected to be better, registered as such")
    first: str | None = Field(default=None, description="one of the systems, where no direction is expected")
    than: str = Field(min_length=1, description="the other system")
    smallest: float | None = Field(
        default=None, gt=0, description="bits per token below which nobody cares; equivalence is judged by it"
    )
    corpora: tuple[str, ...] = Field(
        default=(), description="of the plan's corpora (absent: each, and pooled over all)"
    )
    figure: str = Field(
        default="nats_per_token", description="nats_per_token, train_nats, or a further figure of the runs by name"
    )

    @model_validator(mode="after")
    def _one_of(self) -> "ContrastConfig":
        if (self.better is None) == (self.first is None):
            raise ValueError(f"contrast {self.name!r}: give better or first, one of them")
        if self.better is not None and self.smallest is None:
            raise ValueError(f"contrast {self.name!r}: better needs smallest, the bits below which nobody cares")
        return self

    @property
    def one(self) -> str:
        """The system named first."""
        return self.better or self.first or ""


class RuleConfig(Config):
    """A row of the table that turns verdicts into the answer; the first whose conditions all hold is the answer."""

    when: dict[str, tuple[Verdict, ...]] = Field(description="verdicts that each contrast, by name, may have")
    say: str = Field(min_length=1, description="the answer")
