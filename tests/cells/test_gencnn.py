"""genCNN: how far it sees, what its maps share, and the loop over places that it is."""

from collections import Counter
from pydoc_data.topics import topics
from typing import Any

import pytest
import torch
from torch import Tensor

from unrolled.cells.conv.gencnn import GenCNN, GenCNNConfig, Tower
from unrolled.cells.mixer import Given
from unrolled.core.errors import UsageError
from unrolled.core.tree import map_tree
from unrolled.model import LanguageModel, ModelConfig

B, E, N = 2, 5, 6


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def make(**config: Any) -> GenCNN:
    """With biases that let every map pass something."""
    torch.manual_seed(0)
    cell = GenCNN(E, N, GenCNNConfig.model_validate({"alpha": 8, "beta": 8, "flow": 4, "arrow": 3} | config)).double()
    with torch.no_grad():
        for parameter in cell.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return cell


def by_places(tower: Tower, z: Tensor) -> Tensor:
    """One network on one block (places, in_width), place after place."""
    for level in tower.levels:
        part: Any = level
        n, d = z.shape
        zero = z.new_zeros(d)
        windows = [torch.cat([z[j + k] if 0 <= j + k < n else zero for k in (-1, 0, 1)]) for j in range(n)]
        made = []
        for j in range(0, n, 2):
            both = torch.cat([windows[j], windows[j + 1]])
            first, second = (torch.relu(part.flow @ windows[j + k] + part.flow_bias) for k in (0, 1))
            g = torch.sigmoid(part.gate[0] @ both)
            found = [g * first + (1 - g) * second]
            if tower.arrow:
                bias = part.arrow_bias.view(n, -1)
                first, second = (torch.relu(part.arrow[j + k] @ windows[j + k] + bias[j + k]) for k in (0, 1))
                g = torch.sigmoid(part.gate[1] @ both)
                found.append(g * first + (1 - g) * second)
            made.append(torch.cat(found))
        z = torch.stack(made)
    return tower.out @ z.flatten() + tower.out_bias


def by_words(cell: GenCNN, x: Tensor) -> Tensor:
    """One document (time, in_width), word after word."""
    newest, block, outputs = cell.newest, cell.block, []
    carry, folded = x.new_zeros(E), 0
    for t in range(len(x)):
        while t + 1 - newest - folded >= block:
            carry = by_places(cell.beta, torch.cat([carry.unsqueeze(0), x[folded : folded + block]]))
            folded += block
        words = x[max(0, t + 1 - newest) : t + 1]
        words = torch.cat([x.new_zeros(newest - len(words), E), words])
        outputs.append(by_places(cell.alpha, torch.cat([carry.unsqueeze(0), words])))
    return torch.stack(outputs)


@pytest.mark.parametrize("config", [{}, {"alpha": 4, "beta": 8}, {"alpha": 12, "beta": 4, "arrow": 0}], ids=str)
def test_windows_are_the_loop_over_words_and_places(config: dict[str, Any]) -> None:
    """T 37: several blocks; in one window, in pieces, word by word, and behind a reset."""
    cell, x = make(**config), draw(B, 37, E)
    with torch.no_grad():
        expected = torch.stack([by_words(cell, row) for row in x])
        y, last = cell(x)
        torch.testing.assert_close(y, expected, rtol=0, atol=1e-10)
        for pieces in ([13, 24], [1] * 37):
            state: Any = None
            outputs = []
            for piece in x.split(pieces, 1):
                part, state = cell(piece, state)
                outputs.append(part)
            torch.testing.assert_close(torch.cat(outputs, 1), expected, rtol=0, atol=1e-10)
            for own, its in zip(state, last, strict=True):
                torch.testing.assert_close(own, its, rtol=0, atol=1e-10)
        reset = torch.zeros(B, 37, dtype=torch.bool)
        reset[0, 20] = True
        y, _ = cell(x, None, reset)
        torch.testing.assert_close(y[0, 20:], by_words(cell, x[0, 20:]), rtol=0, atol=1e-10)
        torch.testing.assert_close(y[1], expected[1], rtol=0, atol=1e-10)


def test_it_sees_more_than_two_blocks_back_and_never_ahead() -> None:
    """L 8, 39 words back: what is there comes through several summaries."""
    cell, x = make(), draw(1, 48, E).requires_grad_()
    y, _ = cell(x)
    (grad,) = torch.autograd.grad(y[:, 40].abs().sum(), x)
    seen = grad.abs().sum((0, 2))
    assert float(seen[1]) > 0
    assert float(seen[41:].sum()) == 0
    assert float(seen[40]) > 0


