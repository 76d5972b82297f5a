"""The only training loop."""

import contextlib
import json
import math
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from unrolled.core import tree
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import make_folder
from unrolled.core.record import environment
from unrolled.evaluate import EvalConfig, EvalResult, NeuralPredictor, evaluate_static
from unrolled.kernels import dispatch
from unrolled.model import ModelState
from unrolled.optim import build_optimizer, learning_rate_factor
from unrolled.runs import CONFIG, MODEL, TOKENIZER, load_weights, weights
from unrolled.tokenizer import load_tokenizer, save_tokenizer
from unrolled.train import checkpoint
from unrolled.train.budget import Clock, plan_steps
from unrolled.train.config import ExperimentConfig
from unrolled.train.record import write_record
from unrolled.train.report import Reporter
from unrolled.train.setup import Parts, set_up
from unrolled.train.step import train_step

__all__ = ["METRICS", "Trainer", "train"]

METRICS = "metrics.jsonl"
_DIVERGED_STEPS, _DIVERGED_FACTOR = 50, 1.5


class Trainer:
    """One run: all of its state, and the loop over phases and steps.

    Args:
        parts: what :func:`set_up` made. out: the run directory. report: receives what happens.
    """

    def __init__(self, parts: Parts, out: Path, report: Reporter):
        self.parts, self.out, self.report = parts, out, report
        self.config, self.model = parts.config, parts.model
        self.clock = Clock()
        self.state: ModelState | None = None
        # everything below is saved as progress.json; tensors beside it
        self.phase = self.phase_step = self.phase_steps = 0
        self.step = self.position = self.tokens = 0
        self.best: float | None = None
        self.best_step = self.stale = 0
        self.valid: dict[str, Any] | None = None
        self.recent: list[float] = []
        self.status = "running"
        self.stop_signal: int | None = None
        self.optimizer = self._fresh_optimizer()
        self.metrics = (out / METRICS).open("a", encoding="utf-8")

    def _fresh_optimizer(self) -> torch.optim.Optimizer:
        return build_optimizer(self.config.train.phases()[self.phase].optimizer, self.model.parameters())

    # -- saving and resuming ---------------------------------------------------------------------------------

    def save(self) -> None:
        """Write the training state, and the model where no validation chooses the best one."""
        self.metrics.flush()
        os.fsync(self.metrics.fileno())
        carried = {} if self.state is None else {f"carried.{k}": v for k, v in tree.flatten(self.state).items()}
        model = {f"model.{name}": value for name, value in weights(self.model).items()}
        progress = {
            "phase": self.phase,
            "phase_step": self.phase_step,
            "phase_steps": self.phase_steps,
            "step": self.step,
            "position": self.position,
            "tokens": self.tokens,
            "best": self.best,
            "best_step": self.best_step,
            "stale": self.stale,
            "valid": self.valid,
            "recent": self.recent,
            "status": self.status,
            "wall_seconds": self.clock.wall(),
            "cpu_seconds": self.clock.cpu(),
            "metrics_bytes": self.metrics.tell(),
        }
        tensors = {**model, **carried, **checkpoint.optimizer_tensors(self.optimizer)}
        checkpoint.save_state(self.out, self.step, tensors, progress)
        if "valid" not in self.parts.splits:
            tree.save_tensors(self.out / MODEL, weights(self.model))
        self.saved_at = self.clock.wall()

    def restore(self) -> None:
        """Continue from the newest training state. Raises UnrolledError when it is missing or does not fit."""
        tensors, progress = checkpoint.load_state(self.out)
        own = weights(self.model)
        if {f"model.{name}" for name in own} != {name for name in tensors if name.startswith("model.")}:
            raise UnrolledError(f"the training state in {self.out} does not fit its config; start again.")
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(tensors[f"model.{name}"])
        for name in ("phase", "phase_step", "phase_steps", "step", "position", "tokens", "best", "best_step"):
            setattr(self, name, progress[name])
        self.stale, self.valid, self.recent = progress["stale"], progress["valid"], progress["recent"]
        self.clock = Clock(progress["wall_seconds"], progress["cpu_seconds"])
        self.optimizer = self._fresh_optimizer()
        checkpoint.load_optimizer(self.optimizer, tensors)
        carried = {k.removeprefix("carried."): v.clone() for k, v in tensors.items() if k.startswith("carried.")}
        if carried:
            like = self.model.initial_state(self.config.stream.columns)
            self.state = tree.to(tree.unflatten(carried, like), self.model.device)
        self.metrics.truncate(progress["metrics_bytes"])
        if progress["status"] == "finished":
            raise UsageError(f"{self.out} is finished ({self.step} steps); train anew with another --out.")

    def log(self, **event: Any) -> None:
        """Append one line to metrics.jsonl."""
        self.metrics.write(json.dumps(event, allow_nan=False) + "\n")

    # -- the loop --------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Train until every phase has spent its budget, or a signal or a divergence ends the run."""
        self.saved_at = self.clock.wall()
        with self._signals():
            phases = self.config.train.phases()
            while self.phase < len(phases):
                self._run_phase()
                if self.phase + 1 == len(phases):
                    break
                self._next_phase()
        self.status = "finished"
        self.save()

    def _next_phase(self) -> None:
        self.phase, self.phase_step, self.phase_steps, self.stale = self.phase + 1, 0, 0, 0
        if (self.out / MODEL).exists():
            load_weights(self.model, self.out / MODEL)
        self.optimizer = self._fresh_optimizer()

    def _run_phase(self) -> None:
        phase, parts = self.config.train.phases()[self.phase], self.parts
        if not self.phase_steps:
            self.phase_steps = plan_steps(
                phase, self.model, parts.stream, parts.streams, self.clock, self._validation_seconds
            )
            self.save()
        self.report.phase(self.phase, self.phase_step, self.phase_steps)
        checks = max(1, self.config.train.validations)
        while self.phase_step < self.phase_steps:
            factor = learning_rate_factor(phase.schedule, self.phase_step / self.phase_steps)
            lr = phase.optimizer.lr * factor
            result = train_step(
                self.model, self.optimizer, parts.stream, self.position, self.state, phase, parts.streams, lr
            )
            self._check(result.nats / result.tokens, result.grad_norm)
            self.state, self.position = result.state, result.position
            self.step, self.phase_step, self.tokens = self.step + 1, self.phase_step + 1, self.tokens + result.tokens
            nats = result.nats / result.tokens
            self.report.step(self, nats, lr)
            last = self.phase_step == self.phase_steps
            if self.phase_step % self.config.train.log_every == 0 or last:
                self.log(
                    type="train", step=self.step, tokens=self.tokens, nats=nats, lr=lr,
                    grad_norm=result.grad_norm, wall=self.clock.wall(), cpu=self.clock.cpu(),
                )  # fmt: skip
            due = (
                last
                or self.phase_step * checks // self.phase_steps > (self.phase_step - 1) * checks // self.phase_steps
            )
            if due:
                self._validate()
            if due or self.clock.wall() - self.saved_at > 60 * self.config.train.save_minutes:
                self.save()
            if self.stop_signal is not None:
                self._stopped()
            if self.config.train.patience and self.stale >= self.config.train.patience:
                self.report.note(f"no better validation in {self.stale}: the phase ends early")
                break

    def _check(self, nats: float, grad_norm: float) -> None:
        """End with a plain sentence when the loss or the gradient is not finite, or the loss runs away."""
        self.recent = [*self.recent, nats][-_DIVERGED_STEPS:]
        limit = _DIVERGED_FACTOR * math.log(max(self.parts.tokenizer.vocab_size, 2))
        mean = sum(self.recent) / len(self.recent)
        if not math.isfinite(nats):
            fault = f"the loss became {nats}"
        elif not math.isfinite(grad_norm):
            fault = f"the gradient's norm became {grad_norm}"
        elif len(self.recent) == _DIVERGED_STEPS and mean > limit:
            fault = (
                f"the loss ran away ({mean:.2f} nats per token, uniform guessing has {limit / _DIVERGED_FACTOR:.2f})"
            )
        else:
            return
        self.recent = [x for x in self.recent if math.isfinite(x)]
        self.status = "diverged"
        write_record(self)
        kept = (
            f"the best weights, of step {self.best_step}, are kept"
            if (self.out / MODEL).exists()
            else "no weights are kept"
        )
        raise UnrolledError(
            f"training diverged at step {self.step + 1}: {fault}; {kept} in {self.out}; lower train.optimizer.lr or "
            "train.clip."
        )

    def _validation_config(self) -> EvalConfig:
        train = self.config.train
        split = self.parts.splits["valid"]
        return EvalConfig.parse(
            {
                "split": "valid",
                "columns": min(train.valid_columns, max(1, len(split) // 100)),
                "limit": train.valid_tokens,
                "window": 100,
            }
        )

    def _evaluate(self, config: EvalConfig) -> EvalResult:
        """Score the validation split with the weights of now."""
        predictor = NeuralPredictor(self.model, self.parts.tokenizer.start_id)
        provenance = {
            "corpus": self.parts.corpus.name,
            "tokenizer": self.parts.tokenizer.fingerprint(),
            "parameters": self.model.num_params(),
            "step": self.step,
        }
        result = evaluate_static(predictor, self.parts.splits["valid"], config, None, provenance)
        self.model.train()
        return result

    def score(self) -> EvalResult | None:
        """The exact score of the best weights on the validation split; None where the config wants none."""
        if not self.config.train.final_eval or "valid" not in self.parts.splits:
            return None
        load_weights(self.model, self.out / MODEL)
        self.report.note("scoring the validation split: one column, every token once")
        return self._evaluate(EvalConfig.parse({"split": "valid"}))

    def _validate(self) -> None:
        """Score the validation split, quickly, and keep the weights when they are the best so far."""
        if "valid" not in self.parts.splits:
            return
        result = self._evaluate(self._validation_config())
        nats = result.nats_per_token
        if self.best is None or nats < self.best:
            self.best, self.best_step, self.stale = nats, self.step, 0
            tree.save_tensors(self.out / MODEL, weights(self.model))
        else:
            self.stale += 1
        self.valid = result.to_json()
        self.log(
            type="valid",
            step=self.step,
            tokens=self.tokens,
            nats=nats,
            protocol=result.protocol.name,
            cpu=self.clock.cpu(),
        )
        self.report.valid(self, result)

    def _validation_seconds(self, cpu: bool) -> float:
        """Estimate of the seconds that this phase's validations will take."""
        if "valid" not in self.parts.splits:
            return 0.0
        read = self.clock.cpu if cpu else self.clock.wall
        whole = self._validation_config()
        total = min(whole.limit or len(self.parts.splits["valid"]), len(self.parts.splits["valid"]))
        part = max(1, min(total, total // 20))
        start = read()
        trial = whole.model_copy(update={"limit": part, "columns": min(whole.columns, part)})
        self._evaluate(trial)
        return (read() - start) * total / part * max(1, self.config.train.validations)

    # -- signals ---------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Turn Ctrl-C and SIGTERM into a request to save and exit after the step under way; a second one is final."""

        def note(number: int, _: Any) -> None:
            if self.stop_signal is not None:
                raise KeyboardInterrupt
            self.stop_signal = number

        old = {}
        with contextlib.suppress(ValueError):  # not the main thread: the caller's signals stay
            old = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)

    def _stopped(self) -> None:
        self.save()
        self.status = "stopped"
        write_record(self)
        name = signal.Signals(self.stop_signal or signal.SIGTERM).name
        raise UnrolledError(
            f"stopped by {name} at step {self.step} of {self.phase_steps}; continue with: unrolled train --resume {self.out}"
        )


def train(
    config: ExperimentConfig, out: str | os.PathLike[str], device: str = "auto", report: Reporter | None = None
) -> Path:
    """Train a new run.

    Args:
        out: the run directory; it must not hold a run yet.
        device: ``auto``, ``cpu``, ``cuda``, ...
        report: receives progress; silent by default.
    Returns:
        the run directory.
    Raises:
        UsageError, UnrolledError: in one sentence, whatever went wrong; the last good checkpoint stays.
    """
    out = Path(out)
    if (out / CONFIG).exists():
        raise UsageError(f"{out} already holds a run; continue it with --resume {out}, or choose another --out.")
    make_folder(out)
    parts = set_up(config, device)
    parts.config.save(out / CONFIG)
    save_tokenizer(parts.tokenizer, out / TOKENIZER)
    return _finish(Trainer(parts, out, report or Reporter()))


def resume(out: str | os.PathLike[str], device: str = "auto", report: Reporter | None = None) -> Path:
    """Continue a run that was stopped or killed; on a CPU the result equals that of an uninterrupted one."""
    out = Path(out)
    if not (out / CONFIG).is_file():
        raise UsageError(f"{out} is not a run: it has no {CONFIG}; give the folder that `unrolled train` wrote.")
    config = ExperimentConfig.load(out / CONFIG)
    parts = set_up(config, device, load_tokenizer(out / TOKENIZER) if (out / TOKENIZER).exists() else None)
    save_tokenizer(parts.tokenizer, out / TOKENIZER)
    trainer = Trainer(parts, out, report or Reporter())
    if checkpoint.latest(out) is not None:
        trainer.restore()
    else:  # killed before the first save: begin again
        trainer.metrics.truncate(0)
    return _finish(trainer)


def _finish(trainer: Trainer) -> Path:
    """Run, score exactly, write the record."""
    dispatch.forget_choices()
    write_record(trainer)
    trainer.report.start(trainer, environment())
    try:
        trainer.run()
        exact = trainer.score()
        write_record(trainer, exact)
        trainer.report.end(trainer, exact)
    finally:
        trainer.report.close()
        trainer.metrics.close()
    return trainer.out
