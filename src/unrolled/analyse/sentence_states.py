"""A vector for each sentence: the state of one layer after it, or its mean over the sentence."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from unrolled.core import tree
from unrolled.core.config import Config
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.registry import unknown_name
from unrolled.data.walk import Progress
from unrolled.generate.prompts import read_prompts
from unrolled.predict import NeuralPredictor, check_vocabulary
from unrolled.tokenizer import Tokenizer

__all__ = ["StatesConfig", "sentence_states"]


class StatesConfig(Config):
    """Which vector stands for a sentence."""

    layer: int | None = Field(default=None, ge=0, description="layer, from 0 (absent: the last)")
    state: str | None = Field(
        default=None, description="field of the layer's state, such as h or c (absent: c where there is one, else h)"
    )
    pool: Literal["last", "mean"] = Field(
        default="last", description="after the last token, or the mean over the states after every token"
    )
    batch: int = Field(default=64, ge=1, description="sentences read at once; never changes a value")

    def chosen(self, states: Sequence[Any]) -> tuple[int, str]:
        """Layer and field. Raises UsageError where a model with these states has no such vector."""
        layer = len(states) - 1 if self.layer is None else self.layer
        if layer >= len(states):
            raise UsageError(f"the model has no layer {layer}; its layers are 0 to {len(states) - 1}.")
        fields = states[layer]._fields
        name = self.state or ("c" if "c" in fields else "h")
        if name not in fields:
            raise unknown_name(f"state of layer {layer}:", name, fields)
        if getattr(states[layer], name).dim() != 2:
            raise UsageError(f"{name} of layer {layer} is no vector of units; choose another state.")
        return layer, name


def sentence_states(
    predictor: NeuralPredictor,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    config: StatesConfig | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """One vector a sentence, (n, width), in the model's precision.

    Every sentence is read by itself, from a fresh state after the start symbol. Sentences of similar length are read
    together and none ever reads padding. An empty sentence has the state after the start symbol.

    Raises:
        UsageError: no such layer or state; a sentence that the tokenizer cannot read. UnrolledError: another
            vocabulary; a state that is not a finite number.
    """
    config = config or StatesConfig()
    check_vocabulary(predictor, tokenizer.vocab_size)
    layer, name = config.chosen(predictor.model.initial_state(1).cells)
    coded = [tokenizer.encode(text) for text in texts]
    order = sorted(range(len(coded)), key=lambda i: len(coded[i]))
    found: list[Tensor] = []
    for low in range(0, len(order), config.batch):
        ids = [coded[i] for i in order[low : low + config.batch]]
        if config.pool == "last":
            found.append(getattr(read_prompts(predictor, ids).cells[layer], name))
        else:
            found.append(_means(predictor, ids, layer, name))
        if progress is not None:
            progress(min(low + config.batch, len(order)), len(order), 0.0)
    states = torch.cat(found) if found else torch.zeros(0, 0)
    if not bool(states.isfinite().all()):
        raise UnrolledError(
            "a state is not a finite number; the model's weights are damaged, or its training diverged."
        )
    return states[torch.tensor(order).argsort()].cpu().numpy()


def _means(predictor: NeuralPredictor, ids: list[list[int]], layer: int, name: str) -> Tensor:
    """Means over the states after every token, (batch, width). ids: from the shortest to the longest."""
    lengths = torch.tensor([len(one) for one in ids])
    state = predictor.begin(len(ids))
    total = getattr(state.cells[layer], name) * (lengths == 0).to(predictor.device).unsqueeze(1)
    for t in range(int(lengths[-1])):
        first = int((lengths > t).float().argmax())  # the rows before it have ended
        kept = torch.arange(len(state.hidden))[first - len(ids) :]
        if len(kept) < len(state.hidden):
            state = tree.select_rows(state, kept)
        tokens = torch.tensor([one[t] for one in ids[first:]], device=predictor.device)
        state = predictor.observe(state, tokens)
        total[first:] += getattr(state.cells[layer], name)
    return total / lengths.clamp(min=1).to(predictor.device).unsqueeze(1)
