"""What training tells the one who waits: a progress bar on a terminal, lines elsewhere, nothing by default."""

import time
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from unrolled.core.terminal import visible

if TYPE_CHECKING:
    from unrolled.evaluate import EvalResult
    from unrolled.train.loop import Trainer

__all__ = ["Reporter", "TerminalReporter", "headline"]

_LINE_SECONDS = 30.0


def headline(result: "EvalResult") -> str:
    """The two figures that most people look for."""
    perplexity, bits = result.perplexity_per_token, result.bits_per_character
    first = "perplexity too large" if perplexity is None else f"{perplexity:,.2f} perplexity per token"
    return first if bits is None else f"{first}, {bits:.4f} bits per character"


class Reporter:
    """Hears of everything and says nothing."""

    def start(self, trainer: "Trainer", environment: dict[str, Any]) -> None:
        """The run begins or goes on."""

    def phase(self, index: int, done: int, steps: int) -> None:
        """A phase of ``steps`` steps begins or goes on after ``done``."""

    def step(self, trainer: "Trainer", nats: float, lr: float) -> None:
        """A step was made; ``nats`` is its loss per token."""

    def valid(self, trainer: "Trainer", result: "EvalResult") -> None:
        """A validation was made."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def score(self, done: int, total: int, nats: float) -> None:
        """The final score has come to ``done`` of ``total`` tokens, at ``nats`` per token."""

    def end(self, trainer: "Trainer", exact: "EvalResult | None") -> None:
        """The run is finished."""

    def close(self) -> None:
        """No more will come, for whatever reason."""


class TerminalReporter(Reporter):
    """A bar with rate, remaining time and last validation; on a pipe one line every half minute."""

    def __init__(self, console: Console | None = None):
        self.console = console or Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)
        self.progress: Progress | None = None
        self.task: Any = None
        self.shown = ""
        self.began = self.line_at = time.monotonic()
        self.first_tokens: int | None = None

    def start(self, trainer: "Trainer", environment: dict[str, Any]) -> None:
        """See :class:`Reporter`."""
        model = trainer.config.model
        cells = ", ".join(dict.fromkeys(cell.name for cell in model.layer_cells()))
        self._print(
            f"{trainer.parts.corpus.name}: {len(trainer.parts.splits['train']):,} training tokens, vocabulary "
            f"{trainer.parts.tokenizer.vocab_size:,}; {model.layers} x {cells} {model.layer_widths()[0]}, "
            f"{trainer.model.num_params():,} parameters; {environment['threads']} threads; run {trainer.out}"
        )

    def _print(self, text: str) -> None:
        """A line; names in it may be a stranger's."""
        self.console.print(visible(text) if self.console.is_terminal else text)

    def _bar(self, title: str, done: int, total: int) -> None:
        self.close()
        self.progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[tail]}", markup=False),
            console=self.console,
        )
        self.task = self.progress.add_task(title, total=total, completed=done, tail="")
        self.progress.start()

    def phase(self, index: int, done: int, steps: int) -> None:
        """See :class:`Reporter`."""
        if self.console.is_terminal:
            self._bar(f"phase {index + 1}", done, steps)
        else:
            self.console.print(f"phase {index + 1}: {steps:,} steps" + (f", {done:,} done" if done else ""))

    def _tail(self, trainer: "Trainer", nats: float) -> str:
        tokens = trainer.progress.tokens
        if self.first_tokens is None:
            self.first_tokens, self.began = tokens, time.monotonic()
        rate = (tokens - self.first_tokens) / max(time.monotonic() - self.began, 1e-6)
        return f"{rate:,.0f} tokens/s, loss {nats:.3f}{self.shown}"

    def step(self, trainer: "Trainer", nats: float, lr: float) -> None:
        """See :class:`Reporter`."""
        done = trainer.progress
        tail = self._tail(trainer, nats)
        if self.progress is not None:
            self.progress.update(self.task, completed=done.phase_step, total=done.phase_steps, tail=tail)
        elif time.monotonic() - self.line_at > _LINE_SECONDS:
            self.line_at = time.monotonic()
            self.console.print(f"step {done.phase_step:,} of {done.phase_steps:,}: {tail}")

    def valid(self, trainer: "Trainer", result: "EvalResult") -> None:
        """See :class:`Reporter`."""
        self.shown = f", valid {headline(result)}"
        if self.progress is None:
            self.console.print(f"step {trainer.progress.phase_step:,}: valid {headline(result)}")

    def note(self, text: str) -> None:
        """See :class:`Reporter`."""
        self.close()
        self._print(text)

    def score(self, done: int, total: int, nats: float) -> None:
        """See :class:`Reporter`."""
        if not self.console.is_terminal:
            return
        if self.progress is None:
            self._bar("scoring", 0, total)
        assert self.progress is not None
        self.progress.update(self.task, completed=done, tail=f"{nats:.4f} nats per token")

    def close(self) -> None:
        """See :class:`Reporter`."""
        if self.progress is not None:
            self.progress.stop()
            self.progress = None
