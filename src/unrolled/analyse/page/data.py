"""What the page of a text shows of a model: losses, alternatives and internals of every token, as small integers.

Quantisation, in bits where it is about probability:

- the loss of a token, 16 bits, in steps of 1/1024 bit, at most 63.999: off by at most 1/2048 bit below that;
- an alternative's -log2 probability, 8 bits, in steps of 1/16 bit, at most 15.94: its probability is off by at most
  2.2 % of itself, and what is less likely than 1 in 63,000 is shown as that;
- an internal of a unit, 8 bits, in 255 equal steps between its least and its greatest value in the text: off by at most
  1/510 of that range.
"""

import base64
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from unrolled.analyse.page.text import TextLosses, trace_text
from unrolled.core.config import Config
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.registry import unknown_name
from unrolled.data.walk import Progress
from unrolled.model import LanguageModel
from unrolled.tokenizer import Tokenizer

__all__ = ["Group", "PageConfig", "PageModel", "groups_of", "pack", "page_model", "quantise"]

LOSS_STEP, ALTERNATIVE_STEP = 1 / 1024, 1 / 16
_RANKED = 20_000


class PageConfig(Config):
    """What the page holds."""

    alternatives: int = Field(default=4, ge=1, le=32, description="likeliest tokens kept of every place")
    internals: tuple[str, ...] | None = Field(
        default=None,
        description="internals kept, as LAYER.NAME, such as 0.c (absent: all but pre-activations)",
    )
    units: int | None = Field(
        default=None, ge=0, description="units kept of every layer, those that vary most (absent: as many as fit)"
    )
    chosen: tuple[str, ...] = Field(default=(), description="units kept in any case, as LAYER.UNIT, such as 0.17")
    megabytes: float = Field(default=10.0, gt=0, description="greatest size of the page, in units of 1,000,000 bytes")


class Group(NamedTuple):
    """Internals of a layer that have one width, so that their units go by the same numbers.

    names: such as c, h, i, f. main: the one whose variance ranks the units. units: those kept, best first.
    """

    layer: int
    width: int
    names: tuple[str, ...]
    main: str
    units: np.ndarray


class PageModel(NamedTuple):
    """value: plain JSON values for the page. kept, total: units over all groups. note: what was left out, or None."""

    value: dict[str, Any]
    tokens: int
    kept: int
    total: int
    note: str | None


@torch.no_grad()
def groups_of(model: LanguageModel, internals: Sequence[str] | None = None) -> list[Group]:
    """The internals that are vectors of units, by layer and width; all units, in their own order.

    Raises:
        UsageError: one of ``internals`` is not among them.
    """
    widths: dict[str, int] = {}

    def tap(layer: int, name: str, value: Tensor) -> None:
        if value.dim() == 2:
            widths[f"{layer}.{name}"] = value.shape[1]

    model(torch.zeros(1, 1, dtype=torch.int64, device=model.device), model.initial_state(1), tap=tap)
    for name in internals or ():
        if name not in widths:
            raise unknown_name("internal", name, widths)
    names: dict[tuple[int, int], list[str]] = {}
    for key, width in widths.items():
        layer, name = key.split(".", 1)
        if key in internals if internals is not None else not key.endswith("_pre"):
            names.setdefault((int(layer), width), []).append(name)
    groups = []
    for (layer, width), inside in sorted(names.items()):
        main = next((name for name in ("c", "h") if name in inside), inside[0])
        groups.append(Group(layer, width, tuple(inside), main, np.arange(width)))
    return groups


def page_model(
    name: str,
    model: LanguageModel,
    tokenizer: Tokenizer,
    losses: TextLosses,
    config: PageConfig,
    budget: float,
    progress: Progress | None = None,
) -> PageModel:
    """What the page holds of one model.

    Args:
        budget: bytes that it may take on the page.
    Raises:
        UsageError: it cannot fit even without units, or with those that were asked for; unknown internals or units.
    """
    used, places = np.unique(np.concatenate([losses.ids, losses.top.ravel()]), return_inverse=True)
    ids, top = places[: len(losses.ids)], places[len(losses.ids) :]
    value: dict[str, Any] = {
        "name": name,
        "parameters": model.num_params(),
        "vocabulary": [tokenizer.token(index) for index in used.tolist()],
        "offsets": pack(_utf16(losses.text, losses.offsets), np.uint32),
        "ids": pack(ids, np.uint16 if len(used) < 1 << 16 else np.uint32),
        "bits": pack(_steps(losses.bits, LOSS_STEP, 16), np.uint16),
        "alternatives": losses.top.shape[1],
        "top": pack(top, np.uint16 if len(used) < 1 << 16 else np.uint32),
        "topBits": pack(_steps(losses.top_bits, ALTERNATIVE_STEP, 8).ravel(), np.uint8),
    }
    fixed = sum(len(part["data"]) for part in value.values() if isinstance(part, dict))
    fixed += sum(len(word) + 3 for word in value["vocabulary"]) + 2 * len(losses.text)
    left = budget - fixed
    if left < 0:
        raise UsageError(
            f"{name} takes {fixed / 1e6:.1f} MB of the page for {len(ids):,} tokens without any unit, and may take "
            f"{max(0, budget) / 1e6:.1f}; raise --megabytes, or give a shorter text."
        )
    groups = groups_of(model, config.internals)
    total = sum(group.width for group in groups)
    groups = _select(model, groups, losses, config, left)
    kept = sum(len(group.units) for group in groups)
    units = {f"{group.layer}.{inner}": group.units for group in groups for inner in group.names}
    traces = trace_text(model, losses, len(ids), units, progress) if kept else {}
    value["groups"] = [_group_value(group, traces) for group in groups if len(group.units)]
    note = None
    if kept < total and config.units is None:
        note = (
            f"the page holds {kept:,} of the {total:,} units of {name}, those that vary most; raise --megabytes "
            f"(now {config.megabytes:g}) or name --internals to see more."
        )
    return PageModel(value, len(ids), kept, total, note)


