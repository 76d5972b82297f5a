"""What adapters ask of a run, for models that come from none: random words, and modules that nobody trained."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unrolled.core.random import RandomStreams
from unrolled.data import TokenSplit
from unrolled.data.walk import Progress
from unrolled.model import LanguageModel
from unrolled.tokenizer.byte import ByteTokenizer
from unrolled.train.objectives import OBJECTIVES

__all__ = ["MadeSource"]

_LETTERS = b"etaoin shrdlu "


class MadeSource:
    """A :class:`unrolled.predict.Source` of a model with random weights over bytes. What is made of the text takes as
    long to use as if the model had been trained on it; what it says means nothing.

    Args:
        length: bytes of the text, of which every split is made.
    """

    progress: Progress | None = None

    def __init__(self, model: LanguageModel, length: int):
        self._model, self.tokenizer, self.kept = model, ByteTokenizer(), {}
        letters = np.frombuffer(_LETTERS, np.uint8)
        self._text = letters[np.random.default_rng(0).integers(len(letters), size=length)]

    def identity(self) -> Mapping[str, str]:
        """See :meth:`unrolled.predict.Source.identity`; no store is of this model."""
        return {"weights": "none", "tokenizer": self.tokenizer.fingerprint(), "text": "", "valid": ""}

    def side(self, name: str) -> Mapping[str, Tensor] | None:
        """See :meth:`unrolled.predict.Source.side`; with the weights that an objective begins with."""
        for cls in (OBJECTIVES[one] for one in OBJECTIVES):
            if cls.exported == name:
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(0)
                    side = cls(cls.Config(name=cls.Config.model_fields["name"].default), RandomStreams(0), self._model)
                    module = side.side(self._model)
                return None if module is None else {key: one.detach() for key, one in module.named_parameters()}
        return None

    def stored(
        self,
        kind: str,
        settings: Mapping[str, Any],
        make: Callable[[TokenSplit], dict[str, Tensor]],
        fits: Callable[[Mapping[str, Tensor]], bool],
        split: str = "train",
    ) -> dict[str, Tensor]:
        """See :meth:`unrolled.predict.Source.stored`; made once in a process."""
        memo = f"{kind} {dict(settings)} {split}"
        if memo not in self.kept:
            self.kept[memo] = make(TokenSplit(self._text, self.tokenizer.tables))
        return self.kept[memo]
