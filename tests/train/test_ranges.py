"""Every number of an experiment has a range, and what lies outside is one sentence with the key."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from unrolled.cells import CELLS
from unrolled.core.config import Config, apply_settings
from unrolled.core.errors import UsageError
from unrolled.counts import KneserNeyConfig
from unrolled.data import CorpusConfig
from unrolled.model.heads import HEADS
from unrolled.optim import AVERAGING, OPTIMIZERS
from unrolled.tokenizer import TOKENIZERS
from unrolled.train import ExperimentConfig

PARTS: dict[str, Any] = {
    "model.cell": CELLS,
    "model.head": HEADS,
    "train.optimizer": OPTIMIZERS,
    "train.averaging": AVERAGING,
    "tokenizer": TOKENIZERS,
}


WHOLE: set[str] = set()


def numbers(cls: type[BaseModel], prefix: str) -> Iterator[tuple[str, str]]:
    """Every field of a config that takes a number, as (setting that chooses its part, key)."""
    for name, field in cls.model_fields.items():
        key, kind = f"{prefix}{name}", field.annotation
        if key in PARTS:
            for part in PARTS[key]:
                chosen = f"{key}.name={part}"
                yield from ((chosen, inner) for _, inner in numbers(PARTS[key][part].Config, f"{key}."))
        elif isinstance(kind, type) and issubclass(kind, Config):
            yield from numbers(kind, f"{key}.")
        elif kind in (int, float) or str(kind).startswith(("int |", "float |")):
            yield "", key
            if "int" in str(kind):
                WHOLE.add(key)


FIELDS = [
    *numbers(ExperimentConfig, ""),
    *(("", f"counts.{key}") for _, key in numbers(KneserNeyConfig, "")),
    *(("", f"corpus.{key}") for _, key in numbers(CorpusConfig, "")),
]


def test_the_fields_are_found() -> None:
    keys = {key for _, key in FIELDS}
    assert {"train.accumulate", "train.optimizer.eps", "model.cell.rank", "model.head.components", "seed"} <= keys
    assert len(FIELDS) > 90


def refused(*settings: str) -> str:
    with pytest.raises(UsageError) as caught:
        ExperimentConfig.parse(apply_settings({}, [setting for setting in settings if setting]))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("chosen", "key"), FIELDS, ids=[f"{key}-{chosen[-9:]}" for chosen, key in FIELDS])
def test_numbers_that_no_field_takes(chosen: str, key: str) -> None:
    for value in ("inf", "nan", "-1e300", str(-(2**64))):
        said = refused(chosen, f"{key}={value}")
        assert f"config key '{key}'" in said or f"{key} is -" in said
    if key in WHOLE:
        assert f"config key '{key}'" in refused(chosen, f"{key}={2**64}")


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("train.optimizer.betas=[0.9,1.5]", "'train.optimizer.betas.1': input should be less than 1 (got 1.5)."),
        ("train.optimizer.betas=[-0.1,0.9]", "'train.optimizer.betas.0': input should be greater than or equal to 0"),
        ("train.optimizer.eps=0", "'train.optimizer.eps': input should be greater than or equal to 1e-30 (got 0)."),
        ("train.optimizer.lr=0", "'train.optimizer.lr': input should be greater than 0 (got 0)."),
        ("train.optimizer.lr=1e300", "'train.optimizer.lr': input should be less than or equal to 1000000"),
        ("train.optimizer.weight_decay=-1", "'train.optimizer.weight_decay': input should be greater than or equal"),
        ("train.accumulate=18446744073709551616", "'train.accumulate': input should be less than or equal to 1000000"),
        ("train.schedule={name='drops', drops=[1.5]}", "'train.schedule.drops.0': input should be less than or equal"),
        ("train.schedule={name='drops', drops=[0.5], factor=2}", "'train.schedule.factor': input should be less"),
        ("train.epochs=1e300", "'train.epochs': input should be less than or equal to 1000000"),
        ("train.threads=1000000", "'train.threads': input should be less than or equal to 1024"),
        ("model.width=4294967296", "'model.width': input should be less than or equal to 1048576"),
        ("model.widths=[0]", "'model.widths.0': input should be greater than or equal to 1"),
        ("model.dropout.zoneout={h=1.0}", "'model.dropout.zoneout.h': input should be less than 1"),
        ("stream.window=18446744073709551616", "'stream.window': integers lie between"),
        ("seed=18446744073709551616", "'seed': integers lie between -2^53 and 2^53"),
        ("counts.order=1000", "'counts.order': input should be less than or equal to 100"),
    ],
)
def test_ranges(setting: str, sentence: str) -> None:
    assert sentence in refused(setting)
