"""The language model and its parts."""

from unrolled.model.lm import LanguageModel, ModelConfig, ModelOutput, ModelState, count_params, fit_width
from unrolled.model.tracing import Wanted, trace_window

__all__ = [
    "LanguageModel",
    "ModelConfig",
    "ModelOutput",
    "ModelState",
    "Wanted",
    "count_params",
    "fit_width",
    "trace_window",
]
