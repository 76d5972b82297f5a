"""What predictors of a neural model share."""

import torch

from unrolled.model import LanguageModel
from unrolled.predict.base import Predictor

__all__ = ["ModelPredictor"]


class ModelPredictor(Predictor):
    """A predictor whose figures come from one neural model: it is where the model is, and as precise.

    Attributes:
        model: set by the subclass, in evaluation mode.
    """

    model: LanguageModel

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """Where the model is now."""
        return self.model.device

    @property
    def precision(self) -> str:  # type: ignore[override]
        """Of the arithmetic."""
        return self.model.precision
