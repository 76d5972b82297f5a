"""The language model and its parts."""

from unrolled.model.fit import count_params, fit_width
from unrolled.model.lm import LanguageModel, ModelConfig, ModelOutput, ModelState

__all__ = ["LanguageModel", "ModelConfig", "ModelOutput", "ModelState", "count_params", "fit_width"]
