"""What a recurrent neural network transducer heard: greedy decoding and two beam searches."""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrolled.core.errors import UsageError
from unrolled.model import LanguageModel

__all__ = ["Heard", "Transducer", "greedy", "prefix_beam", "synchronous_beam"]

Labels = tuple[int, ...]
Masses = dict[Labels, float]
"""Label strings, and the log of the sum over their alignments so far."""


class Heard(NamedTuple):
    """A label string and its nats: of one alignment where one was followed, else of the sum over those that a search
    kept."""

    labels: Labels
    log_prob: float


class Transducer:
    """The joint network, and a prediction network that reads labels with the stack of a language model.

    Args:
        reader: its stack's output width is D; its head has no part. start: the id that it reads before the first label.
        matrix: (V, D), bias: (V,), of the joint log softmax(W tanh(e + g) + b). blank: its id. Labels are ids of the
            reader's vocabulary too.
    Raises:
        UsageError: widths or vocabularies that do not fit.
    """

    def __init__(self, reader: LanguageModel, matrix: Tensor, bias: Tensor, start: int = 0, blank: int = 0):
        if matrix.shape != (reader.vocab_size, reader.stack.out_width) or bias.shape != matrix.shape[:1]:
            raise UsageError(
                f"the joint's matrix is {tuple(matrix.shape)} and its bias {tuple(bias.shape)}; a reader of "
                f"{reader.vocab_size} ids and width {reader.stack.out_width} needs ({reader.vocab_size}, "
                f"{reader.stack.out_width}) and ({reader.vocab_size},)."
            )
        self.reader, self.matrix, self.bias, self.start, self.blank = reader, matrix, bias, start, blank

    def predicted(self, labels: Tensor) -> Tensor:
        """(batch, U+1, D) of label strings (batch, U), for :func:`unrolled.kernels.rnnt_loss.rnnt_loss`."""
        begun = labels.new_full((len(labels), 1), self.start)
        return self.reader(torch.cat([begun, labels], 1)).raw

    def joint(self, encoded: Tensor, predicted: Tensor) -> Tensor:
        """Log-probabilities (n, V) at a frame (D,) after each of n strings, whose predictions are (n, D)."""
        return torch.log_softmax(torch.tanh(encoded + predicted) @ self.matrix.t() + self.bias, -1)


class _Reading:
    """The prediction network's outputs after label strings, each computed once from that of its prefix."""

    def __init__(self, transducer: Transducer):
        self._transducer = transducer
        self._known: dict[Labels, tuple[Tensor, Any]] = {}

    def after(self, labels: Labels) -> Tensor:
        """(D,)."""
        if labels not in self._known:
            reader, last = self._transducer.reader, labels[-1] if labels else self._transducer.start
            if labels:
                self.after(labels[:-1])
            state = self._known[labels[:-1]][1] if labels else reader.initial_state(1)
            out = reader(torch.tensor([[last]], device=reader.device), state)
            self._known[labels] = out.raw[0, 0], out.state
        return self._known[labels][0]

    def log_prob(self, frame: Tensor, strings: list[Labels]) -> list[list[float]]:
        """Of each string, the log-probabilities of all ids at a frame."""
        predicted = torch.stack([self.after(one) for one in strings])
        return self._transducer.joint(frame, predicted).tolist()

    def forget(self, kept: Masses) -> None:
        """Drop what no string that is kept goes on from."""
        needed = {one[:n] for one in kept for n in (len(one), max(0, len(one) - 1))}
        self._known = {labels: value for labels, value in self._known.items() if labels in needed}


@torch.no_grad()
def greedy(transducer: Transducer, encoded: Tensor, max_symbols: int = 10) -> Heard:
    """The likeliest id at each step, and on to the next frame after a blank or ``max_symbols`` labels.

    Args:
        encoded: (T, D). The log-probability is that of the one alignment; a frame that was ended by ``max_symbols`` has
            its blank counted all the same.
    """
    _check(encoded, max_symbols=max_symbols)
    reading, labels, total = _Reading(transducer), (), 0.0
    for frame in encoded:
        for said in range(max_symbols + 1):
            (row,) = reading.log_prob(frame, [labels])
            best = max(range(len(row)), key=row.__getitem__) if said < max_symbols else transducer.blank
            total += row[best]
            if best == transducer.blank:
                break
            labels = (*labels, best)
        reading.forget({labels: total})
    return Heard(labels, total)


