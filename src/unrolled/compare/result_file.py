"""What a job's result must say, so that a damaged file is told in a sentence and not met in the middle of a report."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

__all__ = ["RESULT_KIND", "RESULT_VERSION", "is_sound"]

RESULT_KIND, RESULT_VERSION = "unrolled job result", 1

_Number = Annotated[float, Field(allow_inf_nan=False)]
_NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Point(BaseModel):
    model_config = ConfigDict(extra="forbid")
    tokens: int
    cpu_seconds: _Number
    nats_per_token: _Number


class _Timed(BaseModel):
    seconds_per_token: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]]


class _Diverged(BaseModel):
    status: Literal["diverged"]
    system: str
    corpus: str
    seed: int
    value: float | int | str | None
    tokens: Annotated[int, Field(ge=0)]
    cpu_seconds: _NotNegative
    wall_seconds: _NotNegative
    machine: str
    backends: dict[str, str]
    curve: list[_Point]


class _Finished(_Diverged):
    status: Literal["finished"]  # type: ignore[assignment]
    nats_per_token: _Number
    bits_per_character: _Number | None = None
    train_nats: _Number | None = None
    blocks: list[_Number] = []
    figures: dict[str, _Number] = {}


def is_sound(value: Any, kind: str, systems: set[str]) -> bool:
    """Whether a result holds what is read of it.

    Args:
        kind: of the job: time, search or run. systems: on its corpus.
    """
    if not isinstance(value, dict) or (value.get("kind"), value.get("version")) != (RESULT_KIND, RESULT_VERSION):
        return False
    try:
        if kind == "time":
            return systems <= set(_Timed.model_validate(value, strict=True).seconds_per_token)
        (_Diverged if value.get("status") == "diverged" else _Finished).model_validate(value, strict=True)
    except ValidationError:
        return False
    return True
