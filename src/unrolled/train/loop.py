"""The only training loop."""

import math
from pathlib import Path
from typing import Any

from unrolled.core import tree
from unrolled.core.errors import StoppedError, UnrolledError
from unrolled.optim import Averager, learning_rate_factor
from unrolled.optim.averaging import worse_than_before
from unrolled.runs import MODEL, load_weights, weights
from unrolled.train import checkpoint
from unrolled.train.budget import REVISIONS, Clock, plan_steps, revise_steps
from unrolled.train.config import PhaseConfig
from unrolled.train.divergence import RECENT, divergence
from unrolled.train.metrics import MetricsLog
from unrolled.train.progress import Progress
from unrolled.train.record import Spent, of_steps, write_record
from unrolled.train.report import Reporter
from unrolled.train.setup import Parts
from unrolled.train.signals import StopRequest
from unrolled.train.step import StepResult, train_step
from unrolled.train.tools import make_tools
from unrolled.train.validation import Validator

__all__ = ["Trainer"]


class Trainer:
    """One run: all of its state, and the loop over phases and steps.

    What is written when: the best weights when a validation finds them (after every save where there is no validation
    split), then the training state, then the record. A process killed between two of these repeats what came after
    the training state, with the same result.

    Args:
        parts: what :func:`set_up` made. out: the run directory. metrics: its open log. report: receives what happens.
        clock: counts the run's time. stop: asked after every step.
    """

    def __init__(self, parts: Parts, out: Path, metrics: MetricsLog, report: Reporter, clock: Clock, stop: StopRequest):
        self.parts, self.out, self.metrics, self.report = parts, out, metrics, report
        self.clock, self.stop = clock, stop
        self.config, self.task, self.model = parts.config, parts.task, parts.model
        splits = self.task.splits
        self.progress = Progress(checksums={name: split.checksum for name, split in splits.items()})
        self.state: Any = None
        self.status = "running"
        self.validator = Validator(self.task, self.model, self.config.train) if "valid" in splits else None
        self.tools = make_tools(self.phase_config, self.task, self.model)
        self._saved_at = self.clock.wall()
        # seconds, by the budget's clock, and number of the steps since the last plan
        self._timed, self._timed_steps = 0.0, 0

    @property
    def phase_config(self) -> PhaseConfig:
        """The phase under way."""
        return self.config.train.phases()[self.progress.phase]

    @property
    def averager(self) -> Averager:
        """Of the phase under way."""
        return self.tools.averager

    # -- saving and resuming ---------------------------------------------------------------------------------

    def save(self) -> None:
        """Write the training state and the record; the model too where no validation chooses the best one."""
        self.report.saving()
        progress = self.progress
        progress.metrics_bytes = self.metrics.flush()
        progress.wall_seconds, progress.cpu_seconds = self.clock.wall(), self.clock.cpu()
        if self.validator is None:
            progress.best_step = progress.step
            self._save_weights(self.averager.candidates()[0])
        progress.averaging = dict(self.averager.numbers)
        checkpoint.save_state(self.out, checkpoint.pack(self.model, self.tools, self.state), progress)
        self.write_record()
        self._saved_at = self.clock.wall()

    def _save_weights(self, candidate: str) -> None:
        self.report.saving()
        with self.averager.weights(candidate):
            tree.save_tensors(self.out / MODEL, weights(self.model))

    def restore(self) -> None:
        """Continue from the newest training state.

        Raises:
            UnrolledError: it is missing, damaged or of another model, or the corpus is no longer the same.
        """
        own, self.progress = self.progress.checksums, checkpoint.read_progress(self.out)
        if changed := [split for split, known in self.progress.checksums.items() if own.get(split) != known]:
            raise UnrolledError(self.task.changed(changed[0], self.out))
        self.clock.add(self.progress.wall_seconds, self.progress.cpu_seconds)
        self.tools = make_tools(self.phase_config, self.task, self.model)
        initial = self.task.initial_state(self.model)
        self.state = checkpoint.restore(self.out, self.model, self.tools, self.progress.averaging, initial)
        self.metrics.begin(self.progress.metrics_bytes)

    def write_record(self, exact: Any = None) -> None:
        """Write the run record; ``exact``: the final result, once it is known."""
        self.report.saving()
        spent = Spent(self.clock.wall(), self.clock.cpu())
        steps = of_steps(self.progress, self.parts.source.tokens_per_epoch())
        write_record(self.out, self.task, self.model, self.status, self.progress, spent, steps, exact)

    # -- the loop --------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Train until every phase has spent its budget, or a signal or a divergence ends the run."""
        while True:
            self._run_phase()
            if self.progress.phase + 1 == len(self.config.train.phases()):
                return
            self._next_phase()

    def _next_phase(self) -> None:
        progress = self.progress
        progress.phase, progress.phase_step, progress.phase_steps, progress.stale = progress.phase + 1, 0, 0, 0
        progress.plans, progress.checks, progress.history, progress.averaging_began = [], 0, [], None
        progress.validations = 0
        load_weights(self.model, self.out / MODEL)
        self.tools = make_tools(self.phase_config, self.task, self.model)
        progress.phase_began = (self.clock.wall(), self.clock.cpu())
        self._timed, self._timed_steps = 0.0, 0

    def _run_phase(self) -> None:
        progress, parts = self.progress, self.parts
        if not progress.phase_steps:
            progress.phase_steps = plan_steps(
                self.phase_config, self.task, self.model, parts.source, self._spent, self._validation_seconds
            )
            progress.plans = [(0, progress.phase_steps)]
            self.save()
        self.report.phase(progress.phase, progress.phase_step, progress.phase_steps)
        while progress.phase_step < progress.phase_steps and not self._out_of_patience():
            self._step()
            revised = self._revise()
            due = self._validation_due()
            if due:
                self._validate()
            if due or revised or self.stop or self.clock.wall() - self._saved_at > 60 * self.config.train.save_minutes:
                self.save()
            if self.stop:
                self._stopped(f"step {progress.step}")
        if progress.phase_step < progress.phase_steps:
            self.report.note(f"no better validation in the last {progress.stale}: the phase ends early")

    def _step(self) -> None:
        progress, phase, parts = self.progress, self.phase_config, self.parts
        lr = phase.optimizer.lr * learning_rate_factor(phase.schedule, progress.phase_step / progress.phase_steps)
        begun = self._now()
        result = train_step(self.task, self.model, self.tools, parts.source, progress.position, self.state, phase, lr)
        self._timed, self._timed_steps = self._timed + self._now() - begun, self._timed_steps + 1
        nats = result.nats / max(result.tokens, 1)
        self._check(nats, result)
        self.state, progress.position = result.state, result.position
        progress.step, progress.phase_step = progress.step + 1, progress.phase_step + 1
        progress.tokens += result.tokens
        self.report.step(progress, nats, lr)
        if progress.phase_step % self.config.train.log_every == 0 or progress.phase_step == progress.phase_steps:
            parts = {"parts": result.parts} if result.parts else {}
            self.metrics.append(
                type="train", step=progress.step, tokens=progress.tokens, nats=nats, lr=lr,
                grad_norm=result.grad_norm, **parts, wall=self.clock.wall(), cpu=self.clock.cpu(),
            )  # fmt: skip

    def _now(self) -> float:
        """Seconds on the clock of the budget."""
        return self.clock.cpu() if self.phase_config.budget()[0] == "cpu_minutes" else self.clock.wall()

    def _revise(self) -> bool:
        """Revise the number of steps of a budget in time when it is due; whether it was."""
        progress = self.progress
        kind, amount = self.phase_config.budget()
        if not kind.endswith("minutes") or self._timed_steps < 5:
            return False
        spent = self._spent(kind == "cpu_minutes")
        if sum(share <= spent / (60 * amount) for share in REVISIONS) < len(progress.plans):
            return False
        checks = math.ceil(self._validations() * (1 - progress.phase_step / progress.phase_steps))
        left = 60 * amount - spent - checks * self.progress.check_seconds
        progress.phase_steps = revise_steps(progress.phase_step, left, self._timed / self._timed_steps)
        progress.plans.append((progress.phase_step, progress.phase_steps))
        self._timed, self._timed_steps = 0.0, 0
        return True

    def _check(self, nats: float, result: StepResult) -> None:
        """End with a plain sentence when the loss or the gradient is not finite, or the loss runs away."""
        recent = [*self.progress.recent, nats][-RECENT:]
        fault = divergence(nats, result.grad_norm, recent, self.task.chance())
        if fault is not None:
            self._diverged(fault)
        self.progress.recent = recent

    def _diverged(self, fault: str) -> None:
        kept = "no weights were kept"
        if (self.out / MODEL).exists():
            kept = f"the weights of step {self.progress.best_step} are kept in {self.out}"
        self.status = "diverged"
        self.write_record()
        raise UnrolledError(
            f"training diverged after step {self.progress.step}: {fault}; {kept}; lower train.optimizer.lr or "
            "train.clip."
        )

    def _stopped(self, where: str) -> None:
        self.status = "stopped"
        self.write_record()
        sentence = f"stopped by {self.stop.name} at {where}; continue with: unrolled train --resume {self.out}"
        raise StoppedError(sentence, self.stop.number)

    # -- validation ------------------------------------------------------------------------------------------

    def score(self) -> Any:
        """The exact result of the best weights; None where the config wants none."""
        if not self.config.train.final_eval or self.validator is None:
            return None
        load_weights(self.model, self.out / MODEL)
        self.report.note("scoring the validation split in one column")

        def advance(done: int, total: int, nats: float) -> None:
            if self.stop:
                self._stopped("the final score")
            self.report.score(done, total, nats)

        return self.validator.exact(self.progress.best_step, advance)

    def _out_of_patience(self) -> bool:
        patience, stop = self.config.train.patience, self.phase_config.nonmonotone_stop
        if patience is not None and self.progress.stale >= patience:
            return True
        history = self.progress.history or [0.0]
        return stop is not None and worse_than_before(history[:-1], history[-1], stop)

    def _validation_due(self) -> bool:
        """At the end of a phase, and ``validations`` times evenly over it, wherever a revised plan puts its end."""
        progress = self.progress
        due = progress.phase_step * self._validations() // progress.phase_steps
        if due <= progress.checks and progress.phase_step < progress.phase_steps:
            return False
        progress.checks = due
        return True

    def _validate(self) -> None:
        """Score the validation split, quickly, and keep the weights when they are the best so far."""
        if self.validator is None:
            return
        progress, begun = self.progress, self._now()
        results: dict[str, Any] = {}
        try:
            for name in self.averager.candidates():
                with self.averager.weights(name):
                    results[name] = self.validator.quick(progress.step)
        except UnrolledError as error:
            self._diverged(f"in the validation, {str(error).partition(';')[0]}")
            raise
        progress.check_seconds = self._now() - begun
        averaged = self.averager.active
        # less is better from here on
        figures = {name: self.task.goal.signed(self.task.figure(result)) for name, result in results.items()}
        chosen = self.averager.report(figures)
        result, figure = results[chosen], figures[chosen]
        if progress.best is None or figure < progress.best:
            progress.best, progress.best_step, progress.stale = figure, progress.step, 0
            self._save_weights(chosen)
        else:
            progress.stale += 1
        self.averager.validated(figures, progress.history)
        progress.history.append(figure)
        if self.averager.active and progress.averaging_began is None:
            progress.averaging_began = progress.step - (progress.phase_step if averaged else 0)
            if not averaged:
                self.report.note(f"step {progress.phase_step:,}: the average of the weights begins")
        progress.valid = result.to_json()
        self.metrics.append(
            type="valid", step=progress.step, tokens=progress.tokens, **self.task.logged(result), averaged=averaged,
            wall=self.clock.wall(), cpu=self.clock.cpu(),
        )  # fmt: skip
        self.report.valid(progress, result, self.task.told(result))

    def _spent(self, cpu: bool) -> float:
        """Seconds since the phase began."""
        return (self.clock.cpu() if cpu else self.clock.wall()) - self.progress.phase_began[cpu]

    def _validations(self) -> int:
        """Validations of the phase."""
        return self.progress.validations or max(1, self.config.train.validations)

    def _validation_seconds(self, cpu: bool, left: float) -> float:
        """Estimate of the seconds that this phase's validations will take, of those that are left."""
        if self.validator is None:
            return 0.0
        wanted, clock = self._validations(), self.clock.cpu if cpu else self.clock.wall
        one, count = self.validator.plan(wanted, clock, left, len(self.averager.candidates()))
        self.progress.check_seconds, self.progress.validations = one, count
        if count < wanted:
            self.report.note(f"{left:.1f} seconds are left, a validation takes {one:.2f}: {count} of {wanted} are made")
        return one * count
