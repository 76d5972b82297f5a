"""Blocks beyond the context, looked up: beside full attention, beside plain loops, and on the command line."""

from typing import Any

import pytest
import torch
from torch import Tensor

from conformance.material import resets, wave
from conformance.tolerance import assert_close
from unrolled.cells import CELLS
from unrolled.cells.attention.blocks import Blocks, with_blocks
from unrolled.cells.parts.places import slopes
from unrolled.core import tree
from unrolled.core.errors import UsageError
from unrolled.model import LanguageModel, ModelConfig
from unrolled.predict import NeuralPredictor
from unrolled.predict.blocks import BlocksConfig, BlocksPredictor

CONTEXT, TIME, WIDTH = 4, 23, 8
ALL = Blocks(initial=2, size=3, count=None, representatives=2, room=64)


def cell_of(positions: str, context: int = CONTEXT, name: str = "window_attention", **options: Any) -> Any:
    torch.manual_seed(1)
    config = CELLS.parse({"name": name, "heads": 4, "context": context, "positions": positions, **options})
    cell = CELLS[name](WIDTH, WIDTH, config).double()
    with torch.no_grad():
        for k, parameter in enumerate(cell.parameters()):
            parameter.add_(0.7 * wave(*parameter.shape, phase=k))
    return cell


