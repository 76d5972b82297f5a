"""Texts that are drawn, on the command line."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unrolled.cli.common import emit, write

if TYPE_CHECKING:
    from unrolled.generate import Generation, Piece, SamplerConfig
    from unrolled.runs import Run
    from unrolled.tokenizer import Tokenizer

__all__ = ["print_generation"]


def print_generation(
    run: "Run",
    text: str,
    tokens: int,
    sampler: "SamplerConfig | None" = None,
    stop: Sequence[str] = (),
    samples: int = 1,
    json: bool = False,
    predict: Mapping[str, Any] | None = None,
    state: Path | None = None,
    state_out: Path | None = None,
    log_probs: int = 0,
) -> None:
    """Generate over a run and print: one sample as it comes, several when they are whole.

    Args:
        state: file of the state to go on from. state_out: file for the state after the text, of one sample.
        log_probs: how many of the likeliest tokens are told of each; 0: the text is printed.
    """
    from unrolled.core.notes import note
    from unrolled.evaluate import open_predictor, state_form
    from unrolled.generate import generate as whole
    from unrolled.generate import stream
    from unrolled.predict import KeptState, PredictorConfig
    from unrolled.predict.state_files import read_state, write_state

    with open_predictor(run, PredictorConfig.parse(predict or {}), stepwise=True) as predictor:
        form = None if state is None and state_out is None else state_form(run, predictor)
        begun = None if form is None else form.begin() if state is None else read_state(state, form)
        ends: dict[tuple[int, int], KeptState] | None = None if state_out is None else {}
        arguments = (predictor, run.tokenizer, (text,), tokens, sampler, tuple(stop), samples, begun, ends, log_probs)
        reasons: list[str | None] = []
        if json:
            found = whole(*arguments)
            emit([_as_json(done, run.tokenizer) for done in found])
            reasons = [done.finish_reason for done in found]
        elif log_probs:
            write("\t".join(_COLUMNS))
            for piece in stream(*arguments):
                reasons.append(piece.finish_reason)
                write("\t".join(map(_cell, _row(piece, run.tokenizer).values())))
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