def test_the_newest_words_are_seen_and_those_that_wait_for_their_block_are_not() -> None:
    """α sees 7 words; the 8th to the 13th before wait; the first block of 7 is folded at the 14th word."""
    cell, x = make(), draw(1, 14, E).requires_grad_()
    y, state = cell(x[:, :13])
    (grad,) = torch.autograd.grad(y[:, -1].sum(), x)
    assert grad.abs().sum((0, 2)).nonzero().flatten().tolist() == list(range(6, 13))
    assert not state.summary.any()
    assert int(state.fill) == 13
    y, state = cell(x[:, 13:], state)
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert grad.abs().sum((0, 2)).nonzero().flatten().tolist() == list(range(14))
    assert int(state.fill) == 7
    torch.testing.assert_close(
        state.summary[0], by_places(cell.beta, torch.cat([x.new_zeros(1, E), x[0, :7]])), rtol=0, atol=1e-12
    )


def test_arrow_maps_know_their_place_and_flow_maps_do_not() -> None:
    """The words one place further: the flow maps of inner places move along, the arrow maps become others."""
    cell, z = make(), draw(8, E)
    level: Any = cell.alpha.levels[0]

    def maps(z: Tensor) -> tuple[Tensor, Tensor]:
        windows = torch.stack([z[j - 1 : j + 2].flatten() for j in range(1, 7)])
        arrow = torch.stack([level.arrow[j + 1] @ windows[j] for j in range(6)])
        return windows @ level.flow.t(), arrow

    (flow, arrow), (later_flow, later_arrow) = maps(z), maps(z.roll(1, 0))
    torch.testing.assert_close(later_flow[2:], flow[1:-1], rtol=0, atol=1e-12)
    assert (later_arrow[2:] - arrow[1:-1]).abs().amin(1).min() > 1e-4
    shapes = {name: tuple(p.shape) for name, p in cell.named_parameters()}
    assert shapes["alpha.levels.0.arrow"] == (8, 3, 3 * E)
    assert shapes["alpha.levels.1.flow"] == (4, 3 * 7)
    assert not any("arrow" in name for name in shapes if name.startswith("beta"))


def test_parameters_are_counted_as_stated() -> None:
    """Σ 3d(F + n A) + F + n A + 2·6d for α."""
    count = sum(p.numel() for name, p in make().alpha.named_parameters() if "out" not in name)
    assert count == sum(3 * d * (4 + n * 3) + 4 + n * 3 + 12 * d for n, d in ((8, E), (4, 7)))


def test_the_summary_is_shown() -> None:
    cell, x, seen = make(), draw(1, 20, E), {}
    start = cell.initial_state(1, dtype=x.dtype)
    cell.mix(x, start, Given(None, {}, seen.__setitem__, {}))
    assert seen["summary"].shape == (1, 20, E)
    changes = (seen["summary"][0, 1:] != seen["summary"][0, :-1]).any(-1).nonzero().flatten() + 1
    assert changes.tolist() == [13]


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_places_come_in_fours(name: str) -> None:
    with pytest.raises(UsageError, match="a multiple of 4, not 6"):
        GenCNNConfig.model_validate({name: 6})


@pytest.mark.slow
def test_it_learns_more_than_the_frequencies() -> None:
    """A text that comes with Python, in words: the last tenth, below the perplexity of the frequencies of the rest."""
    words = " ".join(topics[name] for name in sorted(topics)).split()[:30_000]
    common = {word: k + 1 for k, (word, _) in enumerate(Counter(words).most_common(800))}
    ids = torch.tensor([common.get(word, 0) for word in words])
    train, held = ids[:27_000], ids[27_000:]
    counts = torch.bincount(train, minlength=801).double() + 1
    unigram = float(-(counts / counts.sum()).log()[held].mean())
    torch.manual_seed(0)
    config = {"width": 32, "cell": {"name": "gencnn", "alpha": 8, "beta": 8, "flow": 24, "arrow": 8}}
    model = LanguageModel(ModelConfig.parse(config), 801)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.005)
    rows, state = train[: 16 * 1687].view(16, 1687), None
    for k in range(150):
        at = (k * 32) % 1632
        window = rows[:, at : at + 33]
        total, _, after = model.loss(window[:, :-1], window[:, 1:], state if at else None)
        (total / window[:, 1:].numel()).backward()
        state = map_tree(lambda part: part.detach(), after)
        optimizer.step()
        optimizer.zero_grad()
    with torch.no_grad():
        total, _, _ = model.loss(held[None, :-1], held[None, 1:])
    nats = float(total) / (len(held) - 1)
    assert nats < unigram - 0.1, f"{nats:.3f} nats a word, by frequencies {unigram:.3f}"
