# ruff: noqa: F722  (the strings are shapes, not Python)
"""Shapes of every call of a cell, a head or a model, checked at run time by jaxtyping and beartype, in tests only."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from beartype import beartype
from jaxtyping import Bool, Float, Int, jaxtyped
from torch import Tensor, nn

from unrolled.cells import Cell
from unrolled.core.tree import leaves
from unrolled.kernels.cell_loop import TableInput
from unrolled.model import LanguageModel
from unrolled.model.embedding import Embedding
from unrolled.model.frames import FrameHead
from unrolled.model.heads import HEADS

__all__ = ["checked_shapes"]

checked = jaxtyped(typechecker=beartype)


@checked
def _cell(
    self: Cell,
    x: Float[Tensor, "batch time {self.in_width}"] | TableInput,
    state: Any = None,
    reset: Bool[Tensor, "batch time"] | None = None,
    noise: Any = None,
    **options: Any,
) -> tuple[Float[Tensor, "batch time {self.out_width}"], Any]:
    if noise is not None:
        masks = [noise.state_in, noise.state_out, *(noise.zoneout or {}).values()]
        for mask in masks:
            assert mask is None or (mask.shape[0] == x.shape[0] and mask.shape[1] in (1, x.shape[1]))
    y, new = nn.Module.__call__(self, x, state, reset, noise, **options)
    assert all(part.shape[0] == x.shape[0] for part in leaves(new)), "a state is batch-first"
    return y, new


@checked
def _model(
    self: LanguageModel,
    tokens: Int[Tensor, "batch time"] | Float[Tensor, "batch time {self.vocab_size}"],
    state: Any = None,
    reset: Bool[Tensor, "batch time"] | None = None,
    masks: Any = None,
    tap: Any = None,
) -> Any:
    assert isinstance(self.embedding, Embedding) == (tokens.dim() == 2), "frames are for models of frames"
    out = nn.Module.__call__(self, tokens, state, reset, masks, tap)
    _model_output(self, tokens, out.raw, out.dropped)
    return out


@checked
def _model_output(
    model: LanguageModel,
    tokens: Int[Tensor, "batch time"] | Float[Tensor, "batch time {model.vocab_size}"],
    raw: Float[Tensor, "batch time {model.stack.out_width}"],
    dropped: Float[Tensor, "batch time {model.stack.out_width}"],
) -> None:
    pass


def _head_loss(plain: Any) -> Any:
    @checked
    def loss(
        self: nn.Module,
        h: Float[Tensor, "batch time {self.in_width}"],
        targets: Int[Tensor, "batch time"],
        weight: Float[Tensor, "batch time"] | None = None,
        state: Any = None,
        reset: Bool[Tensor, "batch time"] | None = None,
        masks: Any = None,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "batch time"], Any]:
        return plain(self, h, targets, weight, state, reset, masks)

    return loss


def _frames_loss(plain: Any) -> Any:
    @checked
    def loss(
        self: nn.Module,
        h: Float[Tensor, "batch time {self.in_width}"],
        targets: Float[Tensor, "batch time {self.vocab_size}"],
        weight: Float[Tensor, "batch time"] | None = None,
        state: Any = None,
        reset: Bool[Tensor, "batch time"] | None = None,
        masks: Any = None,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, "batch time"], Any]:
        return plain(self, h, targets, weight, state, reset, masks)

    return loss


def _head_log_prob(plain: Any) -> Any:
    @checked
    def log_prob(
        self: nn.Module, h: Float[Tensor, "*rows {self.in_width}"], state: Any = None, masks: Any = None
    ) -> tuple[Float[Tensor, "*rows {self.vocab_size}"], Any]:
        return plain(self, h, state, masks)

    return log_prob


@contextlib.contextmanager
def checked_shapes() -> Iterator[None]:
    """Check the shapes of all calls inside."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Cell, "__call__", _cell)
        patch.setattr(LanguageModel, "__call__", _model)
        for name in HEADS:
            head = HEADS[name]
            patch.setattr(head, "loss", _head_loss(head.loss))
            patch.setattr(head, "log_prob", _head_log_prob(head.log_prob))
        patch.setattr(FrameHead, "loss", _frames_loss(FrameHead.loss))
        yield
