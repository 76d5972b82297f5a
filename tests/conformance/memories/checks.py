"""What each memory is held to; every check takes a case."""

from collections.abc import Callable
from typing import Any

import torch

from conformance.tolerance import assert_close
from unrolled.core import tree
from unrolled.core.random import RandomStreams
from unrolled.model import LanguageModel, ModelOutput
from unrolled.model.dropout import DropoutConfig

from .build import BATCH, TIME, Case, make, material, plain

__all__ = ["CHECKS"]

_SPLITS = (3, 4, 1, 9)


def _read(model: LanguageModel, pieces: tuple[int, ...] = (TIME,)) -> tuple[torch.Tensor, Any, list[ModelOutput]]:
    ids, reset = material()
    at, state, outs = 0, None, []
    for size in pieces:
        outs.append(model(ids[:, at : at + size], state, reset[:, at : at + size]))
        state, at = outs[-1].state, at + size
    return torch.cat([out.raw for out in outs], 1), state, outs


def check_plain(case: Case) -> None:
    """Rows with resets at different places give what each gives alone, token by token, and the same gradients."""
    model = make(case)
    ids, reset = material()
    raw, _, outs = _read(model)
    wanted, costs = plain(model, ids, reset)
    assert_close(raw, wanted, "outputs")
    loss, other = raw.square().sum(), wanted.square().sum()
    if model.memory is not None and model.memory.hands:
        assert_close(outs[0].handed["cost"].squeeze(-1), costs, "cost")
        loss, other = loss + outs[0].handed["cost"].sum(), other + costs.sum()
    named = dict(model.named_parameters())
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True, materialize_grads=True)
    grads = torch.autograd.grad(other, list(named.values()), allow_unused=True, materialize_grads=True)
    for name, a, b in zip(named, found, grads, strict=True):
        assert_close(a, b, f"gradient of {name}")


def check_splits(case: Case) -> None:
    """A window in any pieces gives the outputs and the state of the whole."""
    model = make(case)
    raw, state, _ = _read(model)
    for pieces in (_SPLITS, (1,) * TIME):
        other, after, _ = _read(model, pieces)
        assert_close(other, raw, "outputs")
        for (name, a), b in zip(tree.flatten(state.cells).items(), tree.leaves(after.cells), strict=True):
            if a.numel():
                assert_close(b, a, f"state {name}")


def check_state(case: Case) -> None:
    """The state has one shape and one type, however much was read."""
    model = make(case)
    _, state, _ = _read(model)
    start = tree.flatten(model.initial_state(BATCH).cells)
    for name, value in tree.flatten(state.cells).items():
        assert (value.shape, value.dtype) == (start[name].shape, start[name].dtype), name


def check_no_future(case: Case) -> None:
    """No output depends on a later token."""
    model = make(case)
    ids, _ = material()
    raw = model(ids).raw
    for cut in range(1, TIME):
        other = ids.clone()
        other[:, cut:] = (other[:, cut:] + 1) % 11
        assert torch.equal(model(other).raw[:, :cut], raw[:, :cut]), f"before token {cut}"


def check_carries(case: Case) -> None:
    """What stands in the first segment reaches later segments, although the cells begin anew."""
    model = make(case, state="reset")
    ids, _ = material()
    x = model.embedding(ids).detach().requires_grad_()
    length = case.config.segment
    later = model.run_stack(x).raw[:, length:].square().sum()
    (grad,) = torch.autograd.grad(later, x)
    assert grad[:, :length].abs().sum() > 0


def check_depth(case: Case) -> None:
    """At depth k the loss of the last segment reaches k segments before it and no further, and no loss is another."""
    segment = case.config.segment
    whole: Any = None
    for depth in (None, 0, 1, 2):
        model = make(case, depth=depth, state="reset", least=None)
        ids = torch.randint(0, 11, (2, 5 * segment), generator=torch.Generator().manual_seed(2))
        x = model.embedding(ids).detach().requires_grad_()
        raw = model.run_stack(x).raw
        whole = raw.detach() if whole is None else whole
        assert torch.equal(raw, whole), "a depth changes no output"
        (grad,) = torch.autograd.grad(raw[:, 4 * segment :].square().sum(), x)
        reached = [bool(part.abs().sum() > 0) for part in grad.split(segment, 1)]
        assert sum(reached[:4]) == (reached[:4].count(True) if depth is None else min(depth, _reach(case)))
        if depth is not None:
            assert reached[4 - depth : 4].count(True) == sum(reached[:4]), "those nearest"


def _reach(case: Case) -> int:
    """How far a memory can reach at all: as many segments as it keeps."""
    return getattr(case.config, "most", 1 << 20)


def check_checkpoint(case: Case) -> None:
    """Segments that are computed again have the gradients of those that were kept."""
    grads = []
    for again in (False, True):
        model = make(case, checkpoint=again)
        raw, _, _ = _read(model)
        grads.append(torch.autograd.grad(raw.square().sum(), list(model.parameters()), allow_unused=True))
    assert all((a is None) == (b is None) for a, b in zip(*grads, strict=True))
    for (name, _), a, b in zip(model.named_parameters(), *grads, strict=True):
        if a is not None:
            assert_close(b, a, f"gradient of {name}")


def check_masks(case: Case) -> None:
    """Masks of ones change nothing, those of single steps are for the tokens alone, and lengths that are drawn make
    other segments."""
    model = make(case, least=None)
    ids, reset = material()
    wanted = model(ids, None, reset).raw
    for kind in ("step", "window"):
        rates = DropoutConfig(between=0.5, mask=kind)  # type: ignore[arg-type]
        masks = model.draw_masks(BATCH, TIME, RandomStreams(3), 0, dropout=rates)
        assert masks is not None
        assert not torch.allclose(model(ids, None, reset, masks).raw, wanted)
        ones = tree.map_tree(lambda mask: torch.ones_like(mask), masks)
        assert_close(model(ids, None, reset, ones).raw, wanted, f"masks of one {kind}")
    if case.config.segment > 2:
        drawn = [make(case, least=1).draw_masks(BATCH, TIME, RandomStreams(3), window) for window in range(9)]
        lengths = {masks.memory.length for masks in drawn if masks is not None}
        assert len(lengths) > 1
        assert lengths <= set(range(1, case.config.segment + 1))
        short = next(masks for masks in drawn if masks is not None and masks.memory.length < case.config.segment)
        assert not torch.allclose(model(ids, None, reset, short).raw, wanted)


def check_keep(case: Case) -> None:
    """Hand-overs that are not kept cut gradients, and change no output."""
    ids, _ = material()
    model, cut = make(case, state="reset", least=None), make(case, keep=0.0, state="reset", least=None)
    masks = cut.draw_masks(BATCH, TIME, RandomStreams(3), 0)
    x = cut.embedding(ids).detach().requires_grad_()
    raw = cut.run_stack(x, masks=masks).raw
    assert torch.equal(raw, model(ids).raw)
    length = case.config.segment
    (grad,) = torch.autograd.grad(raw[:, length:].square().sum(), x)
    assert not grad[:, :length].any()


CHECKS: dict[str, Callable[[Case], None]] = {
    name.removeprefix("check_"): check for name, check in list(globals().items()) if name.startswith("check_")
}
