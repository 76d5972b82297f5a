"""Neighbours followed along the text that they come from, so that most tokens need no search."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrolled.predict.base import Prediction, Scores
from unrolled.predict.datastore import QUERIES
from unrolled.predict.nearest import NeighboursPredictor

__all__ = ["PointersPredictor", "PointersState"]


class PointersState(NamedTuple):
    """base: the inner predictor's. pointers: (batch, most) entries that may come next, the nearest first; as many as
    the store has stands for none."""

    base: Any
    pointers: Tensor


class _Used(NamedTuple):
    """distances, entries: (rows, m), what a prediction is made from. searched: (rows,) whether it took a search."""

    distances: Tensor
    entries: Tensor
    searched: Tensor


class PointersPredictor(NeighboursPredictor):
    r"""Neighbours as an automaton (RetoMaton: Alon, Xu, He, Sengupta, Roth and Neubig 2022, arXiv 2201.12431).

    After a token the neighbours whose token was right point to the entries after them in the text. Where there are at
    least ``least`` of these, the next prediction is made from them, filled up with members of their clusters; else a
    search is made and they are added to what it finds. In a window of text that is known, the exact search looks for
    all remaining tokens once one needs it, since many queries cost little more than one; the record counts those that
    were needed. The published code does so with the true token only; here a token that was drawn is as good.
    """

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self._ahead: tuple[PointersState, _Used] | None = None
        self._tokens = self._searches = 0

    @property
    def told(self) -> dict[str, Any]:
        """See :attr:`Predictor.told`."""
        saved = 1 - self._searches / self._tokens if self._tokens else 0.0
        counted = {"tokens": self._tokens, "searches": self._searches, "saved": saved}
        return {**self.inner.told, "neighbours": counted}

    def shared_form(self, state: PointersState) -> PointersState:
        """See :meth:`Predictor.shared_form`."""
        return state._replace(base=self.inner.shared_form(state.base))

    def own_form(self, shared: PointersState) -> PointersState:
        """See :meth:`Predictor.own_form`."""
        return shared._replace(base=self.inner.own_form(shared.base))

    def begin(self, batch: int, first: Tensor | None = None) -> PointersState:
        """See :meth:`Predictor.begin`."""
        none = torch.full((batch, self.config.most), len(self.store), dtype=torch.int64, device=self.device)
        return PointersState(self.inner.begin(batch, first), none)

    def restarted(self, state: PointersState, rows: Tensor) -> PointersState:
        """See :meth:`Predictor.restarted`; the rows' pointers are dropped."""
        pointers = state.pointers.masked_fill(rows.unsqueeze(1), len(self.store))
        return PointersState(self.inner.restarted(state.base, rows), pointers)

    @torch.no_grad()
    def predict(self, state: PointersState) -> Prediction:
        """See :meth:`Predictor.predict`."""
        log_prob, hidden = self.inner.predict(state.base)
        assert hidden is not None
        used = self._used_at(state, hidden)
        return Prediction(self.mixed(log_prob, used.distances, used.entries), hidden)

    @torch.no_grad()
    def observe(self, state: PointersState, ids: Tensor) -> PointersState:
        """See :meth:`Predictor.observe`."""
        hidden = self.inner.predict(state.base).hidden
        assert hidden is not None
        pointers = self._advanced(self._used_at(state, hidden), ids)
        return PointersState(self.inner.observe(state.base, ids), pointers)

    def consume(self, state: PointersState, ids: Tensor) -> PointersState:
        """See :meth:`Predictor.consume`."""
        return self.window(state, ids).state if ids.shape[1] else state

    @torch.no_grad()
    def window(self, state: PointersState, ids: Tensor, reset: Tensor | None = None) -> Scores:
        """See :meth:`Predictor.window`."""
        scores = self.inner.window(state.base, ids, reset)
        assert scores.hidden is not None
        ahead, pointers, parts = max(1, QUERIES // len(ids)), state.pointers, []
        for low in range(0, ids.shape[1], ahead):
            part = slice(low, low + ahead)
            found: tuple[Tensor, Tensor] | None = None
            first = 0
            hidden = scores.hidden[:, part]
            for t in range(hidden.shape[1]):
                if reset is not None:
                    pointers = pointers.masked_fill(reset[:, low + t].unsqueeze(1), len(self.store))
                if found is None and self.store.exact and bool(self._need(pointers).any()):
                    rest = hidden[:, t:]
                    near = self.store.nearest(rest.flatten(0, 1), self.config.k)
                    found = near[0].view(*rest.shape[:2], -1), near[1].view(*rest.shape[:2], -1)
                    first = t
                here = None if found is None else (found[0][:, t - first], found[1][:, t - first])
                used, token = self._used(pointers, hidden[:, t], here), ids[:, low + t]
                parts.append(self.mixed_nll(scores.nll[:, low + t], token, used.distances, used.entries))
                pointers = self._advanced(used, token)
        return Scores(torch.stack(parts, 1), scores.hidden, PointersState(scores.state, pointers))

    def _need(self, pointers: Tensor) -> Tensor:
        """(rows,) whether there are too few pointers."""
        return (pointers < len(self.store)).sum(1) < self.config.least

    def _used_at(self, state: PointersState, hidden: Tensor) -> _Used:
        known = self._ahead
        if known is None or known[0] is not state:
            known = self._ahead = state, self._used(state.pointers, hidden, None)
        return known[1]

    def _used(self, pointers: Tensor, hidden: Tensor, found: tuple[Tensor, Tensor] | None) -> _Used:
        """What is predicted from: pointers (rows, most), and for rows that need it what a search finds.

        Args:
            found: distances and entries (rows, k), where a search of all rows has been made.
        """
        none, need = len(self.store), self._need(pointers)
        if self.config.clusters and self.store.members is not None:
            pointers = self.store.members.filled(pointers, none)
        width = int((pointers < none).sum(1).max()) if len(pointers) else 0
        pointers = pointers[:, :width]
        distances = self.store.distances(hidden, pointers)
        if not bool(need.any()):
            return _Used(distances, pointers, need)
        if found is None:
            near, entries = self.store.nearest(hidden[need], self.config.k)
        else:
            near, entries = found[0][need], found[1][need]
        if not self.config.doubles:
            pointers, distances = self._once(pointers, distances, entries, need)
        all_near = distances.new_full((len(need), near.shape[1]), torch.inf)
        all_entries = pointers.new_full(all_near.shape, none)
        all_near[need], all_entries[need] = near, entries
        return _Used(torch.cat([all_near, distances], 1), torch.cat([all_entries, pointers], 1), need)

    def _once(self, pointers: Tensor, distances: Tensor, entries: Tensor, need: Tensor) -> tuple[Tensor, Tensor]:
        """Pointers without those that the search of their row found."""
        pointers, distances = pointers.clone(), distances.clone()
        for row, found in zip(need.nonzero()[:, 0].tolist(), entries, strict=True):
            twice = torch.isin(pointers[row], found)
            pointers[row, twice], distances[row, twice] = len(self.store), torch.inf
        return pointers, distances

    def _advanced(self, used: _Used, ids: Tensor) -> Tensor:
        """The pointers (rows, most) after the tokens ``ids`` (rows,)."""
        self._tokens += len(ids)
        self._searches += int(used.searched.sum())
        none, most = len(self.store), self.config.most
        entries = used.entries
        right = (self.store.ids.to(entries.device)[entries] == ids.unsqueeze(1)) & (entries < none)
        right &= self.store.follows.to(entries.device)[entries]
        order = used.distances.masked_fill(~right, torch.inf).argsort(dim=1, stable=True)[:, :most]
        chosen = torch.where(right.gather(1, order), entries.gather(1, order) + 1, none)
        # a neighbour at an infinite distance, which is one all the same, may lie behind those that are none
        chosen = chosen.gather(1, (chosen == none).long().argsort(dim=1, stable=True))
        missing = most - chosen.shape[1]
        return torch.cat([chosen, chosen.new_full((len(chosen), missing), none)], 1) if missing else chosen
