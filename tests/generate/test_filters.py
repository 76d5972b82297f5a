"""Filters and penalties beside transformers' processors, fed the same log-probabilities."""

from typing import Any

import pytest
import torch
from torch import Tensor

from unrolled.generate import History, SamplerConfig, choose, draws, filter_log_prob
from unrolled.generate.filters import FILTERS

V = 50


def rows(count: int = 200) -> Tensor:
    drawn = torch.randn(count, V, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    return torch.log_softmax(3 * drawn, -1)


def peer(name: str, *arguments: Any) -> Any:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    return getattr(transformers.generation.logits_process, name)(*arguments)


@pytest.mark.parametrize(
    ("options", "name", "arguments"),
    [
        ({"typical": 0.3}, "TypicalLogitsWarper", (0.3,)), ({"typical": 0.9}, "TypicalLogitsWarper", (0.9,)),
        ({"epsilon": 0.02}, "EpsilonLogitsWarper", (0.02,)), ({"eta": 0.02}, "EtaLogitsWarper", (0.02,)),
        ({"eta": 3e-4}, "EtaLogitsWarper", (3e-4,)), ({"top_k": 5}, "TopKLogitsWarper", (5,)),
        ({"top_p": 0.7}, "TopPLogitsWarper", (0.7,)), ({"min_p": 0.1}, "MinPLogitsWarper", (0.1,)),
        ({"temperature": 0.7}, "TemperatureLogitsWarper", (0.7,)),
    ],
)  # fmt: skip
def test_filters(options: dict[str, Any], name: str, arguments: tuple[Any, ...]) -> None:
    log_prob = rows()
    wanted = torch.log_softmax(peer(name, *arguments)(torch.zeros(len(log_prob), 0, dtype=torch.int64), log_prob), -1)
    found = filter_log_prob(log_prob, SamplerConfig.parse(options))
    assert torch.equal(found.isneginf(), wanted.isneginf())
    assert torch.allclose(found, wanted, atol=1e-9)


def changed(
    config: dict[str, Any], prompt: list[int], text: list[int], log_prob: Tensor, end: int | None = None
) -> Tensor:
    history = History(SamplerConfig.parse(config), prompt, end)
    for token in text:
        history.push(token)
    return history.apply(log_prob)


def texts() -> list[tuple[list[int], list[int]]]:
    generator = torch.Generator().manual_seed(9)
    drawn = [torch.randint(0, 6, (30,), generator=generator).tolist() for _ in range(40)]
    return [(ids[: n % 12], ids[n % 12 : n % 12 + n % 18]) for n, ids in enumerate(drawn)]


def test_repetition_is_ctrl_s_on_log_probabilities() -> None:
    process = peer("RepetitionPenaltyLogitsProcessor", 1.3)
    for log_prob, (prompt, text) in zip(rows(), texts(), strict=False):
        ids = torch.tensor([prompt + text], dtype=torch.int64)
        wanted = process(ids, log_prob[None].clone())[0] if ids.numel() else log_prob
        assert torch.equal(changed({"repetition": 1.3}, prompt, text, log_prob), wanted)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_no_sequence_twice(size: int) -> None:
    process = peer("NoRepeatNGramLogitsProcessor", size)
    for log_prob, (prompt, text) in zip(rows(), texts(), strict=False):
        for config, ids in (({}, text), ({"no_repeat_prompt": True}, prompt + text)):
            given = torch.tensor([ids], dtype=torch.int64)
            wanted = process(given, log_prob[None].clone())[0] if len(ids) + 1 >= size and ids else log_prob
            assert torch.equal(changed({"no_repeat": size, **config}, prompt, text, log_prob), wanted)


def test_presence_and_frequency_count_what_was_generated() -> None:
    log_prob = rows(1)[0]
    found = changed({"presence": 0.5, "frequency": 0.25}, [1, 1, 2], [3, 3, 4], log_prob)
    wanted = log_prob.clone()
    wanted[3] -= 0.5 + 2 * 0.25
    wanted[4] -= 0.5 + 0.25
    assert torch.equal(found, wanted)


def test_a_least_length() -> None:
    log_prob = rows(1)[0]
    assert changed({"min_tokens": 3}, [], [1, 2], log_prob, end=7)[7] == -torch.inf
    assert torch.equal(changed({"min_tokens": 3}, [], [1, 2, 3], log_prob, end=7), log_prob)


def test_nothing_left() -> None:
    history = History(SamplerConfig(no_repeat=1), [], None)
    for token in range(V):
        history.push(token)
    found = choose(rows(2), SamplerConfig(no_repeat=1), [torch.Generator(), torch.Generator()], [history, fresh()])
    assert found.stuck == [0]
    assert "larger no_repeat" in str(history.refusal())


def fresh() -> History:
    return History(SamplerConfig(no_repeat=1), [], None)


@pytest.mark.parametrize("name", FILTERS)
def test_what_every_filter_leaves_sums_to_one(name: str) -> None:
    log_prob = rows()
    field = SamplerConfig.model_fields[name]
    value = 3 if int in (field.annotation, *getattr(field.annotation, "__args__", ())) else 0.3
    found = filter_log_prob(log_prob, SamplerConfig.parse({name: value}))
    assert torch.allclose(found.exp().sum(-1), torch.ones(len(found), dtype=torch.float64), atol=1e-12)
    assert bool(found.isneginf().any())
    assert draws(SamplerConfig.parse({name: value}))
    assert not draws(SamplerConfig())


def test_neutral_settings_remember_nothing() -> None:
    assert not SamplerConfig.parse({"repetition": 1.0, "top_k": 3, "typical": 0.2}).remembers
    for one in ({"repetition": 1.1}, {"presence": 0.1}, {"frequency": -0.1}, {"no_repeat": 2}, {"min_tokens": 1}):
        assert SamplerConfig.parse(one).remembers


def test_what_is_given_is_not_changed() -> None:
    log_prob = rows(1)[0]
    before = log_prob.clone()
    changed({"repetition": 2.0, "presence": 1.0, "no_repeat": 1}, [1], [2], log_prob)
    assert torch.equal(log_prob, before)
