"""A run with more tokens: sequences of its tokens become tokens of their own, whose rows are the means of theirs."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unrolled.core import tree
from unrolled.core.errors import UsageError
from unrolled.core.files import atomic_folder, make_folder, sha256_file, write_json
from unrolled.core.random import RandomStreams
from unrolled.core.record import environment
from unrolled.data import open_corpus
from unrolled.runs.config import RunConfig
from unrolled.runs.merging import read_weights
from unrolled.runs.names import CONFIG, MODEL, RECORD, TOKENIZER
from unrolled.runs.run import Run
from unrolled.runs.weights import weights
from unrolled.task import Saved, StepsTask
from unrolled.tokenizer import save_tokenizer
from unrolled.tokenizer.multiword import MultiWordConfig, MultiWordTokenizer

__all__ = ["extend_rows", "write_extended"]


def extend_rows(
    tensors: Mapping[str, Tensor], shapes: Mapping[str, Sequence[int]], sequences: Sequence[Sequence[int]], size: int
) -> dict[str, Tensor]:
    """Tensors with a row a token, given further rows: of a sequence the mean of its tokens' rows (Gee et al. 2023).

    Args:
        tensors: name -> tensor of the model with ``size`` tokens. shapes: of the model with the sequences too.
        sequences: ids of each.
    Raises:
        UsageError: tensors that differ otherwise than by rows of tokens.
    """
    if set(tensors) != set(shapes):
        odd = sorted(set(tensors) ^ set(shapes))[0]
        raise UsageError(f"the model has another parameter {odd} with a larger vocabulary; train it anew.")
    made = {}
    for name, value in tensors.items():
        wanted = tuple(shapes[name])
        if value.shape == wanted:
            made[name] = value
            continue
        if value.shape != (size, *wanted[1:]) or wanted[0] != size + len(sequences):
            raise UsageError(
                f"the parameter {name} of this model is no matrix with a row a token, so that there are no rows to put "
                "together; extend a model with a lookup embedding and a head that has a row a token, such as softmax."
            )
        rows = value.double()
        further = [rows[list(ids)].mean(0, keepdim=True) for ids in sequences]
        made[name] = torch.cat([rows, *further]).to(value.dtype)
    return made


def write_extended(out: Path, base: Run, k: int) -> MultiWordTokenizer:
    """Write the run of a multi-word vocabulary: the base's weights, and rows for the k most frequent sequences of words
    of its training text.

    Args:
        out: a folder that is not there.
    Raises:
        UsageError: the folder is there; a run of another task; a tokenizer or model that cannot be extended; another
            text than the run was trained with.
    """
    if out.exists():
        raise UsageError(f"{out} is there already; choose another folder.")
    base.check_language()
    own = base.tokenizer
    config = MultiWordConfig.parse({"base": own.config, "k": k})
    base.check_text()
    text = open_corpus(base.config.corpus)
    tokenizer = MultiWordTokenizer.above(config, own, text.blocks("train", text=not own.reads_bytes))
    if len(tokenizer.sequences) < k:
        raise UsageError(
            f"the training text has {len(tokenizer.sequences):,} sequences of words that come twice, and {k:,} are "
            "asked for; ask for fewer."
        )
    model = base.model.config.model_copy(update={"compute": base.config.model.compute})  # its width is settled
    settings = base.config.model_copy(update={"tokenizer": config, "vocabulary": None, "model": model})
    make_folder(out.parent)
    with atomic_folder(out) as part:
        settings.save(part / CONFIG)
        save_tokenizer(tokenizer, part / TOKENIZER)
        tensors, record = _extended(part, base, tokenizer, settings)
        tree.check_numbers(tensors, "the weights")
        tree.save_tensors(part / MODEL, tensors)
        write_json(part / RECORD, record)
    return tokenizer


def _extended(
    run: Path, base: Run, tokenizer: MultiWordTokenizer, settings: RunConfig
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights and record of a run whose config and tokenizer are written."""
    task = base.task_class(settings, RandomStreams(settings.seed), Saved(run, {}))
    assert isinstance(task, StepsTask)  # base has a neural model
    with torch.device("meta"):
        model = task.build()
    shapes = {name: tuple(value.shape) for name, value in weights(model).items()}
    tensors = extend_rows(read_weights(base), shapes, tokenizer.sequences, base.tokenizer.vocab_size)
    same = {
        key: base.record[key]
        for key in ("kind", "version", "title", "task", "precision", "checksums")
        if key in base.record
    }
    begun = {"run": str(base.path), "weights": sha256_file(base.path / MODEL)}
    made = {"status": "extended", "environment": environment(), "base": begun, "sequences": len(tokenizer.sequences)}
    return tensors, same | task.record(model) | made
