"""Where a text is corrupted, and what is read there in place of the true symbols."""

from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field

from unrolled.core.config import Config
from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.data import TokenSplit

__all__ = ["Corruption", "RecoveryConfig", "draw_corruption"]

_BLOCK = 1 << 20


class RecoveryConfig(Config):
    """How recovery from a corrupted input is measured."""

    split: str = Field(default="test", description="split of the corpus; whole is all of a text of your own")
    limit: int | None = Field(default=None, ge=1, description="only the first so many tokens (absent: all)")
    places: int = Field(default=500, ge=10, description="places in the text that are corrupted, each by itself")
    length: int = Field(default=1, ge=1, description="symbols corrupted at a place, one after another")
    corruption: Literal["flip", "delete", "random"] = Field(
        default="flip",
        description="flip: another symbol, uniformly from those that occur in the text; random: a symbol by its "
        "frequency in the text, which may be the true one; delete: the symbols are not read at all",
    )
    lags: int = Field(default=200, ge=1, description="tokens after the corruption that are looked at, besides lag 0")
    columns: int = Field(
        default=1,
        ge=1,
        description="parallel columns in which the text is read up to the places, each begun without a past; more is "
        "faster and changes what was read before a place",
    )
    batch: int = Field(default=64, ge=1, description="places continued at once; bounds the memory")
    seed: int = Field(default=1, ge=0, description="of the places, the replacements and the intervals")


class Corruption(NamedTuple):
    """places: (P,) positions of the first corrupted symbol. symbols: (P, K) ids read there, None: nothing is."""

    places: np.ndarray
    symbols: np.ndarray | None


def draw_corruption(split: TokenSplit, config: RecoveryConfig) -> Corruption:
    """Distinct places, ascending, and replacements, both from the seed and the text alone.

    Every place is as likely as any other. It is followed by all the tokens that are scored, without a restart of the
    state among them. Two places may be nearer to each other than the lags: the runs from them are independent, and
    a short text has no room for many places apart.

    Raises:
        UsageError: too few such places; a text of one symbol, which has no other.
    """
    limit = len(split) if config.limit is None else min(config.limit, len(split))
    free = _free_places(split, limit, config)
    needed = config.length + config.lags + 1
    if len(free) < config.places:
        raise UsageError(
            f"only {len(free):,} places of the text are followed by {needed:,} tokens of it and {config.places:,} are "
            "wanted; use fewer --places, fewer --lags or more text."
        )
    streams = RandomStreams(config.seed)
    rng = np.random.default_rng(streams.key("recovery places"))
    places = np.sort(rng.choice(free, config.places, replace=False))
    if config.corruption == "delete":
        return Corruption(places, None)
    counts = np.zeros(len(split.tables.words), np.int64)
    for low in range(0, limit, _BLOCK):
        counts += np.bincount(split.ids(low, min(low + _BLOCK, limit)), minlength=len(counts))
    rng = np.random.default_rng(streams.key("recovery symbols"))
    shape = (config.places, config.length)
    if config.corruption == "random":
        return Corruption(places, rng.choice(len(counts), shape, p=counts / counts.sum()))
    seen = counts.nonzero()[0]
    if len(seen) < 2:
        raise UsageError("the text consists of one symbol, which cannot be replaced by another; use more text.")
    true = np.stack([split.ids(place, place + config.length) for place in places.tolist()])
    own = np.searchsorted(seen, true)
    # drawn among the others: from the true symbol on, the ranks move up by one
    drawn = rng.integers(0, len(seen) - 1, shape)
    return Corruption(places, seen[drawn + (drawn >= own)])


def _free_places(split: TokenSplit, limit: int, config: RecoveryConfig) -> np.ndarray:
    """Positions that may be drawn, ascending."""
    needed = config.length + config.lags + 1
    read = limit // config.columns * config.columns
    free = np.ones(max(0, min(read, limit - needed + 1)), bool)
    if split.starts is not None:
        for start in split.starts[split.starts < limit].tolist():
            free[max(0, start - needed + 1) : start + 1] = False
    return free.nonzero()[0]
