"""An adapter with options, as something that makes predictors of one tiny model."""

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from unrolled.core import tree
from unrolled.core.errors import UsageError
from unrolled.counts import KneserNeyConfig, estimate_kneser_ney
from unrolled.data import TokenSplit
from unrolled.data.walk import Progress
from unrolled.model import LanguageModel, ModelConfig
from unrolled.model.recycler import Recycler
from unrolled.predict import ADAPTERS, Adapter, AdapterConfig, KneserNeyPredictor, NeuralPredictor, Predictor
from unrolled.tokenizer import TOKENIZERS

__all__ = [
    "BATCH", "CASES", "IDS", "TIME", "Case", "copied", "counts", "ids", "parameters", "reader", "registered", "source",
    "tolerance",
]  # fmt: skip

BATCH, TIME = 3, 11


def _tokenizer() -> Any:
    cls = TOKENIZERS["char"]
    return cls.train(cls.Config.parse({"name": "char"}), [b"abcdefghij \n"])


def ids(batch: int, time: int, seed: int = 1) -> Tensor:
    """Ids (batch, time) of the tiny vocabulary; some return, so that memories find them."""
    drawn = torch.randint(0, 5, (batch, time), generator=torch.Generator().manual_seed(seed))
    return (drawn * drawn) % _tokenizer().vocab_size


IDS = ids(BATCH, TIME)


# what some adapters need in place of an LSTM
_CELLS = {
    "sets": {"name": "transformer", "heads": 1, "context": 60, "factor": 1.0},
    "blocks": {"name": "window_attention", "heads": 1, "context": 2},
}


def reader(dtype: torch.dtype = torch.float64, names: Iterable[str] = ()) -> NeuralPredictor:
    """The model as it is: the same at every call, with dropout to be switched on.

    Args:
        names: of the adapters that it is for.
    """
    cell = next((_CELLS[name] for name in names if name in _CELLS), "lstm")
    with torch.random.fork_rng():
        torch.manual_seed(5)
        tokenizer = _tokenizer()
        config = {"width": 6, "layers": 2, "cell": cell, "dropout": {"input": 0.3, "output": 0.2}}
        model = LanguageModel(ModelConfig.parse(config), tokenizer.vocab_size)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(0.6 * torch.randn_like(parameter))
    return NeuralPredictor(model.to(dtype), tokenizer.start_id)


def counts() -> KneserNeyPredictor:
    """A model without weights and hidden states."""
    size = _tokenizer().vocab_size
    text = ids(1, 400, seed=2)[0].numpy()
    return KneserNeyPredictor(estimate_kneser_ney(text, size, 0, KneserNeyConfig.parse({"order": 2})))


class _Source:
    """A training text in memory, and nothing kept."""

    progress: Progress | None = None

    @property
    def kept(self) -> dict[str, Any]:
        return {}

    @property
    def tokenizer(self) -> Any:
        return _tokenizer()

    def identity(self) -> dict[str, str]:
        return {"weights": "", "tokenizer": "", "text": "", "valid": ""}

    def side(self, name: str) -> dict[str, Tensor]:
        with torch.random.fork_rng():
            torch.manual_seed(6)
            made = Recycler(6, 6, 5)
            nn.init.normal_(made.weight_out)
        return {key: value.detach() for key, value in made.named_parameters()}

    def stored(self, kind: str, settings: Any, make: Any, fits: Any, split: str = "train") -> dict[str, Tensor]:
        made = make(TokenSplit(ids(1, 60, seed=3)[0].numpy().astype(np.int64), _tokenizer().tables, checksum="text"))
        assert fits(made), "what was made is whole"
        return made


source = _Source()


class Case(NamedTuple):
    """An adapter with options. Called, it gives the predictor over a model of its own, always with the same weights."""

    adapter: type[Adapter]
    config: AdapterConfig

    def __call__(self) -> Predictor:
        """In float64 where the adapter can; skips the test where this machine cannot serve it at all."""
        names = [self.adapter.name()]
        try:
            return self.adapter.apply(reader(names=names), self.config, source)
        except UsageError as error:
            if "float32" not in str(error):
                raise
        try:
            return self.adapter.apply(reader(torch.float32, names), self.config, source)
        except UsageError as error:
            pytest.skip(str(error))

    def __str__(self) -> str:
        number = self.adapter.EXAMPLES.index(self.config)
        return f"{self.adapter.name()}-{number}"


CASES = [Case(ADAPTERS[name], config) for name in ADAPTERS for config in ADAPTERS[name].EXAMPLES]


def tolerance(predictor: Predictor) -> float:
    """How far numbers that mean the same may lie apart."""
    return 1e-9 if predictor.precision == "float64" else 2e-4


@contextlib.contextmanager
def registered(adapter: type[Adapter]) -> Iterator[None]:
    """The adapter in the table, for as long as this lasts."""
    name = adapter.name()
    there = name in ADAPTERS
    if not there:
        ADAPTERS.add(name, adapter)
    try:
        yield
    finally:
        if not there:
            ADAPTERS.remove(name)


def parameters(predictor: Predictor) -> list[Tensor]:
    """Copies of all parameters of the model inside."""
    return [value.detach().clone() for value in predictor.model.parameters()]


def copied(state: Any) -> Any:
    """The state with tensors of its own."""
    return tree.map_tree(lambda value: value.clone(), state)
