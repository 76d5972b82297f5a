"""What the files of a study must look like: one that was damaged is a sentence, whatever reads it."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from unrolled.compare.tune.space import Value

__all__ = ["KIND", "TRIAL_KIND", "VERSION", "sound_result", "sound_trial"]

KIND, VERSION = "unrolled trial result", 1
TRIAL_KIND = "unrolled trial"

_Count = Annotated[int, Field(ge=0, le=2**53)]
_Seconds = Annotated[float, Field(ge=0, le=1e12)]
_Nats = Annotated[float, Field(ge=-1e9, le=1e9)]


class _Form(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False)


class _Trial(_Form):
    kind: Literal["unrolled trial"]
    number: _Count
    settings: dict[str, Value]


class _Result(_Form):
    kind: Literal["unrolled trial result"]
    version: Literal[1]
    id: str
    job: Literal["time", "trial", "confirm"]
    number: _Count | None = None
    settings: dict[str, Value] | None = None
    seed: _Count | None = None
    status: Literal["finished", "pruned", "diverged", "refused"] | None = None
    value: _Nats | None = None
    bits_per_character: _Nats | None = None
    cpu_seconds: _Seconds = 0.0
    score_seconds: _Seconds = 0.0
    tokens: _Count = 0
    parameters: _Count | None = None
    step: _Count | None = None
    share: Annotated[float, Field(gt=0, lt=1)] | None = None
    reason: str = ""
    seconds_per_token: dict[str, Annotated[float, Field(gt=0, le=1e6)]] = {}

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.job == "time":
            if "recipe" not in self.seconds_per_token:
                raise ValueError("no time")
            return self
        given = {"number", "seed", "status", "value", "cpu_seconds"} | (
            {"tokens"} if self.status == "finished" else set()
        )
        known = given <= self.model_fields_set and None not in (self.number, self.seed, self.status)
        has_value = (self.status in ("finished", "pruned")) == (self.value is not None)
        stopped = self.status != "pruned" or (self.step is not None and self.share is not None)
        sized = self.status not in ("finished", "pruned") or self.parameters is not None
        if not (known and has_value and stopped and sized) or (self.job == "trial" and self.settings is None):
            raise ValueError("a part is missing")
        return self


def sound_result(value: Any, name: str) -> bool:
    """Whether a value is the result of the job of this name, as far as anything here reads it."""
    return _parses(_Result, value) and value["id"] == name


def sound_trial(value: Any, number: int) -> bool:
    """Whether a value says what the trial of this number is given."""
    return _parses(_Trial, value) and value["number"] == number


def _parses(form: type[_Form], value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    try:
        form.model_validate(value)
    except ValidationError:
        return False
    return True
