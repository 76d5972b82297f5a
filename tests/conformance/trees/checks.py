"""The checks: each takes the class of a tree cell and a config, and fails by an assertion."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from conformance.material import wave
from conformance.tolerance import assert_close
from conformance.trees.forests import forest, joined, tree
from unrolled.kernels.dispatch import Compute
from unrolled.kernels.tree_loop import BACKENDS

__all__ = [
    "backends_agree", "bf16_is_near_and_other", "gradients", "made", "nodes_see_what_is_below", "num_params", "outcome",
    "trees_are_independent",
]  # fmt: skip


def made(cls: Any, config: Any, in_width: int = 5, width: int = 4) -> Any:
    """A cell in float64 whose parameters are all in use."""
    cell = cls(in_width, width, config).double()
    with torch.no_grad():
        for number, parameter in enumerate(cell.parameters()):
            parameter.copy_(0.5 * wave(*parameter.shape, phase=float(number)))
    return cell


def outcome(cell: Any, parents: np.ndarray, x: Tensor | None = None) -> dict[str, Tensor]:
    """States of all nodes, and the gradients of a weighted sum of them."""
    x = (wave(len(parents), cell.in_width) if x is None else x).detach().requires_grad_()
    state = cell(x, parents)
    loss = torch.stack([(part * wave(*part.shape, phase=1.0)).sum() for part in state]).sum()
    named = {"x": x, **dict(cell.named_parameters())}
    grads = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    found = {f"state {name}": part.detach() for name, part in zip(state._fields, state, strict=True)}
    zeros = {name: torch.zeros_like(value) for name, value in named.items()}
    return found | {f"grad {name}": zeros[name] if g is None else g for name, g in zip(named, grads, strict=True)}


def backends_agree(cls: Any, config: Any) -> None:
    """Every backend gives the states and gradients of the reference, node by node."""
    for in_width in (5, 4):
        cell = made(cls, config, in_width)
        for parents in (forest(cls.arity), np.array([-1, -1]), tree(3, 9, cls.arity)):
            cell.compute = Compute(backend={"tree_loop": "reference"})
            expected = outcome(cell, parents)
            for name in BACKENDS:
                cell.compute = Compute(backend={"tree_loop": name})
                for part, value in outcome(cell, parents).items():
                    assert_close(value, expected[part], f"{name}: {part}")


def gradients(cls: Any, config: Any) -> None:
    """Gradients of the reference are those of finite differences."""
    cell, parents = made(cls, config, 3, 2), tree(5, 4, cls.arity)
    cell.compute = Compute(backend={"tree_loop": "reference"})
    x, named = wave(len(parents), 3).requires_grad_(), dict(cell.named_parameters())

    def run(x: Tensor, *values: Tensor) -> Any:
        given = dict(zip(named, values, strict=True))
        return tuple(torch.func.functional_call(cell, given, (x, parents)))

    assert torch.autograd.gradcheck(run, (x, *named.values()))


def trees_are_independent(cls: Any, config: Any) -> None:
    """A tree alone gives what it gives among others."""
    cell = made(cls, config)
    trees = [tree(seed, leaves, cls.arity) for seed, leaves in ((1, 3), (2, 7), (3, 1), (4, 12))]
    x = wave(sum(map(len, trees)), 5)
    together, low = cell(x, joined(trees)), 0
    for parents in trees:
        alone = cell(x[low : low + len(parents)], parents)
        for name, part, value in zip(alone._fields, alone, together, strict=True):
            assert_close(value[low : low + len(parents)], part, name)
        low += len(parents)


def nodes_see_what_is_below(cls: Any, config: Any) -> None:
    """A state depends on every word of its subtree, and on no other; inner words are read where the cell says so."""
    cell, parents = made(cls, config), tree(7, 6, cls.arity)
    count, inner = len(parents), set(parents.tolist())
    below = np.eye(count, dtype=bool)
    for node, parent in enumerate(parents):
        if parent >= 0:
            below[parent] |= below[node]
    for node in range(count):
        x = wave(count, 5).requires_grad_()
        (grad,) = torch.autograd.grad(cell(x, parents).h[node].sum(), x)
        seen = (grad != 0).any(1).numpy()
        read = np.array([cell.reads_inner or place not in inner for place in range(count)])
        assert seen.tolist() == (below[node] & read).tolist(), f"node {node} of {parents}"


def num_params(cls: Any, config: Any) -> None:
    """The formula counts the parameters."""
    for in_width, width in ((5, 4), (4, 4), (1, 3)):
        count = sum(p.numel() for p in cls(in_width, width, config).parameters())
        assert cls.num_params(config, in_width, width) == count


def bf16_is_near_and_other(cls: Any, config: Any) -> None:
    """Products are rounded where that is asked for."""
    cell, parents = made(cls, config).float(), forest(cls.arity)
    x = wave(len(parents), 5).float()
    plain = cell(x, parents)
    cell.compute = Compute(precision="bf16")
    low = cell(x, parents)
    assert_close(low.h, plain.h, "h", torch.bfloat16)
    assert not torch.equal(low.h, plain.h)
