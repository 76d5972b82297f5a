"""What training tells the one who waits: a progress bar on a terminal, lines elsewhere, nothing by default."""

import time
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from unrolled.core.terminal import visible
from unrolled.train.progress import Progress

__all__ = ["Begun", "Reporter", "TerminalReporter"]

_LINE_SECONDS = 30.0


class Begun(NamedTuple):
    """What begins. told: data and model in a few words. environment: see :func:`unrolled.core.record.environment`.
    processes: that share the run. unit: what is counted as it trains."""

    out: Path
    told: str
    environment: dict[str, Any]
    processes: int = 1
    unit: str = "tokens"


class Reporter:
    """Hears of everything and says nothing."""

    def start(self, begun: Begun) -> None:
        """The run begins or goes on."""

    def phase(self, index: int, done: int, steps: int) -> None:
        """A phase of ``steps`` steps begins or goes on after ``done``."""

    def step(self, progress: Progress, nats: float, lr: float) -> None:
        """A step was made; ``nats`` is its loss per token."""

    def valid(self, progress: Progress, result: Any, told: str) -> None:
        """A validation was made; ``told`` is its result in a few words."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def saving(self) -> None:
        """Weights, state or record are about to be written; an exception ends the run before they are."""

    def score(self, done: int, total: int, nats: float) -> None:
        """The final score has come to ``done`` of ``total`` tokens, at ``nats`` per token."""

    def end(self, progress: Progress, exact: Any) -> None:
        """The run is finished; ``exact`` is its final result, or None."""

    def close(self) -> None:
        """No more will come, for whatever reason."""


class TerminalReporter(Reporter):
    """A bar with rate, remaining time and last validation; on a pipe one line every half minute."""

    def __init__(self, console: Console | None = None):
        self.console = console or Console(stderr=True, soft_wrap=True, highlight=False, markup=False, emoji=False)
        self.progress: Bars | None = None
        self.task: Any = None
        self.shown, self.unit = "", "tokens"
        self.began = self.line_at = time.monotonic()
        self.first_tokens: int | None = None

    def start(self, begun: Begun) -> None:
        """See :class:`Reporter`."""
        self.unit = begun.unit
        shared = f"{begun.processes} processes of " if begun.processes > 1 else ""
        self._print(f"{begun.told}; {shared}{begun.environment['threads']} threads; run {begun.out}")

    def _print(self, text: str) -> None:
        """A line; names in it may be a stranger's."""
        self.console.print(visible(text) if self.console.is_terminal else text)

    def _bar(self, title: str, done: int, total: int) -> None:
        self.close()
        self.progress = Bars(
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

    def _tail(self, tokens: int, nats: float) -> str:
        if self.first_tokens is None:
            self.first_tokens, self.began = tokens, time.monotonic()
        rate = (tokens - self.first_tokens) / max(time.monotonic() - self.began, 1e-6)
        return f"{rate:,.0f} {self.unit}/s, loss {nats:.3f}{self.shown}"

    def step(self, progress: Progress, nats: float, lr: float) -> None:
        """See :class:`Reporter`."""
        tail = self._tail(progress.tokens, nats)
        if self.progress is not None:
            self.progress.update(self.task, completed=progress.phase_step, total=progress.phase_steps, tail=tail)
        elif time.monotonic() - self.line_at > _LINE_SECONDS:
            self.line_at = time.monotonic()
            self.console.print(f"step {progress.phase_step:,} of {progress.phase_steps:,}: {tail}")

    def valid(self, progress: Progress, result: Any, told: str) -> None:
        """See :class:`Reporter`."""
        self.shown = f", valid {told}"
        if self.progress is None:
            self.console.print(f"step {progress.phase_step:,}: valid {told}")

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
