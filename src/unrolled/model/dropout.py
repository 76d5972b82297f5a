"""Dropout sites: where masks are applied, and drawing them from named random streams."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from unrolled.core.config import Config
from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.core.tree import map_tree

__all__ = ["DropoutConfig", "Masks", "apply_mask", "check_sites", "cut_masks", "draw_mask", "draw_rows", "draw_zoneout"]


_RATES = ("embedding", "input", "between", "branch", "inner", "state", "output", "projected", "weight")


class DropoutConfig(Config):
    """Dropout rates by site. Masks are scaled by 1/(1 - rate); evaluation uses none."""

    embedding: float = Field(
        default=0.0, ge=0, lt=1, description="rate of whole rows of the embedding, once per window"
    )
    input: float = Field(default=0.0, ge=0, lt=1, description="rate on the embedded input")
    between: float = Field(default=0.0, ge=0, lt=1, description="rate on the outputs between layers")
    branch: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="rate on what each cell and each MLP of a residual stack adds to what came in",
    )
    inner: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="rate inside cells that have sites for it, such as after each activation of a TCN or on what "
        "passes between the levels of a TrellisNet",
    )
    state: float = Field(default=0.0, ge=0, lt=1, description="rate on the recurrent state h")
    output: float = Field(default=0.0, ge=0, lt=1, description="rate on the last output, before the head")
    projected: float = Field(
        default=0.0, ge=0, lt=1, description="rate on the head's down-projected output, if it has one"
    )
    weight: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="rate on the recurrent matrices of every cell, as parameters, one mask per window (weight drop, "
        "Merity et al. 2018; on a QRNN the whole linear map)",
    )
    zoneout: dict[str, Annotated[float, Field(ge=0, lt=1)]] = Field(
        default={},
        description="chance that a number of the state keeps its old value at a step, by field of the state, such as "
        "{h = 0.05, c = 0.5} (Krueger et al. 2017); evaluation uses the expectation",
    )
    mask: Literal["step", "window"] = Field(
        default="window",
        description="a fresh mask at every step, or one for all steps of a window (variational, locked)",
    )
    state_mask: Literal["step", "window"] = Field(default="window", description="the same choice for the state")
    state_place: Literal["in", "out"] = Field(
        default="in",
        description="in: h(t-1) is masked on entry (Mogrifier); out: h(t) is masked as output and as carry (mLSTM)",
    )

    def scaled(self, factor: float) -> "DropoutConfig":
        """Every rate times ``factor``. Raises UsageError where one would reach 1."""
        rates = {name: getattr(self, name) * factor for name in _RATES}
        zoneout = {name: rate * factor for name, rate in self.zoneout.items()}
        worst = max([*rates.values(), *zoneout.values()])
        if worst >= 1:
            raise UsageError(f"a dropout rate times {factor:g} would be {worst:g}; use a smaller factor.")
        return self.model_copy(update={**rates, "zoneout": zoneout})

    @property
    def active(self) -> bool:
        """Whether any rate is above zero."""
        return any((*(getattr(self, name) for name in _RATES), *self.zoneout.values()))


class Masks(NamedTuple):
    """Drawn masks of one window; None where a site is off.

    embedding: (vocabulary, 1). input, output: (batch, 1 or time, width). between, state: one a layer.
    head: what the head drew for itself. weight: one mapping a layer, parameter's name -> mask of its shape.
    zoneout: one mapping a layer, state field -> (batch, time, width), 1 where the old value stays.
    branch: as output, of each cell and then of each MLP of a residual stack. inner: one mapping a layer, site inside
    the cell -> mask. memory: lengths and hand-overs of the window's segments.
    """

    embedding: Tensor | None
    input: Tensor | None
    between: tuple[Tensor | None, ...]
    state: tuple[Tensor | None, ...]
    output: Tensor | None
    head: Any
    weight: tuple[Mapping[str, Tensor] | None, ...] = ()
    zoneout: tuple[Mapping[str, Tensor] | None, ...] = ()
    branch: tuple[Tensor | None, ...] = ()
    inner: tuple[Mapping[str, Tensor] | None, ...] = ()
    memory: Any = None


def cut_masks(masks: Masks | None, low: int, high: int) -> Masks | None:
    """The masks of steps ``low`` to ``high`` - 1 of a window, where they differ from step to step."""

    def cut(mask: Tensor) -> Tensor:
        return mask if mask.shape[1] == 1 else mask[:, low:high]

    if masks is None:
        return None
    timed = {name: map_tree(cut, getattr(masks, name)) for name in _TIMED}
    return masks._replace(**timed)


_TIMED = ("input", "between", "branch", "inner", "state", "output", "head", "zoneout")


def draw_mask(
    rate: float,
    shape: tuple[int, ...],
    streams: RandomStreams,
    site: str,
    window: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor | None:
    """A Bernoulli mask scaled by 1/(1 - rate), from the stream (seed, site, window); None at rate 0. One for the whole
    run: of the embedding's rows, of weights."""
    if rate == 0:
        return None
    keep = torch.rand(shape, generator=streams.generator(f"dropout.{site}", window)) >= rate
    return keep.to(dtype).div_(1 - rate).to(device)


def draw_rows(
    rate: float,
    shape: tuple[int, ...],
    streams: RandomStreams,
    site: str,
    window: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor | None:
    """As :func:`draw_mask`, of the rows of a batch: each shard has a stream of its own."""
    if rate == 0:
        return None
    keep = _drawn(shape, streams, f"dropout.{site}", window) >= rate
    return keep.to(dtype).div_(1 - rate).to(device)


def _drawn(shape: tuple[int, ...], streams: RandomStreams, name: str, window: int) -> Tensor:
    """Uniform numbers, a part of the rows from the stream (seed, name, shard, window) of each shard."""
    own = streams.by_rows()
    part = (shape[0] // len(own), *shape[1:])
    return torch.cat([torch.rand(part, generator=one.generator(name, window)) for one in own])


def draw_zoneout(
    rate: float,
    shape: tuple[int, ...],
    streams: RandomStreams,
    site: str,
    window: int,
    device: torch.device,
    dtype: torch.dtype,
) -> Tensor:
    """1 where the old value of the state stays, with probability ``rate``; streams as in :func:`draw_rows`."""
    return (_drawn(shape, streams, f"zoneout.{site}", window) < rate).to(dtype).to(device)


def check_sites(config: DropoutConfig, cell: Any) -> None:
    """Raises UsageError when a cell lacks what a rate is meant for."""
    if config.weight and not cell.recurrent_weights:
        raise UsageError(f"the cell {cell.name!r} has no recurrent matrices for dropout.weight; set it to 0.")
    if config.state and not cell.masks_state:
        raise UsageError(f"the cell {cell.name!r} has no h in its state for dropout.state; set it to 0.")
    if config.inner and not cell.inner_sites:
        raise UsageError(f"the cell {cell.name!r} has no sites inside for dropout.inner; set it to 0.")
    for name in config.zoneout:
        if name not in cell.zoneout_fields:
            has = f"only {', '.join(cell.zoneout_fields)}" if cell.zoneout_fields else "nor any other field"
            raise UsageError(f"the cell {cell.name!r} has no {name!r} for zoneout, {has}.")


def apply_mask(x: Tensor, mask: Tensor | None) -> Tensor:
    """x times the mask; x itself where there is none."""
    return x if mask is None else x * mask
