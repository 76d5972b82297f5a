"""The record of an evaluation: what was counted, by which protocol, and what follows from it."""

import json
import math
import os
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Self

from pydantic import Field

from unrolled.core.config import Config
from unrolled.core.errors import UnrolledError
from unrolled.core.files import read_json, write_json

__all__ = ["EvalResult", "Protocol"]

_KIND, _VERSION = "evaluation", 1
_FIGURES = (
    "nats_per_token", "bits_per_token", "perplexity_per_token", "perplexity_per_word", "bits_per_character",
    "bits_per_byte",
)  # fmt: skip


class Protocol(Config):
    """How a figure was obtained (see docs/protocols.md)."""

    kind: str = Field(default="static", description="static, or the name of what adapts or mixes")
    columns: int = Field(default=1, ge=1, description="parallel columns, each begun without a past")
    window: int = Field(default=512, ge=1, description="tokens scored at once")
    first: Literal["scored", "context"] = Field(default="scored", description="role of each column's first token")
    reset: Literal["none", "starts", "lines"] = Field(
        default="none",
        description="where the state restarts: nowhere, at each sentence or document, or at each line",
    )
    denominator: Literal["scored", "fed"] = Field(
        default="scored", description="tokens that nats are divided by: those scored, or the unscored first ones too"
    )
    limit: int | None = Field(default=None, ge=1, description="only the first so many tokens of the split")
    precision: str = Field(default="float32", description="of the arithmetic")
    options: dict[str, Any] = Field(default={}, description="further settings that change the figure")

    @property
    def name(self) -> str:
        """A short name for tables."""
        parts = [self.kind]
        if self.columns > 1:
            parts.append(f"{self.columns} columns")
        if self.first == "context":
            parts.append("first token is context")
        if self.reset != "none":
            parts.append(f"state reset at each {'start' if self.reset == 'starts' else 'line'}")
        if self.denominator == "fed":
            parts.append("divided by tokens fed")
        if self.limit is not None:
            parts.append(f"first {self.limit} tokens")
        return ", ".join(parts)

    @property
    def comparable_key(self) -> str:
        """Equal for protocols whose figures may stand in one column of a table.

        Everything that changes the figure by definition is in it; window length and precision are not.
        """
        value = self.model_dump(mode="json", exclude={"window", "precision"})
        return json.dumps(value, sort_keys=True, separators=(",", ":"))


class EvalResult(Config):
    """One evaluation. Totals are kept; every figure is derived from them."""

    nats: float = Field(description="total negative log-likelihood of the scored tokens")
    tokens: int = Field(ge=1, description="tokens scored")
    words: int = Field(ge=0, description="words that the scored tokens cover, line ends counted as words")
    characters: int = Field(ge=0, description="characters that the scored tokens cover")
    bytes: int = Field(ge=0, description="UTF-8 bytes that the scored tokens cover")
    unscored: int = Field(default=0, ge=0, description="tokens fed and not scored that figures per token count too")
    interval: tuple[float, float] | None = Field(
        default=None,
        description="95 % block-bootstrap interval of nats per token; null for a text of fewer than ten blocks",
    )
    protocol: Protocol = Field(description="how it was obtained")
    provenance: dict[str, Any] = Field(default={}, description="corpus, split, checksums, model, step, code version")

    @property
    def nats_per_token(self) -> float:
        return self.nats / self._tokens

    @property
    def bits_per_token(self) -> float:
        return self.nats / self._tokens / math.log(2)

    @property
    def perplexity_per_token(self) -> float | None:
        """None where it exceeds the largest float."""
        return _exp(self.nats, self._tokens)

    @property
    def perplexity_per_word(self) -> float | None:
        """None where it exceeds the largest float or the text has no word."""
        return _exp(self.nats, self.words)

    @property
    def bits_per_character(self) -> float | None:
        return _bits(self.nats, self.characters)

    @property
    def bits_per_byte(self) -> float | None:
        return _bits(self.nats, self.bytes)

    @property
    def _tokens(self) -> int:
        return self.tokens + self.unscored

    def figures(self) -> dict[str, float | None]:
        """Every derived figure by name; None where it is undefined or beyond the largest float."""
        return {name: getattr(self, name) for name in _FIGURES}

    def intervals(self) -> dict[str, tuple[float, float]]:
        """95 % block-bootstrap interval of every figure that has one, by name."""
        if self.interval is None:
            return {}
        ends = [self.model_copy(update={"nats": end * self.tokens}).figures() for end in self.interval]
        pairs = {name: (ends[0][name], ends[1][name]) for name in _FIGURES}
        return {name: (low, high) for name, (low, high) in pairs.items() if low is not None and high is not None}

    def rows(self) -> list[tuple[str, str]]:
        """(name, value) for a table that people read: counts, figures, and what adapters counted while they read."""
        counts = [(name, f"{getattr(self, name):,}") for name in ("tokens", "words", "characters", "bytes")]
        figures, intervals = [], self.intervals()
        for name, value in self.figures().items():
            text = "too large or undefined" if value is None else f"{value:,.4f}"
            if value is not None and name in intervals:
                low, high = intervals[name]
                text += f"  ({low:,.4f} to {high:,.4f})"
            figures.append((name.replace("_", " "), text))
        return [("protocol", self.protocol.name), *counts, ("total nats", f"{self.nats:,.2f}"), *figures,
                *_counted(self.provenance.get("told", {}))]  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, with the derived figures and the version of the format."""
        value = self.model_dump(mode="json")
        names = {"name": self.protocol.name, "comparable_key": self.protocol.comparable_key}
        value["protocol"] = {**names, **value["protocol"]}
        derived = {"figures": self.figures(), "intervals": self.intervals()}
        return {"kind": _KIND, "version": _VERSION, **value, **derived}

    @classmethod
    def from_json(cls, value: Any, source: object = "this") -> Self:
        """The inverse of :meth:`to_json`; derived figures are computed anew.

        Args:
            source: names the value in messages.
        Raises:
            UnrolledError: another kind of record, a newer format, or a damaged one.
        """
        if not isinstance(value, dict) or value.get("kind") != _KIND:
            raise UnrolledError(f"{source} is not an evaluation record of unrolled.")
        if value.get("version") != _VERSION:
            raise UnrolledError(
                f"{source} has format {value.get('version')} and this release reads {_VERSION}; upgrade unrolled."
            )
        kept = {key: inner for key, inner in value.items() if key not in ("kind", "version", "figures", "intervals")}
        if isinstance(kept.get("protocol"), dict):
            derived = ("name", "comparable_key")
            kept["protocol"] = {key: v for key, v in kept["protocol"].items() if key not in derived}
        try:
            return cls.parse(kept)
        except UnrolledError as error:
            raise UnrolledError(f"{source} is a damaged evaluation record: {error}") from error

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON, atomically."""
        write_json(path, self.to_json())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what :meth:`save` wrote. Raises UnrolledError, see :meth:`from_json`."""
        return cls.from_json(read_json(path), path)


def _exp(nats: float, count: int) -> float | None:
    try:
        return math.exp(nats / count) if count else None
    except OverflowError:
        return None


def _bits(nats: float, count: int) -> float | None:
    return nats / count / math.log(2) if count else None


def _counted(told: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """Rows of what was counted, by name; a count of parts as each of them."""
    for name, value in told.items():
        if isinstance(value, Mapping):
            yield from _counted(value, f"{before}{name} ")
        else:
            written = f"{value:.4g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value
            yield before + name, str(written)
