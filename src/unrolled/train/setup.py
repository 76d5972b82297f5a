"""From a configuration to the parts that training works with."""

from typing import NamedTuple

import torch

from unrolled.core.device import pick_device
from unrolled.core.random import RandomStreams
from unrolled.data import Corpus, Stream, TokenSplit, open_corpus
from unrolled.model import LanguageModel
from unrolled.tokenizer import TOKENIZERS, Tokenizer
from unrolled.tokenizer.encode import encode_corpus, load_or_train_tokenizer
from unrolled.train.config import ExperimentConfig

__all__ = ["Parts", "Text", "build_model", "read_text", "set_up"]

_BLOCK = 1 << 20


class Text(NamedTuple):
    """What a run reads. ``config`` is complete: the tokenizer is resolved, and the folder that paths begin at noted."""

    config: ExperimentConfig
    corpus: Corpus
    tokenizer: Tokenizer
    splits: dict[str, TokenSplit]


class Parts(NamedTuple):
    """What a run is made of; see :class:`Text`."""

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


def read_text(config: ExperimentConfig, tokenizer: Tokenizer | None = None) -> Text:
    """Open the corpus, train or load the tokenizer, and encode.

    Args:
        tokenizer: that of a run that is resumed.
    Raises:
        UsageError: whatever is wrong with the corpus, in one sentence.
    """
    corpus = open_corpus(config.corpus)
    if tokenizer is None:
        if config.weights is not None:
            tokenizer = config.weights.chosen_tokenizer()
        wanted = config.tokenizer or TOKENIZERS.parse(corpus.default_tokenizer)
        if tokenizer is None:
            tokenizer = load_or_train_tokenizer(wanted, corpus)
        else:
            wanted = tokenizer.config
        config = config.model_copy(update={"tokenizer": wanted, "corpus": config.corpus.based()})
    config.check_vocabulary(corpus.name, tokenizer.vocab_size)
    return Text(config, corpus, tokenizer, encode_corpus(corpus, tokenizer))


def set_up(config: ExperimentConfig, device: str = "auto", tokenizer: Tokenizer | None = None) -> Parts:
    """Open the corpus, train or load the tokenizer, encode, and build stream and model.

    Args:
        tokenizer: that of a run that is resumed.
    Raises:
        UsageError: whatever is wrong with the corpus, the stream or the model, in one sentence.
    """
    fresh = tokenizer is None
    config, corpus, tokenizer, splits = read_text(config, tokenizer)
    streams = RandomStreams(config.seed)
    stream = Stream(splits["train"], config.stream, streams, tokenizer.start_id)
    model = build_model(config, tokenizer, splits["train"], streams)
    if fresh and config.weights is not None:
        config.weights.load(model, tokenizer)
    model = model.to(pick_device(device))
    return Parts(config, corpus, tokenizer, splits, streams, stream, model)
