"""LongNet: short segments through the suite of all cells, and dilated attention against one softmax."""

from typing import Any

import pytest
import torch
from torch import Tensor

from conformance.cells.checks import CHECKS
from conformance.tolerance import assert_close
from unrolled.cells import CELLS
from unrolled.core.errors import UsageError

# Borders of segments lie inside the suite's windows here. A text that goes over them cannot be learned by heart.
SHORT: list[dict[str, Any]] = [
    {"heads": 2, "segments": [3, 6], "dilations": [1, 2]},
    {"heads": 4, "segments": [2, 4, 8], "dilations": [1, 2, 4], "offsets": "paper", "sub_norm": True},
    {"heads": 3, "segments": [4, 8], "dilations": [1, 3]},
    {"heads": 2, "segments": [4], "dilations": [1], "positions": "none", "detach": True},
]


def config(options: dict[str, Any]) -> Any:
    return CELLS.parse({"name": "longnet", **options})


@pytest.mark.parametrize("check", [name for name in CHECKS if name != "memorises"])
@pytest.mark.parametrize("options", SHORT, ids=range(len(SHORT)))
def test_short_segments_pass_the_suite(options: dict[str, Any], check: str) -> None:
    CHECKS[check](lambda in_width, width: CELLS["longnet"](in_width, width, config(options)))


def make(options: dict[str, Any], width: int = 24) -> Any:
    torch.manual_seed(0)
    cell = CELLS["longnet"](width, width, config({"positions": "none", **options})).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.mul_(2).add_(0.1 * torch.randn_like(parameter))
    return cell


def union(cell: Any, x: Tensor) -> Tensor:
    """The same by one softmax for each head and token, over the keys of all branches, each as often as it is seen."""
    options, heads, size = cell.config, cell.config.heads, cell.width // cell.config.heads
    q, k, v = (part.view(*x.shape[:2], heads, size) for part in (x @ cell.weight.T + cell.bias).chunk(3, -1))
    rows = []
    for t in range(x.shape[1]):
        found = []
        for h in range(heads):
            seen = []
            for w, r in zip(options.segments, options.dilations, strict=True):
                offset = h % r if options.offsets == "paper" else h // -(-heads // r)
                if t % w % r == offset:
                    seen += [j for j in range(t - t % w, t + 1) if j % w % r == offset]
            scores = (q[:, t : t + 1, h] * k[:, seen, h]).sum(-1) / size**0.5
            found.append((torch.softmax(scores, -1).unsqueeze(-1) * v[:, seen, h]).sum(1))
        rows.append(torch.cat(found, -1))
    return torch.stack(rows, 1) @ cell.out.T + cell.out_bias


@pytest.mark.parametrize("time", [11, 13, 16, 37])
@pytest.mark.parametrize("offsets", ["code", "paper"])
def test_branches_are_one_softmax_over_their_union(time: int, offsets: str) -> None:
    cell = make({"heads": 4, "segments": [4, 8, 16], "dilations": [1, 2, 4], "offsets": offsets})
    x = torch.randn(2, time, 24, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, time, 24, dtype=torch.float64)
    grads = [
        [y.detach(), *torch.autograd.grad((y * weight).sum(), [x, *cell.parameters()])]
        for y in (cell(x)[0], union(cell, x))
    ]
    for found, expected in zip(*grads, strict=True):
        assert_close(found, expected, f"union of {time} tokens")


def test_detached_weights_have_other_gradients_and_the_same_outputs() -> None:
    options = {"heads": 4, "segments": [4, 8], "dilations": [1, 2]}
    plain, detached = make(options), make({**options, "detach": True})
    x = torch.randn(2, 16, 24, dtype=torch.float64, requires_grad=True)
    (y, _), (other, _) = plain(x), detached(x)
    assert torch.equal(y, other)
    one, two = (torch.autograd.grad(part.square().sum(), x)[0] for part in (y, other))
    assert not torch.allclose(one, two, rtol=1e-3)


def test_steps_equal_the_window_across_segments() -> None:
    cell = make({"heads": 4, "segments": [4, 8, 16], "dilations": [1, 2, 4], "positions": "rotary"})
    x = torch.randn(2, 70, 24, dtype=torch.float64)
    whole, last = cell(x)
    state, outputs = None, []
    for token in x.split(1, 1):
        y, state = cell(token, state)
        outputs.append(y)
    assert_close(torch.cat(outputs, 1), whole, "steps")
    assert state is not None
    for part, other in zip(state, last, strict=True):
        assert_close(part, other, "the state after them")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"segments": [4, 6], "dilations": [1, 2]}, "6 tokens is no multiple of 4"),
        ({"segments": [4, 8], "dilations": [2, 2]}, "the first 1"),
        ({"segments": [4, 8], "dilations": [1]}, "one dilation a segment"),
    ],
)
def test_branches_that_do_not_fit_are_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        config(options)
