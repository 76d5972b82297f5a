"""Each filter against its plain definition, and draws against the distribution."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unrolled.core.errors import UsageError
from unrolled.generate import SamplerConfig, draw, filter_log_prob


def config(**fields) -> SamplerConfig:
    return SamplerConfig.parse(fields)


def softmax(values: list[float]) -> list[float]:
    top = max(values)
    parts = [math.exp(v - top) for v in values]
    return [part / sum(parts) for part in parts]


def kept_only(p: list[float], inside: set[int]) -> list[float]:
    total = sum(p[i] for i in inside)
    return [p[i] / total if i in inside else 0.0 for i in range(len(p))]


def plain(values: list[float], temperature: float, top_k: int | None, top_p: float | None, min_p: float | None):
    """Lists and loops: temperature, then the k best, then the nucleus, then the floor."""
    p = softmax([v / temperature for v in values])
    if top_k is not None:
        least = sorted(p, reverse=True)[min(top_k, len(p)) - 1]
        p = kept_only(p, {i for i in range(len(p)) if p[i] >= least})
    if top_p is not None:
        inside, held = set(), 0.0
        for i in sorted(range(len(p)), key=lambda i: (-p[i], i)):
            if held >= top_p:
                break
            inside.add(i)
            held += p[i]
        p = kept_only(p, inside)
    if min_p is not None:
        p = kept_only(p, {i for i in range(len(p)) if p[i] >= min_p * max(p)})
    return p


# Multiples of 1/8 that differ keep the sums away from the thresholds, where rounding decides.
@settings(max_examples=150, deadline=None)
@given(
    values=st.lists(st.integers(-40, 40), min_size=1, max_size=12, unique=True),
    temperature=st.sampled_from([0.5, 1.0, 1.7]),
    top_k=st.none() | st.integers(1, 14),
    top_p=st.none() | st.sampled_from([0.1234567, 0.5432198, 0.9123456]),
    min_p=st.none() | st.sampled_from([0.0123456, 0.2345678]),
)
def test_filters_are_their_definitions(values, temperature, top_k, top_p, min_p):
    log_prob = torch.log_softmax(torch.tensor(values, dtype=torch.float64) / 8, 0)
    got = filter_log_prob(log_prob.unsqueeze(0), config(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p))
    expected = plain(log_prob.tolist(), temperature, top_k, top_p, min_p)
    torch.testing.assert_close(got[0].exp(), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"top_k": 2}, [0.625, 0.375, 0.0, 0.0]),
        ({"top_p": 0.49}, [1.0, 0.0, 0.0, 0.0]),
        ({"top_p": 0.51}, [0.625, 0.375, 0.0, 0.0]),
        ({"min_p": 0.3}, [0.625, 0.375, 0.0, 0.0]),
        ({"min_p": 1.0}, [1.0, 0.0, 0.0, 0.0]),
        ({"temperature": 0.5}, [0.6918, 0.2490, 0.0443, 0.0149]),
        ({"temperature": 0}, [1.0, 0.0, 0.0, 0.0]),
        ({"temperature": 1e-40}, [1.0, 0.0, 0.0, 0.0]),
        ({"top_k": 99, "top_p": 1, "min_p": 0}, [0.5, 0.3, 0.1265, 0.0735]),
    ],
)
def test_filters_by_hand(fields, expected):
    log_prob = torch.tensor([[0.5, 0.3, 0.1265, 0.0735]], dtype=torch.float64).log()
    got = filter_log_prob(log_prob, config(**fields)).exp()[0]
    torch.testing.assert_close(got, torch.tensor(expected, dtype=torch.float64), atol=1e-4, rtol=0)


def test_ties_and_impossible_tokens():
    log_prob = torch.tensor([[0.25, 0.25, 0.25, 0.25, 0.0]]).log()
    assert filter_log_prob(log_prob, config(temperature=0)).argmax().item() == 0
    assert filter_log_prob(log_prob, config(top_k=2)).exp()[0].tolist() == pytest.approx([0.25] * 4 + [0.0])
    assert filter_log_prob(log_prob, config(top_p=0.3)).exp()[0].tolist() == pytest.approx([0.5, 0.5, 0, 0, 0])
    assert filter_log_prob(log_prob, config(top_k=5, top_p=0.999, min_p=0.5))[0, 4] == -math.inf


def test_draws_follow_the_distribution_and_the_seed():
    p = torch.tensor([0.0, 0.5, 0.0, 0.2, 0.3, 0.0])
    n = 4000
    generators = [torch.Generator().manual_seed(seed) for seed in range(n)]
    drawn = draw(p.log().expand(n, -1), generators)
    shares = torch.bincount(drawn, minlength=6) / n
    assert shares[p == 0].sum() == 0
    torch.testing.assert_close(shares, p, atol=0.03, rtol=0)
    again = draw(p.log().expand(n, -1), [torch.Generator().manual_seed(seed) for seed in range(n)])
    assert torch.equal(drawn, again)
    more = draw(p.log().expand(n, -1), generators)
    assert not torch.equal(drawn, more)


def test_the_ends_of_the_cumulative_distribution(monkeypatch):
    p = torch.tensor([[0.0, 0.1, 0.2, 0.0, 0.7, 0.0, 0.0]])
    for uniform, expected in ((0.0, 1), (1.0, 4), (1 - 2**-53, 4)):
        monkeypatch.setattr(torch, "rand", lambda *_, value=uniform, **__: torch.tensor([value], dtype=torch.float64))
        assert draw(p.log(), [torch.Generator()]).tolist() == [expected]


@pytest.mark.parametrize(
    "fields", [{"temperature": -1}, {"top_k": 0}, {"top_p": 0}, {"top_p": 1.5}, {"min_p": 2}, {"topk": 3}]
)
def test_impossible_settings_are_refused(fields):
    with pytest.raises(UsageError):
        config(**fields)
