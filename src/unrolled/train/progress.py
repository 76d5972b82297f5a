"""How far a run is."""

from typing import Any

from pydantic import BaseModel, ConfigDict

__all__ = ["Progress"]


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
    history: nats of the phase's validations. averaging: the numbers of the phase's averager. averaging_began: step of
    the run at which the average began that validations now use.
    wall_seconds, cpu_seconds: spent so far. metrics_bytes: length of metrics.jsonl. checksums: of the text, by split.
    """

    model_config = ConfigDict(extra="forbid")

    phase: int = 0
    phase_step: int = 0
    phase_steps: int = 0
    phase_began: tuple[float, float] = (0.0, 0.0)
    plans: list[tuple[int, int]] = []
    checks: int = 0
    validations: int = 0
    check_seconds: float = 0.0
    step: int = 0
    position: int = 0
    tokens: int = 0
    best: float | None = None
    best_step: int = 0
    stale: int = 0
    valid: dict[str, Any] | None = None
    recent: list[float] = []
    history: list[float] = []
    averaging: dict[str, float] = {}
    averaging_began: int | None = None
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    metrics_bytes: int = 0
    checksums: dict[str, str] = {}
