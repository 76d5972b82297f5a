"""The Python interface over the same functions as the command line."""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from unrolled.data import CorpusConfig
from unrolled.evaluate import EvalConfig, EvalResult, NeuralPredictor, evaluate_static
from unrolled.generate import Generation, SamplerConfig
from unrolled.generate import generate as _generate
from unrolled.model import LanguageModel
from unrolled.runs import Run
from unrolled.train import ExperimentConfig, Reporter
from unrolled.train import train as _train
from unrolled.train.recipes import load_experiment

__all__ = ["evaluate", "experiment", "generate", "load", "train"]

PathLike = str | os.PathLike[str]


def experiment(
    recipe: str | None = None, settings: Iterable[str] = (), corpus: CorpusConfig | str | None = None
) -> ExperimentConfig:
    """The configuration of a recipe with ``a.b=value`` settings applied.

    Args:
        recipe: name of a shipped recipe or path of a TOML file; absent: the default.
        corpus: in place of the recipe's.
    Raises:
        UsageError: unknown recipe, key or value, in one sentence.
    """
    return load_experiment(
        recipe, settings, CorpusConfig.parse({"name": corpus}) if isinstance(corpus, str) else corpus
    )


def train(
    config: ExperimentConfig | Mapping[str, Any] | None = None,
    out: PathLike = "runs/run",
    device: str = "auto",
    report: Reporter | None = None,
) -> Path:
    """Train a model; see :func:`unrolled.train.train`. Returns the run directory."""
    if config is None:
        config = experiment()
    elif isinstance(config, Mapping):
        config = ExperimentConfig.parse(config)
    return _train(config, out, device, report)


def load(run: PathLike, device: str = "auto") -> LanguageModel:
    """The model of a run, in evaluation mode."""
    return Run(run, device).model


def _opened(run: Run | PathLike, device: str) -> Run:
    return run if isinstance(run, Run) else Run(run, device)


def evaluate(
    run: Run | PathLike,
    corpus: CorpusConfig | str | None = None,
    device: str = "auto",
    per_token: PathLike | None = None,
    **options: Any,
) -> EvalResult:
    """Measure a run on a corpus.

    Args:
        corpus: absent: the run's own.
        per_token: file for token ids and log-probabilities.
        options: fields of :class:`EvalConfig`: split, window, columns, first, limit.
    """
    opened = _opened(run, device)
    config = EvalConfig.parse(options)
    text, splits = opened.splits(corpus)
    predictor = NeuralPredictor(opened.model, opened.tokenizer.start_id)
    provenance = {"corpus": text.name, "run": str(opened.path), "parameters": opened.model.num_params()}
    return evaluate_static(predictor, splits[config.split], config, None, provenance, per_token)


def generate(
    run: Run | PathLike,
    prompts: str | Sequence[str] = "",
    tokens: int = 200,
    stop: Sequence[str] = (),
    samples: int = 1,
    device: str = "auto",
    **options: Any,
) -> list[Generation]:
    """Continue prompts.

    Args:
        options: fields of :class:`SamplerConfig`: temperature, top_k, top_p, min_p, seed.
    """
    opened = _opened(run, device)
    predictor = NeuralPredictor(opened.model, opened.tokenizer.start_id)
    prompts = (prompts,) if isinstance(prompts, str) else prompts
    return _generate(predictor, opened.tokenizer, prompts, tokens, SamplerConfig.parse(options), stop, samples)