@torch.no_grad()
def by_hand(cell: Any, x: Tensor, how: Blocks) -> Tensor:
    """One token after another, one head after another, from the definition; rotations by complex numbers."""
    context, heads = cell.config.context, cell.config.heads
    groups = cell.config.groups or heads
    size = WIDTH // heads
    rows = cell.weight @ x[0].T
    q = rows[:WIDTH].T.unflatten(1, (heads, size))
    k = rows[WIDTH : WIDTH + groups * size].T.unflatten(1, (groups, size)).repeat_interleave(heads // groups, 1)
    v = rows[WIDTH + groups * size :].T.unflatten(1, (groups, size)).repeat_interleave(heads // groups, 1)

    def score(t: int, j: int, distance: int) -> Tensor:
        """Of each head."""
        if cell.config.positions == "rotary":
            half = size // 2
            powers = 10000.0 ** (-torch.arange(half).double() * 2 / size)
            a, b = (torch.complex(one[..., :half], one[..., half:]) for one in (q[t], k[j]))
            turn = torch.polar(torch.ones(half).double(), distance * powers)
            return (a * turn * b.conj()).real.sum(-1) * size**-0.5
        plain = (q[t] * k[j]).sum(-1) * size**-0.5
        return plain - distance * slopes(heads).double() if cell.config.positions == "alibi" else plain

    def weight(s: int, j: int) -> Tensor:
        """Of each head: what token j gets of token s among those of the context."""
        near = range(max(0, s - context + 1), s + 1)
        return torch.stack([score(s, i, s - i) for i in near]).softmax(0)[j - near.start]

    outputs = []
    for t in range(len(x[0])):
        seen = {j: score(t, j, t - j) for j in range(max(0, t - context + 1), t + 1)}
        older = list(range(t - context + 1)) if t >= context else []
        open_ = [j for j in older if j >= how.initial]
        blocks = [[j for j in open_ if (j - how.initial) // how.size == b] for b in range(TIME)]
        told = []
        for block in (block for block in blocks if block):
            after = [torch.stack([weight(s, j) for s in range(j, j + context)]).sum(0) for j in block]
            found = []
            for h in range(heads):
                best = sorted(block, key=lambda j: -float(after[block.index(j)][h]))[: how.representatives]
                found.append(sum(float(score(t, j, context - 1)[h]) for j in best) / len(best))
            told.append((sum(found) / heads, block))
        told.sort(key=lambda one: -one[0])
        chosen = [j for _, block in told[: how.count] for j in block]
        for j in [*(j for j in older if j < how.initial), *chosen]:
            seen[j] = score(t, j, context - 1)
        weights = torch.stack(list(seen.values())).softmax(0)
        outputs.append((weights.unsqueeze(-1) * v[list(seen)]).sum(0).flatten())
    return (torch.stack(outputs) @ cell.out.T).unsqueeze(0)


@pytest.mark.parametrize("positions", ["none", "rotary", "alibi"])
@pytest.mark.parametrize("count", [0, 1, 2, None])
def test_it_is_its_definition(positions: str, count: int | None) -> None:
    cell, x = cell_of(positions, groups=2), wave(1, TIME, WIDTH)
    how = ALL._replace(count=count)
    assert_close(with_blocks(cell, how)(x)[0], by_hand(cell, x, how), "outputs")


@pytest.mark.parametrize("name", ["window_attention", "transformer"])
def test_all_blocks_are_full_attention(name: str) -> None:
    """Without positions; and none are the context, beside the first tokens."""
    cell, full = cell_of("none", name=name), cell_of("none", 64, name)
    x = wave(2, TIME, WIDTH)
    assert_close(with_blocks(cell, ALL)(x)[0], full(x)[0], "all blocks")
    none = ALL._replace(count=0, initial=0)
    assert_close(with_blocks(cell, none)(x)[0], cell(x)[0], "no block, no first token")
    some = with_blocks(cell, ALL._replace(count=0))(x)[0]
    assert (some - cell(x)[0])[:, CONTEXT:].abs().amax() > 1e-3, "the first tokens are seen"
    assert_close(with_blocks(cell, ALL._replace(count=TIME))(x)[0], full(x)[0], "as many blocks as there are")


@pytest.mark.parametrize("positions", ["none", "rotary", "alibi"])
def test_windows_are_steps(positions: str) -> None:
    """However a text is cut, with documents that begin anywhere, and each row as if it were alone."""
    cell = with_blocks(cell_of(positions), ALL._replace(count=1))
    x, reset = wave(3, TIME, WIDTH), resets(3, TIME)
    whole, last = cell(x, None, reset)
    for size in (1, 5):
        state, outputs = None, []
        for low in range(0, TIME, size):
            y, state = cell(x[:, low : low + size], state, reset[:, low : low + size])
            outputs.append(y)
        assert_close(torch.cat(outputs, 1), whole, f"windows of {size}")
        for name, part in tree.flatten(state).items():
            assert_close(part.double(), tree.flatten(last)[name].double(), name)
    for row in range(3):
        assert_close(cell(x[row : row + 1], None, reset[row : row + 1])[0], whole[row : row + 1], "alone")
    later = x.clone()
    later[:, 15:] += 1
    assert_close(cell(later, None, reset)[0][:, :15], whole[:, :15], "no later token changes an earlier output")


def model_of(**cell: Any) -> LanguageModel:
    torch.manual_seed(2)
    shape = {"name": "window_attention", "heads": 2, "context": 4, **cell}
    return LanguageModel(ModelConfig.parse({"width": 8, "layers": 2, "cell": shape}), 11).double()


def test_nothing_is_added_to_the_model() -> None:
    model = model_of()
    predictor = BlocksPredictor(NeuralPredictor(model, 0), BlocksConfig(size=3, initial=1, room=40))
    own, others = dict(model.named_parameters()), dict(predictor.model.named_parameters())
    assert own.keys() == others.keys()
    assert all(own[name] is others[name] for name in own)
    ids = torch.arange(30).view(1, 30) * 7 % 11
    found = predictor.window(predictor.begin(1), ids).nll
    plain = NeuralPredictor(model, 0)
    assert (found - plain.window(plain.begin(1), ids).nll).abs().max() > 1e-6
    assert type(model.stack.cells()[0]) is CELLS["window_attention"], "the model is as it was"


def test_what_is_refused() -> None:
    config = BlocksConfig(size=3, room=9)
    predictor = BlocksPredictor(NeuralPredictor(model_of(), 0), config)
    ids = torch.zeros(1, 9, dtype=torch.int64)
    with pytest.raises(UsageError, match=r"longer than the 9 tokens that blocks have room for; say --set"):
        predictor.window(predictor.begin(1), ids)
    for cell in ({"persistent": 2}, {"name": "transformer", "positions": "sinusoid"}, {"name": "fox"}):
        with pytest.raises(UsageError, match="has no blocks to look up as it is"):
            BlocksPredictor(NeuralPredictor(model_of(**cell), 0), config)
    lstm = LanguageModel(ModelConfig.parse({"width": 8}), 11)
    with pytest.raises(UsageError, match="looked up by layers of attention"):
        BlocksPredictor(NeuralPredictor(lstm, 0), config)
