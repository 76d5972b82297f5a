"""Evaluation of a run: its model, its tokenizer, any corpus, and whatever is done at test time."""

import os
from collections.abc import Sequence

import torch

from unrolled.core.errors import UsageError
from unrolled.core.files import ready_output
from unrolled.core.registry import unknown_name
from unrolled.data import CorpusConfig
from unrolled.data.walk import Progress
from unrolled.evaluate.measure import EvalConfig, evaluate_predictor
from unrolled.evaluate.opening import open_predictor
from unrolled.evaluate.result import EvalResult
from unrolled.evaluate.search import search, start_of_search
from unrolled.predict import PredictorConfig
from unrolled.runs import Run

__all__ = ["DTYPES", "evaluate_run"]

DTYPES = {"float32": torch.float32, "float64": torch.float64}


def evaluate_run(
    run: Run,
    corpus: CorpusConfig | str | None = None,
    config: EvalConfig | None = None,
    predict: PredictorConfig | None = None,
    searches: Sequence[str] = (),
    search_tokens: int | None = None,
    per_token: str | os.PathLike[str] | None = None,
    dtype: str = "float32",
    progress: Progress | None = None,
) -> EvalResult:
    """Measure a run on a corpus.

    Args:
        corpus: its config, a known name, or the path of your own text; absent: the run's own.
        predict: what is done at test time. searches: adapters whose options are chosen first on the validation split;
            what was chosen is in the record.
        search_tokens: of the validation split, for each setting tried.
        per_token: file for token ids and log-probabilities.
        dtype: of the arithmetic, float32 or float64.
        progress: hears of every window and every batch.
    Raises:
        UsageError: unknown corpus, split or option. UnrolledError: damaged files.
    """
    if dtype not in DTYPES:
        raise unknown_name("dtype", dtype, DTYPES)
    config, predict = config or EvalConfig(), predict or PredictorConfig()
    for part in searches:
        start_of_search(part, predict)
    name, split, splits = run.to_measure(config.split, corpus)
    if searches and "valid" not in splits:
        raise UsageError(f"corpus {name} has no validation split to search on.")
    if per_token is not None:
        ready_output(per_token)
    provenance = {"corpus": name, **run.provenance()}
    for part in searches:
        tokens = search_tokens or start_of_search(part, predict)[0].tokens
        on = config.model_copy(update={"split": "valid", "limit": tokens, "columns": 1})

        def measure(candidate: PredictorConfig, on: EvalConfig = on) -> float:
            with open_predictor(run, candidate, DTYPES[dtype], progress) as predictor:
                return evaluate_predictor(predictor, splits["valid"], on, progress).nats_per_token

        predict, tried = search(part, predict, measure)
        seen = [{**one.settings, "nats_per_token": one.nats_per_token} for one in tried]
        seen = [{k: v if v != float("inf") else None for k, v in one.items()} for one in seen]
        provenance.setdefault("search", {})[part] = {"valid_tokens": tokens, "tried": seen}
    with open_predictor(run, predict, DTYPES[dtype], progress) as predictor:
        return evaluate_predictor(predictor, split, config, progress, provenance, per_token)
