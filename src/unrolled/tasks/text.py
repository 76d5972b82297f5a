"""What tasks over the text of a corpus share: corpus, tokenizer, splits of tokens."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from unrolled.core.random import RandomStreams
from unrolled.data import Corpus, TokenSplit, open_corpus
from unrolled.evaluate import EvalResult
from unrolled.runs import TOKENIZER, RunConfig, own_tokenizer
from unrolled.task import Evaluation, Saved, Task
from unrolled.tokenizer import TOKENIZERS, Tokenizer, save_tokenizer
from unrolled.tokenizer.encode import encode_corpus, load_or_train_tokenizer

__all__ = ["LanguageTask", "TextTask"]


class TextTask(Task):
    """A task over the text of a corpus, as tokens.

    Args:
        config, streams, saved: see :class:`Task`. A new run's text is read at once.
    Raises:
        UsageError: whatever is wrong with the corpus, in one sentence. UnrolledError: another tokenizer in the place of
            the saved run's.
    """

    config: RunConfig

    def __init__(self, config: RunConfig, streams: RandomStreams, saved: Saved | None = None):
        super().__init__(config, streams, saved)
        if saved is None:
            _ = self.splits

    @cached_property
    def corpus(self) -> Corpus:
        """The run's own."""
        return open_corpus(self.config.corpus)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The saved run's, or that which the weights to begin with ask for, or one for this corpus."""
        if self.saved is not None:
            return own_tokenizer(self.saved.path, self.saved.record)
        corpus, weights = self.corpus, self.config.weights
        found = None if weights is None else weights.chosen_tokenizer()
        wanted = self.config.tokenizer or TOKENIZERS.parse(corpus.default_tokenizer)
        if found is None:
            found = load_or_train_tokenizer(wanted, corpus)
        else:
            wanted = found.config
        self.config = self.config.model_copy(update={"tokenizer": wanted, "corpus": self.config.corpus.based()})
        return found

    @cached_property
    def splits(self) -> dict[str, TokenSplit]:
        """The corpus as tokens."""
        self.config.check_vocabulary(self.corpus.name, self.tokenizer.vocab_size)
        return encode_corpus(self.corpus, self.tokenizer)

    def save(self, run: Path) -> None:
        """See :meth:`Task.save`."""
        save_tokenizer(self.tokenizer, run / TOKENIZER)

    def record(self, model: Any) -> dict[str, Any]:
        """See :meth:`Task.record`."""
        return {
            "corpus": self.corpus.name,
            "bytes": {name: self.corpus.size(name) for name in self.splits},
            **self.provenance(),
            "symbols": self.tokenizer.symbols_checksum(),
            "vocabulary": self.tokenizer.vocab_size,
        }

    def provenance(self) -> dict[str, Any]:
        """See :meth:`Task.provenance`."""
        return {"tokenizer": self.tokenizer.fingerprint()}

    def origin(self, how: Evaluation) -> dict[str, Any]:
        """The provenance of an evaluation: the corpus, the run's own unless ``how`` says another, and the tokenizer."""
        given = how.provenance.get("corpus")
        return {"corpus": given or self.corpus.name, **self.provenance()}


class LanguageTask(TextTask):
    """A task whose models predict the next token, and are measured as all language models are."""

    language = True

    @classmethod
    def result(cls, value: Mapping[str, Any]) -> EvalResult:
        """See :meth:`Task.result`."""
        return EvalResult.from_json(value)

    @classmethod
    def told(cls, result: EvalResult) -> str:
        """The two figures that most people look for."""
        perplexity, bits = result.perplexity_per_token, result.bits_per_character
        first = "perplexity too large" if perplexity is None else f"{perplexity:,.2f} perplexity per token"
        return first if bits is None else f"{first}, {bits:.4f} bits per character"

    @classmethod
    def protocol(cls, result: EvalResult) -> str:
        """See :meth:`Task.protocol`."""
        return result.protocol.name
