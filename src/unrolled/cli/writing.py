"""What every way of writing a text has in common, on the command line."""

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from unrolled.cli.common import emit

if TYPE_CHECKING:
    from unrolled.generate import ContrastConfig, SamplerConfig
    from unrolled.predict import KeptState, Predictor
    from unrolled.runs import Run
    from unrolled.tokenizer import Tokenizer

__all__ = ["Writing", "of_same_vocabulary", "symbols_of"]


class Writing(NamedTuple):
    """What is written, and by which model.

    tokens: at most. state: file of the state to go on from. guidance: weight of the prompt, None without; negative:
    text that is read in its place. amateur: the run that is contrasted with. reference: the text beside
    which candidates are told. by_symbol: bytes are written in place of tokens.
    """

    run: "Run"
    text: str
    tokens: int
    sampler: "SamplerConfig | None" = None
    stop: Sequence[str] = ()
    json: bool = False
    predict: Mapping[str, Any] = {}
    state: Path | None = None
    guidance: float | None = None
    negative: str = ""
    amateur: "Run | None" = None
    contrast: "ContrastConfig | None" = None
    reference: str | None = None
    by_symbol: bool = False

    @property
    def tokenizer(self) -> "Tokenizer":
        """Of what is drawn."""
        return symbols_of(self.run) if self.by_symbol else self.run.tokenizer

    def emit(self, texts: Sequence[Mapping[str, Any]]) -> None:
        """Print texts as JSON: a list, or, beside a reference, one line of candidates that an objective reads."""
        from unrolled.generate import repeats

        told = [{"prompt": self.text, **one, "repeats": repeats(one["tokens"])} for one in texts]
        if self.reference is None:
            emit(told)
        else:
            line = {"prompt": self.text, "reference": self.reference, "candidates": told}
            sys.stdout.write(json.dumps(line, allow_nan=False) + "\n")

    @contextlib.contextmanager
    def opened(self) -> "Iterator[Predictor]":
        """The predictor, with all that was asked for.

        Raises:
            UsageError: what cannot be combined; another vocabulary.
        """
        from unrolled.core.errors import UsageError
        from unrolled.evaluate import open_predictor
        from unrolled.generate import Contrast, ContrastConfig, Guidance, GuidanceConfig
        from unrolled.predict import PredictorConfig
        from unrolled.predict.spell import SpelledPredictor
        from unrolled.tokenizer.symbols_of import spelling_of

        if self.negative and self.guidance is None:
            raise UsageError("--negative is what is read in place of the prompt; say --guidance too.")
        if self.guidance is not None and self.amateur is not None:
            raise UsageError("--guidance and --amateur are not combined; leave out one of them.")
        with open_predictor(self.run, PredictorConfig.parse(self.predict), stepwise=True) as predictor:
            if self.guidance is not None:
                weight = GuidanceConfig(weight=self.guidance).weight
                ids, negative = (self.run.tokenizer.encode(one) for one in (self.text, self.negative))
                yield Guidance(predictor, weight, len(ids), negative)
            elif self.amateur is not None:
                of_same_vocabulary(self.run, self.amateur, "--amateur")
                with open_predictor(self.amateur, stepwise=True) as amateur:
                    yield Contrast(predictor, amateur, self.contrast or ContrastConfig())
            elif self.by_symbol:
                yield SpelledPredictor(predictor, spelling_of(self.run.tokenizer))
            else:
                yield predictor

    def begun(self, predictor: "Predictor") -> "KeptState | None":
        """The state to go on from, of the file."""
        from unrolled.evaluate import state_form
        from unrolled.predict.state_files import read_state

        return None if self.state is None else read_state(self.state, state_form(self.run, predictor))


def of_same_vocabulary(run: "Run", other: "Run", option: str) -> None:
    """Raises UsageError where two runs divide text into other symbols."""
    from unrolled.core.errors import UsageError

    if run.tokenizer.symbols_checksum() != other.tokenizer.symbols_checksum():
        raise UsageError(
            f"{option} needs a run with the vocabulary of {run.path}, and {other.path} has another; choose one that "
            "was trained with the same tokenizer."
        )


def symbols_of(run: "Run") -> "Tokenizer":
    """The tokenizer of the symbols that a run's tokens spell. Raises UsageError where that is not known."""
    from unrolled.tokenizer.symbols_of import spelling_of

    return spelling_of(run.tokenizer).symbols
