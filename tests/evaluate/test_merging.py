"""Weights of runs added: to the bit where nothing is added, and better than both ends between them."""

import pytest
import torch

from unrolled.evaluate.soup import greedy
from unrolled.runs.merging import add_vectors


def weights(seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    scale = 10.0 ** torch.randint(-4, 4, (40, 30))
    return {"a": torch.randn(40, 30) * scale, "b": torch.tensor([-0.0, 0.0, 1e-40]), "n": torch.arange(3)}


def test_nothing_added_is_the_base_to_the_bit():
    base = weights(0)
    merged = add_vectors(base, [weights(1), weights(2)], [0.0, 0.0])
    for name, value in base.items():
        assert merged[name].numpy().tobytes() == value.numpy().tobytes()
        assert merged[name].dtype == value.dtype


def test_all_of_one_vector_is_that_run_within_one_unit_in_the_last_place():
    base, other = weights(0), weights(1)
    merged = add_vectors(base, [other], [1.0])
    up, down = (torch.nextafter(other["a"], torch.tensor(sign * torch.inf)) for sign in (1, -1))
    assert ((merged["a"] >= down) & (merged["a"] <= up)).all()


def test_sums_are_those_of_numbers_in_double_precision():
    base, others, factors = weights(0), [weights(1), weights(2)], [0.5, -0.25]
    merged = add_vectors(base, others, factors)["a"]
    for i, j in ((0, 0), (3, 17), (39, 29)):
        start = float(base["a"][i, j])
        wanted = start + sum(f * (float(one["a"][i, j]) - start) for f, one in zip(factors, others, strict=True))
        assert float(merged[i, j]) == pytest.approx(wanted, rel=1e-7)


def chain(seed: int, size: int = 16) -> torch.Tensor:
    return torch.softmax(2 * torch.randn(size, size, generator=torch.Generator().manual_seed(seed)), 1)


def nats(net: dict[str, torch.Tensor], p: torch.Tensor) -> torch.Tensor:
    """Expected nats of a bigram net under a chain, with all tokens equally often before."""
    return -(p * torch.log_softmax(torch.tanh(net["in"]) @ net["out"], 1)).sum(1).mean()


def fit(net: dict[str, torch.Tensor], p: torch.Tensor, steps: int) -> dict[str, torch.Tensor]:
    own = {name: value.clone().requires_grad_() for name, value in net.items()}
    adam = torch.optim.Adam(own.values(), lr=0.02)
    for _ in range(steps):
        adam.zero_grad()
        nats(own, p).backward()
        adam.step()
    return {name: value.detach() for name, value in own.items()}


@pytest.mark.parametrize("seed", range(5))
def test_the_middle_of_two_periods_beats_both_on_the_text_between_them(seed: int):
    old, new = chain(2 * seed), chain(2 * seed + 1)
    between = (old + new) / 2
    torch.manual_seed(seed)
    begun = {"in": torch.randn(16, 8), "out": torch.randn(8, 16) / 3}
    base = fit(begun, between, 100)
    ends = [fit(base, p, 60) for p in (old, new)]
    middle = add_vectors(base, ends, [0.5, 0.5])
    found = [float(nats(one, between)) for one in (*ends, middle)]
    assert found[2] < min(found[:2])


def test_a_greedy_soup_is_the_least_loss_that_one_more_vector_reaches():
    # the loss is the distance to (2/3, 1/3, 0), which two of the first and one of the second reach
    tried: list[list[float]] = []

    def measure(factors: list[float]) -> float:
        tried.append(factors)
        return sum((a - b) ** 2 for a, b in zip(factors, (2 / 3, 1 / 3, 0), strict=True))

    found = greedy(measure, 3)
    assert found.factors == pytest.approx([2 / 3, 1 / 3, 0])
    assert found.nats == sorted(found.nats, reverse=True)
    assert tried[0] == [0, 0, 0]
    assert len(tried) == 1 + 3 * len(found.nats)
    assert greedy(lambda factors: sum(factors), 2) == ([0, 0], [0])
    assert len(greedy(measure, 3, rounds=1).nats) == 2
