"""From settings to a predictor: what is done to a model at test time, in one place for every verb."""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field, model_validator
from torch import Tensor

from unrolled.core import tree
from unrolled.core.config import Config
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import make_folder, sha256_file
from unrolled.data import TokenSplit
from unrolled.evaluate.cache import CacheConfig, CachePredictor
from unrolled.evaluate.dropout import MonteCarloConfig, MonteCarloPredictor
from unrolled.evaluate.dynamic import DynamicPredictor, gradient_statistics
from unrolled.evaluate.predictor import NeuralPredictor, Predictor
from unrolled.evaluate.prepared import PreparedPredictor, Quantize, why_not_prepared
from unrolled.evaluate.walk import Progress
from unrolled.model import LanguageModel
from unrolled.optim.dynamic import DynamicConfig, dynamic_preset
from unrolled.runs import Run
from unrolled.task import ClosedTask

__all__ = ["PredictorConfig", "make_predictor", "open_predictor", "stored_statistics"]


class PredictorConfig(Config):
    """What is done to a model at test time; nothing by default."""

    temperature: float = Field(
        default=1.0,
        gt=0,
        description="divides the logits; below 1 sharper (the code of Melis et al. has the inverse)",
    )
    dropout: MonteCarloConfig | None = Field(default=None, description="Monte-Carlo dropout")
    dynamic: DynamicConfig | None = Field(
        default=None,
        description="dynamic evaluation: settings, or the name of a preset, or settings with the key preset (krause, "
        "mos, lamb, sgd, sgd_decay)",
    )
    cache: CacheConfig | None = Field(default=None, description="continuous cache")
    quantize: Quantize | None = Field(
        default=None,
        description="weights in fewer bits: bf16 (rounded to it, arithmetic in float32) or int8 (8-bit integers with a "
        "scale for each row of a matrix; so are the vectors that they multiply); on a CPU with the native library",
    )

    @model_validator(mode="before")
    @classmethod
    def _presets(cls, value: Any) -> Any:
        if not isinstance(value, Mapping) or "dynamic" not in value:
            return value
        given = value["dynamic"]
        given = {"preset": given} if isinstance(given, str) else given
        if not isinstance(given, Mapping) or "preset" not in given:
            return value
        changes = {key: inner for key, inner in given.items() if key != "preset"}
        return {**value, "dynamic": {**dynamic_preset(given["preset"]).model_dump(), **changes}}

    @model_validator(mode="after")
    def _consistent(self) -> "PredictorConfig":
        if self.dropout is not None and (self.dynamic is not None or self.cache is not None):
            raise UsageError(
                "Monte-Carlo dropout is not combined with dynamic evaluation or a cache; choose one of them."
            )
        if self.quantize is not None and (self.dropout is not None or self.dynamic is not None):
            raise UsageError(
                "quantised weights do not change, so that they go with neither Monte-Carlo dropout nor dynamic "
                "evaluation; leave out quantize."
            )
        return self


def make_predictor(
    model: LanguageModel,
    start_id: int,
    config: PredictorConfig,
    statistics: Mapping[str, Tensor] | None = None,
    stepwise: bool = False,
) -> Predictor:
    """The predictor that the settings describe.

    Args:
        statistics: of gradients, for dynamic evaluation by the rule ``rms``.
        stepwise: the text is going to be read token by token; the weights are prepared for that where they can be.
    """
    if config.dropout is not None:
        return MonteCarloPredictor(model, start_id, config.dropout, config.temperature)
    base: Predictor
    if config.quantize is not None or (stepwise and config.dynamic is None and why_not_prepared(model) is None):
        base = PreparedPredictor(model, start_id, config.temperature, config.quantize)
    else:
        base = NeuralPredictor(model, start_id, config.temperature)
    if config.dynamic is not None:
        base = DynamicPredictor(model, start_id, config.dynamic, statistics, config.temperature)
    return base if config.cache is None else CachePredictor(base, config.cache)


def open_predictor(
    run: Run,
    config: PredictorConfig | None = None,
    dtype: torch.dtype = torch.float32,
    progress: Progress | None = None,
    stepwise: bool = False,
) -> Predictor:
    """The predictor of a run; use it as a context manager where ``config`` may let it learn.

    Args:
        progress: hears of the batches, where gradient statistics have to be collected.
        stepwise: as in :func:`make_predictor`.
    Raises:
        UsageError: settings that the model or its corpus cannot serve. UnrolledError: damaged files.
    """
    config = config or PredictorConfig()
    run.check_language()
    if issubclass(run.task_class, ClosedTask):
        if config != PredictorConfig():
            sentence = "has no settings at test time; leave out temperature, dynamic, cache..."
            raise UsageError(f"{run.task_class.noun} {sentence}")
        return run.task_class.predictor(run.trained)
    model, statistics = run.model.to(dtype), None
    if dtype == torch.float64 and model.precision != "float64":
        raise UsageError(f"float64 arithmetic has no {model.precision} products; give --precision float32 too.")
    if config.dynamic is not None and config.dynamic.rule == "rms":
        statistics = stored_statistics(run, config.dynamic, progress)
    return make_predictor(model, run.tokenizer.start_id, config, statistics, stepwise)


def stored_statistics(run: Run, config: DynamicConfig, progress: Progress | None = None) -> dict[str, Tensor]:
    """Gradient statistics of a run's training text: kept in its folder ``statistics``, collected when not there yet.

    The file's name is a digest of all that they depend on: weights, text, tokenizer, and how they are collected.
    """
    whole = config.model_copy(update={"parameters": ("*",)})
    settings = {name: getattr(whole, name) for name in ("segment", "columns", "batches", "loss", "statistic")}
    memo = f"statistics {settings} {run.model.precision}"
    if memo in run.kept:
        return run.kept[memo]
    # the record knows the text's checksum, so that statistics on disk are found where the text itself is absent
    text = run.record.get("checksums", {}).get("train") or _train_split(run).checksum
    key = {
        "weights": sha256_file(run.weights_file),
        "text": text,
        "tokenizer": run.tokenizer.fingerprint(),
        "dtype": str(run.model.dtype),
        **settings,
    }
    if run.model.precision == "bf16":
        key["precision"] = "bf16"
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
    path = run.path / "statistics" / f"{digest}.safetensors"
    named = dict(run.model.named_parameters())
    if path.is_file():
        saved = tree.load_tensors(path, run.model.device)
        if {name: value.shape for name, value in saved.items()} == {name: p.shape for name, p in named.items()}:
            return run.kept.setdefault(memo, saved)
    found = gradient_statistics(run.model, run.tokenizer.start_id, _train_split(run), whole, progress)
    with contextlib.suppress(UnrolledError):  # a run that cannot be written to is still evaluated
        make_folder(path.parent)
        tree.save_tensors(path, found)
    return run.kept.setdefault(memo, found)


def _train_split(run: Run) -> TokenSplit:
    text, splits = run.splits()
    if "train" not in splits:
        raise UsageError(f"corpus {text.name} has no training split, which gradient statistics are collected on.")
    return splits["train"]
