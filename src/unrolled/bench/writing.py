"""Texts that a model writes, as a case: every way of writing by the same call."""

from typing import Any

from torch import Tensor

from unrolled.bench.material import Case
from unrolled.bench.methods import METHODS
from unrolled.bench.opened import opened
from unrolled.bench.plan import Row
from unrolled.bench.ways import parse_way
from unrolled.core.errors import UsageError
from unrolled.evaluate import open_predictor
from unrolled.kernels.dispatch import Sizes
from unrolled.model import LanguageModel
from unrolled.model.flops import model_flops
from unrolled.predict import ADAPTERS, NeuralPredictor, Source, adapt
from unrolled.tokenizer.byte import ByteTokenizer

__all__ = ["model_amount", "writing_case"]


def model_amount(model: LanguageModel) -> int:
    """Numbers of the matrices that one token is multiplied by."""
    return model_flops(model) // 2


def writing_case(row: Row, model: LanguageModel, sizes: Sizes, source: Source | None = None) -> Case:
    """Texts by the row's way: ``batch`` of them, of ``window`` tokens each where they do not end before.

    Args:
        source: what adapters ask of a run, where the model comes from none.
    Raises:
        UsageError: the model cannot serve the way.
    """
    way = parse_way(row.way)
    prepared, config = row.backend == "prepared", way.predict
    if row.precision != "float32":
        if config.get("quantize") is not None:
            raise UsageError("the precision of a row says how its weights are kept; leave out quantize.")
        config = config.having(ADAPTERS["quantize"].Config.model_validate(_kept(row.precision)))
    if row.run:
        run = opened(row.run)
        predictor, tokenizer = open_predictor(run, config, stepwise=prepared), run.tokenizer
    else:
        predictor, tokenizer = adapt(NeuralPredictor(model, 0), config, source, stepwise=prepared), ByteTokenizer()
    method = METHODS[way.method.name](way.method, tokenizer)
    predictor = method.around(predictor)
    written: list[int] = []

    def write() -> tuple[Tensor, ...]:
        predictor.forget()  # the text is the same in every call
        with predictor:  # what was learned from the text is undone
            written.append(method.write(predictor, way.sampler, sizes.batch, sizes.window))
        return ()

    def done() -> float:
        share = sum(written) / (len(written) * sizes.batch * sizes.window)
        written.clear()
        return share

    return Case({}, write, None, done)


def _kept(precision: str) -> dict[str, Any]:
    short = ADAPTERS["quantize"].Config.short
    return {"name": "quantize", str(short): precision}