def _select(
    model: LanguageModel, groups: list[Group], losses: TextLosses, config: PageConfig, left: float
) -> list[Group]:
    """The groups with the units that are kept: as many of each as fit, first those chosen, then by variance."""
    chosen: dict[int, list[int]] = {i: [] for i in range(len(groups))}
    for one in config.chosen:
        layer, _, unit = one.partition(".")
        fitting = [
            i for i, g in enumerate(groups) if layer == str(g.layer) and unit.isdecimal() and int(unit) < g.width
        ]
        if not fitting:
            raise UsageError(f"there is no unit {one!r} among the internals kept; write LAYER.UNIT, such as 0.17.")
        for i in fitting:
            chosen[i].append(int(unit))

    def size(count: int) -> float:
        """Bytes of so many units of every group."""
        kept = [max(min(count, g.width), len(set(chosen[i]))) * len(g.names) for i, g in enumerate(groups)]
        return sum(kept) * (4 * ((len(losses.ids) + 2) // 3) + 40)

    wanted = max((group.width for group in groups), default=0) if config.units is None else config.units
    most = wanted
    while most > 0 and size(most) > left:
        most -= 1
    if size(most) > left or (config.units is not None and most < wanted):
        raise UsageError(
            f"the units asked for take {size(wanted) / 1e6:.1f} MB more than the {config.megabytes:g} MB of the page "
            "allow; ask for fewer --units or --internals, or raise --megabytes."
        )
    if all(most >= group.width for group in groups):
        return groups
    read = min(_RANKED, len(losses.ids))
    mains = {f"{group.layer}.{group.main}": group.units for group in groups} if most else {}
    traces = trace_text(model, losses, read, mains, None) if most else {}
    found = []
    for i, group in enumerate(groups):
        order = list(dict.fromkeys(chosen[i]))
        if most:
            variance = traces[f"{group.layer}.{group.main}"].var(0, dtype=np.float64)
            order = list(dict.fromkeys([*order, *np.argsort(-variance, kind="stable").tolist()]))
        found.append(group._replace(units=np.array(order[: max(most, len(set(chosen[i])))], np.int64)))
    return found


def _group_value(group: Group, traces: Mapping[str, np.ndarray]) -> dict[str, Any]:
    series = {}
    for name in group.names:
        values = traces[f"{group.layer}.{name}"]
        if not np.isfinite(values).all():
            raise UnrolledError(
                f"{group.layer}.{name} is not a finite number somewhere; the model's weights are damaged."
            )
        steps, low, high = quantise(values)
        series[name] = {
            "low": [float(f"{x:.7g}") for x in low],
            "high": [float(f"{x:.7g}") for x in high],
            "variance": [float(f"{x:.5g}") for x in values.var(0, dtype=np.float64)],
            "data": [pack(column, np.uint8)["data"] for column in steps.T],
        }
    return {
        "layer": group.layer, "width": group.width, "main": group.main, "units": group.units.tolist(), "series": series,
    }  # fmt: skip


def quantise(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each column in 255 steps between its least and greatest value: steps uint8 (n, units), least, greatest (units,).

    A step q stands for least + q (greatest - least) / 255.
    """
    low, high = values.min(0), values.max(0)
    span = np.where(high > low, high - low, 1)
    return np.rint((values - low) / span * 255).astype(np.uint8), low, high


def _steps(bits: np.ndarray, step: float, width: int) -> np.ndarray:
    return np.clip(np.rint(bits / step), 0, 2**width - 1)


def _utf16(text: str, offsets: np.ndarray) -> np.ndarray:
    """Offsets in characters as a browser counts them: two for a character above U+FFFF."""
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    return offsets + np.concatenate([[0], np.cumsum(points > 0xFFFF)])[offsets]


def pack(values: np.ndarray, kind: Any) -> dict[str, str]:
    """Little-endian whole numbers as base64, with the name of their type."""
    data = np.ascontiguousarray(values, np.dtype(kind).newbyteorder("<"))
    return {"type": np.dtype(kind).name, "data": base64.b64encode(data.tobytes()).decode()}
