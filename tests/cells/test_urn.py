"""The URN: rotations, their products and norms, matrices of low rank, and brackets."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unrolled.cells import CELLS
from unrolled.cells.base import HiddenState
from unrolled.cells.multiplicative.urn import URN, URNConfig
from unrolled.kernels.cell_loop import TableInput
from unrolled.kernels.cell_loop.weights import Weights

B, T, N = 2, 37, 24


def make(rank: int | None = None, dtype: torch.dtype = torch.float64, width: int = N) -> tuple[URN, Tensor]:
    """A cell whose input is θ itself, and words of deviation 1/2, so that they turn far."""
    torch.manual_seed(0)
    rows = width - 1 if rank is None else rank
    size = rows * (2 * width - rows - 1) // 2
    cell = URN(size, width, URNConfig(rank=rank)).to(dtype)
    assert [name for name, _ in cell.named_parameters()] == ["start"]
    return cell, 0.5 * torch.randn(B, T, size, dtype=dtype)


@pytest.mark.parametrize("rank", [None, 3])
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_the_matrices_of_words_are_orthogonal(rank: int | None, dtype: torch.dtype, limit: float) -> None:
    cell, x = make(rank, dtype)
    q = cell.project(x, Weights({}))
    assert (q @ q.mT - torch.eye(N, dtype=dtype)).abs().max() < limit
    assert (torch.linalg.det(q.double()) - 1).abs().max() < 1e-4, "they are rotations"
    assert (q[:, 1:] - q[:, :-1]).abs().amax((2, 3)).min() > 0.1, "each word is another"


def test_the_matrix_of_a_phrase_is_the_product_of_its_words() -> None:
    cell, x = make()
    y, final = cell(x)
    start = cell.initial_state(B, dtype=torch.float64).h
    torch.testing.assert_close(torch.linalg.vector_norm(start, dim=-1), torch.ones(B, dtype=torch.float64))
    whole = cell.phrase(x)
    torch.testing.assert_close((whole @ start.unsqueeze(-1)).squeeze(-1), final.h, rtol=0, atol=1e-12)
    torch.testing.assert_close(cell.phrase(x[:, 9:]) @ cell.phrase(x[:, :9]), whole, rtol=0, atol=1e-12)
    torch.testing.assert_close(y[:, -1], final.h, rtol=0, atol=0)


def test_one_step_against_the_series_of_the_exponential() -> None:
    cell, x = make(width=5)
    s, term, total = torch.zeros(5, 5, dtype=torch.float64), torch.eye(5, dtype=torch.float64), torch.eye(5).double()
    s[torch.triu_indices(5, 5, 1).unbind()] = x[0, 0]
    s = s - s.T
    for k in range(1, 60):
        term = term @ s / k
        total = total + term
    h = torch.randn(1, 5, dtype=torch.float64)
    torch.testing.assert_close(cell(x[:1, :1], HiddenState(h))[0][0, 0], total @ h[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-10), (torch.float32, 1e-3)])
def test_the_norm_over_a_thousand_steps(dtype: torch.dtype, limit: float) -> None:
    cell, x = make(dtype=dtype)
    ids = torch.arange(1000).remainder(T).expand(1, -1)
    with torch.no_grad():
        y, _ = cell(TableInput(x[0], ids))
    assert (torch.linalg.vector_norm(y, dim=-1) - 1).abs().max() < limit


def test_the_truncated_form() -> None:
    """The first 3 rows of 24: 66 numbers a word, rank 6, and 18 directions that stay."""
    cell, x = make(rank=3)
    assert cell.in_width == 66
    q = cell.project(x, Weights({}))[0, 0]
    log = torch.zeros(N, N, dtype=torch.float64)
    log[0, 1:], log[1, 2:], log[2, 3:] = x[0, 0].split([23, 22, 21])
    log = log - log.T
    assert torch.linalg.matrix_rank(log) == 6
    torch.testing.assert_close(torch.linalg.matrix_exp(log), q, rtol=0, atol=1e-12)
    assert int(((torch.linalg.eigvals(q) - 1).abs() < 1e-9).sum()) == 18


def test_another_input_is_mapped_to_the_angles() -> None:
    torch.manual_seed(0)
    cell = URN(7, 6, URNConfig()).double()
    direct = URN(15, 6, URNConfig()).double()
    with torch.no_grad():
        direct.start.copy_(cell.start)
    x = torch.randn(B, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(cell(x)[0], direct(x @ cell.widen.detach().T)[0])


def test_the_start_is_learned() -> None:
    cell, x = make()
    reset = torch.zeros(B, T, dtype=torch.bool)
    reset[:, 5] = True
    y, _ = cell(x, HiddenState(torch.zeros(B, N, dtype=torch.float64)), reset)
    assert not y[:, :5].any()
    (grad,) = torch.autograd.grad(y[:, 5:].sum(), cell.start)
    assert grad.abs().max() > 1e-3
    assert abs(float((grad * cell.start.detach()).sum())) < 1e-9, "its length plays no part"


def brackets(rows: int, length: int, seed: int) -> tuple[Tensor, Tensor]:
    """Nested brackets of two kinds, 1 and 2 closed by 3 and 4, everything closed at the end; and at each closing one
    the distance to the opening one, elsewhere 0."""
    g = np.random.default_rng(seed)
    text, distance = np.zeros((rows, length), np.int64), np.zeros((rows, length), np.int64)
    for row in range(rows):
        opened: list[tuple[int, int]] = []
        for t in range(length):
            if not opened or (len(opened) < length - t and g.random() < 0.5):
                opened.append((int(g.integers(2)), t))
                text[row, t] = 1 + opened[-1][0]
            else:
                kind, at = opened.pop()
                text[row, t], distance[row, t] = 3 + kind, t - at
    return torch.from_numpy(text), torch.from_numpy(distance)


def closing_types(name: str, lengths: tuple[int, ...]) -> dict[int, dict[int, float]]:
    """Length -> distance -> share of closing brackets whose kind is right, after 240 updates on words of length 20."""
    torch.manual_seed(0)
    size = 32 * 31 // 2 if name == "urn" else 32
    cell, embedding, head = CELLS[name](size, 32, CELLS.parse(name)), nn.Embedding(5, size), nn.Linear(32, 5)
    if name == "urn":
        with torch.no_grad():
            embedding.weight.mul_(0.1)
    parameters = [*cell.parameters(), *embedding.parameters(), *head.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=0.01)

    def logits(text: Tensor) -> Tensor:
        before = nn.functional.pad(text[:, :-1], (1, 0))
        return head(cell(TableInput(embedding.weight, before))[0])

    for update in range(240):
        text, _ = brackets(64, 20, update)
        loss = cross_entropy(logits(text).flatten(0, 1), text.flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
    found = {}
    for length in lengths:
        text, distance = brackets(1024, length, 10**6 + length)
        with torch.no_grad():
            right = logits(text)[..., 3:].argmax(-1) + 3 == text
        found[length] = {k: float(right[distance == k].float().mean()) for k in range(1, length, 2)}
    return found


@pytest.mark.slow
def test_brackets_at_every_distance() -> None:
    """Calibrated: at least 0.99 up to distance 19; an LSTM as wide is at 0.87 for some, and both fall at 40."""
    urn = closing_types("urn", (20, 40))
    assert min(urn[20].values()) >= 0.98, urn[20]
    assert min(urn[40].values()) < 0.98, "lengths that were not trained on are another matter"


if __name__ == "__main__":
    for kind in ("urn", "lstm"):
        for span, by_distance in closing_types(kind, (20, 40)).items():
            print(kind, span, {k: round(v, 3) for k, v in by_distance.items()})  # noqa: T201