@torch.no_grad()
def prefix_beam(
    transducer: Transducer, encoded: Tensor, width: int = 8, max_labels: int = 200, nbest: int = 1
) -> list[Heard]:
    """Graves' search (2012): at each frame the likeliest string is gone on from, until ``width`` strings that have
    finished the frame are likelier than any that has not.

    Equal strings merge into the sum of their alignments, and what reaches a string after it was gone on from goes on
    by itself; so with a width without bound the sums are exact for all strings of at most ``max_labels``, and nothing
    has to be added for prefixes.

    Args:
        encoded: (T, D). width: strings that are kept from frame to frame. max_labels: the longest string.
    Returns:
        the ``nbest`` best, the best first.
    """
    _check(encoded, width=width, max_labels=max_labels + 1, nbest=nbest)
    reading = _Reading(transducer)
    done: Masses = {(): 0.0}
    for frame in encoded:
        open_, done, rows = done, {}, {}
        while open_:
            labels = min(open_, key=lambda one: (-open_[one], one))
            mass = open_.pop(labels)
            if len(done) >= width and sum(value > mass for value in done.values()) >= width:
                break
            if labels not in rows:
                (rows[labels],) = reading.log_prob(frame, [labels])
            _add(done, labels, mass + rows[labels][transducer.blank])
            if len(labels) < max_labels:
                for label, value in enumerate(rows[labels]):
                    if label != transducer.blank:
                        _add(open_, (*labels, label), mass + value)
        done = _best(done, width)
        reading.forget(done)
    return _heard(done, nbest)


@torch.no_grad()
def synchronous_beam(
    transducer: Transducer,
    encoded: Tensor,
    width: int = 8,
    max_symbols: int = 3,
    max_labels: int = 200,
    nbest: int = 1,
) -> list[Heard]:
    """Time-synchronous search (Saon, Tüske and Audhkhasi 2020): all strings go through a frame together, with at most
    ``max_symbols`` labels each; equal ones merge into the sum of their alignments. With a width without bound the sums
    are those of all alignments with so many labels a frame.

    Args:
        encoded: (T, D). width: strings that are kept after each label and each frame. max_labels: the longest string.
    Returns:
        the ``nbest`` best, the best first.
    """
    _check(encoded, width=width, max_symbols=max_symbols + 1, max_labels=max_labels + 1, nbest=nbest)
    reading = _Reading(transducer)
    done: Masses = {(): 0.0}
    for frame in encoded:
        going, done = done, {}
        for said in range(max_symbols + 1):
            grown: Masses = {}
            for (labels, mass), row in zip(going.items(), reading.log_prob(frame, list(going)), strict=True):
                _add(done, labels, mass + row[transducer.blank])
                for label, value in enumerate(row if said < max_symbols and len(labels) < max_labels else ()):
                    if label != transducer.blank:
                        _add(grown, (*labels, label), mass + value)
            going = _best(grown, width)
            if not going:
                break
        done = _best(done, width)
        reading.forget(done)
    return _heard(done, nbest)


def _add(masses: Masses, labels: Labels, mass: float) -> None:
    known = masses.get(labels)
    if known is None:
        masses[labels] = mass
        return
    high, low = max(known, mass), min(known, mass)
    masses[labels] = high if low == -math.inf else high + math.log1p(math.exp(low - high))


def _best(masses: Masses, width: int) -> Masses:
    order = sorted(masses, key=lambda one: (-masses[one], one))
    return {labels: masses[labels] for labels in order[:width]}


def _heard(masses: Masses, nbest: int) -> list[Heard]:
    return [Heard(labels, mass) for labels, mass in _best(masses, nbest).items()]


def _check(encoded: Tensor, **least_one: int) -> None:
    if encoded.dim() != 2 or not len(encoded):
        raise UsageError(f"decoding needs frames (T, D) with T at least 1 (got {tuple(encoded.shape)}).")
    for name, value in least_one.items():
        if value < 1:
            raise UsageError(f"{name} is too small; raise it.")
