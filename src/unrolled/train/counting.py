"""Runs of count models: nothing is trained step by step, the n-grams of the training text are counted once."""

from pathlib import Path
from typing import Any

from unrolled.core.errors import UsageError
from unrolled.core.files import write_json
from unrolled.core.record import environment
from unrolled.counts import NgramModel, estimate_kneser_ney, read_arpa, save_ngrams
from unrolled.evaluate import EvalConfig, EvalResult, evaluate_predictor
from unrolled.predict import KneserNeyPredictor
from unrolled.runs import CONFIG, RECORD, TOKENIZER
from unrolled.tokenizer import save_tokenizer
from unrolled.tokenizer.arpa import arpa_words
from unrolled.train.budget import Clock
from unrolled.train.config import ExperimentConfig
from unrolled.train.report import Reporter
from unrolled.train.setup import Text, read_text

__all__ = ["count_run", "size_of_counts"]


def size_of_counts(config: ExperimentConfig) -> dict[str, Any]:
    """What a dry run says of a count model."""
    parts = read_text(config)
    assert config.counts is not None
    return {
        "order": config.counts.order,
        "vocabulary": parts.tokenizer.vocab_size,
        "training_tokens": len(parts.splits["train"]),
        "published": [str(figure) for figure in config.published],
    }


def count_run(config: ExperimentConfig, out: Path, report: Reporter, clock: Clock) -> None:
    """Count, write the run, score the validation split.

    Args:
        out: the run directory, which exists and holds no run.
    Raises:
        UsageError, UnrolledError: in one sentence, whatever is wrong with the corpus, the options or an ARPA file.
    """
    assert config.counts is not None
    parts = read_text(config)
    train, tokenizer = parts.splits["train"], parts.tokenizer
    if config.weights is None:
        report.note(f"{parts.corpus.name}: counting {len(train):,} tokens to order {config.counts.order}")
        model = estimate_kneser_ney(
            train.ids(0, len(train)), tokenizer.vocab_size, tokenizer.start_id, config.counts, train.starts
        )
    else:
        if config.weights.layout != "arpa":
            raise UsageError("a count model begins with an ARPA file: set weights.layout to arpa.")
        words = arpa_words(tokenizer)
        model = read_arpa(config.weights.file, words, tokenizer.start_id)
    save_ngrams(model, out)
    save_tokenizer(tokenizer, out / TOKENIZER)
    parts.config.save(out / CONFIG)  # last: the folder is a run from here on
    _record(parts, model, out, clock, None)
    exact = None
    if "valid" in parts.splits:
        provenance = {"corpus": parts.corpus.name, "tokenizer": tokenizer.fingerprint()}
        on = EvalConfig(split="valid")
        exact = evaluate_predictor(KneserNeyPredictor(model), parts.splits["valid"], on, report.score, provenance)
    _record(parts, model, out, clock, exact)


def _record(parts: Text, model: NgramModel, out: Path, clock: Clock, exact: EvalResult | None) -> None:
    record = {
        "kind": "unrolled record",
        "version": 1,
        "title": parts.config.title,
        "status": "finished",
        "environment": environment(),
        "device": "cpu",
        "precision": "float64",
        "corpus": parts.corpus.name,
        "checksums": {name: split.checksum for name, split in parts.splits.items()},
        "bytes": {name: parts.corpus.size(name) for name in parts.splits},
        "tokenizer": parts.tokenizer.fingerprint(),
        "symbols": parts.tokenizer.symbols_checksum(),
        "vocabulary": parts.tokenizer.vocab_size,
        "ngrams": [len(table.keys) for table in model.tables],
        "discounts": model.config.discounts,
        "fallback": model.config.fallback,
        "steps": 0,
        "tokens": len(parts.splits["train"]),
        "wall_seconds": clock.wall(),
        "cpu_seconds": clock.cpu(),
        "valid": None,
        "valid_exact": None if exact is None else exact.to_json(),
    }
    write_json(out / RECORD, record)
