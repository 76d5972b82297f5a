"""Texts that are written side by side, one token a step."""

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unrolled.core.errors import UnrolledError
from unrolled.core.tree import map_tree, select_rows
from unrolled.generate import History, TextRow, choose
from unrolled.generate.sampler import generator_of
from unrolled.predict import KeptState, Predictor
from unrolled.serve.engine.jobs import Completion, Failed, Probed, Wrote

__all__ = ["MOST_ROWS", "Batch", "Row"]

MOST_ROWS = 32
"""Rows of one step: with more the memory of a step leaves the processor's second cache."""


class Row:
    """One text of a completion. read: the state after its prompt, but for the tensors."""

    def __init__(self, job: Completion, sample: int, read: KeptState):
        self.job, self.sample, self.read = job, sample, read
        self.text = TextRow(
            job.served.tokenizer, job.max_tokens, job.stop, read, job.keep, stop_tokens=job.sampler.stop_tokens
        )
        self.generator = generator_of(job.sampler.seed, sample, read.drawn)
        end = job.served.tokenizer.end_id
        self.history = History(job.sampler, job.ids, end, job.constraint) if job.sampler.remembers else None

    def kept(self, tree: Any) -> KeptState:
        """The state after the text so far. tree: its tensors, in the shared form."""
        return self.text.after(self.read, 0, tree)

    def say(self, token: Probed | None, text: str, reason: str | None, state: KeptState | None = None) -> None:
        """Tell the job's listener."""
        self.job.left -= reason is not None
        self.job.hear(Wrote(self.sample, token, text, reason, state))


class Batch:
    """Rows of one model that step together, at most :data:`MOST_ROWS`. The state is of the predictor's own form."""

    def __init__(self, predictor: Predictor):
        self.predictor = predictor
        self.rows: list[Row] = []
        self.state: Any = None

    def add(self, rows: Sequence[Row], state: Any) -> None:
        """More rows and their state."""
        self.rows += rows
        self.state = state if self.state is None else map_tree(lambda a, b: torch.cat([a, b]), self.state, state)

    def take(self, other: "Batch") -> None:
        """The rows of another batch."""
        self.add(other.rows, other.state)

    def end(self, now: float, reason: str | None) -> None:
        """End the texts that nobody waits for, those whose time is over, and all of them where there is a reason."""
        alive = []
        for index, row in enumerate(self.rows):
            if row.job.cancelled:
                continue
            why = reason or ("time" if now > row.job.deadline else None)
            if why is None:
                alive.append(index)
                continue
            keep = row.job.keep or reason is not None
            text = "" if keep else row.text.finish()[0]
            row.say(None, text, why, self._kept(row, self.state, index) if keep else None)
        self._keep_rows(alive)

    def step(self) -> int:
        """Write one token of every row. Returns how many."""
        if not self.rows:
            return 0
        log_prob = self.predictor.predict(self.state).log_prob
        finite = log_prob.amax(-1).isfinite()
        if not bool(finite.all()):
            self._drop([row for row, sound in zip(self.rows, finite.tolist(), strict=True) if not sound], UnrolledError(
                "the model gives no finite probabilities after this text; its weights are damaged, or the state is."
            ))  # fmt: skip
            self.end(time.monotonic(), None)
            return 0
        ids, nats, stuck = _chosen(log_prob, self.rows)
        tops = _tops(log_prob, self.rows)
        alive, kept, last = [], [], []
        for index, (row, token) in enumerate(zip(self.rows, ids.tolist(), strict=True)):
            if row.job.cancelled:
                continue
            if row.history is not None and (error := _remembered(row.history, token, index in stuck)):
                self._drop([row], error)
                continue
            text, reason = row.text.push(token, None if row.history is None else row.history.over)
            told = Probed(token, nats[index], tops.get(index, ()))
            if reason is None:
                alive.append(index)
                row.say(told, text, None)
            elif row.job.keep:
                kept.append(index)
                last.append((row, told, text, reason))
            else:
                row.say(told, text, reason)
        written = len(self.rows)
        going = sorted(alive + kept)
        self._keep_rows(going)
        if going:
            chosen = ids if len(going) == written else ids[torch.tensor(going)]
            self.state = self.predictor.observe(self.state, chosen)
        if kept:
            for index, (row, told, text, reason) in zip(kept, last, strict=True):
                row.say(told, text, reason, self._kept(row, self.state, going.index(index)))
            ended = set(kept)
            self._keep_rows([place for place, index in enumerate(going) if index not in ended])
        return written

    def _kept(self, row: Row, state: Any, index: int) -> KeptState:
        own = select_rows(state, torch.tensor([index]))
        return row.kept(map_tree(lambda value: value.clone(), self.predictor.shared_form(own)))

    def _drop(self, rows: Sequence[Row], error: UnrolledError) -> None:
        """Rows that cannot go on end; the others go on in the next step."""
        for row in rows:
            row.job.cancelled = True
            row.job.hear(Failed(error))

    def _keep_rows(self, alive: list[int]) -> None:
        if len(alive) == len(self.rows):
            return
        self.rows = [self.rows[index] for index in alive]
        self.state = select_rows(self.state, torch.tensor(alive)) if alive else None


def _chosen(log_prob: Tensor, rows: Sequence[Row]) -> tuple[Tensor, list[float], set[int]]:
    """The next token of every row (batch,), its nats before temperature and filters, and the rows that have none."""
    groups: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        groups.setdefault(row.job.alike, []).append(index)
    ids, stuck = torch.empty(len(rows), dtype=torch.int64), set()
    for members in groups.values():
        job = rows[members[0]].job
        whole = len(members) == len(rows)
        part = log_prob if whole else log_prob[torch.tensor(members)]
        chosen = [rows[index] for index in members]
        histories = [row.history for row in chosen if row.history is not None] or None
        found = choose(part, job.sampler, [row.generator for row in chosen], histories)
        stuck.update(members[place] for place in found.stuck)
        if whole:
            ids = found.ids
        else:
            ids[torch.tensor(members)] = found.ids
    return ids, log_prob.gather(1, ids.unsqueeze(1)).squeeze(1).tolist(), stuck


def _remembered(history: History, token: int, stuck: bool) -> UnrolledError | None:
    """Tells a text's history of its token. Returns why the text cannot go on, if it cannot."""
    if stuck:
        return history.refusal()
    try:
        history.push(token)
    except UnrolledError as error:  # a grammar that came to its limits
        return error
    return None


def _tops(log_prob: Tensor, rows: Sequence[Row]) -> dict[int, tuple[tuple[int, float], ...]]:
    """Index of a row -> the likeliest tokens, for those that are told of them."""
    found = {}
    for index, row in enumerate(rows):
        if row.job.top:
            found[index] = likeliest(log_prob[index], row.job.top)
    return found


def likeliest(log_prob: Tensor, count: int) -> tuple[tuple[int, float], ...]:
    """(id, nats) of the likeliest tokens of a distribution (V,)."""
    best = log_prob.topk(min(count, len(log_prob)))
    return tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
