"""The JRT-RNN against its equations as plain sums over pairs of tokens, and what its prefix asks of its users."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from cells.scans import cell, draw
from conformance.tolerance import assert_close
from unrolled.core.errors import UsageError
from unrolled.model import LanguageModel, ModelConfig, count_params

X = draw(2, 9, 6, seed=99)
PREFIX = pytest.mark.parametrize("prefix", [0, 1, 4, 9, 20])


def make(prefix: int, features: int = 3) -> Any:
    return cell("jrt", 6, 4, heads=2, features=features, prefix=prefix)


def phi(x: Tensor) -> Tensor:
    """φ of one vector."""
    size = len(x)
    return torch.cat([x.new_ones(1), x / size**0.25, torch.outer(x, x).flatten() / (math.sqrt(2) * size**0.5)])


def by_pairs(made: Any, x: Tensor) -> Tensor:
    """The outputs for one document (time, in_width): for each head and token a mean over what it sees."""
    keys, width, prefix = 2 * made.config.features, made.width, made.config.prefix
    q, k, v = (x @ made.weight.T).split([keys, keys, width], -1)
    entries = [(k, v, lambda t, j: j <= t)]
    if prefix:
        ke, ve = (x @ made.weight_prefix.T).split([keys, width], -1)
        entries.append((ke, ve, lambda t, j: j < prefix))
    rows = []
    for t in range(len(x)):
        heads = []
        for h in range(2):
            f, n = (slice(h * size, (h + 1) * size) for size in (made.config.features, width // 2))
            above, below = torch.zeros(width // 2, dtype=x.dtype), torch.zeros((), dtype=x.dtype)
            for key, value, sees in entries:
                for j in range(len(x)):
                    if sees(t, j):
                        weight = phi(q[t, f]) @ phi(key[j, f])
                        above, below = above + weight * value[j, n], below + weight
            heads.append(above / below)
        rows.append(torch.cat(heads) @ made.out.T)
    return torch.stack(rows)


@PREFIX
def test_sums_over_pairs(prefix: int) -> None:
    made = make(prefix)
    wanted = torch.stack([by_pairs(made, row) for row in X])
    torch.testing.assert_close(made(X)[0], wanted, rtol=1e-11, atol=1e-12)


def test_documents_in_a_row_longer_and_shorter_than_the_prefix() -> None:
    made, reset = make(3), torch.zeros(2, 9, dtype=torch.bool)
    reset[0, 2] = reset[1, 5] = reset[1, 7] = True
    y, state = made(X, None, reset)
    for row, begins in enumerate(([0, 2, 9], [0, 5, 7, 9])):
        for begin, end in pairwise(begins):
            wanted = by_pairs(made, X[row, begin:end])
            torch.testing.assert_close(y[row, begin:end], wanted, rtol=1e-11, atol=1e-12)
    assert state.fill.tolist() == [7, 2]


@PREFIX
def test_who_sees_whom(prefix: int) -> None:
    made = make(prefix)
    jacobian: Any = torch.autograd.functional.jacobian(lambda x: made(x.unsqueeze(0))[0][0], X[0])
    seen = jacobian.abs().sum((1, 3)) > 0
    t, j = torch.meshgrid(torch.arange(9), torch.arange(9), indexing="ij")
    assert torch.equal(seen, (j <= t) | (j < prefix))


def test_the_state_after_a_prefix_is_what_all_of_it_wrote() -> None:
    made = make(4)
    _, state = made(X)
    keys = 2 * made.config.features
    k, v = (X @ made.weight[keys:].T).split([keys, 4], -1)
    ke, ve = (X[:, :4] @ made.weight_prefix.T).split([keys, 4], -1)
    for row in range(2):
        for h in range(2):
            f, n = slice(3 * h, 3 * h + 3), slice(2 * h, 2 * h + 2)
            pairs = [*zip(k[row], v[row], strict=True), *zip(ke[row], ve[row], strict=True)]
            s = sum(torch.outer(phi(key[f]), value[n]) for key, value in pairs)
            z = sum(phi(key[f]) for key, _ in pairs)
            torch.testing.assert_close(state.s[row, h], s, rtol=1e-11, atol=1e-12)
            torch.testing.assert_close(state.normaliser[row].view(2, -1)[h], z, rtol=1e-11, atol=1e-12)


def test_options_change_the_result() -> None:
    y = make(4)(X)[0]
    for other in (make(3), make(0), make(4, features=2)):
        assert not torch.allclose(other(X)[0], y)
    assert not hasattr(make(0).initial_state(1), "fill")


def test_a_window_that_ends_in_the_prefix() -> None:
    made = make(4)
    _, state = made(X[:, :3])
    with pytest.raises(
        UsageError, match="the first 4 tokens of a document in one window, and this one goes on after 3"
    ):
        made(X[:, 3:], state)
    reset = torch.zeros(2, 6, dtype=torch.bool)
    reset[0, 0] = True
    with pytest.raises(UsageError, match="begin the document anew with a reset"):
        made(X[:, 3:], state, reset)
    reset[1, 0] = True
    assert_close(made(X[:, 3:], state, reset)[0], made(X[:, 3:])[0], "both documents anew")


def test_tracing_begins_after_the_prefix() -> None:
    made, seen = make(4), []
    with pytest.raises(UsageError, match="give those without a tap"):
        made(X, tap=lambda name, value: None)
    _, state = made(X[:, :4])
    made(X[:, 4:], state, tap=lambda name, value: seen.append(name))
    assert seen.count("h") == 5


def test_a_language_model_is_causal() -> None:
    for cells in ({"name": "jrt", "prefix": 4}, ["lstm", {"name": "jrt", "prefix": 4}]):
        config = ModelConfig.parse({"width": 8, "layers": 2, "cell": cells})
        with pytest.raises(UsageError, match=r"a layer of jrt shows the first 4 tokens .* set its prefix to 0"):
            LanguageModel(config, 7)
        with pytest.raises(UsageError, match="set its prefix to 0"):
            count_params(config, 7)
