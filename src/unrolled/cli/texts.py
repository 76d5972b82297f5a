"""Texts that are drawn, on the command line."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unrolled.cli.common import write
from unrolled.cli.writing import Writing

if TYPE_CHECKING:
    from unrolled.generate import Generation, Piece
    from unrolled.tokenizer import Tokenizer

__all__ = ["print_generation"]


def print_generation(writing: Writing, samples: int = 1, state_out: Path | None = None, log_probs: int = 0) -> None:
    """Draw texts and print: one sample as it comes, several when they are whole.

    Args:
        state_out: file for the state after the text, of one sample.
        log_probs: how many of the likeliest tokens are told of each; 0: the text is printed.
    """
    from unrolled.core.notes import note
    from unrolled.evaluate import state_form
    from unrolled.generate import generate as whole
    from unrolled.generate import stream
    from unrolled.predict import KeptState
    from unrolled.predict.state_files import write_state

    tokenizer, sampler, text = writing.tokenizer, writing.sampler, writing.text
    with writing.opened() as predictor:
        form = None if state_out is None else state_form(writing.run, predictor)
        begun = writing.begun(predictor) or (None if form is None else form.begin())
        ends: dict[tuple[int, int], KeptState] | None = None if state_out is None else {}
        arguments = (
            predictor, tokenizer, (text,), writing.tokens, sampler, tuple(writing.stop), samples, begun, ends, log_probs
        )  # fmt: skip
        reasons: list[str | None] = []
        if writing.json:
            found = whole(*arguments)
            writing.emit([_as_json(done, tokenizer) for done in found])
            reasons = [done.finish_reason for done in found]
        elif log_probs:
            write("\t".join(_COLUMNS))
            for piece in stream(*arguments):
                reasons.append(piece.finish_reason)
                write("\t".join(map(_cell, _row(piece, tokenizer).values())))
                sys.stdout.flush()
        elif samples > 1:
            for i, done in enumerate(whole(*arguments), 1):
                reasons.append(done.finish_reason)
                write(f"--- {i}\n{text}{done.text}")
        else:
            pieces = stream(*arguments)  # refuses a prompt that it cannot read, before anything is printed
            write(text, "")
            for piece in pieces:
                reasons.append(piece.finish_reason)
                write(piece.text, "")
                sys.stdout.flush()
            write("")
        if sampler is not None and sampler.constrain is not None and (short := reasons.count("length")):
            note(f"{short} of the texts ended before the constraint was met; give them more --tokens.")
        if ends is not None and state_out is not None and form is not None:
            write_state(state_out, ends[0, 0], form)


_COLUMNS = ("sample", "token", "log_prob", "log_prob_after", "likeliest", "likeliest_after")


def _row(piece: "Piece", tokenizer: "Tokenizer") -> dict[str, Any]:
    """What is told of a token, by the names of the columns."""
    assert piece.told is not None
    best = ([(tokenizer.token(one), nats) for one, nats in each] for each in (piece.told.before, piece.told.after))
    values = (piece.sample, tokenizer.token(piece.token), piece.log_prob, piece.told.log_prob, *best)
    return dict(zip(_COLUMNS, values, strict=True))


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(f"{name!r}:{nats:.4f}" for name, nats in value)
    return f"{value:.6f}" if isinstance(value, float) else str(value)


def _as_json(done: "Generation", tokenizer: "Tokenizer") -> dict[str, Any]:
    value = done._asdict()
    pieces = value.pop("pieces")
    return {**value, "log_probs": [_row(piece, tokenizer) for piece in pieces]} if pieces else value
