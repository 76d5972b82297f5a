"""Beam search on the command line."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unrolled.cli.common import emit_texts, write

if TYPE_CHECKING:
    from unrolled.generate import BeamConfig, SamplerConfig
    from unrolled.runs import Run

__all__ = ["print_beams"]


def print_beams(
    run: "Run",
    text: str,
    tokens: int,
    config: "BeamConfig",
    sampler: "SamplerConfig",
    stop: Sequence[str],
    json: bool,
    predict: Mapping[str, Any],
    state: Path | None,
    reference: str | None = None,
) -> None:
    """Search over a run and print the texts with their scores.

    Args:
        state: file of the state to go on from. reference: see :func:`emit_texts`.
    """
    from unrolled.evaluate import open_predictor, state_form
    from unrolled.generate import beam_search, repeats
    from unrolled.predict import PredictorConfig
    from unrolled.predict.state_files import read_state

    with open_predictor(run, PredictorConfig.parse(predict), stepwise=True) as predictor:
        begun = None if state is None else read_state(state, state_form(run, predictor))
        found = beam_search(predictor, run.tokenizer, text, tokens, config, sampler, stop, begun)
    if json:
        texts = [{"prompt": text, **one._asdict(), "repeats": repeats(one.tokens)} for one in found]
        emit_texts(texts, text, reference)
        return
    for one in found:
        group = f"group {one.group + 1}, " if config.groups > 1 else ""
        write(
            f"--- {group}score {one.score:.6f}, {one.log_prob:.6f} nats, {len(one.tokens)} tokens, {one.finish_reason}"
        )
        write(f"{text}{one.text}")
