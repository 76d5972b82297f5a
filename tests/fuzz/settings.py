"""Settings: keys of an experiment with values that may or may not suit them."""

import random

from fuzz.mutate import odd_number

__all__ = ["setting"]

_KEYS = (
    "",
    "seed",
    "title",
    "model.width",
    "model.layers",
    "model.widths",
    "model.cell",
    "model.cell.name",
    "model.cell[0].name",
    "model.cell.forget_bias",
    "model.cell.projection",
    "model.cell.init",
    "model.head",
    "model.head.name",
    "model.head.block",
    "model.head.components",
    "model.head.project",
    "model.embedding.size",
    "model.embedding.scale",
    "model.embedding.tied",
    "model.stack.mlp",
    "model.stack.kind",
    "model.dropout.input",
    "model.dropout.weight",
    "model.dropout.zoneout",
    "model.compute.backend",
    "model.compute.precision",
    "stream.columns",
    "stream.window",
    "stream.jitter",
    "stream.state_drop",
    "stream.window_cap",
    "stream.variable_windows",
    "stream.order",
    "stream.align",
    "tokenizer",
    "tokenizer.name",
    "tokenizer.min_count",
    "tokenizer.size",
    "corpus.path",
    "corpus.name",
    "corpus.reset",
    "corpus.fractions",
    "corpus.train",
    "train.optimizer",
    "train.optimizer.name",
    "train.optimizer.lr",
    "train.optimizer.betas",
    "train.optimizer.eps",
    "train.optimizer.weight_decay",
    "train.optimizer.momentum",
    "train.schedule.name",
    "train.schedule.warmup",
    "train.schedule.final",
    "train.schedule.drops",
    "train.averaging",
    "train.averaging.name",
    "train.averaging.decay",
    "train.averaging.patience",
    "train.objective.ar",
    "train.objective.l2",
    "train.clip",
    "train.epochs",
    "train.tokens",
    "train.minutes",
    "train.steps",
    "train.validations",
    "train.valid_columns",
    "train.valid_tokens",
    "train.patience",
    "train.log_every",
    "train.save_minutes",
    "train.accumulate",
    "train.lr_by_length",
    "train.then",
    "counts",
    "counts.order",
    "counts.prune",
    "weights.file",
    "weights.layout",
    "vocabulary",
    "published",
    "x[0]",
    ".",
    "a.b.c",
)
_NAMES = (
    "rnn",
    "lstm",
    "gru",
    "mrnn",
    "mlstm",
    "mgru",
    "qrnn",
    "mogrifier",
    "softmax",
    "mos",
    "adaptive",
    "pointer",
    "split",
    "adam",
    "adamw",
    "sgd",
    "normed_rmsprop",
    "ema",
    "tail",
    "uniform",
    "two_tailed",
    "byte",
    "char",
    "word",
    "bpe",
    "unigram",
    "cosine",
    "exponential",
    "drops",
    "residual",
    "sum",
    "true",
    "none",
    "bf16",
    "orthogonal",
)


def setting(draw: random.Random) -> str:
    """``key=value``, as for ``--set``."""
    return f"{draw.choice(_KEYS)}={_value(draw)}"


def _value(draw: random.Random) -> str:
    way = draw.random()
    if way < 0.3:
        return odd_number(draw)
    if way < 0.55:
        return draw.choice(("1", "2", "3", "8", "0.1", "0.5", "0.9", "1.5", "60", "300", "1e-3", "true", "false"))
    if way < 0.8:
        return draw.choice(_NAMES)
    lists = "[]", "[[]]", "{}", "[1,2]", "[0.5,0.5]", "[-1]", "[1e300]", "{name='mlstm'}", "{h=2}", "''", "/dev/zero"
    return draw.choice((*lists, "[" * 900, "['a']", "2020-01-01", "'a\\u0000b'", '"a\\u0000b"', "\n", "../..", "~x"))
