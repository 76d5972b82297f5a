"""The predictor of a run, with what its settings need from the run's files."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from unrolled.core import tree
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import make_folder, sha256_file
from unrolled.data import TokenSplit
from unrolled.data.walk import Progress
from unrolled.predict import NeuralPredictor, Predictor, PredictorConfig, StateForm, adapt
from unrolled.runs import Run
from unrolled.runs.names import side_file
from unrolled.task import ClosedTask
from unrolled.tokenizer import Tokenizer

# the objective that a side was trained by, as training states call it
_OBJECTIVES = {"recycler": "recycle"}

__all__ = ["RunSource", "open_predictor", "state_form"]


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
        stepwise: as in :func:`unrolled.predict.adapt`.
    Raises:
        UsageError: settings that the model or its corpus cannot serve. UnrolledError: damaged files.
    """
    return adapt(_plain(run, dtype), config or PredictorConfig(), RunSource(run, progress), stepwise)


def state_form(run: Run, predictor: Predictor) -> StateForm:
    """What the states of texts are made of that a predictor of a run reads, in whatever process.

    The id of the model is the folder's name and 12 hexadecimal digits of a checksum of all that a distribution depends
    on: weights, vocabulary, settings at test time, precision.
    """
    if predictor.lockstep or not predictor.independent:
        raise UsageError(
            f"with {predictor.kind} not all that was read is in a state, so it cannot be kept; leave that setting out."
        )
    weights = run.identity() if issubclass(run.task_class, ClosedTask) else sha256_file(run.weights_file)
    model = run.config.model.model_dump(mode="json", exclude={"compute"})
    told = [weights, run.tokenizer.fingerprint(), model, predictor.kind, predictor.options, predictor.precision]
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]
    return StateForm(f"{run.path.resolve().name}@{digest}", predictor)


def _plain(run: Run, dtype: torch.dtype) -> Predictor:
    """The run's model as it is."""
    run.check_language()
    if issubclass(run.task_class, ClosedTask):
        return run.task_class.predictor(run.trained)
    model = run.model.to(dtype)
    if dtype == torch.float64 and model.precision != "float64":
        raise UsageError(f"float64 arithmetic has no {model.precision} products; give --precision float32 too.")
    return NeuralPredictor(model, run.tokenizer.start_id)


class RunSource:
    """A run as a :class:`unrolled.predict.Source`.

    Args:
        progress: hears of what takes time.
    """

    def __init__(self, run: Run, progress: Progress | None = None):
        self._run, self.progress, self.kept = run, progress, run.kept

    @property
    def tokenizer(self) -> Tokenizer:
        """See :attr:`unrolled.predict.Source.tokenizer`."""
        return self._run.tokenizer

    def identity(self) -> Mapping[str, str]:
        """See :meth:`unrolled.predict.Source.identity`."""
        run = self._run
        if "identity" not in run.kept:
            weights = run.identity() if issubclass(run.task_class, ClosedTask) else sha256_file(run.weights_file)
            texts = run.record.get("checksums", {})
            run.kept["identity"] = {
                "weights": weights, "tokenizer": run.tokenizer.fingerprint(), "text": texts.get("train", ""),
                "valid": texts.get("valid", ""),
            }  # fmt: skip
        return run.kept["identity"]

    def side(self, name: str) -> Mapping[str, Tensor] | None:
        """See :meth:`unrolled.predict.Source.side`; of the same weights, saved or raw."""
        run = self._run
        if run.weights_kind == "raw":
            prefix = f"side.{_OBJECTIVES[name]}."
            named = tree.load_tensors(run.weights_file).items()
            return {key.removeprefix(prefix): value for key, value in named if key.startswith(prefix)} or None
        file = side_file(run.path, name)
        return tree.load_tensors(file) if file.is_file() else None

    def stored(
        self,
        kind: str,
        settings: Mapping[str, Any],
        make: Callable[[TokenSplit], dict[str, Tensor]],
        fits: Callable[[Mapping[str, Tensor]], bool],
        split: str = "train",
    ) -> dict[str, Tensor]:
        """See :meth:`unrolled.predict.Source.stored`.

        The file's name is a digest of all that they depend on: weights, text, tokenizer, and the settings.
        """
        run = self._run
        memo = f"{kind} {dict(settings)} {run.model.precision}"
        if memo in run.kept:
            return run.kept[memo]
        # the record knows the text's checksum, so that tensors on disk are found where the text itself is absent
        text = run.record.get("checksums", {}).get(split) or self._split(kind, split).checksum
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
        path = run.path / kind / f"{digest}.safetensors"
        if path.is_file():
            saved = tree.load_tensors(path, run.model.device)
            if fits(saved):
                return run.kept.setdefault(memo, saved)
        found = make(self._split(kind, split))
        with contextlib.suppress(UnrolledError):  # a run that cannot be written to is still evaluated
            make_folder(path.parent)
            tree.save_tensors(path, found)
        return run.kept.setdefault(memo, found)

    def _split(self, kind: str, name: str) -> TokenSplit:
        text, splits = self._run.splits()
        if name not in splits:
            told = {"train": "training", "valid": "validation"}.get(name, name)
            raise UsageError(f"corpus {text.name} has no {told} split, which {kind} are collected on.")
        return splits[name]
