"""Symbols from a token model: the exact probability of every byte of a text, whatever tokens it is cut into."""

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from unrolled.core import tree
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.predict.base import Prediction, Predictor, check_vocabulary
from unrolled.predict.wrapped import WrappedPredictor
from unrolled.tokenizer.symbols_of import END, Spelling

__all__ = ["SpelledPredictor", "SpelledState"]

_CONTEXT = 64


class SpelledState(NamedTuple):
    """The covers of a text, in slots. K: the most that there can be; V: tokens.

    base: the model's states after the tokens that end within the text, every tensor (batch, K, ...). log_prob: (batch,
    K, V) nats of the token after them, in the order of their sheet. weight: (batch, K) the logarithm of the share
    of these tokens in the probability of the text; minus infinity in a slot that is free. span: (batch, K, 4) the
    tokens low to high - 1 of the sheet are those that agree with the text's symbols after the slot's tokens, how many
    these symbols are, and the sheet. ids: (batch, K, 64) the last tokens, at the right, -1 where there is none.
    """

    base: Any
    log_prob: Tensor
    weight: Tensor
    span: Tensor
    ids: Tensor


class _Born(NamedTuple):
    row: int
    parent: int
    token: int
    weight: float
    ids: tuple[int, ...]


class SpelledPredictor(WrappedPredictor):
    r"""A predictor of bytes around one of tokens (tokenization bias: Phan, Havasi, Muckley and Ullrich 2024,
    arXiv 2406.16829; covers: Vieira et al. 2024, arXiv 2412.03719).

    A cover of a text x is a string of tokens whose text begins with x and whose last token is needed for that. A text
    begins with x if its tokens begin with one of them, so

    .. math:: P(x) = \sum_{t \in \text{covers}(x)} \prod_i p(t_i \mid t_{<i}),
              \qquad P(a \mid x) = P(xa) / P(x)

    Only strings count that begin what the tokenizer makes of some text: p is the model's probability of a token, among
    those that may follow the tokens before it, renormalised. So the sum over all symbols a of P(xa) is P(x), and the
    nats of a text's symbols add up to those of the text. Then the tokens of a beginning of x are known, and covers
    differ in their last token alone, so one token is read for each byte of a text; more where blanks end it, and
    within a character of several bytes. Tokens that no byte completes to a character are left out when that is seen.

    Args:
        inner: over the tokens of ``spelling``.
    Raises:
        UsageError: a predictor that learns or draws while it reads, which would learn from tokens that do not come.
        UnrolledError: another vocabulary.
    """

    adds = "symbols"
    device = torch.device("cpu")  # type: ignore[assignment]

    def __init__(self, inner: Predictor, spelling: Spelling):
        if inner.lockstep or not inner.independent:
            raise UsageError(
                f"{inner.kind} lets all that is read change what follows, and to know symbols, tokens are read that do "
                "not come; leave out that setting, or the symbols."
            )
        check_vocabulary(inner, spelling.tokenizer.vocab_size)
        super().__init__(inner)
        symbols = spelling.symbols
        self.spelling, self.gives_hidden = spelling, False
        self.vocab_size, self.start_id = symbols.vocab_size, symbols.start_id
        self.slots = spelling.most_covers()
        self._symbols, self._tokens, self._lost = 0, 0, 0.0

    @property
    def told(self) -> dict[str, Any]:
        """See :attr:`Predictor.told`: symbols and tokens read, and the mean probability of tokens that may not come."""
        return {
            **self.inner.told,
            "symbols": {
                "symbols": self._symbols, "tokens": self._tokens, "invalid": self._lost / max(1, self._tokens)
            },
        }  # fmt: skip

    @property
    def options(self) -> dict[str, Any]:
        """See :attr:`Predictor.options`."""
        return {**self.inner.options, "symbols": {}}

    def shared_form(self, state: SpelledState) -> SpelledState:
        """See :meth:`Predictor.shared_form`."""
        return state._replace(base=self._slotted(self.inner.shared_form(_flat(state.base))))

    def own_form(self, shared: SpelledState) -> SpelledState:
        """See :meth:`Predictor.own_form`."""
        return shared._replace(base=self._slotted(self.inner.own_form(_flat(shared.base))))

    def begin(self, batch: int, first: Tensor | None = None) -> SpelledState:
        """See :meth:`Predictor.begin`; ``first`` is read as a text's first symbol."""
        base = self.inner.begin(batch)
        log_prob = self._after(base, [()] * batch)
        count = max(len(sheet.order) for sheet in self.spelling.sheets)
        state = SpelledState(
            self._slotted(tree.repeat_rows(base, self.slots)),
            torch.full((batch, self.slots, count), -math.inf, dtype=torch.float64),
            torch.full((batch, self.slots), -math.inf, dtype=torch.float64),
            torch.zeros(batch, self.slots, 4, dtype=torch.int64),
            torch.full((batch, self.slots, _CONTEXT), -1, dtype=torch.int64),
        )
        for row in range(batch):
            self._put(state, row, 0, log_prob[row], 0.0, ())
        return state if first is None else self.observe(state, first)

    def predict(self, state: SpelledState) -> Prediction:
        """See :meth:`Predictor.predict`."""
        mass = np.zeros((len(state.weight), END + 1))
        log_prob = state.log_prob.numpy()
        for row, slot in (state.weight > -math.inf).nonzero().tolist():
            low, high, depth, sheet = state.span[row, slot].tolist()
            share = np.exp(log_prob[row, slot, low:high] + float(state.weight[row, slot]))
            signs = self.spelling.sheets[sheet].signs[depth, low:high]
            mass[row] += np.bincount(signs, share, END + 1)
        found = torch.from_numpy(mass[:, : self.vocab_size])
        return Prediction(found.log(), None)

    def observe(self, state: SpelledState, ids: Tensor) -> SpelledState:
        """See :meth:`Predictor.observe`. Raises UsageError for a symbol that no token spells here."""
        weight, span = state.weight.clone(), state.span.clone()
        log_prob, born = state.log_prob.numpy(), []
        for row, slot in (weight > -math.inf).nonzero().tolist():
            low, high, depth, number = span[row, slot].tolist()
            begin, middle, end = self.spelling.sheets[number].narrowed(low, high, depth, int(ids[row]))
            known = float(weight[row, slot])
            for place in range(begin, middle):
                if (nats := float(log_prob[row, slot, place])) > -math.inf:
                    token = int(self.spelling.sheets[number].order[place])
                    born.append(_Born(row, slot, token, known + nats, self._context(state, row, slot)))
            span[row, slot] = torch.tensor([middle, end, depth + 1, number])
            if middle == end or log_prob[row, slot, middle:end].max() == -math.inf:
                weight[row, slot] = -math.inf
        self._symbols += len(ids)
        state = self._with(state._replace(weight=weight, span=span), born)
        total = self._mass(state)
        for row in (total == -math.inf).nonzero()[:, 0].tolist():
            symbol = self.spelling.symbols.token(int(ids[row]))
            raise UsageError(
                f"no token goes on with {symbol!r} at this place of the text; of words only those of the vocabulary "
                "can be read by symbol, with single spaces between them."
            )
        return state._replace(weight=state.weight - total.unsqueeze(1))

    def _with(self, state: SpelledState, born: list[_Born]) -> SpelledState:
        """The state with covers that have got one more token."""
        if not born:
            return state
        flat, places = _flat(state.base), torch.tensor([one.row * self.slots + one.parent for one in born])
        tokens = torch.tensor([one.token for one in born], device=self.inner.device)
        after = self.inner.observe(tree.select_rows(flat, places), tokens)
        contexts = [self.spelling.kept((*one.ids, one.token))[-_CONTEXT:] for one in born]
        log_prob, slots = self._after(after, contexts), []
        state = state._replace(log_prob=state.log_prob.clone(), ids=state.ids.clone())
        for one, nats, context in zip(born, log_prob, contexts, strict=True):
            leads = one.weight if self.spelling.allowed(context).any() else -math.inf
            free = (state.weight[one.row] == -math.inf).nonzero()
            if not len(free):
                raise UnrolledError("a text has more covers than its vocabulary allows; report this.")
            slots.append(one.row * self.slots + int(free[0]))
            self._put(state, one.row, int(free[0]), nats, leads, context)

        def put(value: Tensor, new: Tensor) -> Tensor:
            return value.index_put((torch.tensor(slots, device=value.device),), new.to(value.dtype))

        return state._replace(base=self._slotted(tree.map_tree(put, flat, after)))

    def _after(self, base: Any, contexts: list[tuple[int, ...]]) -> np.ndarray:
        """Nats (rows, V) of the next tokens, those that may not come left out; in the order of each row's sheet."""
        found = self.inner.predict(base).log_prob.detach().double().cpu().numpy()
        made = np.full((len(contexts), max(len(sheet.order) for sheet in self.spelling.sheets)), -math.inf)
        for row, context in enumerate(contexts):
            order = self.spelling.sheets[self.spelling.sheet(context)].order
            nats = np.where(self.spelling.allowed(context), found[row], -math.inf)[order]
            total = np.logaddexp.reduce(nats)
            self._tokens, self._lost = self._tokens + 1, self._lost + max(0.0, 1 - math.exp(total))
            if total > -math.inf:  # else nothing comes after it, as at the end of a text of fixed length
                made[row, : len(order)] = nats - total
        return made

    def _put(
        self, state: SpelledState, row: int, slot: int, nats: np.ndarray, weight: float, ids: tuple[int, ...]
    ) -> None:
        """Fill a slot, in place, of tensors that nobody else has."""
        sheet = self.spelling.sheet(ids)
        state.log_prob[row, slot] = torch.from_numpy(nats)
        state.weight[row, slot] = weight
        state.span[row, slot] = torch.tensor([0, len(self.spelling.sheets[sheet].order), 0, sheet])
        state.ids[row, slot] = torch.tensor([-1] * (_CONTEXT - len(ids)) + list(ids))

    def _mass(self, state: SpelledState) -> Tensor:
        """The logarithm (batch,) of what the covers come to."""
        total = torch.full((len(state.weight),), -math.inf, dtype=torch.float64)
        log_prob = state.log_prob.numpy()
        for row, slot in (state.weight > -math.inf).nonzero().tolist():
            low, high, depth, _ = state.span[row, slot].tolist()
            # a cover whose last token ends here has its own weight, be there a next token or not
            part = 0.0 if depth == 0 else float(np.logaddexp.reduce(log_prob[row, slot, low:high]))
            total[row] = np.logaddexp(float(total[row]), float(state.weight[row, slot]) + part)
        return total

    def _context(self, state: SpelledState, row: int, slot: int) -> tuple[int, ...]:
        return tuple(one for one in state.ids[row, slot].tolist() if one >= 0)

    def _slotted(self, base: Any) -> Any:
        return tree.map_tree(lambda value: value.unflatten(0, (-1, self.slots)), base)


def _flat(base: Any) -> Any:
    return tree.map_tree(lambda value: value.flatten(0, 1), base)
