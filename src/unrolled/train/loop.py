"""The only training loop."""

import signal
from functools import partial
from pathlib import Path
from typing import Any

from unrolled.core import tree
from unrolled.core.errors import LostError, StoppedError, UnrolledError
from unrolled.core.group import agreed, current
from unrolled.optim import Averager, learning_rate_factor
from unrolled.runs import MODEL
from unrolled.runs.names import SIDES, side_file
from unrolled.train import checkpoint
from unrolled.train.budget import Clock, plan_steps
from unrolled.train.config import PhaseConfig
from unrolled.train.divergence import RECENT, divergence
from unrolled.train.ending import hear_loss, why_it_ends
from unrolled.train.metrics import NoLog
from unrolled.train.pace import Pace
from unrolled.train.parallel.agreement import Agreement
from unrolled.train.parallel.engine import make_window
from unrolled.train.progress import Progress
from unrolled.train.record import Spent, of_steps, write_record
from unrolled.train.report import Reporter
from unrolled.train.setup import Parts
from unrolled.train.signals import StopRequest
from unrolled.train.step import StepResult, train_step
from unrolled.train.tools import Tools, make_tools
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

    def __init__(self, parts: Parts, out: Path, metrics: NoLog, report: Reporter, clock: Clock, stop: StopRequest):
        self.parts, self.out, self.metrics, self.report = parts, out, metrics, report
        self.clock, self.stop, self.group = clock, stop, current()
        self.config, self.task, self.model = parts.config, parts.task, parts.model
        splits = self.task.splits
        self.progress = Progress(checksums={name: split.checksum for name, split in splits.items()})
        self.state: Any = None
        self.status = "running"
        self.window = make_window(self.task, self.model, self.config.train)
        self.validator = Validator(self.task, self.window, self.config.train) if "valid" in splits else None
        self.tools = self._make_tools()
        self.agreement = Agreement(clock, stop)
        self.pace = Pace(self.config.train, clock, self.validator, report)
        self._saved_at = self.clock.wall()

    @property
    def phase_config(self) -> PhaseConfig:
        """The phase under way."""
        return self.config.train.phases()[self.progress.phase]

    @property
    def averager(self) -> Averager:
        """Of the phase under way."""
        return self.tools.averager

    def _make_tools(self) -> Tools:
        return make_tools(self.phase_config, self.task, self.model, self.window)

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
        checkpoint.save(self.out, self._kept(), progress)
        self.write_record()
        self._saved_at = self.clock.wall()

    def _save_weights(self, candidate: str) -> None:
        self.report.saving()
        with self.averager.weights(candidate):
            tensors = self.window.tensors()
            with agreed():
                if self.group.main:
                    tree.save_tensors(self.out / MODEL, tensors)
                    sides = self.tools.objectives.exported()
                    for name in SIDES:  # one of another phase does not fit these weights
                        if name in sides:
                            tree.save_tensors(side_file(self.out, name), sides[name])
                        else:
                            side_file(self.out, name).unlink(missing_ok=True)

    def _kept(self) -> checkpoint.Kept:
        drop = self.config.train.parallel.carried == "drop"
        return checkpoint.Kept(self.model, self.tools, None if drop else self.state, self.task.streams.shards)

    def restore(self) -> None:
        """Continue from the newest training state.

        Raises:
            UnrolledError: it is missing, damaged or of another model, or the corpus is no longer the same.
        """
        own, self.progress = self.progress.checksums, checkpoint.read_progress(self.out)
        if changed := [split for split, known in self.progress.checksums.items() if own.get(split) != known]:
            raise UnrolledError(self.task.changed(changed[0], self.out))
        self.clock.add(self.progress.wall_seconds, self.progress.cpu_seconds if self.group.main else 0.0)
        self.tools = self._make_tools()
        with agreed():
            initial = self.task.initial_state(self.model)
            self.state = checkpoint.restore(self.out, self._kept(), self.progress.averaging, initial)
        if self.config.train.parallel.carried == "drop":
            self.report.note("carried states were not saved and begin anew: the run does not go on exactly")
        self.metrics.begin(self.progress.metrics_bytes)
        self.agreement.meet()

    def write_record(self, exact: Any = None) -> None:
        """Write the run record; ``exact``: the final result, once it is known."""
        if not self.group.main:
            return
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
        progress.validations, progress.epoch_nats, progress.epoch_tokens, progress.reached = 0, 0.0, 0, False
        self.group.wait()  # until the best weights are on disk
        self.window.load(self.out / MODEL)
        self.tools = self._make_tools()
        progress.phase_began = (self.clock.wall(), self.clock.cpu())
        self.pace.forget()

    def _run_phase(self) -> None:
        progress, parts = self.progress, self.parts
        if not progress.phase_steps:
            steps = plan_steps(
                self.phase_config, self.task, self.model, parts.source, partial(self.pace.spent, progress),
                partial(self.pace.validation_seconds, progress, len(self.averager.candidates())),
            )  # fmt: skip
            progress.phase_steps = self.group.first(steps)
            self.agreement.meet()
            progress.plans = [(0, progress.phase_steps)]
            self.save()
        self.report.phase(progress.phase, progress.phase_step, progress.phase_steps)
        train, phase = self.config.train, self.phase_config
        while progress.phase_step < progress.phase_steps and not why_it_ends(train, phase, progress):
            self._step()
            revised = self.pace.revise(phase, progress)
            due = self._validation_due() or progress.reached
            if due:
                self._validate()
            late = self.clock.wall() - self._saved_at > 60 * self.config.train.save_minutes
            if due or revised or self.agreement.signal or late:
                self.save()
            if self.agreement.signal:
                self._stopped(f"step {progress.step}")
        if progress.phase_step < progress.phase_steps:
            self.report.note(f"{why_it_ends(train, phase, progress)}: the phase ends early")

    def _step(self) -> None:
        progress, phase, parts = self.progress, self.phase_config, self.parts
        lr = phase.optimizer.lr * learning_rate_factor(phase.schedule, progress.phase_step / progress.phase_steps)
        begun = self.pace.now(phase)
        result = train_step(
            self.task, self.model, self.tools, parts.source, progress.position, self.state, phase, lr,
            tell=self.agreement.tell,
        )  # fmt: skip
        self.agreement.hear(result.told)
        self.pace.stepped(self.pace.now(phase) - begun)
        nats = result.nats / max(result.tokens, 1)
        self._check(nats, result)
        self.state, progress.position = result.state, result.position
        progress.step, progress.phase_step = progress.step + 1, progress.phase_step + 1
        progress.tokens += result.tokens
        hear_loss(phase, progress, result, parts.source.tokens_per_epoch())
        self.report.step(progress, nats, lr)
        if progress.phase_step % self.config.train.log_every == 0 or progress.phase_step == progress.phase_steps:
            parts = {"parts": result.parts} if result.parts else {}
            self.metrics.append(
                type="train", step=progress.step, tokens=progress.tokens, nats=nats, lr=lr,
                grad_norm=result.grad_norm, **parts, wall=self.clock.wall(), cpu=self.clock.cpu(),
            )  # fmt: skip

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
        number = self.agreement.signal or self.stop.number
        name = signal.Signals(number).name
        raise StoppedError(f"stopped by {name} at {where}; continue with: unrolled train --resume {self.out}", number)

    # -- validation ------------------------------------------------------------------------------------------

    def score(self) -> Any:
        """The exact result of the best weights; None where the config wants none."""
        if not self.config.train.final_eval or self.validator is None or not self.group.main:
            return None
        self.report.note("scoring the validation split in one column")

        def advance(done: int, total: int, nats: float) -> None:
            if self.stop:
                self._stopped("the final score")
            self.report.score(done, total, nats)

        with self.window.saved(self.out / MODEL) as model:
            return self.validator.exact(model, self.progress.best_step, advance)

    def _validation_due(self) -> bool:
        """At the end of a phase, and ``validations`` times evenly over it, wherever a revised plan puts its end."""
        progress = self.progress
        due = progress.phase_step * self.pace.validations(progress) // progress.phase_steps
        if due <= progress.checks and progress.phase_step < progress.phase_steps:
            return False
        progress.checks = due
        return True

    def _validate(self) -> None:
        """Score the validation split, quickly, and keep the weights when they are the best so far."""
        if self.validator is None:
            return
        progress, begun = self.progress, self.pace.now(self.phase_config)
        results: dict[str, Any] = {}
        try:
            for name in self.averager.candidates():
                with agreed(), self.averager.weights(name):
                    results[name] = self.validator.quick(progress.step)
        except LostError:
            raise
        except UnrolledError as error:
            self._diverged(f"in the validation, {str(error).partition(';')[0]}")
            raise
        self.agreement.meet()
        progress.check_seconds = self.pace.now(self.phase_config) - begun
        averaged = self.averager.active
        # less is better from here on
        figures = {name: self.task.goal.signed(self.task.figure(result)) for name, result in results.items()}
        figures = self.group.first(figures)  # to the bit: averages, stops and the best weights hang on it
        chosen = self.averager.report(figures)
        result, figure = results[chosen], figures[chosen]
        if progress.best is None or figure < progress.best or self.config.train.keep == "last":
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
