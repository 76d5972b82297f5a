"""From a configuration to the parts that training works with."""

from typing import NamedTuple

import torch

from unrolled.core.random import RandomStreams
from unrolled.data import Corpus, Stream, TokenSplit, open_corpus
from unrolled.model import LanguageModel
from unrolled.runs import pick_device
from unrolled.tokenizer import TOKENIZERS, Tokenizer
from unrolled.tokenizer.encode import encode_corpus, load_or_train_tokenizer
from unrolled.train.config import ExperimentConfig

__all__ = ["Parts", "build_model", "set_up"]

_BLOCK = 1 << 20


class Parts(NamedTuple):
    """What a run is made of. ``config`` is complete: the tokenizer is resolved."""

    config: ExperimentConfig
    corpus: Corpus
    tokenizer: Tokenizer
    splits: dict[str, TokenSplit]
    streams: RandomStreams
    stream: Stream
    model: LanguageModel


def build_model(
    config: ExperimentConfig, tokenizer: Tokenizer, split: TokenSplit, streams: RandomStreams
) -> LanguageModel:
    """A freshly initialised model; its initial weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(streams.key("init"))
        model = LanguageModel(config.model, tokenizer.vocab_size)
    if model.head.needs_counts:
        counts = torch.zeros(tokenizer.vocab_size, dtype=torch.int64)
        for start in range(0, len(split), _BLOCK):
            counts += torch.bincount(torch.from_numpy(split.ids(start, start + _BLOCK)), minlength=len(counts))
        model.head.use_counts(counts)
    return model


def set_up(config: ExperimentConfig, device: str = "auto", tokenizer: Tokenizer | None = None) -> Parts:
    """Open the corpus, train or load the tokenizer, encode, and build stream and model.

    Args:
        tokenizer: that of a run that is resumed.
    Raises:
        UsageError: whatever is wrong with the corpus, the stream or the model, in one sentence.
    """
    corpus, fresh = open_corpus(config.corpus), tokenizer is None
    if tokenizer is None:
        wanted = config.tokenizer or TOKENIZERS.parse(corpus.default_tokenizer)
        tokenizer = load_or_train_tokenizer(wanted, corpus)
        config = config.model_copy(update={"tokenizer": wanted})
    config.check_vocabulary(corpus.name, tokenizer.vocab_size)
    splits = encode_corpus(corpus, tokenizer)
    streams = RandomStreams(config.seed)
    stream = Stream(splits["train"], config.stream, streams, tokenizer.start_id)
    model = build_model(config, tokenizer, splits["train"], streams)
    if fresh and config.weights is not None:
        config.weights.load(model)
    model = model.to(pick_device(device))
    return Parts(config, corpus, tokenizer, splits, streams, stream, model)
