"""How far a run is."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["Progress"]

Count = Annotated[int, Field(ge=0, le=2**53)]
Seconds = Annotated[float, Field(ge=0)]


class Progress(BaseModel):
    """The numbers of a run that a resumed one goes on with; saved as ``progress.json`` beside the tensors.

    phase, phase_step, phase_steps: the phase under way, its steps done and planned (0: not planned yet).
    step, tokens: of the whole run. position: number of the next window. best: nats per token of the best
    validation, at best_step. stale: validations since. valid: the last validation. recent: nats of the last steps.
    phase_began: (wall, CPU) seconds of the run when the phase began; start-up belongs to the first.
    checks: validations of the phase that were due so far. validations: how many a budget in time has room for (0: as
    many as the settings say).
    plans: (step of the phase, steps planned) of the phase's first plan and of each revision.
    check_seconds: of one validation, by the clock of the phase's budget.
    epoch_nats, epoch_tokens: sums of the phase over as many tokens as an epoch has, so far. reached: the phase's
    until_loss was.
    history: nats of the phase's validations. averaging: the numbers of the phase's averager. averaging_began: step of
    the run at which the average began that validations now use.
    wall_seconds, cpu_seconds: spent so far. metrics_bytes: length of metrics.jsonl. checksums: of the text, by split.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    phase: Count = 0
    phase_step: Count = 0
    phase_steps: Count = 0
    phase_began: tuple[Seconds, Seconds] = (0.0, 0.0)
    plans: list[tuple[Count, Count]] = []
    checks: Count = 0
    validations: Count = 0
    check_seconds: float = 0.0
    step: Count = 0
    position: Count = 0
    tokens: Count = 0
    best: float | None = None
    best_step: Count = 0
    stale: Count = 0
    valid: dict[str, Any] | None = None
    recent: list[float] = []
    epoch_nats: float = 0.0
    epoch_tokens: Count = 0
    reached: bool = False
    history: list[float] = []
    averaging: dict[str, float] = {}
    averaging_began: Count | None = None
    wall_seconds: Seconds = 0.0
    cpu_seconds: Seconds = 0.0
    metrics_bytes: Count = 0
    checksums: dict[str, str] = {}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.phase_step > self.step or self.best_step > self.step or self.step > self.position:
            raise ValueError("steps are counted from the start")
        return self
