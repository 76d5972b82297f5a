"""The predictor of a run, with what its settings need from the run's files."""

import contextlib
import hashlib
import json

import torch
from torch import Tensor

from unrolled.core import tree
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import make_folder, sha256_file
from unrolled.data import TokenSplit
from unrolled.data.walk import Progress
from unrolled.optim.dynamic import DynamicConfig
from unrolled.predict import Predictor, PredictorConfig, gradient_statistics, make_predictor
from unrolled.runs import Run
from unrolled.task import ClosedTask

__all__ = ["open_predictor", "stored_statistics"]


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
            noun = run.task_class.noun
            raise UsageError(f"{noun} has no settings at test time; leave out temperature, dynamic, cache...")
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
