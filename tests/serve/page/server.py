"""A real server over tiny models, as a program: ``python -m serve.page.server '{"port": 8000}'``."""

import json
import sys
from typing import Any

import numpy as np
import torch

from serve.engine.tiny import chars, neural
from unrolled.counts import KneserNeyConfig, estimate_kneser_ney
from unrolled.predict import KneserNeyPredictor, NeuralPredictor, Predictor, StateForm
from unrolled.serve.config import ServeConfig
from unrolled.serve.engine.pool import Engine
from unrolled.serve.engine.served import Served
from unrolled.serve.server import run_server
from unrolled.serve.states.keys import StateKeys
from unrolled.tokenizer import TOKENIZERS, Tokenizer
from unrolled.tokenizer.byte import ByteTokenizer

# no seven characters of it occur twice, so that a model of eight repeats it
HOSTILE = '<img src=x onerror="window.owned = 1"></SCRIPT><script>owned=2</title>\n'
WORDS = "the cat sat on the mat and the dog lay by the door of the old house\n"
TEXT = "The army was a force of the state é 😀 from the first days of the city.\nAnd more of it. " * 24
"""A text of more than 2,000 characters."""


def words() -> Tokenizer:
    cls = TOKENIZERS["word"]
    return cls.train(cls.Config.parse({"name": "word", "min_count": 1}), [WORDS.encode()])


def _served(name: str, tokenizer: Tokenizer, predictor: Predictor, threads: int = 2) -> Served:
    return Served(name, tokenizer, predictor, predictor, StateForm(f"{name}@00000000000a", predictor), threads)


def models(names: list[str]) -> list[Served]:
    """tiny and other: of bytes; letters: of some letters; words: of words; hostile: writes markup and script."""
    bytes_, word = ByteTokenizer(), words()
    ids = np.frombuffer(HOSTILE.encode() * 20, np.uint8).astype(np.int64)
    kinds = {
        "tiny": lambda: (bytes_, NeuralPredictor(neural(size=256), bytes_.start_id)),
        "other": lambda: (bytes_, NeuralPredictor(neural("gru", size=256, seed=2), bytes_.start_id)),
        "letters": lambda: (chars(), NeuralPredictor(neural(), chars().start_id)),
        "words": lambda: (word, NeuralPredictor(neural(size=word.vocab_size), word.start_id)),
        "hostile": lambda: (
            bytes_,
            KneserNeyPredictor(estimate_kneser_ney(ids, 256, bytes_.start_id, KneserNeyConfig.parse({"order": 8}))),
        ),
    }
    return [_served(name, *kinds[name]()) for name in names]


def main() -> None:
    torch.set_num_threads(1)
    given = json.loads(sys.argv[1])
    served = models(given.pop("models", ["tiny", "other", "letters", "words", "hostile"]))
    config = ServeConfig.parse({"max_tokens": 1_000_000, "max_seconds": 600, "drain": 0.2, **given})
    engine = Engine(served, config.threads, config.streams, config.queue)

    def listening(host: str, port: int, stop: Any) -> None:
        sys.stdout.write(f"{port}\n")
        sys.stdout.flush()

    run_server(engine, config, StateKeys([bytes(range(32))]), listening=listening)


if __name__ == "__main__":
    main()
