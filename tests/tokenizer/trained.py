"""A small tokenizer of every kind."""

from functools import cache

from unrolled.tokenizer import TOKENIZERS, Tokenizer

__all__ = ["CONFIGS", "TRAIN", "tokenizer", "trained"]


TRAIN = (
    " the cat <unk> sat on the mat \n\n the café was naïve , said 漢字 \n"
    "def f(x):\n    return x + 1\n" * 3 + "🙂 the end the cat\n"
).encode() * 5


CONFIGS = {
    "byte": {"name": "byte"},
    "byte-seen": {"name": "byte", "values": "seen"},
    "char": {"name": "char", "unknown": "unk"},
    "word": {"name": "word"},
    "bpe": {"name": "bpe", "size": 300},
    "bpe-line": {"name": "bpe", "size": 300, "end": "line"},
    "unigram": {"name": "unigram", "size": 300},
    "multiword": {"name": "multiword", "k": 12},
    "multiword-bpe": {"name": "multiword", "base": {"name": "bpe", "size": 300}, "k": 12},
}


def trained(value: dict, blocks: list[bytes]) -> Tokenizer:
    config = TOKENIZERS.parse(value)
    return TOKENIZERS[config.name].train(config, blocks)


@cache
def tokenizer(key: str) -> Tokenizer:
    return trained(CONFIGS[key], [TRAIN])
